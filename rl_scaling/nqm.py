"""The public face of the noisy quadratic model (Zhang et al. 2019)."""

from rl_scaling.domains.nqm.config import NQMConfig
from rl_scaling.domains.nqm.dynamics import (
    ModelNoiseScales,
    convergence_rate,
    diverges,
    noise_scales,
    risk,
    steady_state_risk,
)
from rl_scaling.domains.nqm.hits import Hits, find_hits
from rl_scaling.domains.nqm.schedules import (
    SmallBatchLimit,
    bayes_bound,
    estimation_bound,
    examples_for_bayes_bound,
    small_batch_limit,
)
from rl_scaling.domains.nqm.spectrum import Spectrum
from rl_scaling.domains.nqm.stepwise import Method, SimulatedRisk, risk_curve, simulate
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
