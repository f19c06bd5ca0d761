"""What every chart shares: words for what a task counts, colours, axes and legends.

Charts name their colours as CSS variables (`var(--ramp-4-0)`), so one drawing serves light, dark and printed pages;
where no style sheet is at hand (SVG and PNG files) `with_plain_colours` puts the light values in their place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import altair as alt
import pandas as pd

from rl_scaling.analysis.fronts import measure_of
from rl_scaling.estimates import Estimate
from rl_scaling.records import Direction, Measure

_COUNTED_AS = {"frames": "agent steps"}


@dataclass(frozen=True)
class Words:
    """The words for one task."""

    measure: Measure

    @property
    def unit(self) -> str:
        """What batches and totals are counted in: frames or examples."""
        return self.measure.unit

    @property
    def counted(self) -> str:
        """The unit with what it is, for an axis of totals."""
        return f"{self.unit} ({_COUNTED_AS[self.unit]})" if self.unit in _COUNTED_AS else self.unit

    @property
    def batch_steps(self) -> str:
        """What a batch size that changes is a multiple of."""
        return "in steps of whole groups of environments" if self.unit == "frames" else f"in whole {self.unit}"

    @property
    def larger_batches(self) -> str:
        """What larger batches come from."""
        return "more environments" if self.unit == "frames" else "larger batches"

    @property
    def log_scale(self) -> str:
        """What the unit is, and that an axis is logarithmic."""
        return ", ".join([*filter(None, [_COUNTED_AS.get(self.unit)]), "log scale"])

    @property
    def quantity(self) -> str:
        """What is compared with goals: score, loss, validation loss."""
        return self.measure.words

    @property
    def goal(self) -> str:
        """A goal with its quantity."""
        return f"goal ({self.quantity})"

    @property
    def curve(self) -> str:
        """What learning curves show."""
        return f"smoothed {self.quantity}" if self.measure.over_episodes else self.quantity

    @property
    def direction(self) -> Direction:
        """Where goals are reached from."""
        return self.measure.direction


def percent(fits: pd.DataFrame) -> str:
    """The confidence of the intervals in `SweepFit.fits`, with a space that does not break."""
    return f"{100 * fits['confidence'].iloc[0]:g}\N{NO-BREAK SPACE}%"


def bounded(estimate: Estimate, digits: int = 3) -> str:
    """An estimate for a sentence or a table of the page."""
    return estimate.text(digits, above="at least ", below="at most ")


def words_of(table: pd.DataFrame) -> Words:
    """The words for rows of one task that have the columns unit and quantity.

    >>> words_of(pd.DataFrame({"unit": ["frames"], "quantity": ["score"]})).counted
    'frames (agent steps)'
    """
    return Words(measure_of(table))


# Both ramps run through the hues of "plasma", whose lightness is monotone: they keep their order for colour-blind
# readers and in grey. The light one leaves out the pale end, the dark one the deep end.
_RAMP_LIGHT = ("#1f2f9c", "#7b1fa2", "#c2366f", "#e2682f", "#d99a06")
_RAMP_DARK = ("#5578ff", "#a878f4", "#f27f9f", "#ffac62", "#f8e272")
LONGEST_RAMP = 12

_INKS = {  # name: (light, dark)
    "ink": ("#17202a", "#eceff3"),
    "ink-soft": ("#52606d", "#a9b4c0"),
    "surface": ("#ffffff", "#181c21"),
    "page": ("#f5f6f8", "#101317"),
    "line": ("#dfe3e8", "#333a43"),
    "grid": ("#e9ecf0", "#2a3038"),
    "guide": ("#9aa5b1", "#6b7683"),
    "accent": ("#1f5fbf", "#7fb0ff"),
    "critical": ("#1f5fbf", "#7fb0ff"),
    "noise": ("#d0600a", "#ffa552"),
    # For things without an order; told apart by colour-blind readers, and always drawn with a shape of their own too.
    "series-0": ("#0b5fa5", "#6db3f2"),
    "series-1": ("#c2570c", "#ffab66"),
    "series-2": ("#0f7f6b", "#4fd1b5"),
    "series-3": ("#9b2d7f", "#ec8fd0"),
    "series-4": ("#6d6200", "#d8c64c"),
    "good": ("#1b7a43", "#6fd39a"),
    "warn": ("#8a5a00", "#f2c14e"),
}
_Channel = TypeVar("_Channel", alt.X, alt.Y)
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"


def _mix(stops: Sequence[str], place: float) -> str:
    """The colour at `place` in [0, 1] along hexadecimal stops, linear in sRGB."""
    scaled = place * (len(stops) - 1)
    index = min(int(scaled), len(stops) - 2)
    parts = [[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in stops[index : index + 2]]
    share = scaled - index
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(*parts, strict=True))


def ramp(count: int) -> list[str]:
    """`count` colours for ordered things, as CSS variables; beyond `LONGEST_RAMP` neighbours share a colour."""
    size = min(count, LONGEST_RAMP)
    places = [round(i * (size - 1) / max(count - 1, 1)) for i in range(count)]
    return [f"var(--ramp-{size}-{place})" for place in places]


def _variables(dark: bool) -> dict[str, str]:
    stops = _RAMP_DARK if dark else _RAMP_LIGHT
    values = {f"--{name}": pair[dark] for name, pair in _INKS.items()}
    for size in range(1, LONGEST_RAMP + 1):
        for i in range(size):
            values[f"--ramp-{size}-{i}"] = _mix(stops, i / (size - 1) if size > 1 else 0.0)
    return values


def colour_variables(*, dark: bool) -> str:
    """The CSS declarations of every colour, for light or dark pages."""
    return "".join(f"{name}:{value};" for name, value in _variables(dark).items())


def with_plain_colours(text: str) -> str:
    """Replaces every `var(--name)` by its light value."""
    values = _variables(dark=False)
    return re.sub(r"var\((--[\w-]+)\)", lambda match: values[match[1]], text)


def config() -> dict[str, Any]:
    """The Vega-Lite configuration of all charts."""
    soft, small = {"labelColor": "var(--ink-soft)", "titleColor": "var(--ink-soft)"}, {"labelFontSize": 12}
    titles = {"titleFontWeight": 500, "titleLimit": 0}
    lines = {"gridColor": "var(--grid)", "domainColor": "var(--line)", "tickColor": "var(--line)", "tickSize": 4}
    gaps = {"titlePadding": 8, "labelPadding": 5, "labelOverlap": "greedy", "labelFlush": False, "titleFontSize": 12.5}
    symbols = {"symbolSize": 90, "symbolStrokeWidth": 2.5, "symbolOpacity": 1}
    places = {"orient": "top", "columnPadding": 14, "labelOffset": 5, "labelLimit": 0, "titleFontSize": 12}
    return {
        "font": FONT,
        "background": "transparent",
        "axis": soft | small | titles | lines | gaps,
        "legend": soft | {"labelColor": "var(--ink)"} | small | titles | symbols | places,
        "title": {"color": "var(--ink)", "subtitleColor": "var(--ink-soft)", "anchor": "start", "fontSize": 15},
        "view": {"stroke": None},
    }


# What hovering over a mark calls a column, and how its numbers are written; words have no format.
_TIPS: dict[str, tuple[str, str | None]] = {
    "goal": ("{goal}", ""),
    "batch_size": ("batch size ({unit})", ","),
    "current_batch_size": ("batch size ({unit})", ","),
    "learning_rate": ("learning rate", ".3~g"),
    "setting": ("with", None),
    "seed": ("seed", ""),
    "seeds": ("seeds", ""),
    "state": ("run", None),
    "kind": ("this point", None),
    "at_edge": ("at the edge of its grid", None),
    "updates": ("updates", ",.4~r"),
    "examples": ("{unit}", ",.4~r"),
    "smoothed": ("{curve}", ",.3~r"),
    "score": ("final {quantity}", ",.3~r"),
    "critical_batch": ("critical batch size ({unit})", ",.3~r"),
    "noise_scale": ("noise scale ({unit})", ",.3~r"),
    "noise_scale_low": ("interval from", ",.3~r"),
    "noise_scale_high": ("to", ",.3~r"),
    "measurements": ("measurements", ","),
    "what": ("what", None),
    "value": ("value ({unit})", ",.3~r"),
    "low": ("interval from", ",.3~r"),
    "high": ("to", ",.3~r"),
    "bound": ("known", None),
    "gamma_observed": ("gamma", ".2f"),
    "gamma_predicted": ("gamma predicted", ".2f"),
    "task": ("task", None),
}


def tooltips(words: Words, table: pd.DataFrame, *columns: str, **titles: str) -> list[alt.Tooltip]:
    """What hovering over a mark says: columns in order, a setting only where there is any.

    Args:
        table: its rows are the marks.
        columns: names in `_TIPS`.
        titles: what to call a column here instead.
    """
    shown = [name for name in columns if name != "setting" or table[name].astype(bool).any()]
    said = {name: titles.get(name, _TIPS[name][0]) for name in shown}
    known = {"unit": words.unit, "goal": words.goal, "curve": words.curve, "quantity": words.quantity}
    return [
        alt.Tooltip(f"{name}:{'N' if form is None else 'Q'}", title=title.format(**known), format=form or alt.Undefined)
        for name, title in said.items()
        for form in [_TIPS[name][1]]
    ]


def legend(title: str, *, entry_width: int = 64, **options: Any) -> alt.Legend:
    """A legend above the chart with as many columns as fit into the chart's width, in pixels."""
    return alt.Legend(title=title, columns=alt.ExprRef(f"max(1, floor(width / {entry_width}))"), **options)


