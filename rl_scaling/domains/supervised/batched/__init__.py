"""Many trials at once: trials that share a model and a batch size train together in one batched program.

Their parameters lie side by side as the rows of one matrix. A small network on a small batch spends nearly all its time
on overhead; side by side, a hundred trials pay it once.
"""

from rl_scaling.domains.supervised.batched.forward import (
    StackedAdam,
    StackedAverage,
    StackedRMSprop,
    StackedSGD,
    require_stackable,
    stacked_forward,
)
from rl_scaling.domains.supervised.batched.program import StackedRuns
from rl_scaling.domains.supervised.batched.speedup import Gain, last_that_pays, measure_gain, together_pays
from rl_scaling.domains.supervised.batched.training import StackedTraining

__all__ = [
    "Gain",
    "StackedAdam",
    "StackedAverage",
    "StackedRMSprop",
    "StackedRuns",
    "StackedSGD",
    "StackedTraining",
    "last_that_pays",
    "measure_gain",
    "require_stackable",
    "stacked_forward",
    "together_pays",
]
