"""What `rl-scaling sweep` makes of its options in each domain: games, supervised tasks, the noisy quadratic model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import OmitArgPrefixes, arg

from rl_scaling.cli.options import Count, changed, given, options_of
from rl_scaling.cli.sweep import SweepOptions, folders_of
from rl_scaling.config import ConfigError
from rl_scaling.domains.nqm.config import OptimizerName as ModelOptimizer
from rl_scaling.domains.rl.config import AdaptiveBatchConfig, NoiseScaleConfig, RunConfig
from rl_scaling.domains.rl.registry import ALGORITHMS, find_algorithm
from rl_scaling.domains.rl.task import SCALES, RLTask, learning_rates_of
from rl_scaling.domains.supervised.config import Budget, doubled
from rl_scaling.domains.supervised.problems import OptimizerName, find_problem
from rl_scaling.domains.supervised.tasks import SupervisedTask
from rl_scaling.envs.config import AtariConfig

if TYPE_CHECKING:
    from rl_scaling.envs import Game
    from rl_scaling.sweeps.plan import SweepPlan

_AgentOptions = options_of(*map(find_algorithm, ALGORITHMS), leave_out=["learning_rate"])
_AtariOptions = options_of(AtariConfig, leave_out=["game", "num_envs"], only="Atari")


@dataclass(frozen=True)
class SweepRL(SweepOptions):
    """Games over numbers of environments, learning rates and seeds; the same command resumes."""

    game: Annotated[tuple[str, ...], arg(name="game")] = ()
    """Atari games, for instance Pong; several have a store each, with their own goals; all: the seven of the paper."""
    scale: Literal["smoke", "overnight", "paper"] | None = None
    """Size of the sweep, where other options do not say otherwise: smoke (minutes on two cores), overnight (one
    machine), paper (a GPU node for days). Prints beforehand what it will take."""
    algorithm: str = "a2c"
    """Algorithm: a2c, ppo, or one that you registered."""
    num_envs: tuple[int, ...] | None = None
    """Numbers of environments (default 4 8 16 32 64; scales have their own); a batch is this times --rollout-steps
    (PPO: over --minibatches), in frames."""
    frames: Count | None = None
    """Frames of every trial, as the agent sees them (2e6 is understood, and the default; smoke 12e3, paper 2e7)."""
    reference_rate: float | None = None
    """A learning rate that works at the algorithm's usual batch (A2C 80 frames, PPO 256), from which A.3 scales the
    grids; the algorithm's default rate unless given."""
    goals: tuple[float, ...] = ()
    """Scores of one game to reach; by default those of the game, see `rl_scaling.envs.games`."""
    agent: OmitArgPrefixes[_AgentOptions] = field(default_factory=_AgentOptions)  # pyright: ignore[reportInvalidTypeForm]
    """Settings of the algorithm; those of another one are refused."""
    played: OmitArgPrefixes[_AtariOptions] = field(default_factory=_AtariOptions)  # pyright: ignore[reportInvalidTypeForm]
    """How a game is played; kept with the runs."""
    noise_every_updates: int | None = None
    """Measure the noise scale at one in N updates (default 20; smoke 1, overnight 4); 0: never."""
    adaptive: tuple[float, ...] = ()
    """After the fixed batches, batches that follow the noise scale, B = sqrt(r B_simple), between the smallest and the
    largest of --num-envs: these are r, the price of an update in frames."""

    @property
    def shows_forecast(self) -> bool:
        """See `SweepOptions.shows_forecast`."""
        return self.scale is not None

    def plans(self) -> Mapping[Path, SweepPlan]:
        """See `SweepOptions.plans`."""
        from rl_scaling.envs import GAMES, find_game

        names = list(GAMES) if self.game == ("all",) else self.game
        games = list({(game := find_game(name)).name: game for name in names}.values())
        if not games:
            raise ConfigError("name a game: --game Pong, several, or --game all")
        if len(games) > 1 and self.goals:
            raise ConfigError("--goals are scores of one game: leave them out for several, which have their own")
        return folders_of(self, {f"{game.name.lower()}-{self.algorithm}": self._plan(game) for game in games})

    def _plan(self, game: Game) -> SweepPlan:
        from rl_scaling.sweeps.plan import SweepPlan

        goals = self.goals or game.goals
        if not goals:
            raise ConfigError(
                f"{game.name} has no goals of its own: name scores to reach, for instance --goals 100 200"
            )
        agent, num_envs = self._agent(), self.num_envs
        if num_envs is None:
            num_envs = agent.num_envs_of_scale[self.scale or "plain"]
        if not num_envs:
            raise ConfigError("no batch sizes: give for instance --num-envs 4 8 16 32")
        played = AtariConfig(game=game.name, num_envs=num_envs[0], **given(self.played))
        base = RunConfig(
            environment=played,
            agent=agent,
            noise_scale=NoiseScaleConfig(every_updates=self._sized("noise_every_updates")),
            frames=self._sized("frames"),
        )
        task = RLTask(
            base=base,
            batch_sizes=tuple(agent.batch_size(count) for count in num_envs),
            learning_rates=learning_rates_of(
                agent,
                reference_rate=self.reference_rate,
                count=self._sized("rates"),
                spacing=self.spacing,
                max_extensions=0 if self.learning_rates else self._sized("extensions"),
                fixed=self.learning_rates,
            ),
            goals=goals,
            adaptive=tuple(_adaptive_between(num_envs, r) for r in self.adaptive),
        )
        seeds, best_seeds = self._sized("seeds"), self._sized("best_seeds")
        return SweepPlan(tasks=(task,), seeds=seeds, best_seeds=best_seeds, search=self.sobol)

    def _sized(self, name: str) -> Any:
        """What an option says, else what the scale does."""
        chosen = getattr(self, name)
        return getattr(SCALES[self.scale or "plain"], name) if chosen is None else chosen

    def _agent(self) -> Any:
        agent = find_algorithm(self.algorithm)()  # pyright: ignore[reportCallIssue]
        options = {"network": SCALES[self.scale or "plain"].network, **given(self.agent)}
        others = next((name for name in ALGORITHMS if name != self.algorithm), "")
        return changed(
            agent, options, f"{{option}} is not for {self.algorithm}: leave it out, or add --algorithm {others}"
        )


