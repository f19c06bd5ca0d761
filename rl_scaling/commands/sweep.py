"""`rl-scaling sweep`: many runs over batch sizes, learning rates and seeds, resumed when called again."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

from rl_scaling.commands.adaptive import adaptive_between
from rl_scaling.commands.environments import environment_config
from rl_scaling.commands.interrupt import Interruptible
from rl_scaling.commands.options import Count, at_least, print_json, say
from rl_scaling.config import A2CConfig, AgentConfig, ConfigError, NoiseScaleConfig, PPOConfig, RunConfig
from rl_scaling.store import Store
from rl_scaling.sweeps.plan import LearningRates, SweepPlan, kept_goals

if TYPE_CHECKING:
    from rl_scaling.sweeps.sweep import Sweep

# A learning rate known to work, and the batch size in frames at which it does (the Stable-Baselines3 zoo's).
_REFERENCES = {"a2c": (LearningRates.reference_rate, LearningRates.reference_batch), "ppo": (2.5e-4, 256)}


@dataclass(frozen=True)
class SweepAtari:
    """A2C or PPO on one game over numbers of environments, learning rates and seeds; the same command goes on."""

    game: str
    """Atari game, for instance Pong."""
    algorithm: Literal["a2c", "ppo"] = "a2c"
    """Advantage actor-critic, or proximal policy optimisation."""
    num_envs: tuple[int, ...] = (4, 8, 16, 32, 64)
    """Numbers of environments; a batch is this times --rollout-steps (PPO: over --minibatches), in frames."""
    frames: Count = 2_000_000
    """Frames of every trial, as the agent sees them (2e6 is understood)."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of every combination."""
    best_seeds: tuple[int, ...] = ()
    """Further seeds, run only at the learning rates that are best at their batch size once its grid is finished."""
    learning_rates: tuple[float, ...] = ()
    """Just these learning rates for every batch size, instead of a grid centred by A.3 and its extensions."""
    reference_rate: float | None = None
    """A learning rate that works at a batch of 80 frames (PPO: 256), from which A.3 scales the grids; by default 7e-4
    (PPO: 2.5e-4)."""
    rates: int = LearningRates.count
    """Learning rates per batch size, before extensions."""
    spacing: float = LearningRates.spacing
    """Ratio of neighbouring learning rates."""
    extensions: int = LearningRates.max_extensions
    """Learning rates that may be added on a side where the best one lies on the edge."""
    goals: tuple[float, ...] = ()
    """Scores to reach; by default those of the game, see `rl_scaling.envs.games`."""
    network: Literal["nature", "small"] = "nature"
    """Nature CNN (32-64-64, 512) or the smaller one of the A3C paper (16-32, 256)."""
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
    frame_skip: int = 4
    """Emulator frames per agent step."""
    sticky_action_probability: float = 0.0
    """Chance that the emulator repeats the previous action."""
    noise_every_updates: int = NoiseScaleConfig.every_updates
    """Measure the noise scale at one update in this many; 0: never."""
    adaptive: tuple[float, ...] = ()
    """After the fixed batches, batches that follow the noise scale, B = sqrt(r B_simple), between the smallest and the
    largest of --num-envs: these are r, the price of an update in frames."""
    stop_early: bool = False
    """End trials that can no longer be the first to reach any goal; says what that saved."""
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """Store the runs here; by default runs/<game>-<algorithm>."""
    workers: int = 0
    """Trials side by side, one thread each; 0: one per core this process may use."""
    device: str = "auto"
    """cpu, cuda, or auto: a GPU where there is one."""
    minutes: float = math.inf
    """Stop after this time; running trials save themselves and the same command goes on."""
    json: bool = False
    """Print a summary of the trials as JSON on stdout."""

    def plan(self) -> SweepPlan:
        """The sweep these options describe.

        Raises:
            ConfigError: they describe none.
        """
        from rl_scaling.envs import find_game

        game = find_game(self.game)
        goals = self.goals or game.goals
        if not goals:
            raise ConfigError(
                f"{game.name} has no goals of its own: name scores to reach, for instance --goals 100 200"
            )
        if not self.num_envs:
            raise ConfigError("no batch sizes: give for instance --num-envs 4 8 16 32")
        environment = environment_config(
            self.game,
            None,
            self.num_envs[0],
            frame_skip=self.frame_skip,
            sticky_action_probability=self.sticky_action_probability,
        )
        agent = self._agent()
        rate, batch = _REFERENCES[self.algorithm]
        noise = NoiseScaleConfig(every_updates=self.noise_every_updates)
        return SweepPlan(
            base=RunConfig(environment=environment, agent=agent, noise_scale=noise, frames=self.frames),
            num_envs=self.num_envs,
            seeds=self.seeds,
            best_seeds=self.best_seeds,
            learning_rates=LearningRates(
                reference_rate=rate if self.reference_rate is None else self.reference_rate,
                reference_batch=batch,
                count=self.rates,
                spacing=self.spacing,
                max_extensions=0 if self.learning_rates else self.extensions,
                fixed=self.learning_rates,
            ),
            goals=goals,
            adaptive=tuple(adaptive_between(self.num_envs, r) for r in self.adaptive),
        )

    def _agent(self) -> AgentConfig:
        shared: dict[str, Any] = {"network": self.network, "learning_rate_schedule": self.learning_rate_schedule}
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

        plan = self.plan()
        at_least(0, workers=self.workers, minutes=self.minutes)
        store = Store(self.out or Path("runs") / f"{plan.base.environment.name.lower()}-{self.algorithm}")
        sweep = run_sweep(
            plan,
            store,
            workers=self.workers or available_cpus(),
            stop_early=self.stop_early,
            device=self.device,
            deadline_seconds=60 * self.minutes,
        )
        if self.json:
            print_json(sweep.summary())
        return report_outcome(sweep)