def ordered_colour(field: str, values: Sequence[float], title: str, *, shown: bool = True) -> alt.Color:
    """Colour for an ordered field: goals or batch sizes."""
    scale = alt.Scale(domain=list(values), range=ramp(len(values)))
    key = legend(title, labelExpr="format(datum.value, ',')") if shown else None
    return alt.Color(f"{field}:O", scale=scale, legend=key)


def named_colour(field: str, names: Iterable[str], colours: Iterable[str], key: alt.Legend) -> alt.Color:
    """Colour for a field of words, a colour for each."""
    return alt.Color(f"{field}:N", scale=alt.Scale(domain=list(names), range=list(colours)), legend=key)


def dimmed(chosen: alt.Parameter, strength: float, faint: float = 0.1) -> Any:
    """The opacity of marks: their strength where they are chosen in the legend, faint elsewhere."""
    return alt.when(chosen).then(alt.value(strength)).otherwise(alt.value(faint))


def goal_choice(goals: Sequence[float], start: float, words: Words) -> alt.Parameter:
    """A menu of goals, for charts that show one at a time."""
    return alt.param(name="goal", value=start, bind=alt.binding_select(options=goals, name=f"{words.goal} "))


def on_same_axis(axis: alt.Y, field: str) -> alt.Y:
    """Another field on an axis that is there."""
    other = axis.copy()
    other.shorthand = f"{field}:Q"
    return other


