"""`rl-scaling train`: one run of any domain."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Union

from tyro.conf import OmitArgPrefixes, arg, subcommand

from rl_scaling.cli.options import Count, as_json, at_least, changed, given, options_of, print_json, say, unset
from rl_scaling.config import ConfigError, RunDescription
from rl_scaling.domains.base import Precision
from rl_scaling.domains.rl.config import AdaptiveBatchConfig, NoiseScaleConfig, RunConfig
from rl_scaling.domains.rl.registry import ALGORITHMS, find_algorithm
from rl_scaling.domains.supervised.config import (
    AdaptiveExamplesConfig,
    ScheduleConfig,
    SupervisedConfig,
    updates_of_epochs,
)
from rl_scaling.domains.supervised.problems import OptimizerName, optimizer_of, rate_power
from rl_scaling.envs.config import AtariConfig, EnvironmentConfig, GymnasiumConfig, MinAtarConfig
from rl_scaling.estimates import Estimate
from rl_scaling.records import IN_A_TABLE, PARTS, REUSE, SEALED, Record, to_row
from rl_scaling.store import Store

if TYPE_CHECKING:
    from rl_scaling.domains.base import Hardware

_GAMES = (AtariConfig, MinAtarConfig)
GameOptions = options_of(*_GAMES, leave_out=["game", "num_envs"])
_AdaptiveOptions = options_of(AdaptiveBatchConfig, only="Adaptive batch", adaptive="exchange_rate")
_AdaptiveExamplesOptions = options_of(
    AdaptiveExamplesConfig,
    leave_out=["measure_every_updates", "groups", "rate_power"],
    only="Adaptive batch",
    adaptive="exchange_rate",
)
_SupervisedOptions = options_of(
    SupervisedConfig,
    leave_out=[
        *("optimizer", "schedule", "sampling", "updates", "budget", "quantity", "seed", "adaptive"),
        "noise_every_updates",
    ],
)
_ScheduleOptions = options_of(ScheduleConfig, leave_out=["name", "final_factor", "decay_updates", "factor"])


@dataclass(frozen=True)
class Training:
    """What every training takes, whatever its domain."""

    seed: int = 0
    """Seed of everything that is random."""
    out: Annotated[Path, arg(metavar="DIR")] = Path("runs/train")
    """Folder of the run's store; the run has a folder there, named after its configuration."""
    device: str = "auto"
    """Device: cpu, cuda, or auto, a GPU where there is one."""
    threads: int = 0
    """Threads for torch and for the emulator, each; 0: every core this process may use."""
    tensorboard: Annotated[Path | None, unset("DIR")] = None
    """Write TensorBoard event files here too, while it trains."""
    wandb: Annotated[str | None, unset("PROJECT")] = None
    """Log to this project of Weights & Biases too; WANDB_MODE=offline keeps it on this machine."""
    replace: bool = False
    """Run again what is done already; the old run is moved aside, not deleted."""
    stop_at: Count = 0
    """Stop after this many frames or examples of a longer run, whose schedules it follows; a larger number resumes it.
    0: train it whole."""
    json: bool = False
    """Print the run's id, status and last row as JSON on stdout."""

    def config(self) -> RunDescription:
        """The run these options describe.

        Raises:
            ConfigError: they describe none.
        """
        raise NotImplementedError

    def hardware(self, threads: int) -> Hardware:
        from rl_scaling.domains.base import Hardware

        return Hardware(device=self.device, threads=threads)

    def measured(self, rows: Sequence[Record], config: Any) -> dict[str, Any]:
        """What --json says beside the last row."""
        return {}

    def goals_of(self, config: Any) -> Sequence[float]:
        """Values whose first reach is of interest."""
        return ()

    def measure(self, config: Any) -> bool:
        """What is measured once the run is over; whether that was interrupted."""
        return False

    def run(self) -> int:
        at_least(0, threads=self.threads, stop_at=self.stop_at)
        from rl_scaling.cli.live import Interruptible
        from rl_scaling.domains import find_domain
        from rl_scaling.domains.base import Starting
        from rl_scaling.envs import available_cpus
        from rl_scaling.store.provenance import other_code
        from rl_scaling.sweeps.trackers import Trackers, require_installed
        from rl_scaling.sweeps.trial import RunEnded
        from rl_scaling.sweeps.trial import run as train

        require_installed(tensorboard=self.tensorboard, wandb=self.wandb)
        config, store = self.config(), Store(self.out)
        i = config.identity
        begun = store.info(config.run_id)
        if begun and begun.status == "interrupted" and not self.replace and (other := other_code([begun])):
            say(f"warning: {other}")
        batch = f"batch {i.batch_size:,} {i.unit}" + (f" at first, {i.setting}" if i.adaptive else "")
        say(f"{i.task}, {batch}, run {config.run_id} in {self.out}")
        hardware = self.hardware(self.threads or available_cpus())
        if begun and begun.status in SEALED and not self.replace and not (begun.status == "stopped" and self.stop_at):
            say("it was trained before, and is left as it is: --replace trains it again")
        else:
            hardware, notes = find_domain(config.domain).settled([config], hardware)
            for note in notes:
                say(note)
        with (
            Interruptible() as stop,
            Trackers(self.tensorboard, self.wandb) as trackers,
            no_empty_folders(self.out),
        ):

            def listen(event: Any) -> None:
                if isinstance(event, Starting):
                    say(f"starting environments: {event.done / event.total:.0%}")
                elif not isinstance(event, RunEnded):
                    say(line_of(event, adaptive=i.adaptive))
                    trackers.write(store, config.run_id, event)

            status = train(
                config,
                store,
                hardware=hardware,
                replace=self.replace,
                goals=self.goals_of(config),
                stop_at=self.stop_at or math.inf,
                listen=listen,
                asked_to_stop=lambda: stop.asked,
            )
        say(f"{status}: {self.out / config.run_id}" + " (the same command resumes it)" * (status == "interrupted"))
        if status in SEALED and self.measure(config):
            status = "interrupted"
        if self.json:
            rows = store.read_rows(config.run_id)
            last = as_json(to_row(rows[-1])) if rows else {}
            measured = self.measured(rows, config) if rows else {}
            print_json({"run_id": config.run_id, "status": status, **last, **measured})
        return 1 if status == "interrupted" else 0


