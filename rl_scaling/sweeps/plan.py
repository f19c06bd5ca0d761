"""What a sweep runs, as data: tasks over batch sizes, learning rates and seeds; kept in the store as `sweep.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rl_scaling.config import Config, ConfigError, LearningRates, one_of_kinds, parse, require, to_dict
from rl_scaling.domains import find_task_plan
from rl_scaling.domains.base import TaskPlan
from rl_scaling.store import Store, StoreError
from rl_scaling.store.files import label_of_plan

one_of_kinds(TaskPlan, find_task_plan)


@dataclass(frozen=True, kw_only=True)
class Search(Config):
    """Points of a Sobol sequence in place of a grid of learning rates (Zhang et al. 2019, section 4).

    Attributes:
        trials: points of each task and batch size that do not diverge, with any seed.
        width: upper over lower bound of the learning rate, around the centre that the grid would have.
        decay: search a decay of the learning rate as well.
    """

    trials: int = 32
    width: float = 64.0
    decay: bool = False

    def check(self) -> None:
        """See `Config.check`."""
        good = self.trials >= 1 and 1 < self.width < math.inf
        require(good, f"{self.trials} trials, width {self.width:g}: give 1 or more, and a width above 1")


@dataclass(frozen=True, kw_only=True)
class SweepPlan(Config):
    """Tasks of one domain, each over batch sizes, learning rates and seeds.

    Attributes:
        tasks: what is trained; each has its own grids and goals.
        seeds: seeds of every combination.
        best_seeds: further seeds, at the learning rates alone that turn out best at their batch size.
        search: a quasi-random search in place of the grids.
        stop_at_goals: a run that has reached every goal of its task stops.
    """

    tasks: tuple[TaskPlan, ...]
    seeds: tuple[int, ...] = (0,)
    best_seeds: tuple[int, ...] = ()
    search: Search | None = None
    stop_at_goals: bool = False

    def check(self) -> None:
        """See `Config.check`."""
        require(len(self.tasks) > 0 and len(self.seeds) > 0, "a sweep needs at least one task and one seed")
        for seed in (*self.seeds, *self.best_seeds):
            require(seed >= 0, f"seed is {seed}: give 0 or more")
        for task in self.tasks:
            for goal in task.goals:
                require(math.isfinite(goal), f"goal {goal} is no number to reach: give finite numbers")
            require(self.search is None or len(task.goals) > 0, "a search is for goals: give some, or leave it out")

    @property
    def domain(self) -> str:
        """The domain of all tasks."""
        return self.tasks[0].kind

    @property
    def goals(self) -> dict[str, tuple[float, ...]]:
        """The goals of every task, by its label."""
        return {self.label_of(task): task.goals for task in self.tasks}

    def label_of(self, task: TaskPlan) -> str:
        """The label of a task's runs: a search may tune what is part of it, such as a decay of the rate."""
        if self.search is None or task.explicit():
            return task.task
        size = task.batch_sizes[0]
        point = {name: low for name, low, _ in task.search_space(size, self.search.width, self.search.decay)}
        return task.config(size, point.pop("learning_rate"), self.seeds[0], **point).task


def save_plan(store: Store, plan: SweepPlan) -> dict[str, tuple[float, ...]]:
    """Keep a plan in its store, and the goals of its tasks beside those kept before; all goals by task.

    Raises:
        StoreError: the folder cannot be written to, or holds a damaged plan.
    """
    kept = kept_goals(store)
    goals = {task: tuple(sorted({*kept.get(task, ()), *plan.goals.get(task, ())})) for task in {**kept, **plan.goals}}
    store.save_plan({"goals_by_task": goals, "sweep": to_dict(plan)})
    return goals


def kept_goals(store: Store) -> dict[str, tuple[float, ...]]:
    """The goals of every task whose sweep a store keeps, whatever its domain.

    Raises:
        StoreError: the file is damaged, or of another version.
    """
    plain = store.load_plan()
    if plain is None:
        return {}
    if "goals_by_task" in plain:
        with _naming(store):
            goals = parse(dict[str, tuple[float, ...]], plain["goals_by_task"], "sweep's goals")
        return {label_of_plan(task): tuple(numbers) for task, numbers in goals.items()}
    plan = read_plan(store)
    return plan.goals if plan else {}


def read_plan(store: Store) -> SweepPlan | None:
    """The plan that was kept last; None if there is none, or goals alone.

    Raises:
        StoreError: the file is damaged, or of another version.
    """
    plain = store.load_plan()
    with _naming(store):
        if plain is None or plain.keys() == {"goals_by_task"}:
            return None
        return parse(SweepPlan, plain["sweep"] if "sweep" in plain else _of_schema_2(plain), "sweep's plan")


class _naming:
    """Messages about a plan name its file and say what to do."""

    def __init__(self, store: Store) -> None:
        self._path = store.root / "sweep.json"

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, ConfigError | KeyError | TypeError | ValueError | AttributeError):
            what = f"no field {error}" if isinstance(error, KeyError) else error
            raise StoreError(f"{self._path}: {what}; move it away to continue without it") from error


def _of_schema_2(plain: Mapping[str, Any]) -> dict[str, Any]:
    """A plan of reinforcement learning as earlier versions kept it."""
    from rl_scaling.domains.rl.config import AlgorithmConfig

    agent = parse(AlgorithmConfig, plain["base"]["agent"], "sweep's agent")
    task = {
        "kind": "rl",
        "base": plain["base"],
        "batch_sizes": [agent.batch_size(num_envs) for num_envs in plain["num_envs"]],
        "learning_rates": plain["learning_rates"],
        "goals": plain["goals"],
        "adaptive": plain.get("adaptive", []),
    }
    return {"tasks": [task], "seeds": plain["seeds"], "best_seeds": plain.get("best_seeds", [])}


def spread(rates: LearningRates, sizes: Sequence[int]) -> list[tuple[int, float]]:
    """Every batch size with every rate of its grid, small batches first."""
    return [(size, rate) for size in sorted(set(sizes)) for rate in rates.grid(size)]
