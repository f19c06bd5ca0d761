"""What `rl-scaling sweep` makes of its options in each domain: games, supervised tasks, the noisy quadratic model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import OmitArgPrefixes, arg, subcommand

from rl_scaling.agents.config import Network
from rl_scaling.cli.options import Count, at_least, given, options_of, say, unset
from rl_scaling.cli.sweep import SweepOptions, folders_of
from rl_scaling.cli.train import GameOptions, environment_config, played, suited_agent
from rl_scaling.config import ConfigError
from rl_scaling.domains.base import Precision
from rl_scaling.domains.nqm.config import OptimizerName as ModelOptimizer
from rl_scaling.domains.rl.config import AdaptiveBatchConfig, NoiseScaleConfig, RunConfig
from rl_scaling.domains.rl.registry import ALGORITHMS, find_algorithm
from rl_scaling.domains.rl.task import RLTask, learning_rates_of, scale_of
from rl_scaling.domains.supervised.config import Budget, doubled
from rl_scaling.domains.supervised.problems import OptimizerName, Problem, SupervisedTask, find_problem
from rl_scaling.envs.config import EnvironmentConfig, GymnasiumConfig
from rl_scaling.store import StoreError

if TYPE_CHECKING:
    from rl_scaling.domains.base import Hardware
    from rl_scaling.envs import Game
    from rl_scaling.sweeps.plan import SweepPlan
    from rl_scaling.sweeps.sweep import Sweep as RunningSweep

_AgentOptions = options_of(*map(find_algorithm, ALGORITHMS), leave_out=["network", "learning_rate"])


@dataclass(frozen=True)
class SweepRL(SweepOptions):
    """Games over numbers of environments, learning rates and seeds; the same command resumes."""

    game: Annotated[tuple[str, ...], unset("[STR [STR ...]]")] = ()
    """Games, for instance Pong or minatar/breakout; several have a store each, with their own goals; all: the seven of
    the paper; minatar/all: the five of MinAtar."""
    env_id: Annotated[str | None, unset("STR", aliases=["--env"])] = None
    """Gymnasium environment instead, for instance CartPole-v1, with --goals; module:EnvId imports the module that
    registers it. The network is by default one that takes its observations, mlp where they are no images."""
    scale: Annotated[Literal["smoke", "overnight", "paper"] | None, unset("{smoke,overnight,paper}")] = None
    """Size of the sweep, where other options do not say otherwise: smoke (minutes on two cores), overnight (one
    machine), paper (a GPU node for days). Prints beforehand what it will take."""
    algorithm: str = "a2c"
    """Algorithm: a2c, ppo, ppo-ewma, or one that you registered."""
    num_envs: Annotated[tuple[int, ...] | None, unset("INT [INT ...]")] = None
    """Numbers of environments (default 4 8 16 32 64; scales have their own); a batch is this times --rollout-steps
    (PPO: over --minibatches, unless --scaling is minibatch), in frames."""
    frames: Annotated[Count | None, unset("COUNT")] = None
    """Frames of every trial, as the agent sees them (2e6 is understood, and the default; smoke 12e3, paper 2e7; of
    MinAtar 1e6; smoke 5e4, overnight 2e6, paper 5e6)."""
    reference_rate: Annotated[float | None, unset("FLOAT")] = None
    """A learning rate that works at the algorithm's usual batch (A2C 80 frames, PPO 256), from which A.3 scales the
    grids; the algorithm's default rate unless given."""
    seeds: Annotated[tuple[int, ...] | None, unset("INT [INT ...]")] = None
    """Seeds of every combination, by default 0."""
    best_seeds: Annotated[tuple[int, ...] | None, unset("INT [INT ...]")] = None
    """Further seeds, run only at the learning rates that are best at their batch size once its grid is finished; by
    default none (overnight 1, paper 1 2)."""
    rates: Annotated[int | None, unset("INT")] = None
    """Learning rates per batch size, before extensions; by default 3 (smoke 1)."""
    extensions: Annotated[int | None, unset("INT")] = None
    """Learning rates that may be added on a side where the best one lies on the edge; by default 2 (smoke 0)."""
    network: Annotated[Network | None, unset("{nature,small,minatar,mlp}")] = None
    """Nature CNN (32-64-64, 512), the default, or the smaller one of the A3C paper (16-32, 256; smoke, overnight); of
    MinAtar always its own (16 filters of 3 x 3, 128) unless mlp."""
    precision: Precision = "float32"
    """Arithmetic of the layers in every trial: float32, bfloat16, or auto, bfloat16 where the hardware has it, its
    gradient agrees and it is faster. Kept as provenance, and no part of a run's id."""
    out: Annotated[Path | None, unset("DIR")] = None
    """Folder of the runs, by default runs/<game>-<algorithm>; of several games <game>-<algorithm> below."""
    goals: Annotated[tuple[float, ...], unset("[FLOAT [FLOAT ...]]")] = ()
    """Scores of one game to reach; by default those of the game, see `rl_scaling.envs.games`."""
    agent: OmitArgPrefixes[_AgentOptions] = field(default_factory=_AgentOptions)  # pyright: ignore[reportInvalidTypeForm]
    """Settings of the algorithm; those of another one are refused."""
    played: OmitArgPrefixes[GameOptions] = field(default_factory=GameOptions)  # pyright: ignore[reportInvalidTypeForm]
    """How a game is played; kept with the runs."""
    noise_every_updates: Annotated[int | None, unset("INT")] = None
    """Measure the noise scale at one in N updates (default 20; smoke 1, overnight 4); 0: never."""
    adaptive: Annotated[tuple[float, ...], unset("[FLOAT [FLOAT ...]]")] = ()
    """After the fixed batches, batches that follow the noise scale, B = sqrt(r B_simple), between the smallest and the
    largest of --num-envs: these are r, the price of an update in frames."""
    measure_at: Literal["nowhere", "goals"] = "nowhere"
    """goals: keep the weights of every trial at the first reach of each goal and at its end, and once all are over
    measure the noise scale with the weights kept where the runs of the fronts reached theirs (as `rl-scaling measure
    --front`)."""

    @property
    def hardware(self) -> Hardware:
        """See `SweepOptions.hardware`."""
        return dataclasses.replace(super().hardware, compute_dtype=self.precision)

    @property
    def shows_forecast(self) -> bool:
        """See `SweepOptions.shows_forecast`."""
        return self.scale is not None

    def plans(self) -> Mapping[Path, SweepPlan]:
        """See `SweepOptions.plans`."""
        from rl_scaling.envs import find_games

        if self.env_id is not None:
            return self._gymnasium_plan(self.env_id)
        games = find_games(self.game)
        if not games:
            raise ConfigError("name a game: --game Pong, several, or --game all; or --env-id CartPole-v1")
        if len(games) > 1 and self.goals:
            raise ConfigError("--goals are scores of one game: leave them out for several, which have their own")
        return folders_of(self, {f"{game.folder}-{self._family}": self._game_plan(game) for game in games})

    @property
    def _family(self) -> str:
        """The algorithm, and how it scales where that is not as by default: "ppo-minibatch"."""
        scaling = given(self.agent).get("scaling", "count")
        return self.algorithm if scaling == "count" else f"{self.algorithm.removesuffix('-ewma')}-{scaling}"

    def _game_plan(self, game: Game) -> SweepPlan:
        return self._plan(played(game.environment(), given(self.played)), self.goals or game.goals)

    def _gymnasium_plan(self, env_id: str) -> Mapping[Path, SweepPlan]:
        if self.game:
            raise ConfigError("name games or an environment: leave --game or --env-id out")
        environment = environment_config(None, env_id, GymnasiumConfig.num_envs, given(self.played))
        name = env_id.rpartition(":")[2].replace("/", "-").lower()
        return folders_of(self, {f"{name}-{self._family}": self._plan(environment, self.goals)})

    def _plan(self, environment: EnvironmentConfig, goals: tuple[float, ...]) -> SweepPlan:
        from rl_scaling.sweeps.plan import SweepPlan

        if not goals:
            raise ConfigError(
                f"{environment.name} has no goals of its own: name scores to reach, for instance --goals 100 200"
            )
        scale = scale_of(self.scale, environment)

        def sized(name: str) -> Any:
            """What an option says, else what the scale does."""
            chosen = getattr(self, name)
            return getattr(scale, name) if chosen is None else chosen

        agent = self._agent(sized("network"))
        if self.network is None:
            agent = suited_agent(agent, environment)
        num_envs = agent.num_envs_of_scale[self.scale or "plain"] if self.num_envs is None else self.num_envs
        if not num_envs:
            raise ConfigError("no batch sizes: give for instance --num-envs 4 8 16 32")
        base = RunConfig(
            environment=dataclasses.replace(environment, num_envs=num_envs[0]),
            agent=agent,
            noise_scale=NoiseScaleConfig(every_updates=sized("noise_every_updates")),
            frames=sized("frames"),
            measure_at=self.measure_at,
        )
        task = RLTask(
            base=base,
            batch_sizes=tuple(agent.batch_size(count) for count in num_envs),
            learning_rates=learning_rates_of(
                agent,
                reference_rate=self.reference_rate,
                count=sized("rates"),
                spacing=self.spacing,
                max_extensions=0 if self.learning_rates else sized("extensions"),
                fixed=self.learning_rates,
            ),
            goals=goals,
            adaptive=tuple(_adaptive_between(num_envs, r) for r in self.adaptive),
        )
        seeds, best_seeds = sized("seeds"), sized("best_seeds")
        return SweepPlan(tasks=(task,), seeds=seeds, best_seeds=best_seeds, search=self.sobol)

    def measure(self, sweeps: Sequence[RunningSweep]) -> bool:
        """See `SweepOptions.measure`."""
        if self.measure_at == "nowhere":
            return False
        from rl_scaling.cli.measure import Measure

        folders = tuple(sweep.store.root for sweep in sweeps)
        try:
            return Measure(folders=folders, front=True, device=self.device).measure(show_all=not self.json)
        except StoreError as error:  # the trials are what was asked for first
            say(f"nothing is measured: {error}")
            return False

    def _agent(self, network: Network) -> Any:
        agent: Any = find_algorithm(self.algorithm)()  # pyright: ignore[reportCallIssue]
        options = {"network": network, **given(self.agent)}
        if hasattr(agent, "scaling") and "scaling" in options:  # may make another algorithm of it
            agent = dataclasses.replace(agent, scaling=options.pop("scaling")).as_algorithm
        for option in options:
            owners = [name for name in ALGORITHMS if hasattr(find_algorithm(name), option)]
            if agent.kind not in owners:
                said, owner = option.replace("_", "-"), owners[0]
                raise ConfigError(f"--{said} is for {owner.upper()}: add --algorithm {owner}, or leave it out")
        return dataclasses.replace(agent, **options)


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
    batch_sizes: Annotated[tuple[int, ...] | None, unset("INT [INT ...]")] = None
    """Batch sizes in examples, drawn with replacement; by default the task's (digits: 1 2 4 ... 1024)."""
    budget: Literal["target", "epochs", "steps", "unlimited"] = "target"
    """target: until the lowest of --targets. epochs, steps: the same --epochs or --updates at every batch size, with a
    learning rate that is halved again and again in the second half. unlimited: --epochs and its doublings."""
    targets: Annotated[tuple[float, ...] | None, unset("FLOAT [FLOAT ...]", aliases=["--goals"])] = None
    """Losses to reach at a constant rate, by default the task's (digits: 0.6 0.3 0.2 0.15); a run that has reached the
    lowest stops."""
    quantity: Annotated[
        Literal["validation_loss", "training_loss"] | None, unset("{validation_loss,training_loss}")
    ] = None
    """Data whose loss is meant, by default the task's (digits: validation_loss)."""
    epochs: Annotated[float | None, unset("FLOAT")] = None
    """Passes over the data: the budget; or where a run to a target ends, or after --updates if these are more. By
    default the task's (digits: 20)."""
    updates: Annotated[int | None, unset("INT")] = None
    """Updates: the budget in steps; or the fewest of a run that does not reach its lowest target. By default the task's
    (digits: 600)."""
    doublings: int = 4
    """Doublings of --epochs for an unlimited budget."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds of every combination."""
    rates: int = 8
    """Learning rates per batch size that are tried first, centred by A.3."""
    extensions: int = 2
    """Learning rates that may be added beyond each end on which a best one lies."""
    out: Annotated[Path | None, unset("DIR")] = None
    """Folder of the runs, by default runs/<task>, and runs/<task>-budgets for budgets."""
    noise_every_updates: int = 4
    """Measure the noise scale at one in N updates; 0: never."""

    def plans(self) -> Mapping[Path, SweepPlan]:
        """See `SweepOptions.plans`."""
        from rl_scaling.domains.supervised.data import load_dataset
        from rl_scaling.sweeps.plan import SweepPlan

        problem = find_problem(self.task)
        own = {name: getattr(self, name) for name in ("batch_sizes", "quantity", "epochs", "updates")}
        own["goals"] = self.targets
        problem = dataclasses.replace(problem, **{name: value for name, value in own.items() if value is not None})
        at_least(1, rates=self.rates, updates=problem.updates)
        at_least(0, epochs=problem.epochs, doublings=self.doublings, extensions=self.extensions)
        at_least(0, noise_every_updates=self.noise_every_updates)
        budgets = self._budgets(problem)
        if not (self.optimizers and problem.batch_sizes and self.seeds) or not (budgets or problem.goals):
            raise ConfigError("give at least one of --optimizers, --batch-sizes, --seeds and --targets")
        examples = len(load_dataset(problem.dataset).train)
        tasks = [
            self._task(problem, optimizer, examples, budget)
            for budget in budgets or [None]
            for optimizer in dict.fromkeys(self.optimizers)
        ]
        plan = SweepPlan(
            tasks=tuple(tasks),
            seeds=self.seeds,
            best_seeds=self.best_seeds or (),
            search=self.sobol,
            stop_at_goals=True,
        )
        return folders_of(self, {self.task if not budgets else f"{self.task}-budgets": plan})

    def _task(self, problem: Problem, optimizer: OptimizerName, examples: int, budget: Budget | None) -> SupervisedTask:
        return SupervisedTask(
            base=problem.base(optimizer, noise_every_updates=self.noise_every_updates),
            batch_sizes=problem.batch_sizes,
            learning_rates=problem.learning_rates(
                optimizer,
                count=self.rates,
                spacing=self.spacing,
                max_extensions=self.extensions,
                fixed=self.learning_rates,
            ),
            goals=() if budget else problem.goals,
            examples=examples,
            epochs=problem.epochs,
            updates=problem.updates,
            budget=budget,
        )

    def _budgets(self, problem: Problem) -> list[Budget]:
        if self.budget == "target":
            return []
        if self.budget == "steps":
            return [Budget(problem.updates, "steps")]
        return doubled(Budget(problem.epochs, "epochs"), self.doublings if self.budget == "unlimited" else 0)


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
    rates: int = 5
    """Learning rates per batch size and target, the best one in the middle."""
    out: Annotated[Path, arg(metavar="DIR")] = Path("runs/nqm")
    """Folder of the runs."""

    def plans(self) -> Mapping[Path, SweepPlan]:
        """See `SweepOptions.plans`."""
        from rl_scaling.domains.nqm.domain import tuned_task
        from rl_scaling.sweeps.plan import SweepPlan

        if not (self.optimizers and self.batch_sizes and self.targets) or self.rates < 1:
            raise ConfigError("give at least one of --optimizers, --batch-sizes, --targets and --rates")
        for name in ("seeds", "best_seeds", "learning_rates", "spacing", "extensions", "search", "stop_early"):
            if getattr(self, name) != getattr(SweepOptions, name):
                option = name.replace("_", "-")
                raise ConfigError(f"--{option} is for runs that train: the model is exact, leave it out")
        tasks = [
            tuned_task(name, power=self.power, batch_sizes=self.batch_sizes, targets=self.targets, rates=self.rates)
            for name in dict.fromkeys(self.optimizers)
        ]
        return folders_of(self, {"nqm": SweepPlan(tasks=tuple(tasks))})


@dataclass(frozen=True)
class Sweep:
    """Train over batch sizes, learning rates and seeds; the same command resumes where it stopped."""

    domain: (
        Annotated[SweepRL, subcommand("atari")]
        | Annotated[SweepRL, subcommand("rl")]
        | Annotated[SweepSupervised, subcommand("supervised")]
        | Annotated[SweepNQM, subcommand("nqm")]
    )

    def run(self) -> int:
        return self.domain.run()
