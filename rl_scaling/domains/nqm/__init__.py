"""The noisy quadratic model (Zhang et al. 2019): steps to a target risk at any batch size, exact and in seconds."""

from rl_scaling.domains.nqm.bounds import bayes_bound, estimation_bound, examples_for_bayes_bound
from rl_scaling.domains.nqm.config import NQMConfig
from rl_scaling.domains.nqm.dynamics import convergence_rate, diverges, risk, steady_state_risk
from rl_scaling.domains.nqm.hits import Hits, find_hits
from rl_scaling.domains.nqm.limits import SmallBatchLimit, small_batch_limit
from rl_scaling.domains.nqm.monte_carlo import SimulatedRisk, simulate
from rl_scaling.domains.nqm.noise_scales import ModelNoiseScales, noise_scales
from rl_scaling.domains.nqm.recursion import Method, risk_curve
from rl_scaling.domains.nqm.spectrum import Spectrum
from rl_scaling.domains.nqm.tuning import TunedSteps, as_table, steps_to_target

__all__ = [
    "Hits",
    "Method",
    "ModelNoiseScales",
    "NQMConfig",
    "SimulatedRisk",
    "SmallBatchLimit",
    "Spectrum",
    "TunedSteps",
    "as_table",
    "bayes_bound",
    "convergence_rate",
    "diverges",
    "estimation_bound",
    "examples_for_bayes_bound",
    "find_hits",
    "noise_scales",
    "risk",
    "risk_curve",
    "simulate",
    "small_batch_limit",
    "steady_state_risk",
    "steps_to_target",
]
