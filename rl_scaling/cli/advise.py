"""`rl-scaling advise`: which batch size, on this hardware, from one run, and how sure.

Analysis is imported where it is used, for `--help`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rl_scaling.cli.analyse import CONFIDENCE, HORIZON, goals_of_task, load_and_fit
from rl_scaling.cli.options import Count, Folders, at_least, print_json, say, unset
from rl_scaling.config import ConfigError
from rl_scaling.store import load_runs

if TYPE_CHECKING:
    import pandas as pd

    from rl_scaling.analysis.advise import ChosenRun
    from rl_scaling.analysis.costs import CostModel, Throughput
    from rl_scaling.analysis.predictions import PredictionError


@dataclass(frozen=True)
class Advise:
    """From one run: what every number of environments takes, and which is fastest, cheapest and balanced."""

    folders: Folders
    """Stores of runs, or folders that hold some."""
    run_id: Annotated[str | None, unset("STR", name="run")] = None
    """Rest on this run (its id, or how that begins); by default on the tuned one whose noise scale is known best."""
    sweep: Annotated[tuple[Path, ...], unset("DIR")] = ()
    """A sweep of the same task elsewhere, to compare with; one in DIR is found without this."""
    frames: Count = 0
    """Frames of the run to use, as if it had ended there; 0: all."""
    goals: Annotated[tuple[float, ...], unset("[FLOAT [FLOAT ...]]")] = ()
    """Scores whose costs are wanted; by default those kept with the sweep, or the game's own."""
    horizon: float = HORIZON
    """Episodes over which scores are smoothed before they are compared with a goal."""
    confidence: float = CONFIDENCE
    """Confidence level of the intervals."""
    probe: Annotated[tuple[int, ...], unset("[INT [INT ...]]")] = ()
    """Measure the time of an update on this machine at these numbers of environments, two or more, instead of taking
    it from the runs."""
    probe_seconds: float = 5.0
    """Seconds of each of these measurements."""
    device: str = "auto"
    """Device of the probe: cpu, cuda, or auto: a GPU where there is one."""
    threads: int = 0
    """Threads of the probe, for torch and for the emulator each; 0: every core this process may use."""
    max_envs: int = 0
    """The most environments to name; 0: four times the most that were measured."""
    correct: bool = True
    """Take out the bias of such predictions on other tasks, and widen the intervals by their scatter."""
    table: bool = False
    """Instead: for every task whose B_crit was swept, what one of its runs predicts, before and after the correction by
    the other tasks, and how many swept values lie within a factor of 2 and inside the intervals."""
    json: bool = False
    """Print everything as JSON on stdout."""

    def run(self) -> int:
        at_least(0, frames=self.frames, threads=self.threads, max_envs=self.max_envs, probe_seconds=self.probe_seconds)
        if not 0 < self.confidence < 1:
            raise ConfigError(f"--confidence is {self.confidence}: give a number between 0 and 1, such as 0.95")
        if not self.folders:
            raise ConfigError("name a folder of runs, for instance runs/breakout-a2c")
        if self.table:
            return self._over_tasks()
        from rl_scaling.analysis.advise import choose_run, measured_run, with_kept_weights
        from rl_scaling.analysis.frozen import that_learn
        from rl_scaling.cli.advise_table import advice_as_json, show_advice

        loaded = load_runs(*self.folders, *self.sweep, allow_empty=False)
        runs = that_learn(loaded)
        task = self._task(runs)
        kept = kept_weights(loaded, task)
        runs = runs[runs["task"] == task].reset_index(drop=True)
        goals = self.goals or goals_of_task(task, runs)
        try:
            chosen = choose_run(
                runs,
                goals,
                run_id=self.run_id or measured_run(kept, runs),
                examples=self.frames or math.inf,
                horizon=self.horizon,
            )
            chosen = with_kept_weights(chosen, kept)
            model = self._cost_model(chosen, self._throughput(chosen, runs), self._error(runs))
        except ValueError as error:
            raise ConfigError(str(error)) from error
        found = advice_as_json(chosen, model, runs, horizon=self.horizon)
        if self.json:
            print_json(found)
        else:
            show_advice(found)
        return 0

    def _task(self, runs: pd.DataFrame) -> str:
        """The task of the run that is asked for; of all runs where there is one.

        Raises:
            ConfigError: there are several.
        """
        asked = runs
        if self.run_id:
            asked = runs[runs["run_id"].str.startswith(self.run_id)]
            if asked.empty:
                raise ConfigError(
                    f"no run {self.run_id!r} in {', '.join(map(str, self.folders))}: see rl-scaling status"
                )
        tasks = sorted(asked["task"].unique())
        if len(tasks) > 1:
            raise ConfigError(f"runs of several tasks: name one by --run ({'; '.join(tasks)})")
        return tasks[0]

    def _over_tasks(self) -> int:
        """How far predictions were off."""
        from rl_scaling.analysis.advise import predict_tasks
        from rl_scaling.cli.advise_table import show_tasks, tasks_as_json

        runs, fit = load_and_fit((*self.folders, *self.sweep), self.goals, self.horizon, self.confidence)
        frozen = getattr(fit, "frozen", None)
        known = predict_tasks(runs, fit.fits, frozen=frozen, confidence=self.confidence, horizon=self.horizon)
        if not known:
            raise ConfigError("no task has both a swept B_crit and a run with a noise scale: see rl-scaling fit")
        if self.json:
            print_json(tasks_as_json(known, self.confidence))
        else:
            show_tasks(known, self.confidence)
        return 0

    def _error(self, runs: pd.DataFrame) -> PredictionError | None:
        """How far predictions were off on the shipped tasks, this one left out; None where too few are alike."""
        if not self.correct:
            return None
        from rl_scaling.analysis.predictions import error_for, shipped_tasks

        task, domain, algorithm = (str(runs[name].iloc[0]) for name in ("task", "domain", "algorithm"))
        return error_for(shipped_tasks(), task=task, domain=domain, algorithm=algorithm, confidence=self.confidence)

    def _cost_model(self, chosen: ChosenRun, throughput: Throughput | None, error: PredictionError | None) -> CostModel:
        from rl_scaling.analysis.costs import CostModel

        steps = chosen.run["rollout_steps"]
        return CostModel(
            chosen.path,
            throughput,
            smallest=2 * steps if steps else 1.0,
            largest=self.max_envs * (steps or 1) or None,
            confidence=self.confidence,
            error=error,
        )

    def _throughput(self, chosen: ChosenRun, runs: pd.DataFrame) -> Throughput | None:
        """The line through measured times; None, said aloud, where only one batch size has any."""
        from rl_scaling.analysis.costs import fit_throughput, measured_throughput

        points = self._probed(chosen) if self.probe else measured_throughput(runs)
        try:
            return fit_throughput(points)
        except ValueError as error:
            if self.probe:
                raise
            say(f"no hours: {error}")
            return None

    def _probed(self, chosen: ChosenRun) -> pd.DataFrame:
        from rl_scaling.domains.device import choose_device
        from rl_scaling.domains.rl.config import run_config_from_dict
        from rl_scaling.domains.rl.timing import time_updates
        from rl_scaling.envs import available_cpus
        from rl_scaling.store import list_runs

        if len(set(self.probe)) < 2 or min(self.probe) < 2:
            raise ConfigError("give --probe two different numbers of environments or more, of 2 or more each")
        info = next(info for info in list_runs(*self.folders, *self.sweep) if info.run_id == chosen.run["run_id"])
        return time_updates(
            run_config_from_dict(info.config),
            sorted(set(self.probe)),
            seconds=self.probe_seconds,
            device=choose_device(self.device),
            threads=self.threads or available_cpus(),
            say=say,
        )


def kept_weights(loaded: pd.DataFrame, task: str) -> pd.DataFrame | None:
    """Noise scales of a task that were measured with the weights kept; None where there are none."""
    from rl_scaling import analysis

    measure = getattr(analysis, "frozen_noise_scales", None)
    if measure is None:
        return None
    found = measure(loaded)
    return found[found["task"] == task]
