"""Actor-critic networks: observations to action logits and a value, with the Baselines' orthogonal start."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from rl_scaling.config import ConfigError

# Of the gradient in half precision: adds its square, 1 %, to a relative variance that is 100 % in a batch as large as
# the noise scale.
MOST_GRADIENT_ERROR = 0.1


class ActorCritic(nn.Module):
    """One body (or two) with a policy head and a value head.

    Args:
        policy_body: maps observations to features for the policy.
        value_body: the same for the value; None shares the policy's body and runs it once.
        num_features: width of the features.
        num_actions: number of discrete actions.

    Attributes:
        compute_dtype: layers compute in this type under autocast (torch.bfloat16); None, the default: in their own.
    """

    compute_dtype: torch.dtype | None = None

    def __init__(self, policy_body: nn.Module, value_body: nn.Module | None, num_features: int, num_actions: int):
        super().__init__()
        self.policy_body = policy_body
        self.value_body = value_body
        self.policy_head = nn.Linear(num_features, num_actions)
        self.value_head = nn.Linear(num_features, 1)
        self._initialise()

    def _initialise(self) -> None:
        gains: dict[nn.Module, float] = {self.policy_head: 0.01, self.value_head: 1.0}
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.orthogonal_(module.weight, gains.get(module, math.sqrt(2)))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, num_actions) and values (n,) for observations (n, *shape); uint8 pixels are scaled to 0..1."""
        inputs = observations
        if observations.dtype == torch.uint8:
            inputs = observations.to(torch.float32, memory_format=pixel_layout(observations)).div_(255)
        if self.compute_dtype is None:
            return self._heads(inputs)
        with torch.autocast(inputs.device.type, self.compute_dtype):
            logits, values = self._heads(inputs)
        return logits.float(), values.float()

    def _heads(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        features = self.policy_body(inputs)
        value_features = features if self.value_body is None else self.value_body(inputs)
        return self.policy_head(features), self.value_head(value_features).squeeze(-1)


def pixel_layout(observations: Tensor) -> torch.memory_format:
    """How observations (n, *shape) are best laid out in memory: pixels with the channels last.

    The weight gradient of a convolution with few input channels is then several times faster.
    """
    pixels = observations.dim() == 4 and observations.dtype == torch.uint8
    return torch.channels_last if pixels else torch.contiguous_format


def _nature(channels: int) -> nn.Sequential:
    """Mnih et al. 2015 (Nature): three convolutions on 84 x 84 pixels."""
    return nn.Sequential(
        nn.Conv2d(channels, 32, 8, stride=4), nn.ReLU(),
        nn.Conv2d(32, 64, 4, stride=2), nn.ReLU(),
        nn.Conv2d(64, 64, 3, stride=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * 7 * 7, 512), nn.ReLU(),
    )  # fmt: skip


def _small(channels: int) -> nn.Sequential:
    """Mnih et al. 2016 (A3C): two convolutions on 84 x 84 pixels."""
    return nn.Sequential(
        nn.Conv2d(channels, 16, 8, stride=4), nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 9 * 9, 256), nn.ReLU(),
    )  # fmt: skip


def _minatar(channels: int, rows: int, columns: int) -> nn.Sequential:
    """Young & Tian 2019 (MinAtar): one convolution, on a grid of any size."""
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(16 * (rows - 2) * (columns - 2), 128), nn.ReLU(),
    )  # fmt: skip


def _mlp(inputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())


def make_network(name: str, observation_shape: tuple[int, ...], num_actions: int) -> ActorCritic:
    """A freshly initialised network.

    "nature" and "small" are for (channels, 84, 84) pixels, "minatar" for (channels, rows, columns) of at least 3 x 3,
    "mlp" for any observations.

    Raises:
        ConfigError: the network does not fit the observations.
    """
    if name == "mlp":
        inputs = math.prod(observation_shape)
        return ActorCritic(_mlp(inputs), _mlp(inputs), 64, num_actions)
    grid = len(observation_shape) == 3 and min(observation_shape[1:]) >= 3
    if name == "minatar" and grid:
        return ActorCritic(_minatar(*observation_shape), None, 128, num_actions)
    if not grid or observation_shape[1:] != (84, 84):
        needs = "channels of at least 3 x 3 cells" if name == "minatar" else "84 x 84 pixels"
        raise ConfigError(
            f"network {name!r} needs {needs}, not observations of shape {observation_shape}; use"
            f" {'minatar or mlp' if grid else 'mlp'}"
        )
    body, num_features = (_nature, 512) if name == "nature" else (_small, 256)
    return ActorCritic(body(observation_shape[0]), None, num_features, num_actions)


def gradient_error(
    network: ActorCritic, loss: Callable[[Tensor, Tensor], Tensor], observations: Tensor, dtype: torch.dtype
) -> float:
    """|g - g32| / |g32|, the relative error of a gradient whose layers compute in `dtype` under autocast.

    Args:
        network: is left as it was.
        loss: of its logits and values.
        observations: (m, *shape) what both gradients are taken on.
        dtype: torch.bfloat16, usually.
    """

    def gradient(of: torch.dtype | None) -> Tensor:
        network.compute_dtype = of
        parts = torch.autograd.grad(loss(*network(observations)), list(network.parameters()), materialize_grads=True)
        return torch.cat([part.flatten() for part in parts]).double()

    before = network.compute_dtype
    try:
        exact, rounded = gradient(None), gradient(dtype)
    finally:
        network.compute_dtype = before
    return float((rounded - exact).norm() / exact.norm())
