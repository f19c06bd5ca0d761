"""How large a batch can a training use before it wastes compute?"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rl_scaling.sweeps.plan import SweepPlan
    from rl_scaling.sweeps.sweep import sweep
    from rl_scaling.sweeps.trial import run

__version__ = "0.1.0"
__all__ = ["SweepPlan", "__version__", "run", "sweep"]

# Loaded when they are asked for.
_HOMES = {"SweepPlan": "sweeps.plan", "run": "sweeps.trial", "sweep": "sweeps.sweep"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"rl_scaling.{_HOMES[name]}"), name)
