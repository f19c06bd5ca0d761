"""Every figure of Zhang et al. 2019 that is made of the noisy quadratic model."""

from __future__ import annotations

from rl_scaling.report.gallery import Exhibit
from rl_scaling.validation.published.one_direction import figure_1, figure_2, figure_11
from rl_scaling.validation.published.schedules import schedule_figures
from rl_scaling.validation.published.steps import figure_3a, figure_4, figure_13, figure_14


def exhibits() -> list[Exhibit]:
    """Figures 1, 2, 3a, 3b, 3c, 4, 11, 13, 14 and 15, with their checks."""
    figure_3b, figure_3c, figure_15 = schedule_figures()
    return [
        figure_1(),
        figure_2(),
        figure_3a(),
        figure_3b,
        figure_3c,
        figure_4(),
        figure_11(),
        figure_13(),
        figure_14(),
        figure_15,
    ]
