"""Which trials a sweep makes: grids by A.3, edges extended, a quasi-random search, further seeds at the best rates."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from rl_scaling.analysis import Progress, leading_rates, rate_can_still_win
from rl_scaling.config import RunDescription
from rl_scaling.domains.base import TaskPlan
from rl_scaling.records import SEALED, Record, Status
from rl_scaling.sweeps.plan import SweepPlan, spread
from rl_scaling.sweeps.search import Dimension, remarks, sobol_points
from rl_scaling.sweeps.trial import track, tracker_of, units_of

# A learning rate and, in a search, what else was tuned: what is compared at a batch size.
Setting = tuple[float, str]
_MOST_DRAWN = 3  # points of a search, times those that are wanted
# What a run without goals is judged by at its end, and whether less of it is better.
_FINALS = {"training_loss": 1.0, "validation_loss": 1.0, "validation_accuracy": -1.0}


@dataclass
class Trial:
    """One run of a sweep and how far it has come.

    Attributes:
        config: the run.
        place: number of its task in the plan.
        length: what it takes, in its unit.
        goals: of its task.
        starting: what is to be said of its start; empty once it trains.
        failure: why it could not be run.
        done_here: it ended as it should in this sweep, so that nothing is left to ask of it.
    """

    config: RunDescription
    place: int
    length: int
    goals: tuple[float, ...]
    status: Status | None = None
    starting: str = ""
    failure: str = ""
    done_here: bool = False
    _heard: list[Record] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.identity = self.config.identity
        self.tracker = tracker_of(self.identity, self.goals)

    def hear(self, record: Record) -> None:
        """Take in a row; rows that a resumed run says anew take the place of those heard before."""
        if self._heard and record.updates <= self._heard[-1].updates:
            kept = [old for old in self._heard if old.updates < record.updates]
            self.tracker, self._heard = tracker_of(self.identity, self.goals), []
            for old in kept:
                self.hear(old)
        self._heard.append(record)
        track(self.tracker, record, self.identity)

    @property
    def units(self) -> int:
        """Frames or examples so far."""
        return units_of(self._heard[-1]) if self._heard else 0

    @property
    def units_per_second(self) -> float:
        """In its latest record; NaN before the first."""
        last = self._heard[-1] if self._heard else None
        return getattr(last, f"{self.identity.unit}_per_second", math.nan)

    @property
    def units_left(self) -> int:
        return 0 if self.sealed or self.failure else max(0, self.length - self.units)

    @property
    def progress(self) -> Progress:
        """What early stopping looks at."""
        reached = {goal: where.updates for goal, where in self.tracker.reached.items()}
        over = bool(self.failure) or (self.sealed and not self.ended_short)
        return Progress(self.tracker.updates, reached, ended=over)

    @property
    def setting(self) -> Setting:
        return self.identity.learning_rate, self.identity.setting

    @property
    def sealed(self) -> bool:
        return self.status in SEALED

    @property
    def ended_short(self) -> bool:
        """Whether it was ended, though sound, before its end, with a goal still open that it might reach."""
        short = self.status == "stopped" or (self.status == "done" and self.units < self.length)
        return short and len(self.tracker.reached) < len(set(self.goals))

    @property
    def label(self) -> str:
        i = self.identity
        what = i.setting if i.adaptive else f"batch {i.batch_size:,}"
        tuned = "" if i.adaptive or not i.setting else f", {i.setting}"
        return f"{what}, rate {i.learning_rate:g}{tuned}, seed {i.seed}"

    def final(self, quantity: str) -> float:
        """The last value of a quantity; NaN where it has none, or diverged."""
        known = (getattr(r, quantity, math.nan) for r in reversed(self._heard))
        return next((x for x in known if math.isfinite(x)), math.nan) if self.status != "diverged" else math.nan


class Tuner:
    """Says which runs a plan begins with, which follow from how these went, and which cannot win any more.

    Args:
        plan: the sweep.
        trials: all trials so far, by run id; the sweep adds those that the tuner asks for.
    """

    def __init__(self, plan: SweepPlan, trials: dict[str, Trial]) -> None:
        self.plan, self.trials = plan, trials

    def first(self) -> Iterator[tuple[int, RunDescription]]:
        """(number of the task, run), the cheap small batches of the first seed first, adaptive batches last."""
        for place, task in enumerate(self.plan.tasks):
            yield from ((place, config) for config in task.explicit())
            if task.explicit():
                continue
            if self.plan.search is not None:
                for size in sorted(set(task.batch_sizes)):
                    for point in self._points(task, size, 0, self.plan.search.trials):
                        yield from ((place, config) for config in point)
                continue
            for seed in self.plan.seeds:
                for size, rate in spread(task.learning_rates, task.batch_sizes):
                    yield place, task.config(size, rate, seed)
        for place, task in enumerate(self.plan.tasks):
            for seed in self.plan.seeds:
                yield from ((place, config) for config in task.adaptive_configs(seed))

    def more(self) -> list[tuple[int, RunDescription]]:
        """Runs that follow from trials that have all ended; none where nothing is missing yet or any more."""
        return self._new(self._extensions()) or self._new(self._further_seeds())

    def _new(self, found: Iterator[tuple[int, RunDescription]]) -> list[tuple[int, RunDescription]]:
        return [(place, config) for place, config in found if config.run_id not in self.trials]

    def _extensions(self) -> Iterator[tuple[int, RunDescription]]:
        for place, task, size in self._cells():
            if self.plan.search is not None:
                for point in self._redrawn(place, task, size):
                    yield from ((place, config) for config in point)
                continue
            cell = self._cell(place, size, self.plan.seeds)
            if task.explicit() or not _all_over(cell):
                continue
            tried = [rate for rate, _ in cell]
            beyond = {task.learning_rates.beyond(tried, rate, size) for rate, _ in self._best(place, size)}
            for rate in sorted(rate for rate in beyond if rate is not None):
                yield from ((place, task.config(size, rate, seed)) for seed in self.plan.seeds)

    def _further_seeds(self) -> Iterator[tuple[int, RunDescription]]:
        """The further seeds of the settings that lead.

        Asked again until no setting leads that lacks them: one that falls behind with its further seeds may leave the
        front to another, which has then been judged by its first seeds alone.
        """
        for place, _, size in self._cells():
            if _all_over(self._cell(place, size)):
                for seed in self.plan.best_seeds:
                    for leader in self._best(place, size):
                        trial = self._cell(place, size)[leader][0]
                        yield place, dataclasses.replace(trial.config, seed=seed)

    def _best(self, place: int, size: int) -> list[Setting]:
        """The settings on the front of any goal; where none was reached, the one that came nearest.

        Without goals, those that end with the best of each quantity. Empty where nothing says which is better.
        """
        goals = self.plan.tasks[place].goals
        cell = self._cell(place, size)
        if not goals:
            return _best_finals(cell)
        known = {setting: [t.progress for t in trials if t.sealed] for setting, trials in cell.items()}
        leading = leading_rates(known, goals)
        return leading or _nearest(cell)

    def can_win(self, trial: Trial) -> bool:
        """Whether the trial's setting can still come onto some goal's front; adaptive batches have none.

        No rival is certain against a further seed: it may yet be given further seeds of its own.
        """
        if trial.identity.adaptive:
            return len(trial.tracker.reached) < len(set(trial.goals))
        cell = dict(self._cell(trial.place, trial.identity.batch_size))
        others = [t.progress for t in cell.pop(trial.setting) if t is not trial]
        rivals = [[t.progress for t in rival] for rival in cell.values()] * (trial.identity.seed in self.plan.seeds)
        return rate_can_still_win(trial.progress, others, rivals, trial.goals)

    def remarks(self) -> list[str]:
        """Where a best setting is still at an edge of what was tried, and what to do."""
        said = []
        for place, task, size in self._cells():
            cell = self._cell(place, size)
            for rate, setting in self._best(place, size):
                where = f"{self.plan.label_of(task)}, batch {size:,}"
                if self.plan.search is not None:
                    space = self._space(task, size)
                    point = self._point_of(place, task, size, (rate, setting))
                    said += [f"{where}: {remark}" for remark in (remarks(space, point) if point else ())]
                    continue
                ends = {max(r for r, _ in cell): ("highest", "higher"), min(r for r, _ in cell): ("lowest", "lower")}
                if rate in ends and len(cell) > 1:
                    end, word = ends[rate]
                    said.append(f"{where}: learning rate {rate:g} is the {end} tried: try {word} ones")
        return said

    # --- cells ------------------------------------------------------------------------------------------------------

    def _cells(self) -> Iterator[tuple[int, TaskPlan, int]]:
        for place, task in enumerate(self.plan.tasks):
            yield from ((place, task, size) for size in sorted(set(task.batch_sizes)))

    def _cell(self, place: int, size: int, seeds: Collection[int] | None = None) -> dict[Setting, list[Trial]]:
        """The trials of one fixed batch size by setting, of all seeds or of some."""
        cell: dict[Setting, list[Trial]] = {}
        for trial in self.trials.values():
            i = trial.identity
            counts = trial.place == place and i.batch_size == size and not i.adaptive
            if counts and (seeds is None or i.seed in seeds):
                cell.setdefault(trial.setting, []).append(trial)
        return cell

    # --- search -----------------------------------------------------------------------------------------------------

    def _space(self, task: TaskPlan, size: int) -> list[Dimension]:
        assert self.plan.search is not None
        found = task.search_space(size, self.plan.search.width, self.plan.search.decay)
        return [Dimension(name, low, high) for name, low, high in found]

    def _points(self, task: TaskPlan, size: int, first: int, count: int) -> list[list[RunDescription]]:
        """Points of the sequence, each with every seed."""
        points = sobol_points(self._space(task, size), first, count)
        return [
            [task.config(size, point["learning_rate"], seed, **_others(point)) for seed in self.plan.seeds]
            for point in points
        ]

    def _redrawn(self, place: int, task: TaskPlan, size: int) -> list[list[RunDescription]]:
        """As many more points as diverged, unless most of what is drawn does."""
        assert self.plan.search is not None
        wanted = self.plan.search.trials
        points = self._points(task, size, 0, _MOST_DRAWN * wanted)
        drawn = [point for point in points if all(config.run_id in self.trials for config in point)]
        over = [[self.trials[config.run_id] for config in point] for point in drawn]
        if not all(t.sealed or t.failure for point in over for t in point):
            return []
        lost = sum(any(t.status == "diverged" for t in point) for point in over)
        return points[len(drawn) : len(drawn) + wanted - (len(drawn) - lost)]

    def _point_of(self, place: int, task: TaskPlan, size: int, setting: Setting) -> dict[str, float] | None:
        """The point of the search whose runs have a setting."""
        assert self.plan.search is not None
        for point in sobol_points(self._space(task, size), 0, _MOST_DRAWN * self.plan.search.trials):
            identity = task.config(size, point["learning_rate"], self.plan.seeds[0], **_others(point)).identity
            if (identity.learning_rate, identity.setting) == setting:
                return point
        return None


def _others(point: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in point.items() if name != "learning_rate"}


def _all_over(cell: dict[Setting, list[Trial]]) -> bool:
    return all(trial.sealed or trial.failure for trials in cell.values() for trial in trials)


def _nearest(cell: dict[Setting, list[Trial]]) -> list[Setting]:
    """The setting that came nearest to the goals; none where no setting has a value yet."""
    merit = {setting: _merit(trials) for setting, trials in cell.items()}
    best = max(merit, key=lambda setting: merit[setting], default=None)
    return [] if best is None or math.isinf(merit[best][2]) else [best]


def _merit(trials: Sequence[Trial]) -> tuple[float, float, float]:
    """How good a setting is: goals reached, then how soon the last of them, then the quantity at the end."""
    goals = sum(len(t.tracker.reached) for t in trials) / len(trials)
    lasts = [math.log(max(t.progress.reached.values())) for t in trials if t.tracker.reached]
    sign = 1.0 if trials[0].identity.measure.direction == "max" else -1.0
    values = [sign * t.tracker.smoothed for t in trials if math.isfinite(t.tracker.smoothed)]
    soon = -sum(lasts) / len(lasts) if lasts else -math.inf
    return goals, soon, sum(values) / len(values) if values else -math.inf


def _best_finals(cell: dict[Setting, list[Trial]]) -> list[Setting]:
    best: list[Setting] = []
    for quantity, sign in _FINALS.items():
        costs = {s: sum(sign * t.final(quantity) for t in trials) / len(trials) for s, trials in cell.items()}
        known = {setting: cost for setting, cost in costs.items() if math.isfinite(cost)}
        if known:
            best.append(min(known, key=lambda setting: (known[setting], setting)))
    return sorted(set(best))