@contextlib.contextmanager
def no_empty_folders(out: Path) -> Generator[None]:
    """Where a run cannot be run, folders that were made for it are removed."""
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        yield
    except ConfigError:
        for folder in made:
            with contextlib.suppress(OSError):  # it was not made, or holds something
                folder.rmdir()
        raise


@dataclass(frozen=True)
class TrainRL(Training):
    """What training an agent takes, whatever the algorithm."""

    game: Annotated[str | None, unset("STR")] = None
    """Game of Atari or MinAtar, for instance Breakout or minatar/breakout (this or --env-id)."""
    env_id: Annotated[str | None, unset("STR", aliases=["--env"])] = None
    """Gymnasium environment, for instance CartPole-v1 (this or --game); module:EnvId imports the module that registers
    it. The network is by default one that takes its observations, mlp where they are no images."""
    num_envs: Annotated[int | None, unset("INT")] = None
    """Environments stepped together, by default as many as the algorithm's defaults are known to work with (A2C 16,
    PPO 8); a batch is this times --rollout-steps, in frames (PPO: over --minibatches, unless --scaling minibatch)."""
    played: OmitArgPrefixes[GameOptions] = field(default_factory=GameOptions)  # pyright: ignore[reportInvalidTypeForm]
    """How a game is played; kept with the run."""
    noise: NoiseScaleConfig = field(default_factory=NoiseScaleConfig)
    adaptive_batch: OmitArgPrefixes[_AdaptiveOptions] = field(default_factory=_AdaptiveOptions)  # pyright: ignore[reportInvalidTypeForm]
    """Off unless --adaptive says what an update is worth; the run then begins with --num-envs."""
    frames: Count = RunConfig.frames
    """Frames to learn from, as the agent sees them (2e6 is understood)."""
    record_every_frames: Count = RunConfig.record_every_frames
    """Frames between two rows of the run."""
    measure_at: Literal["nowhere", "goals"] = "nowhere"
    """goals: keep the weights at the first reach of each goal and at the end, and once the run is over measure the
    noise scale there with the weights kept, in environments of its own (as `rl-scaling measure`)."""
    goals: Annotated[tuple[float, ...], unset("[FLOAT [FLOAT ...]]")] = ()
    """Scores at which is measured; by default those of the game."""
    alternate: bool = False
    """Act for one half of the environments while the other half is emulated; their number must be even."""
    precision: Precision = "float32"
    """Arithmetic of the layers: float32, bfloat16, or auto, bfloat16 where the hardware has it, its gradient agrees and
    it is faster. Kept as provenance, and no part of the run's id."""

    algorithm: ClassVar[Any]
    agent: Any = None

    def config(self) -> RunConfig:
        """See `Training.config`."""
        num_envs = self.algorithm.reference_num_envs if self.num_envs is None else self.num_envs
        environment = environment_config(self.game, self.env_id, num_envs, given(self.played))
        customary, options = {"network": environment.networks[0]} if environment.networks else {}, given(self.agent)
        agent = self.algorithm(**customary | options)
        return RunConfig(
            environment=environment,
            agent=agent if "network" in options else suited_agent(agent, environment),
            noise_scale=self.noise,
            frames=self.frames,
            seed=self.seed,
            record_every_frames=self.record_every_frames,
            adaptive=adaptive_config(AdaptiveBatchConfig, given(self.adaptive_batch)),
            measure_at=self.measure_at,
        )

    def goals_of(self, config: RunConfig) -> Sequence[float]:
        """See `Training.goals_of`.

        Raises:
            ConfigError: there are none where they are needed, or they are not.
        """
        if self.measure_at == "nowhere":
            if self.goals:
                raise ConfigError("--goals are where is measured: add --measure-at goals, or leave them out")
            return ()
        from rl_scaling.envs import find_game

        goals = self.goals or (find_game(self.game).goals if self.game else ())
        if not goals:
            raise ConfigError(f"{config.environment.name} has no goals of its own: name scores, as --goals 100 200")
        return goals

    def measure(self, config: RunConfig) -> bool:
        """See `Training.measure`."""
        if self.measure_at == "nowhere":
            return False
        from rl_scaling.cli.measure import measure_all, show, targets_of_run

        info = Store(self.out).info(config.run_id)
        targets = targets_of_run(info) if info else []
        interrupted = measure_all(targets, device=self.device, threads=self.threads)
        if not self.json:
            show(targets, as_rows=False)
        return interrupted

    def hardware(self, threads: int) -> Hardware:
        from rl_scaling.domains.base import Hardware

        return Hardware(device=self.device, threads=threads, alternate=self.alternate, compute_dtype=self.precision)

    def measured(self, rows: Sequence[Record], config: Any) -> dict[str, Any]:
        """See `Training.measured`."""
        return noise_scales(rows, config)


