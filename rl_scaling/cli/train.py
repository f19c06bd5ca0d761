"""`rl-scaling train`: one run."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import OmitArgPrefixes, arg

from rl_scaling.agents.config import A2CConfig, AlgorithmConfig, PPOConfig
from rl_scaling.cli.adaptive import AdaptiveOptions
from rl_scaling.cli.environments import environment_config
from rl_scaling.cli.interrupt import Interruptible
from rl_scaling.cli.options import Count, as_json, at_least, print_json, say
from rl_scaling.domains.rl.config import NoiseScaleConfig, RunConfig
from rl_scaling.envs.config import AtariSettings
from rl_scaling.records import IN_A_TABLE, PARTS, REUSE, Record, TrainingRecord, to_row
from rl_scaling.store import Store
from rl_scaling.sweeps import INTERRUPT
from rl_scaling.sweeps.trackers import Trackers, require_installed


@dataclass(frozen=True)
class Training(ABC):
    """What training takes whatever the algorithm."""

    game: str | None = None
    """Atari game, for instance Breakout (this or --env-id)."""
    env_id: str | None = None
    """Gymnasium environment, for instance CartPole-v1 (this or --game); takes --network mlp."""
    num_envs: int = 16
    """Environments stepped together; a batch is this times --rollout-steps (PPO: over --minibatches), in frames."""
    played: OmitArgPrefixes[AtariSettings] = field(default_factory=AtariSettings)
    noise: NoiseScaleConfig = field(default_factory=NoiseScaleConfig)
    adaptive_batch: OmitArgPrefixes[AdaptiveOptions] = field(default_factory=AdaptiveOptions)
    frames: Count = 10_000_000
    """Frames to learn from, as the agent sees them (2e6 is understood)."""
    seed: int = 0
    """Seed of weights, actions and environments."""
    record_every_frames: Count = 2_000
    """Frames between two rows of the run."""
    out: Annotated[Path, arg(metavar="DIR")] = Path("runs/train")
    """Store the run here, in a folder named after its configuration."""
    device: str = "auto"
    """cpu, cuda, or auto: a GPU where there is one."""
    threads: int = 0
    """Threads for torch and for the emulator, each; 0: every core this process may use."""
    alternate: bool = False
    """Act for one half of the environments while the other half is emulated; their number must be even."""
    tensorboard: Annotated[Path | None, arg(metavar="DIR")] = None
    """Write TensorBoard event files here too, while it trains."""
    wandb: Annotated[str | None, arg(metavar="PROJECT")] = None
    """Log to this project of Weights & Biases too; WANDB_MODE=offline keeps it on this machine."""
    replace: bool = False
    """Run again what is done already; the old run is moved aside, not deleted."""
    json: bool = False
    """Print the run's id, status and last row as JSON on stdout."""

    @abstractmethod
    def config(self) -> RunConfig:
        """The run these options describe.

        Raises:
            ConfigError: they describe none.
        """

    def _config(self, agent: AlgorithmConfig) -> RunConfig:
        return RunConfig(
            environment=environment_config(self.game, self.env_id, self.num_envs, self.played),
            agent=agent,
            noise_scale=self.noise,
            frames=self.frames,
            seed=self.seed,
            record_every_frames=self.record_every_frames,
            adaptive=self.adaptive_batch.config(),
        )

    def run(self) -> int:
        config = self.config()
        at_least(0, threads=self.threads)
        require_installed(tensorboard=self.tensorboard, wandb=self.wandb)
        from rl_scaling.envs import available_cpus
        from rl_scaling.store.provenance import other_code
        from rl_scaling.sweeps.trial import Faster, run_trial

        store = Store(self.out)
        begun = store.info(config.run_id)
        other = other_code([begun]) if begun and begun.status == "interrupted" and not self.replace else ""
        if other:
            say(f"warning: {other}")
        batch = f"batch {config.batch_size:,} frames" + (f" at first, {config.setting}" if config.adaptive else "")
        say(f"{config.task}, {batch}, run {config.run_id} in {self.out}")
        with Interruptible() as stop, Trackers(store, config.run_id, self.tensorboard, self.wandb) as trackers:
            status = run_trial(
                config,
                store,
                device=self.device,
                replace=self.replace,
                threads=self.threads or available_cpus(),
                faster=Faster(alternate=self.alternate),
                listen=lambda record: (
                    _show(record, config.frames) or trackers.write(record) or (INTERRUPT if stop.asked else None)
                ),
                starting=lambda done, total: say(f"starting environments: {done / total:.0%}"),
            )
        say(f"{status}: {self.out / config.run_id}" + (" (the same command goes on)" * (status == "interrupted")))
        if self.json:
            rows = store.read_rows(config.run_id)
            last = as_json(to_row(rows[-1])) if rows else {}
            measured = noise_scales(rows, config) if rows else {}
            print_json({"run_id": config.run_id, "status": status, **last, **measured})
        return 1 if status == "interrupted" else 0


@dataclass(frozen=True)
class TrainA2C(Training):
    """Train A2C once, measuring the noise scale; a run that was interrupted goes on."""

    agent: OmitArgPrefixes[A2CConfig] = field(default_factory=A2CConfig)

    def config(self) -> RunConfig:
        """See `Training.config`."""
        return self._config(self.agent)


@dataclass(frozen=True)
class TrainPPO(Training):
    """Train PPO once, measuring the noise scale; a run that was interrupted goes on."""

    num_envs: int = 8
    """Environments stepped together; a batch is this times --rollout-steps over --minibatches, in frames."""
    agent: OmitArgPrefixes[PPOConfig] = field(default_factory=PPOConfig)

    def config(self) -> RunConfig:
        """See `Training.config`."""
        return self._config(self.agent)


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


def _show(record: TrainingRecord, frames: int) -> None:
    score = "" if math.isnan(record.score) else f", score {record.score:,.1f}"
    noise = f" B_simple {record.noise_scale:,.0f} frames"
    if math.isnan(record.noise_scale):
        noise = f" B_simple unresolved, > {record.noise_scale_low:,.0f} frames"
    if math.isnan(record.noise_scale_low):
        noise = ""
    batch = f", batch {record.current_batch_size:,.0f}"
    say(f"{record.frames:,} of {frames:,} frames, {record.frames_per_second:,.0f} frames/s{batch}{score},{noise}")
