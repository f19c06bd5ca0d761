"""Distributions over actions: what is sampled, with which probability, and with how much entropy.

A network puts out parameters for every row, and an `Actions` says what they mean. It draws its random numbers by
themselves, in one tensor of a fixed shape: a captured graph can then choose actions from them again and again.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax

from rl_scaling.config import ConfigError


class Actions(ABC):
    """A kind of actions.

    Attributes:
        num_outputs: numbers that the policy's last layer gives for each row; as many random numbers choose an action.
        num_parameters: parameters of a row's distribution: the outputs and, of a Gaussian, what is learned beside them.
        shape, dtype: of one action.
    """

    num_outputs: int
    shape: tuple[int, ...] = ()
    dtype = torch.int64

    @property
    def num_parameters(self) -> int:
        return self.num_outputs

    def sample(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """One action per row of (n, num_parameters) parameters: (n, *shape).

        It neither waits for the device nor fails when a run has diverged to NaN.
        """
        noise = torch.empty_like(parameters[..., : self.num_outputs], memory_format=torch.contiguous_format)
        return self.choose(parameters, self.draw(noise, generator))

    @abstractmethod
    def draw(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Fill (n, num_outputs) with the random numbers that `choose` takes; returns them."""

    @abstractmethod
    def choose(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """(n, *shape) the actions that the random numbers choose."""

    @abstractmethod
    def judge(self, parameters: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities (densities) of (..., *shape) actions, and the distributions' entropies: (...) each."""


@dataclass(frozen=True)
class Categorical(Actions):
    """One of several numbered actions; parameters are logits."""

    num_outputs: int

    def draw(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        """See `Actions.draw`."""
        return noise.exponential_(generator=generator)

    def choose(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """See `Actions.choose`; by the Gumbel-max trick."""
        return (parameters - noise.log()).argmax(dim=-1)

    def judge(self, parameters: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """See `Actions.judge`."""
        log_probs = log_softmax(parameters, dim=-1)
        chosen = log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
        return chosen, -(log_probs.exp() * log_probs).sum(-1)


@dataclass(frozen=True)
class MultiCategorical(Actions):
    """Several independent choices among numbered actions; parameters are their logits, one after the other."""

    sizes: tuple[int, ...]

    @property
    def num_outputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return sum(self.sizes)

    @property
    def shape(self) -> tuple[int, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return (len(self.sizes),)

    def draw(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        """See `Actions.draw`."""
        return noise.exponential_(generator=generator)

    def choose(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """See `Actions.choose`."""
        scores = (parameters - noise.log()).split(self.sizes, dim=-1)
        return torch.stack([choice.argmax(dim=-1) for choice in scores], dim=-1)

    def judge(self, parameters: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """See `Actions.judge`."""
        choices = zip(self.sizes, parameters.split(self.sizes, dim=-1), actions.unbind(-1), strict=True)
        log_probs, entropies = zip(*(Categorical(size).judge(*choice) for size, *choice in choices), strict=True)
        return torch.stack(log_probs).sum(0), torch.stack(entropies).sum(0)


@dataclass(frozen=True)
class Bernoulli(Actions):
    """Several independent switches; parameters are the logits of their being on."""

    num_outputs: int

    @property
    def shape(self) -> tuple[int, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return (self.num_outputs,)

    def draw(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        """See `Actions.draw`."""
        return noise.uniform_(generator=generator)

    def choose(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """See `Actions.choose`."""
        return (noise < parameters.sigmoid()).to(self.dtype)

    def judge(self, parameters: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """See `Actions.judge`."""
        log_probs = -binary_cross_entropy_with_logits(parameters, actions.to(parameters.dtype), reduction="none")
        entropies = binary_cross_entropy_with_logits(parameters, parameters.sigmoid(), reduction="none")
        return log_probs.sum(-1), entropies.sum(-1)


@dataclass(frozen=True)
class DiagonalGaussian(Actions):
    """A vector of independent normal numbers, neither squashed nor clipped: a source clips what it steps with.

    Parameters are the means, which depend on the observation, and the logarithms of the standard deviations, which do
    not: they are learned from 0 on, as in Stable-Baselines3.
    """

    num_outputs: int
    dtype = torch.float32

    @property
    def shape(self) -> tuple[int, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return (self.num_outputs,)

    @property
    def num_parameters(self) -> int:
        return 2 * self.num_outputs

    def draw(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        """See `Actions.draw`."""
        return noise.normal_(generator=generator)

    def choose(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """See `Actions.choose`."""
        means, log_stds = parameters.chunk(2, dim=-1)
        return means + log_stds.exp() * noise

    def judge(self, parameters: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """See `Actions.judge`."""
        means, log_stds = parameters.chunk(2, dim=-1)
        half_log = 0.5 * math.log(2 * math.pi)
        log_densities = -0.5 * ((actions - means) / log_stds.exp()) ** 2 - log_stds - half_log
        return log_densities.sum(-1), (log_stds + half_log + 0.5).sum(-1)


def actions_of(space: int | np.integer[Any] | Space[Any]) -> Actions:
    """The distribution over the actions of a space.

    Args:
        space: the number of actions, or a source's `action_space`.

    Raises:
        ConfigError: a space of another kind.

    >>> actions_of(4)
    Categorical(num_outputs=4)
    >>> actions_of(Box(-1, 1, (3,))).num_parameters
    6
    """
    match space:
        case int() | np.integer():
            return Categorical(int(space))
        case Discrete(start=0):
            return Categorical(int(space.n))
        case MultiDiscrete() if space.nvec.ndim == 1 and not space.start.any():
            return MultiCategorical(tuple(int(size) for size in space.nvec))
        case MultiBinary() if len(space.shape) == 1:
            return Bernoulli(space.shape[0])
        case Box() if len(space.shape) == 1 and space.dtype.kind == "f":
            return DiagonalGaussian(space.shape[0])
    raise ConfigError(
        f"actions are {space}: give their number, or a Discrete, MultiDiscrete, MultiBinary or Box of one dimension"
        " that begins at 0, as GymnasiumVector has it"
    )
