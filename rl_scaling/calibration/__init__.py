"""The estimators of the noise scale on gradients whose noise scale is known."""

from rl_scaling.calibration.cells import Plan, calibrate
from rl_scaling.calibration.problems import PROBLEMS

__all__ = ["PROBLEMS", "Plan", "calibrate"]
