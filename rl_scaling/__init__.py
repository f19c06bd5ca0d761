"""How large a batch can this training use before it wastes compute?"""

__version__ = "0.1.0"
