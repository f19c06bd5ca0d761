"""`rl-scaling nqm`: the noisy quadratic model, in seconds. Its numbers are computed where they are asked for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.table import Table
from tyro.conf import OmitArgPrefixes, Positional, arg, subcommand

from rl_scaling.cli.options import as_json, json_estimate, json_rows, print_json, print_line, print_table, say, unset
from rl_scaling.config import ConfigError, require
from rl_scaling.domains.nqm.config import BATCH_SIZES, CONFIDENCE, NQMConfig, OptimizerName, Setting
from rl_scaling.estimates import columns_of

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

    from rl_scaling.nqm import Spectrum, TunedSteps


@dataclass(frozen=True)
class NQMSteps:
    """The fewest steps to a target risk, over learning rates and momentum or averaging coefficients."""

    optimizer: OptimizerName = "sgd"
    """SGD, momentum (heavy ball), Nesterov's momentum, or an average (EMA) of the iterates of one of them."""
    power: float = NQMConfig.power
    """p of the preconditioner H^-p, from 0 to 1."""
    batch_sizes: tuple[float, ...] = BATCH_SIZES
    """Batch sizes in examples."""
    target: float = Setting.target
    """Risk to reach."""
    published: bool = False
    """Take the grids, the floored eigenvalues and the way of counting of the published figures, not the optimum."""
    learning_rates: Annotated[tuple[float, ...], unset("[FLOAT [FLOAT ...]]")] = ()
    """Learning rates to choose from, instead of all real numbers."""
    coefficients: Annotated[tuple[float, ...], unset("[FLOAT [FLOAT ...]]")] = ()
    """Coefficients of the momentum (for ema: of the average) to choose from; with --learning-rates."""
    spectrum: Annotated[Path | None, unset("FILE")] = None
    """Eigenvalues from a text file or .npy instead of 1/i."""
    exponent: Annotated[float | None, unset("FLOAT")] = None
    """a of eigenvalues i^-a instead of 1/i."""
    noise_exponent: Annotated[float | None, unset("FLOAT")] = None
    """q of the noise covariance h^q instead of h."""
    initial_exponent: Annotated[float | None, unset("FLOAT")] = None
    """e of the second moments i^-e of the start, instead of equal ones."""
    dimension: Annotated[
        int | None, unset("INT", help=f"Directions: {Setting.dimension:,} by default, 10^8 and more.")
    ] = None
    json: bool = False
    """Print a list of rows as JSON on stdout."""

    def found(self) -> list[TunedSteps]:
        """The rows. Raises ConfigError for what cannot be computed."""
        from rl_scaling.nqm import steps_to_target

        method = "published" if self.published else "grid" if self.learning_rates else "optimum"
        question = {"optimizer": self.optimizer, "power": self.power, "target": self.target}
        try:
            spectrum = self._spectrum()
            spectrum.check_target(self.target)
            return steps_to_target(self.batch_sizes, spectrum=spectrum, method=method, grid=self._grid(), **question)
        except (OSError, ValueError) as error:
            raise ConfigError(str(error)) from error

    def _grid(self) -> tuple[ArrayLike, ...] | None:
        if not self.learning_rates:
            require(not self.coefficients, "--coefficients goes with --learning-rates: give both")
            return None
        require(not self.published, "--published has its own learning rates: leave out --learning-rates")
        name, enough = self.optimizer, self.optimizer == "sgd" or len(self.coefficients) > 0
        require(not name.endswith("-ema"), f"--learning-rates is not for {name}, which has two coefficients")
        require(enough, f"{name} needs --coefficients beside --learning-rates")
        return self.learning_rates, self.coefficients

    def _spectrum(self) -> Spectrum:
        from rl_scaling.domains.nqm.spectrum import Parameters, Spectrum

        names = "spectrum_exponent", "noise_exponent", "initial_exponent"
        exponents = zip(names, (self.exponent, self.noise_exponent, self.initial_exponent), strict=True)
        given = {name: value for name, value in exponents if value is not None}
        power_law = bool(given) or self.dimension is not None
        if self.spectrum is not None:
            require(not power_law, "give --spectrum or the exponents and dimension of a power law, not both")
            return Spectrum.from_file(self.spectrum)
        if self.published and not power_law:
            return Spectrum.published()
        return Parameters(**given).spectrum(Setting.dimension if self.dimension is None else self.dimension)

    def run(self) -> int:
        rows = self.found()
        columns = ("batch size", "steps", "learning rate", "coefficient", "averaging", "")
        return _show(self.json, [as_json(dataclasses.asdict(row)) for row in rows], columns, map(_cells, rows))


def _cells(row: TunedSteps) -> list[str]:
    steps = "" if row.steps is None else f"{row.steps:,}"
    numbers = [f"{x:.4g}" if x > 0 else "" for x in (row.learning_rate, row.coefficient, row.averaging)]
    return [f"{row.batch_size:,.6g}", steps, *numbers, "" if row.status == "reached" else row.status]


