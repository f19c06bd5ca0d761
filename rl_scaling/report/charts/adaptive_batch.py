"""The batch size of runs that followed the noise scale, while they trained."""

from __future__ import annotations

import altair as alt
import pandas as pd

from rl_scaling.analysis import TaskView
from rl_scaling.analysis.views import thin
from rl_scaling.estimates import count_of
from rl_scaling.report.data import Tables
from rl_scaling.report.registry import chart
from rl_scaling.report.theme import Figure, count_axis, legend, log_axis, ramp, tooltips
from rl_scaling.report.words import Words

_POINTS_PER_RUN = 200


@chart("task", tables=lambda overview: {"adaptive": overview.fit.adaptive})
def adaptive_batch_figure(view: TaskView) -> Figure | None:
    """The batch size of adaptive runs against examples; None where there is no such run."""
    series, words = view.series, Words(view.measure)
    runs = series.runs[series.runs["adaptive"]]
    rows = series.rows[series.rows["run"].isin(set(runs["run"])) & (series.rows["current_batch_size"] > 0)]
    if rows.empty:
        return None
    tables = Tables()
    kept = pd.concat([part.iloc[thin(len(part), _POINTS_PER_RUN)] for _, part in rows.groupby("run")])
    settings = sorted(kept["setting"].unique())
    lines = alt.Chart(
        tables.add(kept, ["run", "setting", "seed", "examples", "current_batch_size", "noise_scale"])
    ).mark_line(interpolate="step-after", strokeWidth=2)
    title = f"batch size ({words.unit} per update, log scale)"
    encoded = lines.encode(
        x=count_axis(alt.X, "examples", words.counted),
        y=log_axis(alt.Y, "current_batch_size", title, kept["current_batch_size"]),
        detail="run:N",
        color=alt.Color(
            "setting:N",
            scale=alt.Scale(domain=settings, range=ramp(len(settings))),
            legend=legend("adaptive batch", entry_width=160),
        ),
        tooltip=tooltips(
            words, kept, "setting", "seed", "examples", "current_batch_size", "noise_scale", setting="adaptive batch"
        ),
    )
    caption = (
        f"B = sqrt(r B_simple), with r the price of an update in {words.unit}, {words.batch_steps} and within bounds. "
        f"{count_of(len(runs), 'run')}."
    )
    return Figure("adaptive-batch-size", "A batch that follows the noise scale", caption, encoded, tables)
