"""The noisy quadratic model of Zhang et al. 2019: exact, in closed form, without torch."""

from rl_scaling.nqm.closed_form import Model, noise_scales, power_law, published, risk
from rl_scaling.nqm.config import NQMConfig
from rl_scaling.nqm.search import steps_to_target

__all__ = ["Model", "NQMConfig", "noise_scales", "power_law", "published", "risk", "steps_to_target"]