def _adaptive_between(num_envs: tuple[int, ...], exchange_rate: float) -> AdaptiveBatchConfig:
    """An adaptive batch with the bounds of a sweep, in the largest groups that make all its numbers of environments.

    >>> adaptive = _adaptive_between((8, 24, 64), 300)
    >>> adaptive.min_envs, adaptive.max_envs, adaptive.group_envs
    (8, 64, 8)
    """
    return AdaptiveBatchConfig(
        exchange_rate=exchange_rate, min_envs=min(num_envs), max_envs=max(num_envs), group_envs=math.gcd(*num_envs)
    )


@dataclass(frozen=True)
class SweepSupervised(SweepOptions):
    """Steps to a loss, or what a budget buys; runs of a batch size train together, and what is done is kept."""

    task: str = "digits-mlp"
    """Data set and model: digits-mlp, an MLP of 64-64 units; digits-cnn, a convolutional network of 8-16 channels and
    64 units; or one that you added (docs/how-to/add-a-task.md)."""
    optimizers: tuple[OptimizerName, ...] = ("sgd", "momentum", "adam", "rmsprop", "sgd+ema")
    """Optimisers; each is a task of its own."""
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
    """Batch sizes in examples, drawn with replacement."""
    budget: Literal["target", "epochs", "steps", "unlimited"] = "target"
    """target: until the lowest of --targets. epochs, steps: the same --epochs or --updates at every batch size, with a
    learning rate that is halved again and again in the second half. unlimited: --epochs and its doublings."""
    targets: Annotated[tuple[float, ...], arg(aliases=["--goals"])] = (0.6, 0.3, 0.2, 0.15)
    """Losses to reach at a constant rate; a run that has reached the lowest stops."""
    quantity: Literal["validation_loss", "training_loss"] = "validation_loss"
    """Data whose loss is meant."""
    epochs: float = 20
    """Passes over the data: the budget; or where a run to a target ends, or after --updates if these are more."""
    updates: int = 600
    """Updates: the budget in steps; or the fewest of a run that does not reach its lowest target."""
    doublings: int = 4
    """Doublings of --epochs for an unlimited budget."""
    noise_every_updates: int = 4
    """Measure the noise scale at one in N updates; 0: never."""

    def plans(self) -> Mapping[Path, SweepPlan]:
        """See `SweepOptions.plans`."""
        from rl_scaling.domains.supervised.data import load_dataset
        from rl_scaling.sweeps.plan import SweepPlan

        budgets = self._budgets()
        if not (self.optimizers and self.batch_sizes) or not (budgets or self.targets):
            raise ConfigError("give at least one of --optimizers, --batch-sizes, --seeds and --targets")
        examples = len(load_dataset(find_problem(self.task).dataset).train)
        tasks = [
            self._task(optimizer, examples, budget)
            for budget in budgets or [None]
            for optimizer in dict.fromkeys(self.optimizers)
        ]
        plan = SweepPlan(
            tasks=tuple(tasks),
            seeds=(0, 1) if self.seeds is None else self.seeds,
            best_seeds=self.best_seeds or (),
            search=self.sobol,
            stop_at_goals=True,
        )
        return folders_of(self, {self.task if not budgets else f"{self.task}-budgets": plan})

    def _task(self, optimizer: OptimizerName, examples: int, budget: Budget | None) -> SupervisedTask:
        problem = find_problem(self.task)
        return SupervisedTask(
            base=problem.base(optimizer, quantity=self.quantity, noise_every_updates=self.noise_every_updates),
            batch_sizes=self.batch_sizes,
            learning_rates=problem.learning_rates(
                optimizer,
                count=8 if self.rates is None else self.rates,
                spacing=self.spacing,
                max_extensions=2 if self.extensions is None else self.extensions,
                fixed=self.learning_rates,
            ),
            goals=() if budget else self.targets,
            examples=examples,
            epochs=self.epochs,
            updates=self.updates,
            budget=budget,
        )

    def _budgets(self) -> list[Budget]:
        if self.budget == "target":
            return []
        if self.budget == "steps":
            return [Budget(self.updates, "steps")]
        return doubled(Budget(self.epochs, "epochs"), self.doublings if self.budget == "unlimited" else 0)