def _train_algorithm(kind: str) -> Any:
    """The subcommand of an algorithm: the options of its config beside those of every agent."""
    config: Any = find_algorithm(kind)
    options: Any = options_of(config)
    agent = ("agent", OmitArgPrefixes[options], field(default_factory=options))
    made = make_dataclass(f"Train{kind}", [agent], bases=(TrainRL,), frozen=True, namespace={"algorithm": config})
    made.__doc__ = f"Train {kind.upper()} once, measuring the noise scale; a run that was interrupted resumes."
    return Annotated[made, subcommand(kind)]


def environment_config(
    game: str | None, env_id: str | None, num_envs: int, options: dict[str, Any]
) -> EnvironmentConfig:
    """The environment that --game or --env-id names.

    Raises:
        ConfigError: neither or both are given, there is no such game, or options of a game for what is none.
    """
    if (game is None) == (env_id is None):
        raise ConfigError("name one environment: --game Breakout, or --env-id CartPole-v1")
    if env_id is not None:
        return played(GymnasiumConfig(env_id=env_id, num_envs=num_envs), options)
    from rl_scaling.envs import find_game

    return played(find_game(game or "").environment(num_envs=num_envs), options)


def played(environment: EnvironmentConfig, options: dict[str, Any]) -> EnvironmentConfig:
    """An environment with the given `GameOptions`.

    Raises:
        ConfigError: it has no such option, or refuses its value.
    """
    for option, value in options.items():
        owners = " and ".join(game.family for game in _GAMES if hasattr(game, option))
        refusal = f"{{option}} is for {owners}: leave it out for {environment.name}"
        environment = changed(environment, {option: value}, refusal)
    return environment


