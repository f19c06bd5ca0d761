"""`rl-scaling report`: one page over all domains, from the runs of any number of stores.

Charts are imported where they are used, for `--help`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from rl_scaling.cli.analyse import CONFIDENCE, HORIZON, FitOptions, load_and_fit
from rl_scaling.cli.options import json_rows, print_json, print_line, say, unset
from rl_scaling.store import RunInfo, StoreError, StoreWarning, list_runs

if TYPE_CHECKING:
    import pandas as pd

    from rl_scaling.analysis import SweepFit
    from rl_scaling.report import Overview, Section

# The curves of more runs make a page too heavy to open.
MOST_RUNS_WITH_CURVES = 2_000
FEWEST_MODEL_SIZES = 4


@dataclass(frozen=True)
class Report(FitOptions):
    """One self-contained HTML page: noise scale against critical batch size over all domains, then each task."""

    out: Annotated[Path, arg(metavar="FILE")] = Path("report.html")
    """File of the page."""
    figures: Annotated[Path | None, unset("DIR")] = None
    """Also write every chart here, as SVG, PDF and PNG."""
    tables: Annotated[Path | None, unset("DIR")] = None
    """Also write every table here, as CSV, Parquet and Markdown."""
    curves: bool = False
    """Draw the learning curve and the noise scale of every run also where there are more than 2,000."""
    model: bool = False
    """Fit the noisy quadratic model to the steps of SGD and lay what it predicts over the measured ones; some seconds
    a task."""
    title: str = "How large a batch can this training use?"
    """Title of the page."""
    json: bool = False
    """Print the page's path and, for every domain, how well the noise scale predicts B_crit, as JSON on stdout."""

    def run(self) -> int:
        from rl_scaling.report import write_report
        from rl_scaling.report.page import tables_of, write_tables

        choices = ["--goals", *(f"{goal:g}" for goal in self.goals)] if self.goals else []
        choices += ["--horizon", f"{self.horizon:g}"] if self.horizon != HORIZON else []
        choices += ["--confidence", f"{self.confidence:g}"] if self.confidence != CONFIDENCE else []
        choices += ["--model"] if self.model else []
        command = " ".join(["rl-scaling report", *map(str, self.folders), *choices])
        folders, missing = there_or_missing(self.folders)
        runs, fit = load_and_fit(folders, self.goals, self.horizon, self.confidence)
        predictions = predicted_steps(runs, fit, self.confidence) if self.model else None
        sections, overview = parts(
            runs,
            fit,
            known_runs(folders),
            command=command,
            horizon=self.horizon,
            curves=self.curves,
            predictions=predictions,
        )
        overview = replace(overview, missing=missing)
        page = write_report(sections, self.out, title=self.title, overview=overview, figures=self.figures)
        tables = tables_of(overview)
        if self.tables is not None:
            write_tables(tables, self.tables)
        if self.json:
            print_json({"page": str(page), "agreement": json_rows(tables["agreement"])})
        else:
            print_line(page)
        return 0


def there_or_missing(folders: tuple[Path, ...]) -> tuple[tuple[Path, ...], list[str]]:
    """The folders that are there and the names of the others, each of which is said.

    Raises:
        StoreError: none is there.
    """
    there = tuple(folder for folder in folders if folder.is_dir())
    missing = [str(folder) for folder in folders if folder not in there]
    if missing and not there:
        raise StoreError(f"no such folder: {', '.join(missing)}")
    for name in missing:
        say(f"left out: no such folder: {name}")
    return there, missing