@dataclass(frozen=True)
class NQMCritical(NQMSteps):
    """The critical batch size of the model by three definitions, from the fewest steps at many batch sizes."""

    batch_sizes: tuple[float, ...] = (1.0, *BATCH_SIZES)
    """Batch sizes in examples; they should reach from where steps fall as 1/B to where they no longer fall."""

    def run(self) -> int:
        import numpy as np

        from rl_scaling.analysis import fit_tradeoff
        from rl_scaling.analysis.tradeoff import overhead_batch
        from rl_scaling.nqm import as_table

        table = as_table(self.found()).drop_duplicates("batch_size")
        known = table[np.isfinite(table["steps"])]
        steps, sizes = known["steps"].to_numpy(), known["batch_size"].to_numpy()
        count = len(known)
        require(count >= 3, f"a fit needs 3 different batch sizes that reach the target, not {count}: give more")
        fit = fit_tradeoff(steps, steps * sizes)
        row = {
            **{name: getattr(self, name) for name in ("optimizer", "power", "target")},
            **{name: getattr(fit, name) for name in ("steps_min", "examples_min", *_BATCH, "status")},
            "twice_the_steps": overhead_batch(sizes, steps, 2.0, of="steps"),
            "twenty_percent": overhead_batch(sizes, steps, 1.2, of="examples"),
        }
        if self.json:
            print_json(as_json(row))
            return 0
        for name, words in _CRITICAL.items():
            value = row[name]
            print_line(f"{words}: {value:,.4g}" if math.isfinite(value) else f"{words}: not within these batch sizes")
        if fit.status == "ok":
            print_line(f"interval of the fit: {fit.critical_batch_low:,.4g} - {fit.critical_batch_high:,.4g}")
        print_line(fit.message)
        return 0


_BATCH = columns_of("critical_batch")
_CRITICAL = {
    "critical_batch": "E_min / S_min of the fitted trade-off (2.12)",
    "twice_the_steps": "steps are twice those of the largest batch",
    "twenty_percent": "examples are 20 % above those of the smallest batch",
}


@dataclass(frozen=True)
class NQMFit:
    """The model that explains measured steps: its spectrum, its noise, and which optimiser it recommends where."""

    measured: Annotated[Path, Positional, arg(metavar="DIR|CSV")]
    """A store of runs, or a CSV with batch_size, steps and, if not plain SGD, optimizer (sgd or ema) and power."""
    goal: Annotated[float | None, unset("FLOAT")] = None
    """Goal of a store with several; by default the hardest that most batch sizes reached."""
    model: OmitArgPrefixes[Setting] = field(default_factory=Setting)
    at: Annotated[tuple[float, ...], unset("[FLOAT [FLOAT ...]]")] = ()
    """Batch sizes to extrapolate to; by default the measured ones and some on either side."""
    confidence: float = CONFIDENCE
    """Confidence level of the intervals."""
    json: bool = False
    """Print the fit as JSON on stdout."""

    def run(self) -> int:
        from rl_scaling.domains.nqm.fit import fastest, fit_model, in_one_line

        positive = all(0 < size < math.inf for size in self.at)
        require(positive, "--at holds a number that is no batch size: give positive ones")
        measured = _from_csv(self.measured) if self.measured.is_file() else _from_store(self.measured, self.goal)
        try:
            fit = fit_model(measured, self.model, confidence=self.confidence)
        except ValueError as error:
            raise ConfigError(f"{self.measured}: {error}") from error
        sizes = measured["batch_size"]
        wanted = sorted(self.at or {*sizes, sizes.min() / 4, sizes.max() * 4, sizes.max() * 16})
        power = float(measured["power"].min())
        predicted = fit.predict(wanted, power=power)
        advice = in_one_line(fastest(fit, wanted, [(name, power) for name in ("sgd", "momentum", "ema")]))
        values = {name: getattr(fit, name) for name in ("spectrum_exponent", "noise_exponent", "noise_scale")}
        if self.json:
            fitted = {name: json_estimate(value) for name, value in values.items()}
            print_json({**fitted, "scatter": fit.scatter, "predicted": json_rows(predicted), "advice": advice})
            return 0
        for name, value in values.items():
            print_line(f"{name.replace('_', ' ')}: {value.value:.3g} ({value.low:.3g} - {value.high:.3g})")
        for a, q, log_scale in fit.alternatives:
            print_line(f"as well explained by {a:.3g}, {q:.3g} and {math.exp(log_scale):.3g}")
        print_line(f"scatter of log steps about the model: {fit.scatter:.3f} over {fit.points} measurements")
        numbers = predicted[["batch_size", "steps", "steps_low", "steps_high"]].to_numpy()
        _print_rows(("batch size", "steps", "from", "to"), ([f"{x:,.4g}" for x in row] for row in numbers))
        print_line(f"fewest steps by this model: {advice}")
        return 0


