"""How fast small runs train: one at a time, side by side as in a sweep, and with Stable-Baselines3 on MinAtar.

All of it in this process on one thread, and by processor time, so that what else the machine does matters little. The
three take turns, round after round, and ratios are made within a round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch

from rl_scaling.agents import make_network
from rl_scaling.agents.config import A2CConfig, PPOConfig
from rl_scaling.domains.rl.config import RunConfig
from rl_scaling.domains.rl.timing import Way, stepping
from rl_scaling.domains.rl.training import what_to_measure
from rl_scaling.envs.config import MinAtarConfig
from rl_scaling.validation.throughput import Step, sb3_updates


@dataclass(frozen=True)
class Ratio:
    """A ratio of two speeds: median and quartiles over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, over: np.ndarray, under: np.ndarray) -> Ratio:
        """Of the speeds of each round."""
        low, median, high = np.percentile(over / under, [25, 50, 75]).tolist()
        return cls(median, low, high)


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """Frames per second of processor time, medians over the rounds.

    Attributes:
        num_envs: environments of each run.
        runs: that train side by side.
        alone, together: of one run at a time, and of all runs added up; both measure the noise scale as often as the
            config has it.
        sb3: of one run of Stable-Baselines3's; None: it is not installed.
        gain: together over alone.
        to_sb3, together_to_sb3: alone and together over sb3.
    """

    num_envs: int
    runs: int
    alone: float
    together: float
    sb3: float | None
    gain: Ratio
    to_sb3: Ratio | None
    together_to_sb3: Ratio | None


def measure(config: RunConfig, runs: int, *, sb3: bool, seconds: float = 1.0, rounds: int = 5) -> Speeds:
    """Train one run, several side by side, and one of Stable-Baselines3's, in turns.

    Args:
        config: a run; the others have seeds of their own.
        runs: that train side by side, 2 or more.
        sb3: whether to run Stable-Baselines3, for which the config is one of MinAtar, of A2C or PPO.
        seconds: of each in each round.
        rounds: in which each has its turn.

    Raises:
        ImportError: Stable-Baselines3 is asked for and not installed.
    """
    torch.set_num_threads(1)
    with ExitStack() as sources:
        ways = [_ours(config, k, sources) for k in (1, runs)]
        if sb3:
            ways.append(sources.enter_context(_sb3(config)))
        rates = np.zeros((rounds, len(ways)))
        for number in range(-1, rounds):  # the first is a warm-up
            for place, step in list(enumerate(ways))[:: 1 if number % 2 else -1]:
                rate = _frames_per_second(step, seconds)
                if number >= 0:
                    rates[number, place] = rate
    alone, together, *theirs = rates.T
    return Speeds(
        num_envs=config.environment.num_envs,
        runs=runs,
        alone=float(np.median(alone)),
        together=float(np.median(together)),
        sb3=float(np.median(theirs)) if theirs else None,
        gain=Ratio.of(together, alone),
        to_sb3=Ratio.of(alone, theirs[0]) if theirs else None,
        together_to_sb3=Ratio.of(together, theirs[0]) if theirs else None,
    )


def _frames_per_second(step: Step, seconds: float) -> float:
    begun, clock, frames = time.perf_counter(), time.process_time(), 0
    while not frames or time.perf_counter() - begun < seconds:
        frames += step()
    return frames / (time.process_time() - clock)


def _ours(config: RunConfig, runs: int, sources: ExitStack) -> Step:
    """Rollouts of one run or of several side by side, measured as in training."""
    advance: Callable[..., object] = stepping(config, torch.device("cpu"), 1, Way(runs=runs), sources)
    updates = 0

    def step() -> int:
        nonlocal updates
        advance(**what_to_measure(config, updates))
        updates += config.agent.updates_per_rollout
        return runs * config.environment.num_envs * config.agent.rollout_steps

    return step


@contextmanager
def _sb3(config: RunConfig) -> Generator[Step]:
    """Stable-Baselines3's as its users run it: the package's environments through Gymnasium, in this process.

    They are so cheap that processes of their own (SubprocVecEnv) would cost more than they do.
    """
    from minatar.gym import BaseEnv
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
    from stable_baselines3.common.vec_env import DummyVecEnv

    class MinAtarCNN(BaseFeaturesExtractor):
        """The body of our network, so that both train the same one; observations come with their channels last."""

        def __init__(self, observation_space: gymnasium.spaces.Box):
            super().__init__(observation_space, features_dim=128)
            rows, columns, channels = observation_space.shape
            self.body = make_network("minatar", (channels, rows, columns), 1).policy_body

        def forward(self, observations: torch.Tensor) -> torch.Tensor:
            return self.body(observations.permute(0, 3, 1, 2))

    environment, agent = config.environment, config.agent
    assert isinstance(environment, MinAtarConfig)
    assert isinstance(agent, A2CConfig | PPOConfig)
    played: dict[str, Any] = {
        "game": environment.game,
        "use_minimal_action_set": environment.minimal_actions,
        "sticky_action_prob": environment.sticky_action_probability,
        "difficulty_ramping": environment.difficulty_ramping,
    }
    envs = make_vec_env(BaseEnv, environment.num_envs, seed=0, env_kwargs=played, vec_env_cls=DummyVecEnv)
    policy = {"features_extractor_class": MinAtarCNN, "net_arch": []}
    with closing(envs):
        yield sb3_updates(agent, envs, "MlpPolicy", policy, "cpu")