def suited_agent(agent: Any, environment: EnvironmentConfig) -> Any:
    """The agent, with a network that takes the observations of a Gymnasium environment; what is changed is said.

    Raises:
        ConfigError: there is no such environment, or it cannot be learned from.
    """
    if not isinstance(environment, GymnasiumConfig):
        return agent
    from rl_scaling.agents.networks import suited_network
    from rl_scaling.envs import example_observation

    shape = example_observation(environment).shape
    network = suited_network(agent.network, shape)
    if network != agent.network:
        say(f"observations of {environment.name} have the shape {shape}: the network is {network}")
    return dataclasses.replace(agent, network=network)


def adaptive_config(kind: type[Any], options: dict[str, Any]) -> Any:
    """The adaptive batch that options describe; None where there are none.

    Raises:
        ConfigError: options of an adaptive batch without --adaptive, or what the config refuses.
    """
    if not options:
        return None
    if "exchange_rate" not in options:
        option = next(iter(options)).replace("_", "-")
        raise ConfigError(f"--{option} is for an adaptive batch: give --adaptive R as well")
    return kind(**options)


def noise_scales(rows: Sequence[Record], config: RunConfig) -> dict[str, Any]:
    """B_simple in frames over all of a run's records: of the gradient's terms, and where frames were used again."""
    measured: dict[str, Any] = {}
    if config.noise_scale.every_updates and config.agent.frame_uses > 1:
        pooled = _pooled(rows, config.batch_size, (None, REUSE))
        measured["epochs"] = {"first": pooled[None], "later": pooled[REUSE]}
    if config.noise_scale.parts:
        measured["parts"] = _pooled(rows, config.batch_size, PARTS)
    return measured


def _pooled(rows: Sequence[Record], batch_size: int, parts: Sequence[str | None]) -> dict[str | None, Any]:
    import numpy as np
    import pandas as pd

    from rl_scaling.analysis.noise_scale import NoiseRows

    table = pd.DataFrame([to_row(row) for row in rows]).rename(columns=IN_A_TABLE).assign(batch_size=batch_size)
    pooled = {part: NoiseRows(table, part).pool(np.arange(len(table))) for part in parts}
    return {
        part: as_json({"noise_scale": scale.value, "noise_scale_low": scale.low, "noise_scale_high": scale.high})
        for part, scale in pooled.items()
    }


