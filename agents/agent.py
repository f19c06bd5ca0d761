"""What actor-critic agents have in common: acting, updating, and saving their state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from gymnasium.spaces import Space
from torch import Tensor, nn

from rl_scaling.agents.config import AlgorithmConfig
from rl_scaling.agents.networks import ActorCritic, make_network
from rl_scaling.agents.optimizers import clipped_step
from rl_scaling.agents.precision import gradient_error
from rl_scaling.agents.rollout import Actor, PipelinedActor, Rollout
from rl_scaling.config import ConfigError
from rl_scaling.envs import AlternatingVector, VectorSource
from rl_scaling.noise.torch.group_gradients import GroupSqNorms
from rl_scaling.records import PARTS

Losses = tuple[Tensor, Tensor, Tensor]
Config = TypeVar("Config", bound=AlgorithmConfig)


@dataclass(frozen=True)
class GradientGroups:
    """Gradients of groups of whole environments, reduced to what the noise scale needs.

    Attributes:
        sq_norms: (k,) squared norms of the groups' mean gradients.
        sizes: (k,) frames in each group.
        batch_sq_norm: squared norm of the mean gradient over all frames.
        frame_sq_norms: (m,) squared norms of the gradients of single frames drawn at random; empty if not taken.
    """

    sq_norms: np.ndarray
    sizes: np.ndarray
    batch_sq_norm: float
    frame_sq_norms: np.ndarray

    @classmethod
    def of(cls, of_groups: Tensor, of_frames: Tensor, sizes: Tensor, gradient: Sequence[Tensor]) -> GradientGroups:
        """From sums over frames that each count 1 / frames to means over a part's own frames.

        Args:
            of_groups, of_frames: (k,) and (m,) squared norms of the shares of groups and of single frames.
            sizes: (k,) float64, frames in each group.
            gradient: the mean over all frames.
        """
        batch_sq_norm = nn.utils.get_total_norm(gradient) ** 2
        frames = sizes.sum()
        return cls(
            sq_norms=(of_groups * (frames / sizes.clamp(min=1)) ** 2).cpu().numpy(),
            sizes=sizes.cpu().numpy(),
            batch_sq_norm=float(batch_sq_norm),
            frame_sq_norms=(of_frames * frames**2).cpu().numpy(),
        )


@dataclass(frozen=True)
class Update:
    """What one rollout and the optimiser updates from it did.

    Scalars stay tensors, so that nothing waits for the device until they are read; they are means over the updates.

    Attributes:
        frames: valid frames of the rollout.
        updates: optimiser updates made from it, or one outer step (`PPOConfig.scaling`).
        epochs: how often each of its frames was used, in different updates.
        policy_loss, value_loss, entropy: the terms of the loss before their coefficients.
        grad_norm: of the gradient before clipping.
        learning_rate: that of the updates.
        episode_scores, episode_frames: raw scores and lengths of the games that ended in the rollout.
        groups: of an update of the first epoch, where it was measured.
        reuse: of an update of a later epoch, whose frames were used before, where it was measured.
        parts: as `groups`, for the loss's terms as they are weighted in it (`PARTS`), where they were asked for: their
            sum is the gradient whose groups are in `groups`.
        clip_fraction, approx_kl: PPO's share of clipped frames, and its estimate of how far the policy has moved.
    """

    frames: int
    policy_loss: Tensor
    value_loss: Tensor
    entropy: Tensor
    grad_norm: Tensor
    learning_rate: float
    episode_scores: np.ndarray
    episode_frames: np.ndarray
    groups: GradientGroups | None
    parts: dict[str, GradientGroups] = field(default_factory=dict)
    updates: int = 1
    epochs: int = 1
    reuse: GradientGroups | None = None
    clip_fraction: Tensor | None = None
    approx_kl: Tensor | None = None


class Descent(NamedTuple):
    """What one step of the optimiser tells: the gradient's norm before clipping, and what was measured of it."""

    grad_norm: Tensor
    groups: GradientGroups | None
    parts: dict[str, GradientGroups]


