"""The estimators of the noise scale on gradients whose noise scale is known."""

from rl_scaling.validation.calibration.aims import bias_is_met, coverage_is_met, is_resolved
from rl_scaling.validation.calibration.cells import Plan, calibrate
from rl_scaling.validation.calibration.problems import PROBLEMS

__all__ = ["PROBLEMS", "Plan", "bias_is_met", "calibrate", "coverage_is_met", "is_resolved"]
