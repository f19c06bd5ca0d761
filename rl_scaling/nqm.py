"""The public face of the noisy quadratic model: `rl_scaling.domains.nqm`."""

from rl_scaling.domains.nqm import *  # noqa: F403
from rl_scaling.domains.nqm import __all__ as __all__
