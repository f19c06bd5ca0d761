"""Actor-critic networks: observations to action logits and a value, with the Baselines' orthogonal start."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from gymnasium.spaces import Space
from torch import Tensor, nn

from rl_scaling.agents.actions import actions_of
from rl_scaling.config import ConfigError
from rl_scaling.noise.torch.layer_gradients import LearnedConstant


class ActorCritic(nn.Module):
    """One body (or two) with a policy head and a value head.

    Args:
        policy_body: maps observations to features for the policy.
        value_body: the same for the value; None shares the policy's body and runs it once.
        num_features: width of the features.
        num_actions: number of actions to choose from, or a source's `action_space` where they are of another kind.

    Attributes:
        actions: the distribution over actions whose parameters the network gives.
        log_std: the part of these that does not depend on the observation; None but for a Gaussian.
        compute_dtype: layers of the bodies compute in this type under autocast (torch.bfloat16); None, the default: in
            their own. The heads always do.
    """

    compute_dtype: torch.dtype | None = None

    def __init__(
        self,
        policy_body: nn.Module,
        value_body: nn.Module | None,
        num_features: int,
        num_actions: int | Space[Any],
    ):
        super().__init__()
        self.actions = actions_of(num_actions)
        self.policy_body = policy_body
        self.value_body = value_body
        self.policy_head = nn.Linear(num_features, self.actions.num_outputs)
        self.value_head = nn.Linear(num_features, 1)
        learned = self.actions.num_parameters - self.actions.num_outputs
        self.log_std = LearnedConstant(torch.zeros(learned)) if learned else None
        self._initialise()

    def _initialise(self) -> None:
        gains: dict[nn.Module, float] = {self.policy_head: 0.01, self.value_head: 1.0}
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.orthogonal_(module.weight, gains.get(module, math.sqrt(2)))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters of `actions`, and values, for observations (n, *shape); uint8 pixels are scaled to 0..1.

        Returns:
            (n, num_parameters) logits, or means and log standard deviations, and (n,) values.
        """
        inputs = observations
        if observations.dtype == torch.uint8:
            # 0 to 255 are exact in bfloat16 as well, and the quotient is rounded once, as it is from float32.
            inputs = observations.to(self.compute_dtype or torch.float32, memory_format=pixel_layout(observations))
            inputs = inputs.div_(255)
        if self.compute_dtype is None:
            return self._heads(*self._bodies(inputs))
        with torch.autocast(inputs.device.type, self.compute_dtype):
            features, value_features = self._bodies(inputs)
        # In float32: a value of three digits would be an error of its return.
        with torch.autocast(inputs.device.type, enabled=False):
            return self._heads(features.float(), value_features.float())

    def _bodies(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        features = self.policy_body(inputs)
        return features, features if self.value_body is None else self.value_body(inputs)

    def _heads(self, features: Tensor, value_features: Tensor) -> tuple[Tensor, Tensor]:
        parameters, values = self.policy_head(features), self.value_head(value_features).squeeze(-1)
        if self.log_std is not None:
            parameters = torch.cat([parameters, self.log_std(parameters.detach())], dim=-1)
        return parameters, values

    @contextmanager
    def unchanged(self) -> Generator[None]:
        """Inside, where nothing is differentiated and the weights stay, they are rounded to `compute_dtype` once."""
        if self.compute_dtype is None:
            yield
            return
        with torch.autocast(self.policy_head.weight.device.type, self.compute_dtype):
            yield


def pixel_layout(observations: Tensor) -> torch.memory_format:
    """How observations (n, *shape) are best laid out in memory: pixels with the channels last.

    The weight gradient of a convolution with few input channels is then several times faster.
    """
    pixels = observations.dim() == 4 and observations.dtype == torch.uint8
    return torch.channels_last if pixels else torch.contiguous_format


# Convolutions as (filters, side of a filter, stride), and the units of the layer after them: Mnih et al. 2015 (Nature)
# and Mnih et al. 2016 (A3C), on 84 x 84 pixels there, and Young & Tian 2019 (MinAtar), on 10 x 10 cells.
_CONVOLUTIONS: dict[str, tuple[tuple[tuple[int, int, int], ...], int]] = {
    "nature": (((32, 8, 4), (64, 4, 2), (64, 3, 1)), 512),
    "small": (((16, 8, 4), (32, 4, 2)), 256),
    "minatar": (((16, 3, 1),), 128),
}
_MLP_UNITS = 64


def _convolved(name: str, shape: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """(filters, height, width) after each convolution of (channels, height, width) pixels; 0 where nothing is left."""
    shapes, sides = [], shape[1:]
    for filters, side, stride in _CONVOLUTIONS[name][0]:
        height, width = (max((pixels - side) // stride + 1, 0) for pixels in sides)
        shapes.append((filters, height, width))
        sides = height, width
    return shapes


def _fewest_pixels(name: str) -> int:
    """The smallest side of an image from which the convolutions leave something."""
    return next(side for side in range(1, 1000) if _convolved(name, (1, side, side))[-1][1])


def _convolutional(name: str, shape: tuple[int, ...]) -> nn.Sequential:
    convolutions, units = _CONVOLUTIONS[name]
    layers: list[nn.Module] = []
    channels = shape[0]
    for filters, side, stride in convolutions:
        layers += [nn.Conv2d(channels, filters, side, stride=stride), nn.ReLU()]
        channels = filters
    # Flattened before the last ReLU, whose backward pass is several times slower where the gradient of the flat
    # features meets features with their channels last.
    layers.insert(-1, nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(math.prod(_convolved(name, shape)[-1]), units), nn.ReLU())


def _mlp(inputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, _MLP_UNITS), nn.Tanh(), nn.Linear(_MLP_UNITS, _MLP_UNITS), nn.Tanh()
    )


def fits(name: str, observation_shape: tuple[int, ...]) -> bool:
    """Whether a network takes observations of this shape: an "mlp" all, convolutions images that are large enough."""
    if name == "mlp":
        return True
    return len(observation_shape) == 3 and 0 not in _convolved(name, observation_shape)[-1]


def suited_network(name: str, observation_shape: tuple[int, ...]) -> str:
    """The network itself where it fits the observations, else the first of "small", "minatar" and "mlp" that does."""
    return next(network for network in (name, "small", "minatar", "mlp") if fits(network, observation_shape))


def _require_fit(name: str, observation_shape: tuple[int, ...]) -> None:
    if not fits(name, observation_shape):
        side = _fewest_pixels(name)
        raise ConfigError(
            f"network {name!r} needs images of {side} x {side} pixels or more, not observations of shape"
            f" {observation_shape}; use {suited_network(name, observation_shape)}"
        )


def layer_units(name: str, observation_shape: tuple[int, ...]) -> int:
    """Numbers that the layers of a network's bodies give for one observation.

    Raises:
        ConfigError: the network does not fit the observations.
    """
    _require_fit(name, observation_shape)
    if name == "mlp":
        return 4 * _MLP_UNITS
    return sum(map(math.prod, _convolved(name, observation_shape))) + _CONVOLUTIONS[name][1]


def make_network(name: str, observation_shape: tuple[int, ...], num_actions: int | Space[Any]) -> ActorCritic:
    """A freshly initialised network: "mlp" for any numbers, the others for (channels, height, width) pixels or cells.

    Raises:
        ConfigError: the network does not fit the observations.
    """
    _require_fit(name, observation_shape)
    if name == "mlp":
        inputs = math.prod(observation_shape)
        return ActorCritic(_mlp(inputs), _mlp(inputs), _MLP_UNITS, num_actions)
    return ActorCritic(_convolutional(name, observation_shape), None, _CONVOLUTIONS[name][1], num_actions)
