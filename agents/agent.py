"""What actor-critic agents have in common: a network that acts, what is saved of it, and parts of its gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from rl_scaling.agents.networks import ActorCritic, make_network
from rl_scaling.agents.pipeline import make_actor
from rl_scaling.agents.rollout import Actor, Rollout
from rl_scaling.agents.update import GradientGroups, Update
from rl_scaling.config import A2CConfig, PPOConfig
from rl_scaling.envs import VectorSource
from rl_scaling.noise.torch.group_gradients import GroupSqNorms
from rl_scaling.records import PARTS

Losses = tuple[Tensor, Tensor, Tensor]
Config = TypeVar("Config", A2CConfig, PPOConfig)


class Agent(ABC, Generic[Config]):
    """The agent: its network, optimiser and random numbers.

    Args:
        config: the algorithm's settings.
        observation_shape: shape of one observation, (4, 84, 84) for Atari.
        num_actions: number of discrete actions.
        total_updates: optimiser updates of the whole run, over which what is annealed falls to 0.
        seed: of the initial weights and the actions.
        device: where the network lives.
        network: a network of one's own instead of the one the config names.
    """

    # Whether what the layers gave while acting is kept, to be differentiated without another forward pass.
    keeps_layers: ClassVar[bool]

    def __init__(
        self,
        config: Config,
        observation_shape: tuple[int, ...],
        num_actions: int,
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

    @abstractmethod
    def _make_optimizer(self) -> torch.optim.Optimizer: ...

    def begin(self, source: VectorSource, observations: np.ndarray) -> None:
        """Act in `source` from now on; `observations` (n, *shape) are those of its reset."""
        self._actor = make_actor(
            self.network,
            source,
            observations,
            self.device,
            keep_layers=self.keeps_layers,
            capture_graphs=self.capture_graphs,
        )

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

    def _descend(self, learning_rate: float) -> Tensor:
        """One step of the optimiser along the clipped gradient; the norm before clipping."""
        grad_norm = nn.utils.clip_grad_norm_(self._parameters, self.config.max_grad_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
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
        """From sums over rows that each count 1 / frames to means over a part's own frames."""
        sizes = torch.stack([valid.flatten()[group].sum() for group in norms.groups]).double()
        batch_sq_norm = nn.utils.get_total_norm(gradient) ** 2
        frames = sizes.sum()
        return GradientGroups(
            sq_norms=(norms.group_sq_norms * (frames / sizes.clamp(min=1)) ** 2).cpu().numpy(),
            sizes=sizes.cpu().numpy(),
            batch_sq_norm=float(batch_sq_norm),
            frame_sq_norms=(norms.row_sq_norms * frames**2).cpu().numpy(),
        )

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
        """Everything a later process needs to go on, except the environments, which cannot be saved."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.updates = state["updates"]
        generator = state["generator"].cpu()
        if generator.shape == self.generator.get_state().shape:
            self.generator.set_state(generator)
        else:  # saved on another kind of device, whose random numbers cannot be continued here
            self.generator.manual_seed(self.updates)
