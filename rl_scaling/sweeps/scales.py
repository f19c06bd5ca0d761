"""How large a sweep of a game is, by name: what is not asked for otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rl_scaling.domains.rl.config import NoiseScaleConfig
from rl_scaling.sweeps.plan import LearningRates

Algorithm = Literal["a2c", "ppo"]
ScaleName = Literal["smoke", "overnight", "paper"]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The size of a sweep of one game.

    Attributes:
        num_envs: numbers of environments of each algorithm.
        frames: of every trial.
        network: "nature" or "small".
        rates: learning rates per batch size, before extensions.
        extensions: rates that may be added on each side.
        seeds: of every combination.
        best_seeds: further seeds at the best rates.
        noise_every_updates: the noise scale is measured at one update in so many.
    """

    num_envs: Mapping[Algorithm, tuple[int, ...]]
    frames: int = 2_000_000
    network: Literal["nature", "small"] = "nature"
    rates: int = LearningRates.count
    extensions: int = LearningRates.max_extensions
    seeds: tuple[int, ...] = (0,)
    best_seeds: tuple[int, ...] = ()
    noise_every_updates: int = NoiseScaleConfig.every_updates


PLAIN = Scale(num_envs={"a2c": (4, 8, 16, 32, 64), "ppo": (4, 8, 16, 32, 64)})
SCALES: dict[ScaleName, Scale] = {
    "smoke": Scale(
        num_envs={"a2c": (4, 12, 36), "ppo": (2, 4, 8)},
        frames=12_000,
        network="small",
        rates=1,
        extensions=0,
        noise_every_updates=1,
    ),
    "overnight": Scale(
        num_envs={"a2c": (4, 8, 24, 72, 200), "ppo": (2, 4, 8, 24, 72)},
        network="small",
        best_seeds=(1,),
        noise_every_updates=4,
    ),
    # Batches of A2C from 20 to 20,480 frames, of PPO (a quarter of its rollout) from 64 to 20,480.
    "paper": Scale(
        num_envs={"a2c": (4, 16, 64, 256, 1024, 4096), "ppo": (2, 8, 32, 128, 640)},
        frames=20_000_000,
        best_seeds=(1, 2),
    ),
}
