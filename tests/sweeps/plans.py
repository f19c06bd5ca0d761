"""Tiny sweeps of every domain; run as a script, the `rl-scaling sweep` of one of them.

    python -m tests.sweeps.plans DOMAIN OPTIONS...

SECONDS_PER_UPDATE in the environment slows training down, in worker processes too, so that a signal hits it, and adds a
byte to the file TICKS for every update; checkpoints are then saved more often.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from rl_scaling.agents.config import A2CConfig
from rl_scaling.cli.sweep import SweepOptions
from rl_scaling.config import LearningRates
from rl_scaling.domains.base import Control, TaskPlan
from rl_scaling.domains.nqm.config import NQMConfig
from rl_scaling.domains.nqm.domain import NQMTask
from rl_scaling.domains.rl.config import NoiseScaleConfig, RunConfig
from rl_scaling.domains.rl.task import RLTask, learning_rates_of
from rl_scaling.domains.supervised.problems import SupervisedTask, find_problem
from rl_scaling.envs.config import GymnasiumConfig
from rl_scaling.sweeps import trial
from rl_scaling.sweeps.plan import SweepPlan

DOMAINS = ("rl", "supervised", "nqm")
AGENT = A2CConfig(network="mlp", rmsprop_epsilon_inside_root=False)
MLP = find_problem("digits-mlp")


def cartpole(frames: int = 2_000, *, rates: Mapping[str, Any] | None = None, **changes: Any) -> RLTask:
    """A2C on CartPole; batches of 20 and 40 frames at two learning rates."""
    base = RunConfig(
        environment=GymnasiumConfig(env_id="CartPole-v1"),
        agent=AGENT,
        noise_scale=NoiseScaleConfig(every_updates=5, groups=4),
        frames=frames,
        record_every_frames=changes.pop("record_every_frames", 500),
    )
    grid = learning_rates_of(AGENT, **({"fixed": (1e-3, 3e-3), "max_extensions": 0} | dict(rates or {})))
    return RLTask(**({"base": base, "batch_sizes": (20, 40), "learning_rates": grid, "goals": (20.0,)} | changes))


def digits(updates: int = 60, *, rates: Mapping[str, Any] | None = None, **changes: Any) -> SupervisedTask:
    """SGD on the digits; batches of 32 and 128 at two learning rates."""
    grid = MLP.learning_rates("sgd", **({"fixed": (0.1, 0.3), "max_extensions": 0} | dict(rates or {})))
    common: dict[str, Any] = {
        "base": MLP.base("sgd"),
        "batch_sizes": (32, 128),
        "learning_rates": grid,
        "goals": (1.9,),
    }
    common |= {"examples": 1200, "epochs": 0, "updates": updates, **changes}
    return SupervisedTask(**common)


def model(updates: int = 2_000, *, rates: Mapping[str, Any] | None = None, **changes: Any) -> NQMTask:
    """SGD on a noisy quadratic model of few dimensions; batches of 8 and 64 at two learning rates."""
    base = NQMConfig(optimizer="sgd", batch_size=8, learning_rate=0.1, updates=updates, dimension=50)
    grid = {"reference_rate": 0.2, "reference_batch": 64, "turn": 64.0, "power": 1.0, "count": 2, "max_extensions": 0}
    learning_rates = LearningRates(**(grid | dict(rates or {})))
    common: dict[str, Any] = {"base": base, "batch_sizes": (8, 64), "learning_rates": learning_rates, "goals": (0.5,)}
    return NQMTask(**(common | changes))


TASKS = {"rl": cartpole, "supervised": digits, "nqm": model}


def tiny(domain: str, task: TaskPlan | None = None, **changes: Any) -> SweepPlan:
    """A sweep of a domain: two batch sizes, two learning rates, one seed."""
    return SweepPlan(**({"tasks": (task or TASKS[domain](),), "stop_at_goals": False} | changes))


def is_worker(process: psutil.Process) -> bool:
    """Whether a process is a living worker of a `ProcessExecutor`."""
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except (psutil.ZombieProcess, psutil.NoSuchProcess):
        return False


# So long that a record of a slowed run comes after many seconds.
LONG: dict[str, dict[str, Any]] = {
    "rl": {"frames": 4_000, "record_every_frames": 4_000, "batch_sizes": (20,)},
    "supervised": {"updates": 2_000, "batch_sizes": (32,)},
    "nqm": {"batch_sizes": (8,)},
}


@dataclass(frozen=True)
class SweepTiny(SweepOptions):
    """A tiny sweep with all the options of a sweep."""

    domain: str = "rl"
    """Domain."""
    long: bool = False
    """Few records."""

    def plans(self) -> Mapping[Path, SweepPlan]:
        assert self.out is not None
        task = TASKS[self.domain](**(LONG[self.domain] if self.long else {}))
        return {self.out: tiny(self.domain, task, best_seeds=self.best_seeds or ())}

    def with_(self, **changes: Any) -> SweepTiny:
        return dataclasses.replace(self, **changes)


def _slow_down(seconds: float, ticks: Path) -> None:
    def interrupt(self: Control) -> bool:
        with ticks.open("ab") as file:
            file.write(b".")
        time.sleep(seconds)
        assert looked is not None
        return looked(self)

    looked = Control.interrupt.fget
    Control.interrupt = Control.interrupt.getter(interrupt)  # pyright: ignore[reportAttributeAccessIssue]
    trial.CHECKPOINT_SECONDS = 0.3


if "SECONDS_PER_UPDATE" in os.environ:
    _slow_down(float(os.environ["SECONDS_PER_UPDATE"]), Path(os.environ["TICKS"]))

if __name__ == "__main__":
    import tyro

    sys.exit(tyro.cli(SweepTiny, config=(tyro.conf.OmitArgPrefixes,)).run())
