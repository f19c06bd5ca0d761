"""The 16-32 network as a features extractor for Stable-Baselines3, so that both train the same one."""

from __future__ import annotations

from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from rl_scaling.agents import make_network


class SmallCNN(BaseFeaturesExtractor):
    """The body of our "small" network; observations come scaled to 0..1."""

    def __init__(self, observation_space: spaces.Box):
        super().__init__(observation_space, features_dim=256)
        self.body = make_network("small", observation_space.shape, 1).policy_body

    def forward(self, observations: Tensor) -> Tensor:
        return self.body(observations)
