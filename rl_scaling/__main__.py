"""`python -m rl_scaling` is the command `rl-scaling`."""

import sys

from rl_scaling.cli import main

if __name__ == "__main__":
    sys.exit(main())
