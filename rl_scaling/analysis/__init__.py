"""What the runs of a sweep say: goals reached, Pareto fronts, critical batch sizes, noise scales.

It takes the table of `rl_scaling.store.load_runs` and gives tables; it draws nothing and needs neither torch nor an
emulator.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rl_scaling.analysis.agreement import Agreement, domains_of, pairs_of
    from rl_scaling.analysis.fronts import is_adaptive
    from rl_scaling.analysis.frozen import frozen_noise_scales
    from rl_scaling.analysis.goals import DEFAULT_HORIZON, Goals, GoalTracker, Reach, ScoreSmoother
    from rl_scaling.analysis.learning_rates import RateCurve, rate_curve
    from rl_scaling.analysis.noise_scale import noise_over_training
    from rl_scaling.analysis.stopping import Progress, leading_rates, rate_can_still_win
    from rl_scaling.analysis.sweep_fit import FIT_COLUMNS, SweepFit, fit_runs, fits_to_json
    from rl_scaling.analysis.tradeoff import Status, TradeoffFit, fit_tradeoff
    from rl_scaling.analysis.views import TaskView

__all__ = [
    "DEFAULT_HORIZON",
    "FIT_COLUMNS",
    "Agreement",
    "GoalTracker",
    "Goals",
    "Progress",
    "RateCurve",
    "Reach",
    "ScoreSmoother",
    "Status",
    "SweepFit",
    "TaskView",
    "TradeoffFit",
    "domains_of",
    "fit_runs",
    "fit_tradeoff",
    "fits_to_json",
    "frozen_noise_scales",
    "is_adaptive",
    "leading_rates",
    "noise_over_training",
    "pairs_of",
    "rate_can_still_win",
    "rate_curve",
]

# Loaded when they are asked for: following a run needs no fit.
_NAMES = {
    "agreement": ("Agreement", "domains_of", "pairs_of"),
    "fronts": ("is_adaptive",),
    "frozen": ("frozen_noise_scales",),
    "goals": ("DEFAULT_HORIZON", "GoalTracker", "Goals", "Reach", "ScoreSmoother"),
    "learning_rates": ("RateCurve", "rate_curve"),
    "noise_scale": ("noise_over_training",),
    "stopping": ("Progress", "leading_rates", "rate_can_still_win"),
    "sweep_fit": ("FIT_COLUMNS", "SweepFit", "fit_runs", "fits_to_json"),
    "tradeoff": ("Status", "TradeoffFit", "fit_tradeoff"),
    "views": ("TaskView",),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"rl_scaling.analysis.{_HOMES[name]}"), name)