def run_sweep(
    plan: SweepPlan,
    store: Store,
    *,
    workers: int,
    stop_early: bool = False,
    device: str = "auto",
    deadline_seconds: float = math.inf,
) -> Sweep:
    """Carry out a plan with live progress on stderr; Ctrl-C and SIGTERM save what runs and return.

    Raises:
        ConfigError: no such device, or the store holds a sweep of another task.
    """
    from rl_scaling.commands.live import SweepDisplay
    from rl_scaling.sweeps.sweep import Sweep
    from rl_scaling.sweeps.trial import choose_device

    plan.trials()  # what cannot be run is refused before anything is written
    choose_device(device)
    plan = _joined(plan, store)
    store.save_plan(plan.to_dict())
    sweep = Sweep(plan, store, workers=workers, stop_early=stop_early, device=device)
    say(f"{len(sweep.trials)} trials of {plan.base.task} in {store.root}, {workers} side by side{_then(plan)}")
    with Interruptible() as stop, SweepDisplay() as display:
        sweep.run(display.show, asked_to_stop=lambda: stop.asked, deadline_seconds=deadline_seconds)
    return sweep


def _then(plan: SweepPlan) -> str:
    further = " ".join(map(str, plan.best_seeds))
    return f"; then seeds {further} at the best rates" if further else ""


def _joined(plan: SweepPlan, store: Store) -> SweepPlan:
    """The plan with the goals that earlier sweeps of the same task kept in this store.

    Raises:
        ConfigError: the store holds a sweep of another task.
    """
    earlier = kept_goals(store)
    task = plan.base.task
    if earlier and task not in earlier:
        raise ConfigError(f"{store.root} holds a sweep of {', '.join(earlier)}: give another --out")
    return dataclasses.replace(plan, goals=tuple(sorted({*earlier.get(task, ()), *plan.goals})))


def report_outcome(sweep: Sweep) -> int:
    """Say how a sweep ended; the exit code."""
    trials = list(sweep.trials.values())
    counts = {s: sum(t.status == s for t in trials) for s in ("done", "stopped", "diverged", "interrupted")}
    say(", ".join(f"{count} {status}" for status, count in counts.items() if count) + f" of {len(trials)} trials")
    if sweep.frames_saved:
        say(f"stopping early saved {sweep.frames_saved:,} frames")
    for trial in trials:
        if trial.failure:
            say(f"failed: {trial.label}: {trial.failure}")
    left = sum(not t.sealed for t in trials)
    if left:
        say(f"{left} trials are not finished: the same command goes on where this one stopped")
    return 1 if left else 0