def known_runs(folders: tuple[Path, ...]) -> list[RunInfo]:
    """What is known of the runs below some folders; what cannot be read was said when their rows were loaded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StoreWarning)
        return list_runs(*folders)


def parts(
    runs: pd.DataFrame,
    fit: SweepFit,
    infos: list[RunInfo],
    *,
    command: str,
    horizon: float = HORIZON,
    explanations: Mapping[str, str] | None = None,
    curves: bool = False,
    predictions: pd.DataFrame | None = None,
) -> tuple[list[Section], Overview]:
    """What `write_report` takes: a section for each domain, and what is compared over all of them.

    Args:
        runs: records of runs, as `load_runs` returns them.
        fit: what `load_and_fit` found in them.
        infos: of these runs, for where they come from.
        curves: whether to draw every run's curve also where there are more than MOST_RUNS_WITH_CURVES.
        predictions: what `predicted_steps` returns.
    """
    from rl_scaling.analysis import domains_of
    from rl_scaling.analysis.agreement import DOMAINS
    from rl_scaling.report import Overview, Section

    domains = domains_of(runs)
    number = int(runs.groupby(["store", "run_id"]).ngroups)
    drawn = curves or number <= MOST_RUNS_WITH_CURVES
    if not drawn:
        say(f"{number:,} runs: their learning curves are left out, --curves draws them")
    sections, powers = [], rate_powers(runs)
    for domain in DOMAINS:
        tasks = [task for task, of in domains.items() if of == domain]
        if tasks:
            section = Section(
                heading=domain,
                explanation=(explanations or {}).get(domain, ""),
                command=command,
                runs=runs[runs["task"].isin(tasks)],
                fit=fit.of_tasks(tasks),
                provenance=[info.provenance for info in infos if info.identity.task in tasks],
                horizon=horizon,
                curves=drawn,
                predictions=predictions,
                rate_powers=powers,
            )
            sections.append(section)
    left_out = sorted({str(info.identity.task) for info in infos} - set(domains))
    return sections, Overview(fit=fit, domains=domains, runs=number, command=command, left_out=left_out)


def rate_powers(runs: pd.DataFrame) -> dict[str, float]:
    """Alpha of A.3 (McCandlish et al. 2018) of every algorithm in the runs, as the grids of their sweeps have it."""
    from rl_scaling.analysis.fronts import tasks_of
    from rl_scaling.domains.rl.registry import ALGORITHMS, find_algorithm
    from rl_scaling.domains.supervised.problems import rate_power

    names = tasks_of(runs)["algorithm"].unique()
    return {name: find_algorithm(name).rate_power if name in ALGORITHMS else rate_power(name) for name in names}


def predicted_steps(runs: pd.DataFrame, fit: SweepFit, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """Steps that the noisy quadratic model predicts, fitted to the hardest goal of each task of plain SGD.

    The model is fitted to SGD alone. What it says of momentum and of averaged iterates on the same problem, each with
    its best coefficient, is a prediction that owes nothing to their runs. The model's target is the same part of its
    risk at the start as the goal is of the loss at the start.

    Returns:
        Columns task, goal, batch_size, updates, updates_low, updates_high (NaN where it is not known) and model, a few
        words on the fit; empty where no task has enough batch sizes.
    """
    import pandas as pd

    from rl_scaling.analysis.fronts import tasks_of
    from rl_scaling.domains.nqm.config import Setting
    from rl_scaling.domains.nqm.fit import fit_model, measured_steps
    from rl_scaling.domains.nqm.spectrum import Parameters

    tasks = tasks_of(runs)
    plain = tasks[(tasks["variant"] == "") & (tasks["budget_unit"] == "")]
    sgd = plain.index[plain["algorithm"] == "sgd"]
    fronts = fit.fronts[~fit.fronts["at_start"].astype(bool) & fit.fronts["task"].isin(sgd)]
    found = []
    for task, front in fronts.groupby("task"):
        sizes = front.groupby("goal")["batch_size"].nunique()
        enough = sizes.index[sizes >= FEWEST_MODEL_SIZES]
        if len(enough):
            goal = float(enough.min())
            chosen = front[front["goal"] == goal]
            at = chosen["batch_size"].to_numpy(float)
            say(f"fitting the noisy quadratic model to {task}, goal {goal:g}")
            target = Parameters().spectrum(Setting.dimension).initial_risk * goal / _loss_at_start(runs, str(task))
            measured = measured_steps(at, chosen["updates"].to_numpy(float))
            model = fit_model(measured, Setting(target=target), confidence=confidence)
            words = f"eigenvalues i^-{model.spectrum_exponent.value:.2g}, fitted to {task} at the goal {goal:g}"
            same = plain[(plain["problem"] == plain["problem"][task]) & plain.index.isin(fit.fronts["task"])]
            for beside, name in same["algorithm"].map(_MODELLED).dropna().items():
                rows = model.predict(sorted({*at, at.min() / 4, at.max() * 4}), name)
                found.append(rows.rename(columns=_RENAMED).assign(task=beside, goal=goal, model=words))
    columns = ["task", "goal", "batch_size", *_RENAMED.values(), "model"]
    return pd.concat(found)[columns] if found else pd.DataFrame(columns=pd.Index(columns))


# The model's name of an optimiser.
_MODELLED = {"sgd": "sgd", "sgd+ema": "ema", "ema": "ema", "momentum": "momentum"}
_RENAMED = {"steps": "updates", "steps_low": "updates_low", "steps_high": "updates_high"}


def _loss_at_start(runs: pd.DataFrame, task: str) -> float:
    """About the loss before training: the first recorded one of the runs with the smallest learning rates."""
    rows = runs[runs["task"] == task].sort_values("updates")
    first = rows.groupby(["store", "run_id"]).first()
    slowest = first["learning_rate"] == first.groupby("batch_size")["learning_rate"].transform("min")
    return float(first.loc[slowest, str(first["quantity"].iloc[0])].median())
