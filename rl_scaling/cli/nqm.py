"""`rl-scaling nqm`: the noisy quadratic model, in seconds. Its numbers are computed where they are asked for."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from rich.table import Table
from tyro.conf import Positional, arg, subcommand

from rl_scaling.cli.options import as_json, print_json, print_line, print_table, say
from rl_scaling.config import ConfigError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

    from rl_scaling.domains.nqm import Spectrum, TunedSteps
    from rl_scaling.domains.nqm.fit import Interval

Optimizer = Literal["sgd", "momentum", "nesterov", "ema", "momentum-ema", "nesterov-ema"]
BATCH_SIZES = tuple(4.0**i for i in range(1, 11))


@dataclass(frozen=True)
class NQMSteps:
    """The fewest steps to a target risk, over learning rates and momentum or averaging coefficients."""

    optimizer: Optimizer = "sgd"
    """sgd, momentum (heavy ball), nesterov, ema (SGD with averaged iterates), or an average over a momentum."""
    power: float = 0.0
    """p of the preconditioner H^-p, from 0 to 1."""
    batch_sizes: tuple[float, ...] = BATCH_SIZES
    """Batch sizes in examples."""
    target: float = 0.01
    """Risk to reach."""
    published: bool = False
    """The grids, the floored eigenvalues and the way of counting of the published figures, instead of the optimum."""
    learning_rates: tuple[float, ...] = ()
    """Choose among these alone, instead of all real numbers."""
    coefficients: tuple[float, ...] = ()
    """Momentum (of ema: averaging) coefficients to choose from; with --learning-rates."""
    spectrum: Annotated[Path | None, arg(metavar="FILE")] = None
    """Eigenvalues from a text file or .npy instead of 1/i."""
    exponent: float | None = None
    """a of eigenvalues i^-a; 1 by default."""
    noise_exponent: float | None = None
    """q of the noise covariance h^q; 1 by default."""
    initial_exponent: float | None = None
    """e of the second moments i^-e of the start; 0 by default."""
    dimension: int | None = None
    """Directions, up to 10^8 and more; 10,000 by default."""
    json: bool = False
    """Print a list of rows as JSON on stdout."""

    def found(self) -> list[TunedSteps]:
        """The rows. Raises ConfigError for what cannot be computed."""
        from rl_scaling.domains.nqm import steps_to_target

        try:
            spectrum = self._spectrum()
            spectrum.check_target(self.target)
            return steps_to_target(
                self.batch_sizes,
                optimizer=self.optimizer,
                power=self.power,
                target=self.target,
                spectrum=spectrum,
                method="published" if self.published else "grid" if self.learning_rates else "optimum",
                grid=self._grid(),
            )
        except (OSError, ValueError) as error:
            raise ConfigError(str(error)) from error

    def _grid(self) -> tuple[ArrayLike, ...] | None:
        if not self.learning_rates:
            if self.coefficients:
                raise ConfigError("--coefficients goes with --learning-rates: give both")
            return None
        if self.published:
            raise ConfigError("--published has its own learning rates: leave out --learning-rates")
        if self.optimizer.endswith("-ema"):
            raise ConfigError(f"--learning-rates is not for {self.optimizer}, which has two coefficients")
        if self.optimizer != "sgd" and not self.coefficients:
            raise ConfigError(f"{self.optimizer} needs --coefficients beside --learning-rates")
        return self.learning_rates, self.coefficients

    def _spectrum(self) -> Spectrum:
        from rl_scaling.domains.nqm import Spectrum

        exponents = (self.exponent, self.noise_exponent, self.initial_exponent, self.dimension)
        power_law = any(value is not None for value in exponents)
        if self.spectrum is not None:
            if power_law:
                raise ConfigError("give --spectrum or the exponents and dimension of a power law, not both")
            return Spectrum.from_file(self.spectrum)
        if self.published and not power_law:
            return Spectrum.published()
        exponent = 1.0 if self.exponent is None else self.exponent
        return Spectrum.power_law(
            10_000 if self.dimension is None else self.dimension,
            exponent,
            noise_exponent=exponent * (1.0 if self.noise_exponent is None else self.noise_exponent),
            initial_exponent=self.initial_exponent or 0.0,
        )

    def run(self) -> int:
        rows = self.found()
        if self.json:
            print_json([as_json(dataclasses.asdict(row)) for row in rows])
            return 0
        table = Table("batch size", "steps", "learning rate", "coefficient", "averaging", "", box=None)
        for row in rows:
            steps = "" if row.steps is None else f"{row.steps:,}"
            numbers = [f"{x:.4g}" if x > 0 else "" for x in (row.learning_rate, row.coefficient, row.averaging)]
            status = "" if row.status == "reached" else row.status
            table.add_row(f"{row.batch_size:,.6g}", steps, *numbers, status)
        print_table(table)
        return 0


@dataclass(frozen=True)
class NQMCritical(NQMSteps):
    """The critical batch size of the model by three definitions, from the fewest steps at many batch sizes."""

    batch_sizes: tuple[float, ...] = tuple(4.0**i for i in range(11))
    """Batch sizes in examples; they should reach from where steps fall as 1/B to where they no longer fall."""

    def run(self) -> int:
        import numpy as np

        from rl_scaling.analysis import fit_tradeoff
        from rl_scaling.analysis.tradeoff import overhead_batch
        from rl_scaling.domains.nqm import as_table

        table = as_table(self.found()).drop_duplicates("batch_size")
        known = table[np.isfinite(table["steps"])]
        steps, sizes = known["steps"].to_numpy(), known["batch_size"].to_numpy()
        if len(known) < 3:
            raise ConfigError(f"a fit needs 3 different batch sizes that reach the target, not {len(known)}: give more")
        fit = fit_tradeoff(steps, steps * sizes)
        row = {
            "optimizer": self.optimizer,
            "power": self.power,
            "target": self.target,
            "steps_min": fit.steps_min,
            "examples_min": fit.examples_min,
            "critical_batch": fit.critical_batch,
            "critical_batch_low": fit.critical_batch_low,
            "critical_batch_high": fit.critical_batch_high,
            "status": fit.status,
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
    goal: float | None = None
    """Of a store with several goals: which one; by default the hardest that most batch sizes reached."""
    target: float = 0.01
    """Risk of the model that stands for the goal; it starts at about 4.9."""
    dimension: int = 10_000
    """Directions of the model."""
    at: tuple[float, ...] = ()
    """Batch sizes to extrapolate to; by default the measured ones and some on either side."""
    confidence: float = 0.95
    """Of the intervals."""
    json: bool = False
    """Print the fit as JSON on stdout."""

    def run(self) -> int:
        from rl_scaling.domains.nqm.fit import fastest, fit_model, in_one_line
        from rl_scaling.domains.nqm.forecast import Setting

        if not all(0 < size < math.inf for size in self.at):
            raise ConfigError("--at holds a number that is no batch size: give positive ones")
        measured = _from_csv(self.measured) if self.measured.is_file() else _from_store(self.measured, self.goal)
        try:
            fit = fit_model(measured, Setting(self.dimension, self.target), confidence=self.confidence)
        except ValueError as error:
            raise ConfigError(f"{self.measured}: {error}") from error
        sizes = measured["batch_size"]
        wanted = sorted(self.at or {*sizes, sizes.min() / 4, sizes.max() * 4, sizes.max() * 16})
        power = float(measured["power"].min())
        predicted = fit.predict(wanted, power=power)
        advice = in_one_line(fastest(fit, wanted, [(name, power) for name in ("sgd", "momentum", "ema")]))
        values = {name: getattr(fit, name) for name in ("spectrum_exponent", "noise_exponent", "noise_scale")}
        if self.json:
            rows = [as_json({str(k): v for k, v in row.items()}) for row in predicted.to_dict("records")]
            fitted = {name: as_json(value._asdict()) for name, value in values.items()}
            print_json({**fitted, "scatter": fit.scatter, "predicted": rows, "advice": advice})
            return 0
        for name, value in values.items():
            print_line(f"{name.replace('_', ' ')}: {_with_ends(value)}")
        for a, q, log_scale in fit.alternatives:
            print_line(f"as well explained by {a:.3g}, {q:.3g} and {math.exp(log_scale):.3g}")
        print_line(f"scatter of log steps about the model: {fit.scatter:.3f} over {fit.points} measurements")
        table = Table("batch size", "steps", "from", "to", box=None)
        for row in predicted.itertuples():
            table.add_row(*(f"{x:,.4g}" for x in (row.batch_size, row.steps, row.steps_low, row.steps_high)))
        print_table(table)
        print_line(f"fewest steps by this model: {advice}")
        return 0


def _with_ends(value: Interval) -> str:
    return f"{value.value:.3g} ({value.low:.3g} - {value.high:.3g})"


def _from_csv(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        table = pd.read_csv(path)
    except (ValueError, UnicodeDecodeError) as error:
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
    if fronts.empty:
        raise ConfigError(
            f"no goal was reached by SGD or its average in {folder}: give another --goal, or measure longer"
        )
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
    figures: Annotated[Path | None, arg(metavar="DIR")] = None
    """Also write every chart here, as SVG and PNG, and its numbers as CSV."""
    json: bool = False
    """Print the checks as JSON on stdout."""

    def run(self) -> int:
        from rl_scaling.report.gallery import write_gallery
        from rl_scaling.validation.published.noisy_quadratic import exhibits

        shown = exhibits()
        page = write_gallery(
            shown,
            self.out,
            title="The noisy quadratic model, figure by figure",
            lead="Figures of Zhang et al. 2019 computed anew, with what the text says beside what comes out.",
            figures=self.figures,
        )
        checks = [(e.heading, check) for e in shown for check in e.checks]
        if self.json:
            print_json([{"figure": f, "claim": c.claim, "found": c.found, "holds": bool(c.holds)} for f, c in checks])
            return 0
        table = Table("figure", "what it should show", "what it shows", "", box=None)
        for heading, check in checks:
            table.add_row(heading, check.claim, check.found, "holds" if check.holds else "does not hold")
        print_table(table)
        print_line(page)
        return 0


@dataclass(frozen=True)
class NQMCheck:
    """How exact the model is: every formula against something that does not use it."""

    cases: int = 300
    """Random settings per formula."""
    seed: int = 0
    """Of the settings and of the simulated runs."""
    json: bool = False
    """Print the table as JSON on stdout."""

    def run(self) -> int:
        from rl_scaling.domains.nqm.exactness import exactness

        if self.cases < 1 or self.seed < 0:
            raise ConfigError("give --cases of at least 1 and a --seed of at least 0")
        rows = exactness(cases=self.cases, seed=self.seed)
        if self.json:
            print_json([dataclasses.asdict(row) for row in rows])
            return 0
        table = Table("compared", "cases", "largest difference", "", box=None)
        for row in rows:
            table.add_row(row.compared, f"{row.cases:,}", f"{row.largest_difference:.1e}", row.unit)
        print_table(table)
        return 0


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