@dataclass(frozen=True)
class SweepNQM(SweepOptions):
    """Exact runs of the noisy quadratic model over batch sizes and learning rates, tuned around the optimum."""

    optimizers: tuple[ModelOptimizer, ...] = ("sgd", "momentum", "ema")
    """Optimisers; each is a task of its own."""
    power: float = 0.0
    """p of the preconditioner H^-p, from 0 to 1."""
    batch_sizes: tuple[int, ...] = tuple(4**i for i in range(1, 10))
    """Batch sizes in examples."""
    targets: Annotated[tuple[float, ...], arg(aliases=["--goals"])] = (0.1, 0.03, 0.01)
    """Risks to reach; learning rates are tuned for each."""

    def plans(self) -> Mapping[Path, SweepPlan]:
        """See `SweepOptions.plans`."""
        from rl_scaling.domains.nqm.domain import tuned_task
        from rl_scaling.sweeps.plan import SweepPlan

        if not (self.optimizers and self.batch_sizes and self.targets):
            raise ConfigError("give at least one of --optimizers, --batch-sizes, --targets and --rates")
        rates = 5 if self.rates is None else self.rates
        if self.learning_rates or self.best_seeds or self.search != "grid":
            raise ConfigError("rates of the model are tuned around its optimum: leave rates, seeds and search out")
        tasks = [
            tuned_task(name, power=self.power, batch_sizes=self.batch_sizes, targets=self.targets, rates=rates)
            for name in dict.fromkeys(self.optimizers)
        ]
        return folders_of(self, {"nqm": SweepPlan(tasks=tuple(tasks), seeds=self.seeds or (0,))})