@dataclass(frozen=True)
class TrainSupervised(Training):
    """Train any model on any data set of images once, measuring the noise scale; an interrupted run resumes."""

    described: OmitArgPrefixes[_SupervisedOptions] = field(default_factory=_SupervisedOptions)  # pyright: ignore[reportInvalidTypeForm]
    """Data, model and batch."""
    folder: Annotated[Path | None, unset("DIR")] = None
    """Parquet files of the data set in the hub's layout; without it the hub is asked."""
    optimizer: OptimizerName = "momentum"
    """Optimiser with its customary coefficients: momentum 0.9; sgd+ema: an average of the weights with decay 0.95."""
    learning_rate: float = 0.05
    """Rate that the schedule starts from."""
    schedule: Literal["constant", "halving", "triggered"] = "constant"
    """halving: halved every twentieth of the second half. triggered: a tenth at each of --thresholds."""
    steered: OmitArgPrefixes[_ScheduleOptions] = field(default_factory=_ScheduleOptions)  # pyright: ignore[reportInvalidTypeForm]
    """How the learning rate changes."""
    sampling: Literal["replacement", "epoch"] = "epoch"
    """Batches drawn with replacement, or each example once before any comes again."""
    epochs: float = 10
    """Passes over the data."""
    noise_every_updates: int = 0
    """Measure the noise scale B_simple at one in N updates; 0: never, or with --adaptive at each."""
    adaptive_batch: OmitArgPrefixes[_AdaptiveExamplesOptions] = field(default_factory=_AdaptiveExamplesOptions)  # pyright: ignore[reportInvalidTypeForm]
    """Off unless --adaptive says what an update is worth; the run then begins with --batch-size."""
    rate_power: Annotated[float | None, unset("FLOAT")] = None
    """Adaptive batch: alpha of A.3, by default 1, or 0.5 for Adam and RMSProp; 0 keeps the learning rate."""
    out: Annotated[Path, arg(metavar="DIR")] = Path("runs/supervised")
    """Folder of the run's store; the run has a folder there, named after its configuration."""

    def config(self) -> SupervisedConfig:
        """See `Training.config`."""
        from rl_scaling.domains.supervised.data import load_dataset

        described, adaptive = given(self.described), given(self.adaptive_batch)
        dataset = described.get("dataset", SupervisedConfig.dataset)
        batch_size = described.get("batch_size", SupervisedConfig.batch_size)
        at_least(0, epochs=self.epochs, noise_every_updates=self.noise_every_updates)
        at_least(0, b_noise_every_rows=described.get("b_noise_every_rows", 0))
        at_least(1, batch_size=batch_size)
        examples = len(load_dataset(dataset, folder=self.folder).train)
        adaptive |= {} if self.rate_power is None else {"rate_power": self.rate_power}
        if adaptive:
            adaptive.setdefault("rate_power", rate_power(self.optimizer))
            adaptive |= {"measure_every_updates": self.noise_every_updates} if self.noise_every_updates else {}
        return SupervisedConfig(
            **described,
            optimizer=optimizer_of(self.optimizer, self.learning_rate),
            schedule=ScheduleConfig(name=self.schedule, **given(self.steered)),
            sampling=self.sampling,
            updates=updates_of_epochs(self.epochs, examples, batch_size),
            budget=f"{self.epochs:.10g} epochs",
            seed=self.seed,
            adaptive=adaptive_config(AdaptiveExamplesConfig, adaptive),
            noise_every_updates=self.noise_every_updates,
        )

    def hardware(self, threads: int) -> Hardware:
        from rl_scaling.domains.base import Hardware

        return Hardware(device=self.device, threads=threads, data_folder=str(self.folder or ""))


def line_of(record: Record, *, adaptive: bool = False) -> str:
    """One row for people."""
    row = to_row(record)
    unit = "frames" if "frames" in row else "examples"
    parts = [f"{row[unit]:,} {unit}, {row['updates']:,} updates"]
    rate = row[f"{unit}_per_second"]
    parts += [f"{rate:,.0f} {unit}/s"] if math.isfinite(rate) else []
    parts += [f"batch {row['current_batch_size']:,.0f}"] if adaptive and row["updates"] else []
    for name in ("score", "validation_loss"):
        if math.isfinite(row.get(name, math.nan)):
            parts.append(f"{name.replace('_', ' ')} {row[name]:,.4g}")
    if math.isfinite(row.get("validation_accuracy", math.nan)):
        parts.append(f"{row['validation_accuracy']:.1%} right")
    noise = Estimate(row["noise_scale"], row["noise_scale_low"], row["noise_scale_high"])
    if math.isfinite(noise.low):
        parts.append(f"B_simple {noise} {unit}" if noise.resolved else f"B_simple unresolved, {noise} {unit}")
    return ", ".join(parts)


Trainings: Any = Union[(*map(_train_algorithm, ALGORITHMS), Annotated[TrainSupervised, subcommand("supervised")])]


@dataclass(frozen=True)
class Train:
    """Train one agent, or one model on images, once."""

    algorithm: Trainings  # pyright: ignore[reportInvalidTypeForm]
    """What is trained."""

    def run(self) -> int:
        return self.algorithm.run()