class Agent(ABC, Generic[Config]):
    """The agent: its network, optimiser and random numbers.

    Args:
        config: the algorithm's settings.
        observation_shape: shape of one observation, (4, 84, 84) for Atari.
        num_actions: number of actions to choose from, or a source's `action_space` where they are of another kind.
        total_updates: optimiser updates of the whole run, over which what is annealed falls to 0.
        seed: of the initial weights and the actions.
        device: where the network lives.
        network: your own network instead of the one the config names.
    """

    # Whether what the layers gave while acting is kept, to be differentiated without another forward pass.
    keeps_layers: ClassVar[bool]

    def __init__(
        self,
        config: Config,
        observation_shape: tuple[int, ...],
        num_actions: int | Space[Any],
        *,
        total_updates: int,
        seed: int = 0,
        device: str | torch.device = "cpu",
        network: ActorCritic | None = None,
    ):
        self.config = config
        self.device = torch.device(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = network or make_network(config.network, observation_shape, num_actions)
        self.network = network.to(self.device)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self._random = np.random.default_rng(seed)  # only chooses what to measure: never changes what is learned
        self.total_updates = total_updates
        self.updates = 0
        self.learning_rate_factor = 1.0  # set from outside where the batch size changes
        self.capture_graphs = True  # on CUDA, where halves of the environments are acted on in turns
        self._parameters = list(self.network.parameters())
        self._optimizer = self._make_optimizer()
        self._actor: Actor | None = None

    @abstractmethod
    def step(self, *, num_groups: int = 1, frame_gradients: int = 0, parts: bool = False) -> Update:
        """One rollout and the updates from it.

        Args:
            num_groups: 2 or more measures: the gradient is taken for this many groups of whole environments.
            frame_gradients: when measuring, the number of single frames whose gradients are taken as well.
            parts: when measuring, whether each term of the loss is measured by itself as well.

        Raises:
            RuntimeError: `begin` was not called.
        """

    @classmethod
    def step_together(cls, stack: Any, measure: Sequence[Mapping[str, Any]]) -> list[Update]:
        """What `step` does, of all agents of a stack in shared passes; not every algorithm has it.

        Args:
            stack: a `rl_scaling.agents.stack.Stack` of agents of this algorithm.
            measure: for each of them the arguments of `step`; empty where nothing is measured.
        """
        raise NotImplementedError(f"{cls.__name__} does not train side by side")

    def loss_terms(self, rollout: Rollout) -> Callable[[Tensor, Tensor], Losses]:
        """From the network's outputs for all rows of a rollout to its loss's terms as they are weighted (`PARTS`).

        Each is a sum of what every row gives by itself: what rows share, as returns and normalised advantages, is data.

        Raises:
            ConfigError: the algorithm does not say them.
        """
        raise ConfigError(f"{self.config.kind} cannot be measured at weights that are kept: it has no loss_terms")

    @abstractmethod
    def _loss_of(self, rollout: Rollout) -> Callable[[Tensor, Tensor], Tensor]:
        """The loss of all of a rollout's frames, of the logits and values of its observations."""

    @abstractmethod
    def _make_optimizer(self) -> torch.optim.Optimizer: ...

    def begin(self, source: VectorSource, observations: np.ndarray) -> None:
        """Act in `source` from now on; `observations` (n, *shape) are those of its reset."""
        network, device, keep_layers = self.network, self.device, self.keeps_layers
        if isinstance(source, AlternatingVector):
            graphs = self.capture_graphs
            self._actor = PipelinedActor(
                network, source, observations, device, keep_layers=keep_layers, capture_graphs=graphs
            )
        else:
            self._actor = Actor(network, source, observations, device, keep_layers=keep_layers)

    def sampled_loss(self) -> tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]:
        """A rollout, acted but not learned from, as a loss for checks of the gradient.

        Returns:
            (m, *shape) observations of the rollout and those after it, and the loss of the network's (m, num_actions)
            logits and (m,) values for them. What the loss takes from acting is taken from these too, so that all of it
            is as it would be if the network had acted in the arithmetic that it computes them in.

        Raises:
            RuntimeError: `begin` was not called.
        """
        rollout = self._roll_out()
        after = self._acting.current

        def loss(logits: Tensor, values: Tensor) -> Tensor:
            frames = len(rollout.observations)
            acted = replace(
                rollout,
                logits=logits[:frames].detach().view_as(rollout.logits),
                values=values[:frames].detach().view_as(rollout.values),
                last_values=values[frames:].detach(),
            )
            return self._loss_of(acted)(logits[:frames], values[:frames])

        return torch.cat([rollout.observations, after]), loss

    def gradient_error(self, dtype: torch.dtype) -> float:
        """Relative error that layers computing in `dtype` bring into the gradient of a rollout.

        The rollout is acted but not learned from. See `rl_scaling.agents.precision.gradient_error`.

        Raises:
            RuntimeError: `begin` was not called.
        """
        observations, loss = self.sampled_loss()
        return gradient_error(self.network, loss, observations, dtype)

    @property
    def _acting(self) -> Actor:
        if self._actor is None:
            raise RuntimeError("the agent has no environments yet: call begin(source, observations) first")
        return self._actor

    def _roll_out(self) -> Rollout:
        return self._acting.roll_out(self.config.rollout_steps, self.generator)

    def _weighted(self, losses: Sequence[Tensor]) -> Losses:
        """Policy loss, value loss and entropy as they are weighted in the loss, which is their sum."""
        policy, value, entropy = losses
        return policy, self.config.value_coefficient * value, -self.config.entropy_coefficient * entropy

    def _total(self, losses: Sequence[Tensor]) -> Tensor:
        policy, value, entropy = self._weighted(losses)
        return policy + value + entropy

    def _descend(
        self,
        losses: Losses,
        valid: Tensor,
        learning_rate: float,
        norms: GroupSqNorms | None = None,
        *,
        measure_parts: bool = False,
    ) -> Descent:
        """One step of the optimiser along the clipped gradient of the loss.

        Args:
            losses: policy loss, value loss and entropy, before their coefficients.
            valid: which of the frames they are means over count.
            learning_rate: of this step.
            norms: collects norms of groups' gradients while the gradient is taken, before it is clipped.
            measure_parts: whether they are taken of each term of the loss as well.
        """
        parts = self._measured_parts(losses, valid, norms) if norms and measure_parts else {}
        self._optimizer.zero_grad()
        self._total(losses).backward()
        gradient = [p.grad for p in self._parameters if p.grad is not None]
        groups = self._gradient_groups(valid, norms, gradient) if norms else None
        return Descent(self.apply_gradient(learning_rate), groups, parts)

    def apply_gradient(self, learning_rate: float) -> Tensor:
        """One step of the optimiser along what is in `.grad`, clipped; its norm before clipping."""
        gradient = [p.grad for p in self._parameters if p.grad is not None]
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        grad_norm = clipped_step(self._optimizer, gradient, self.config.max_grad_norm)
        self.updates += 1
        return grad_norm

    def _learning_rate(self) -> float:
        rate = self.config.learning_rate * self.learning_rate_factor
        return self._annealed(rate, self.config.learning_rate_schedule)

    def _annealed(self, start: float, schedule: Literal["constant", "linear"]) -> float:
        """What is left of a value that is constant, or falls to 0 over all updates."""
        return start if schedule == "constant" else start * max(0.0, 1 - self.updates / self.total_updates)

    def _frames_to_measure(self, valid: Tensor, count: int) -> list[int]:
        """Rows of single valid frames, drawn at random."""
        (rows,) = valid.flatten().cpu().numpy().nonzero()
        return self._random.choice(rows, size=min(count, len(rows))).tolist()

    def _gradient_groups(self, valid: Tensor, norms: GroupSqNorms, gradient: Sequence[Tensor]) -> GradientGroups:
        sizes = torch.stack([valid.flatten()[group].sum() for group in norms.groups]).double()
        return GradientGroups.of(norms.group_sq_norms, norms.row_sq_norms, sizes, gradient)

    def _measured_parts(
        self, losses: Sequence[Tensor], valid: Tensor, norms: GroupSqNorms
    ) -> dict[str, GradientGroups]:
        """Gradients of the loss's terms, one backward pass each through the graph of the update."""
        parts = {}
        for name, term in zip(PARTS, self._weighted(losses), strict=True):
            gradient = torch.autograd.grad(
                term, self._parameters, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            parts[name] = self._gradient_groups(valid, norms, gradient)
            norms.reset()
        return parts

    def state_dict(self) -> dict[str, Any]:
        """All that a later process needs to resume, except the environments, which cannot be saved."""
        return {
            # Copies: in a `Stack` the weights are lines of tensors that hold those of all its agents, and a line is
            # saved with the whole tensor.
            "network": {name: weights.clone() for name, weights in self.network.state_dict().items()},
            "optimizer": self._optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the agent was whose `state_dict` it is.

        Raises:
            ConfigError: it is of another network.
        """
        own, saved = (_shapes(weights) for weights in (self.network.state_dict(), state["network"]))
        if own != saved:
            raise ConfigError(f"the state is of another network than {self.config.network!r}: give one of this network")
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.updates = state["updates"]
        generator = state["generator"].cpu()
        if generator.shape == self.generator.get_state().shape:
            self.generator.set_state(generator)
        else:  # saved on another kind of device, whose random numbers cannot be continued here
            self.generator.manual_seed(self.updates)


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in weights.items()}