def _from_csv(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        table = pd.read_csv(path)
    except ValueError as error:
        raise ConfigError(f"{path} is not a CSV: {error}".splitlines()[0]) from error
    plain = {"optimizer": "sgd", "power": 0.0}
    return table.assign(**{name: value for name, value in plain.items() if name not in table.columns})


def _from_store(folder: Path, goal: float | None) -> pd.DataFrame:
    import pandas as pd

    from rl_scaling.cli.analyse import load_and_fit
    from rl_scaling.domains.nqm.fit import measured_steps

    rows, fit = load_and_fit((folder,), (goal,) if goal is not None else ())
    known = _optimizers(rows)
    fronts = fit.fronts[~fit.fronts["at_start"] & fit.fronts["task"].isin(known)]
    why = f"no goal was reached by SGD or its average in {folder}: give another --goal, or measure longer"
    require(not fronts.empty, why)
    reached = fronts.groupby(["task", "goal"]).agg(sizes=("batch_size", "nunique"), updates=("updates", "min"))
    task, hardest = reached.sort_values(["sizes", "updates"]).index[-1]
    # the model's own sweep is one problem, whatever the optimiser; elsewhere tasks differ in more
    tasks = sorted(known) if (rows["domain"] == "nqm").all() else [task]
    say(f"{', '.join(map(str, tasks))}, goal {hardest:g}")
    chosen = fronts[fronts["task"].isin(tasks) & (fronts["goal"] == hardest)]
    parts = [
        measured_steps(part["batch_size"].to_numpy(float), part["updates"].to_numpy(float), power, name)
        for (name, power), part in ((known[str(task)], part) for task, part in chosen.groupby("task"))
    ]
    return pd.concat(parts, ignore_index=True)


def _optimizers(rows: pd.DataFrame) -> dict[str, tuple[str, float]]:
    """Tasks that the model may explain, with their optimizer and preconditioner; plain SGD where runs say nothing.

    Averages of trained networks are left out: their coefficient is given, and the model's is the best one.
    """
    from rl_scaling.domains.nqm.forecast import FITTED

    columns = ["task", "config.optimizer", "config.power", "optimizer.name", "optimizer.ema"]
    first = rows.drop_duplicates("task").reindex(columns=columns)
    names = first["config.optimizer"].astype(object).fillna(first["optimizer.name"]).fillna("sgd")
    fitted = names.isin(FITTED) & ~(first["optimizer.ema"] > 0)
    known = zip(first["task"][fitted], names[fitted], first["config.power"][fitted].fillna(0.0), strict=True)
    return {str(task): (str(name), float(power)) for task, name, power in known}


@dataclass(frozen=True)
class NQMFigures:
    """The figures of Zhang et al. 2019 that are made of the model, with what each should show and what it shows."""

    out: Annotated[Path, arg(metavar="FILE")] = Path("nqm.html")
    """The page."""
    figures: Annotated[Path | None, unset("DIR")] = None
    """Also write every chart here, as SVG and PNG, and its numbers as CSV."""
    json: bool = False
    """Print the checks as JSON on stdout."""

    def run(self) -> int:
        from rl_scaling.validation.gallery import write_gallery
        from rl_scaling.validation.published_figures import exhibits

        shown = exhibits()
        title = "The noisy quadratic model, figure by figure"
        lead = "Figures of Zhang et al. 2019 computed anew, with what the text says beside what comes out."
        page = write_gallery(shown, self.out, title=title, lead=lead, figures=self.figures)
        checks = [(e.heading, check) for e in shown for check in e.checks]
        data = [{"figure": f, "claim": c.claim, "found": c.found, "holds": bool(c.holds)} for f, c in checks]
        cells = ([f, c.claim, c.found, "holds" if c.holds else "does not hold"] for f, c in checks)
        _show(self.json, data, ("figure", "what it should show", "what it shows", ""), cells)
        if not self.json:
            print_line(page)
        return 0


@dataclass(frozen=True)
class NQMCheck:
    """How exact the model is: every formula against something that does not use it."""

    cases: int = 300
    """Random settings for each formula."""
    seed: int = 0
    """Seed of the settings and of the simulated runs."""
    json: bool = False
    """Print the table as JSON on stdout."""

    def run(self) -> int:
        from rl_scaling.domains.nqm.exactness import exactness

        require(self.cases >= 1 and self.seed >= 0, "give --cases of at least 1 and a --seed of at least 0")
        rows = exactness(cases=self.cases, seed=self.seed)
        cells = ([row.compared, f"{row.cases:,}", f"{row.largest_difference:.1e}", row.unit] for row in rows)
        data = [dataclasses.asdict(row) for row in rows]
        return _show(self.json, data, ("compared", "cases", "largest difference", ""), cells)


def _show(json: bool, data: Any, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> int:
    """Print JSON, or rows below the names of their columns; the exit code."""
    if json:
        print_json(data)
    else:
        _print_rows(columns, rows)
    return 0


def _print_rows(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(*row)
    print_table(table)


@dataclass(frozen=True)
class NQM:
    """The noisy quadratic model: exact, in seconds."""

    what: (
        Annotated[NQMSteps, subcommand("steps")]
        | Annotated[NQMCritical, subcommand("critical")]
        | Annotated[NQMFigures, subcommand("figures")]
        | Annotated[NQMFit, subcommand("fit")]
        | Annotated[NQMCheck, subcommand("check")]
    )

    def run(self) -> int:
        return self.what.run()
