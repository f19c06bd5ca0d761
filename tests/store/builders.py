"""Small configs and records for the store's tests."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hypothesis import strategies as st

from rl_scaling.agents.config import A2CConfig
from rl_scaling.config import run_id_of
from rl_scaling.domains.rl.config import RunConfig
from rl_scaling.envs.config import AtariConfig, GymnasiumConfig
from rl_scaling.records import RECORD_TYPES, Identity, LossRecord, Record, TrainingRecord, fields_of
from rl_scaling.store.rows import integers

PROVENANCE = {"torch": "2.13.0", "machine": "a test"}
INTEGERS = ("updates", "frames", "episodes", "noise_measurements")
FIELDS = fields_of(TrainingRecord)


def atari(seed: int = 0, **agent: Any) -> RunConfig:
    return RunConfig(environment=AtariConfig(game="Pong", num_envs=4), agent=A2CConfig(**agent), seed=seed)


def cartpole(seed: int = 0) -> RunConfig:
    environment = GymnasiumConfig(env_id="CartPole-v1", num_envs=8)
    return RunConfig(environment=environment, agent=A2CConfig(network="mlp", rollout_steps=4), seed=seed)


def record(updates: int, **changed: Any) -> TrainingRecord:
    plain = TrainingRecord(
        updates=updates,
        frames=20 * updates,
        wall_seconds=0.1 * updates,
        frames_per_second=200.0,
        episodes=1,
        score=1.0 / 3.0 + updates,
        episode_frames=float("nan"),
        policy_loss=-0.0,
        value_loss=1e-300,
        entropy=1.0,
        grad_norm=float("inf"),
        current_learning_rate=7e-4,
    )
    return dataclasses.replace(plain, **changed)


@dataclass(frozen=True, kw_only=True)
class Descent:
    """A run of another domain, which the store knows nothing about."""

    kind: ClassVar[str] = "descent"
    batch_size: int = 8
    learning_rate: float = 0.1
    momentum: float = 0.9
    seed: int = 0

    @property
    def identity(self) -> Identity:
        return Identity(
            domain="descent",
            problem="a slope",
            algorithm="",
            unit="examples",
            quantity="loss",
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            setting=f"momentum={self.momentum}",
            seed=self.seed,
        )

    @property
    def run_id(self) -> str:
        return run_id_of(self)


def loss_record(updates: int, **changed: Any) -> LossRecord:
    plain = LossRecord(updates=updates, examples=8 * updates, wall_seconds=0.5, loss=1 / (1 + updates))
    return dataclasses.replace(plain, **changed)


def bits(row: Record) -> tuple[tuple[type, bytes | int], ...]:
    """A record down to its bits, so that -0.0 differs from 0.0 and NaN equals itself."""
    values = [getattr(row, name) for name in fields_of(type(row))]
    return tuple(
        (type(v), v if isinstance(v, int) else struct.pack("<d", float("nan") if v != v else v)) for v in values
    )


def all_bits(rows: Sequence[Record]) -> list[tuple[tuple[type, bytes | int], ...]]:
    return [bits(row) for row in rows]


_counts = st.integers(-(2**63), 2**63 - 1)
_records = [
    st.builds(kind, **{name: _counts if name in integers(kind) else st.floats() for name in fields_of(kind)})
    for kind in RECORD_TYPES.values()
]
any_record = st.one_of(_records)
any_run = st.one_of([st.lists(records, max_size=5) for records in _records])
