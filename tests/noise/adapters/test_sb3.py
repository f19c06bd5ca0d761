"""The callback against Stable-Baselines3 itself: the same gradient, and training that does not notice."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

import rl_scaling.noise
from rl_scaling.noise import NoiseScaleCallback
from rl_scaling.noise.passes import GroupGradients, GroupPasses
from tests.noise.adapters.reference import flat, naive_gradients, noise_envs

NUM_ENVS, STEPS = 6, 10
VECTOR, CHOICE = spaces.Box(-1, 1, (5,), np.float32), spaces.Discrete(3)
REAL = spaces.Box(-1, 1, (2,), np.float32)
PIXELS = spaces.Box(0, 255, (1, 36, 36), np.uint8)
Settings = dict[str, Any]


class Dropping(BaseFeaturesExtractor):
    """With dropout, a buffer that changes in training, and a layer norm, so that one pass per group is needed."""

    def __init__(self, observation_space: spaces.Box):
        super().__init__(observation_space, 8)
        self.body = nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.Dropout(0.5))
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, observations: Tensor) -> Tensor:
        if self.training:
            self.passes += 1
        return self.body(observations)


class Normed(Dropping):
    def __init__(self, observation_space: spaces.Box):
        super().__init__(observation_space)
        self.body = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8))


class SmallPixels(BaseFeaturesExtractor):
    """A convolution with an activation that works in place, behind which its output is no longer what it was."""

    def __init__(self, observation_space: spaces.Box):
        super().__init__(observation_space, 32)
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 8, stride=4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(256, 32), nn.ReLU(inplace=True)
        )

    def forward(self, observations: Tensor) -> Tensor:
        return self.body(observations)


def made(algorithm: type[A2C] | type[PPO], observations: Any, actions: Any, settings: Settings) -> A2C | PPO:
    policy = "MultiInputPolicy" if isinstance(observations, spaces.Dict) else "MlpPolicy"
    whole = {"batch_size": NUM_ENVS * STEPS, "n_epochs": 1} if algorithm is PPO else {}
    envs = noise_envs(observations, actions, NUM_ENVS)
    options = {"ent_coef": 0.05, "n_steps": STEPS, "max_grad_norm": 1e9, **whole, **settings}
    return algorithm(policy, envs, seed=1, device="cpu", **options)


CASES: dict[str, tuple[Any, Any, Any, Settings, bool]] = {
    "a2c": (A2C, VECTOR, CHOICE, {}, True),
    "ppo": (PPO, VECTOR, CHOICE, {}, True),
    "a2c real actions, normalised": (A2C, VECTOR, REAL, {"normalize_advantage": True}, True),
    "ppo real actions, not normalised": (PPO, VECTOR, REAL, {"normalize_advantage": False}, True),
    "a2c several choices": (A2C, VECTOR, spaces.MultiDiscrete([2, 3]), {"vf_coef": 0.0}, True),
    "ppo several bits, value clipped": (PPO, VECTOR, spaces.MultiBinary(3), {"clip_range_vf": 0.1}, True),
    "a2c state-dependent exploration": (A2C, VECTOR, REAL, {"use_sde": True, "sde_sample_freq": 4}, True),
    "ppo squashed": (PPO, VECTOR, REAL, {"use_sde": True, "policy_kwargs": {"squash_output": True}}, True),
    "ppo a dictionary": (PPO, spaces.Dict({"a": VECTOR, "b": CHOICE}), CHOICE, {}, True),
    "a2c pixels": (A2C, PIXELS, CHOICE, {"policy_kwargs": {"features_extractor_class": SmallPixels}}, True),
    "ppo pixels, two bodies": (
        PPO, PIXELS, CHOICE,
        {"policy_kwargs": {"features_extractor_class": SmallPixels, "share_features_extractor": False}}, True,
    ),
    "a2c group by group": (A2C, VECTOR, REAL, {}, False),
}  # fmt: skip


class Listening:
    """Keeps what is measured, what Stable-Baselines3 then steps with, and the naive gradients of the groups."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, model: A2C | PPO, groups: list[np.ndarray]):
        self.taken: list[GroupGradients] = []
        self.stepped: list[Tensor] = []
        self.naive: list[list[Tensor]] = []
        take = GroupPasses.take

        def listen(passes: GroupPasses, *args: Any) -> GroupGradients:
            self.naive.append(naive_gradients(model, groups))
            self.taken.append(take(passes, *args))
            return self.taken[-1]

        monkeypatch.setattr(GroupPasses, "take", listen)
        model.policy.optimizer.register_step_pre_hook(
            lambda *_: self.stepped.append(flat(p.grad.clone() for p in model.policy.parameters() if p.grad is not None))
        )


@pytest.mark.parametrize("name", list(CASES))
def test_gradients_equal_those_of_stable_baselines3(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm, observations, actions, settings, in_one_pass = CASES[name]
    model = made(algorithm, observations, actions, settings)
    callback = NoiseScaleCallback(every=1, groups=4, frames=0, frames_per_pass=1024 if in_one_pass else 7)
    groups = [np.arange(a, b) for a, b in ((0, 2), (2, 3), (3, 4), (4, 6))]
    heard = Listening(monkeypatch, model, groups)
    model.learn(3 * NUM_ENVS * STEPS, callback=callback)
    assert len(heard.taken) == len(heard.stepped) == 3
    assert callback._passes.in_one_pass
    for taken, stepped, naive in zip(heard.taken, heard.stepped, heard.naive, strict=True):
        scale = float(stepped.norm())
        torch.testing.assert_close(flat(taken.gradient), stepped, rtol=0, atol=1e-6 * max(scale, 1))
        sizes = torch.tensor(taken.group_sizes, dtype=torch.float64)
        assert taken.group_sizes == tuple(STEPS * len(group) for group in groups)
        mean = (torch.stack(naive).double() * sizes[:, None]).sum(0) / sizes.sum()
        torch.testing.assert_close(mean, stepped.double(), rtol=0, atol=1e-6 * max(scale, 1))
        expected = torch.stack([gradient.double().pow(2).sum() for gradient in naive])
        torch.testing.assert_close(taken.group_sq_norms, expected, rtol=1e-4, atol=0)
        assert taken.batch_sq_norm == pytest.approx(scale**2, rel=1e-4)