SERIES_SHAPES = ("circle", "square", "diamond", "triangle-up", "cross")


def series_colours(count: int) -> list[str]:
    """`count` colours for things without an order, as CSS variables; beyond five they come again."""
    return [f"var(--series-{i % len(SERIES_SHAPES)})" for i in range(count)]


# d3 writes the zero of an axis in millions as "0M".
_COUNT_LABEL = "datum.value == 0 ? '0' : datum.label"


def count_axis(channel: type[_Channel], field: str, title: str) -> _Channel:
    """A linear axis for counts, with SI prefixes."""
    axis = alt.Axis(format="~s", tickCount=6, labelExpr=_COUNT_LABEL)
    return channel(f"{field}:Q", title=title, axis=axis)


def log_axis(
    channel: type[_Channel], field: str, title: str, values: Iterable[float], *, format: str = "~s"
) -> _Channel:
    """A logarithmic axis around the values it has to show, with round ticks.

    Args:
        values: everything that will be drawn on it; what is not positive and finite is passed over.
        format: d3's format of the labels.
    """
    known = [value for value in values if 0 < value < math.inf] or [1.0]
    low, high = min(known), max(known)
    margin = max((high / low) ** 0.04, 1.12)
    low, high = low / margin, high * margin
    scale = alt.Scale(type="log", domain=[low, high], nice=False)
    return channel(f"{field}:Q", title=title, scale=scale, axis=alt.Axis(format=format, values=log_ticks(low, high)))


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between two positive ones: 1, 2, 5 in each decade, or fewer where there are many decades."""
    decades = math.log10(high / low)
    steps = (1, 2, 3, 5, 7) if decades < 1.3 else (1, 2, 5) if decades < 3 else (1, 3) if decades < 4.5 else (1,)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [tick for e in exponents for step in steps if low <= (tick := float(f"{step}e{e}")) <= high]
