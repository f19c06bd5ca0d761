"""`rl-scaling sweep atari`: games over numbers of environments, learning rates and seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import OmitArgPrefixes, arg

from rl_scaling.agents.config import A2CConfig, AlgorithmConfig, PPOConfig
from rl_scaling.cli.adaptive import adaptive_between
from rl_scaling.cli.environments import environment_config
from rl_scaling.cli.forecast import forecast_as_json, show_forecast
from rl_scaling.cli.options import Count, at_least, print_json
from rl_scaling.cli.sweep import report_outcome, run_sweeps
from rl_scaling.config import ConfigError
from rl_scaling.domains.rl.config import NoiseScaleConfig, RunConfig
from rl_scaling.envs.config import AtariSettings
from rl_scaling.store import Store
from rl_scaling.sweeps.plan import LearningRates, SweepPlan
from rl_scaling.sweeps.scales import PLAIN, SCALES, Algorithm, ScaleName

if TYPE_CHECKING:
    from rl_scaling.envs import Game

# A learning rate known to work, and the batch size in frames at which it does (the Stable-Baselines3 zoo's).
_REFERENCES: dict[Algorithm, tuple[float, int]] = {
    "a2c": (LearningRates.reference_rate, LearningRates.reference_batch),
    "ppo": (2.5e-4, 256),
}


@dataclass(frozen=True)
class SweepAtari:
    """A2C or PPO on games over numbers of environments, learning rates and seeds; the same command goes on."""

    game: tuple[str, ...]
    """Atari games, for instance Pong; several have a store each, with their own goals; all: the seven of the paper."""
    scale: ScaleName | None = None
    """Size of the sweep, where other options do not say otherwise: smoke (minutes on two cores), overnight (one
    machine), paper (a GPU node for days). Prints beforehand what it will take."""
    dry_run: bool = False
    """Print what the sweep will take, from a throughput measured now, and start nothing."""
    algorithm: Algorithm = "a2c"
    """Advantage actor-critic, or proximal policy optimisation."""
    num_envs: tuple[int, ...] | None = None
    """Numbers of environments, by default 4 8 16 32 64 (scales have their own); a batch is this times --rollout-steps
    (PPO: over --minibatches), in frames."""
    frames: Count | None = None
    """Frames of every trial, as the agent sees them (2e6 is understood, and the default; smoke 12e3, paper 2e7)."""
    seeds: tuple[int, ...] | None = None
    """Seeds of every combination, by default 0."""
    best_seeds: tuple[int, ...] | None = None
    """Further seeds, run only at the learning rates that are best at their batch size once its grid is finished; by
    default none (overnight 1, paper 1 2)."""
    learning_rates: tuple[float, ...] = ()
    """Just these learning rates for every batch size, instead of a grid centred by A.3 and its extensions."""
    reference_rate: float | None = None
    """A learning rate that works at a batch of 80 frames (PPO: 256), from which A.3 scales the grids; by default 7e-4
    (PPO: 2.5e-4)."""
    rates: int | None = None
    """Learning rates per batch size, before extensions; by default 3 (smoke 1)."""
    spacing: float = LearningRates.spacing
    """Ratio of neighbouring learning rates."""
    extensions: int | None = None
    """Learning rates that may be added on a side where the best one lies on the edge; by default 2 (smoke 0)."""
    goals: tuple[float, ...] = ()
    """Scores of one game to reach; by default those of the game, see `rl_scaling.envs.games`."""
    network: Literal["nature", "small"] | None = None
    """Nature CNN (32-64-64, 512), the default, or the smaller one of the A3C paper (16-32, 256; smoke, overnight)."""
    rollout_steps: int | None = None
    """Steps of every environment per rollout; by default 5 (PPO: 128)."""
    learning_rate_schedule: Literal["constant", "linear"] = A2CConfig.learning_rate_schedule
    """Learning rate over a run: constant, or linear down to 0."""
    rmsprop_epsilon_inside_root: bool = A2CConfig.rmsprop_epsilon_inside_root
    """A2C: TensorFlow's RMSProp, which starts slowly, or torch's, which takes larger steps at the same rate."""
    minibatches: int | None = None
    """PPO: parts that a rollout is dealt into, one update each; by default 4."""
    minibatch_of: Literal["frames", "environments"] | None = None
    """PPO: shuffle frames, the default, or keep those of an environment together."""
    epochs: int | None = None
    """PPO: how often every frame is used; by default 4."""
    clip_range_schedule: Literal["constant", "linear"] | None = None
    """PPO: clip range over a run: constant, the default, or linear down to 0."""
    played: OmitArgPrefixes[AtariSettings] = field(default_factory=AtariSettings)
    noise_every_updates: int | None = None
    """Measure the noise scale at one update in this many, by default 20 (smoke 1, overnight 4); 0: never."""
    adaptive: tuple[float, ...] = ()
    """After the fixed batches, batches that follow the noise scale, B = sqrt(r B_simple), between the smallest and the
    largest of --num-envs: these are r, the price of an update in frames."""
    stop_early: bool = False
    """End trials that can no longer be the first to reach any goal; says what that saved."""
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """Store the runs here, by default in runs/<game>-<algorithm>; of several games in <game>-<algorithm> below."""
    workers: int = 0
    """Trials side by side, one thread each; 0: one per core this process may use."""
    device: str = "auto"
    """cpu, cuda, or auto: a GPU where there is one."""
    minutes: float = math.inf
    """Stop after this time; running trials save themselves and the same command goes on."""
    json: bool = False
    """Print a summary of the trials (--dry-run: what they will take) as JSON on stdout."""

    def plans(self) -> dict[Path, SweepPlan]:
        """The sweep of each game by the folder of its store.

        Raises:
            ConfigError: the options describe none.
        """
        from rl_scaling.envs import GAMES, find_game

        names = list(GAMES) if self.game == ("all",) else self.game
        games = list({(game := find_game(name)).name: game for name in names}.values())
        if not games:
            raise ConfigError("name a game: --game Pong, several, or --game all")
        if len(games) > 1 and self.goals:
            raise ConfigError("--goals are scores of one game: leave them out for several, which have their own")
        plans = [self._plan(game) for game in games]
        if len(plans) == 1 and self.out:
            return {self.out: plans[0]}
        root = self.out or Path("runs")
        return {root / f"{plan.base.environment.name.lower()}-{self.algorithm}": plan for plan in plans}

    def _plan(self, game: Game) -> SweepPlan:
        goals = self.goals or game.goals
        if not goals:
            raise ConfigError(
                f"{game.name} has no goals of its own: name scores to reach, for instance --goals 100 200"
            )
        num_envs = self._sized("num_envs")
        if not num_envs:
            raise ConfigError("no batch sizes: give for instance --num-envs 4 8 16 32")
        rate, batch = _REFERENCES[self.algorithm]
        return SweepPlan(
            base=RunConfig(
                environment=environment_config(game.name, None, num_envs[0], self.played),
                agent=self._agent(),
                noise_scale=NoiseScaleConfig(every_updates=self._sized("noise_every_updates")),
                frames=self._sized("frames"),
            ),
            num_envs=num_envs,
            seeds=self._sized("seeds"),
            best_seeds=self._sized("best_seeds"),
            learning_rates=LearningRates(
                reference_rate=rate if self.reference_rate is None else self.reference_rate,
                reference_batch=batch,
                count=self._sized("rates"),
                spacing=self.spacing,
                max_extensions=0 if self.learning_rates else self._sized("extensions"),
                fixed=self.learning_rates,
            ),
            goals=goals,
            adaptive=tuple(adaptive_between(num_envs, r) for r in self.adaptive),
        )

    def _sized(self, name: str) -> Any:
        """What an option says, else what the scale does."""
        given = getattr(self, name)
        if given is not None:
            return given
        scale = SCALES[self.scale] if self.scale else PLAIN
        return scale.num_envs[self.algorithm] if name == "num_envs" else getattr(scale, name)

    def _agent(self) -> AlgorithmConfig:
        shared: dict[str, Any] = {
            "network": self._sized("network"),
            "learning_rate_schedule": self.learning_rate_schedule,
        }
        if self.rollout_steps is not None:
            shared["rollout_steps"] = self.rollout_steps
        names = ("minibatches", "minibatch_of", "epochs", "clip_range_schedule")
        of_ppo = {name: value for name in names if (value := getattr(self, name)) is not None}
        if self.algorithm == "ppo":
            if not self.rmsprop_epsilon_inside_root:
                raise ConfigError("--no-rmsprop-epsilon-inside-root is for A2C: PPO runs with Adam, leave it out")
            return PPOConfig(**shared, **of_ppo)
        if of_ppo:
            option = next(iter(of_ppo)).replace("_", "-")
            raise ConfigError(f"--{option} is for PPO: add --algorithm ppo, or leave it out")
        return A2CConfig(**shared, rmsprop_epsilon_inside_root=self.rmsprop_epsilon_inside_root)

    def run(self) -> int:
        from rl_scaling.envs import available_cpus

        plans = self.plans()
        at_least(0, workers=self.workers, minutes=self.minutes)
        workers = self.workers or available_cpus()
        for plan in plans.values():
            plan.trials()  # what cannot be run is refused before anything is measured
        if self.scale or self.dry_run:
            found = forecast_as_json(plans, workers=workers, device=self.device)
            if self.dry_run and self.json:
                print_json(found)
            else:
                show_forecast(found)
            if self.dry_run:
                return 0
        sweeps = run_sweeps(
            [(plan, Store(folder)) for folder, plan in plans.items()],
            workers=workers,
            stop_early=self.stop_early,
            device=self.device,
            deadline_seconds=60 * self.minutes,
        )
        if self.json:
            print_json([row for sweep in sweeps for row in sweep.summary()])
        return report_outcome(sweeps)
