"""Agents side by side do what each does alone: the same weights, losses and norms, whatever the network."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rl_scaling.agents import A2C, PPO, ActorCritic, Agent
from rl_scaling.agents.agent import GradientGroups, Update
from rl_scaling.agents.config import A2CConfig, AlgorithmConfig, PPOConfig
from rl_scaling.agents.stack import Stack
from rl_scaling.envs import Transition, VectorSource

SHAPES = {"mlp": (5,), "convolutions": (3, 6, 6), "pixels": (2, 6, 6)}
CONFIGS = {
    "A2C": A2CConfig(network="mlp", rollout_steps=4),
    "A2C, torch's epsilon": A2CConfig(network="mlp", rollout_steps=3, rmsprop_epsilon_inside_root=False),
    "PPO": PPOConfig(network="mlp", rollout_steps=8, minibatches=2, epochs=2, value_clip_range=0.2),
    "PPO by environment": PPOConfig(
        network="mlp", rollout_steps=4, minibatches=2, epochs=3, minibatch_of="environments", max_grad_norm=0.01
    ),
}
MEASURE = {"num_groups": 2, "frame_gradients": 3, "parts": True}


class Noise(VectorSource):
    """Random observations, rewards for one of three actions, games that end and are cut at random."""

    def __init__(self, network: str, num_envs: int = 4) -> None:
        self.num_envs, self.num_actions, self.observation_shape = num_envs, 3, SHAPES[network]
        self._pixels = network == "pixels"

    def reset(self, seed: int) -> np.ndarray:
        self._random, self._resetting = np.random.default_rng(seed), np.zeros(self.num_envs, bool)
        return self._observe()

    def _observe(self) -> np.ndarray:
        shape = (self.num_envs, *self.observation_shape)
        if self._pixels:
            return self._random.integers(256, size=shape, dtype=np.uint8)
        return self._random.standard_normal(shape, np.float32)

    def step(self, actions: np.ndarray) -> Transition:
        valid = ~self._resetting
        over, cut = (self._random.random((2, self.num_envs)) < 0.1) & valid
        cut &= ~over
        self._resetting = over | cut
        (finished,) = np.nonzero(self._resetting)
        return Transition(
            self._observe(),
            (actions == 1).astype(np.float32) * valid,
            over,
            cut,
            valid,
            finished,
            finished.astype(float),
            finished + 1,
        )

    def close(self) -> None:
        pass


def network_of(name: str) -> ActorCritic:
    if name == "mlp":
        bodies = [nn.Sequential(nn.Flatten(), nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh()) for _ in "pv"]
        return ActorCritic(bodies[0], bodies[1], 8, 3)
    channels = SHAPES[name][0]
    body = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 8), nn.Tanh())
    return ActorCritic(body, None, 8, 3)


def made(config: AlgorithmConfig, network: str, count: int = 3) -> list[tuple[Agent[Any], Noise]]:
    """With rates and seeds of their own."""
    agents = []
    for seed in range(count):
        own = dataclasses.replace(config, learning_rate=1e-3 * 2**seed, learning_rate_schedule="linear")
        kind: Any = A2C if isinstance(config, A2CConfig) else PPO
        torch.manual_seed(seed)
        options: dict[str, Any] = {"total_updates": 100, "seed": seed, "network": network_of(network)}
        agents.append((kind(own, SHAPES[network], 3, **options), Noise(network)))
    return agents


def stacked(agents: list[tuple[Agent[Any], Noise]]) -> Stack[Any]:
    stack = Stack([agent for agent, _ in agents])
    stack.begin([source for _, source in agents], [source.reset(k) for k, (_, source) in enumerate(agents)])
    return stack


def measured(number: int, step: int) -> dict[str, Any]:
    """Each agent at times of its own."""
    return dict(MEASURE) if (number + step) % 3 == 0 else {}


def require_equal_groups(found: GradientGroups | None, wanted: GradientGroups | None) -> None:
    assert (found is None) == (wanted is None)
    if found is not None and wanted is not None:
        for name, value in vars(wanted).items():
            np.testing.assert_allclose(getattr(found, name), value, rtol=1e-4, atol=1e-9, err_msg=name)


def require_equal(found: Update, wanted: Update) -> None:
    assert (found.frames, found.updates, found.epochs) == (wanted.frames, wanted.updates, wanted.epochs)
    assert found.learning_rate == wanted.learning_rate
    assert found.episode_scores.tolist() == wanted.episode_scores.tolist()
    assert found.episode_frames.tolist() == wanted.episode_frames.tolist()
    for name in ("policy_loss", "value_loss", "entropy", "grad_norm", "clip_fraction", "approx_kl"):
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name), rtol=1e-4, atol=1e-5)
    require_equal_groups(found.groups, wanted.groups)
    require_equal_groups(found.reuse, wanted.reuse)
    assert found.parts.keys() == wanted.parts.keys()
    for name, groups in wanted.parts.items():
        require_equal_groups(found.parts[name], groups)


def require_equal_weights(found: Agent[Any], wanted: Agent[Any]) -> None:
    assert found.updates == wanted.updates
    for one, other in zip(found.network.parameters(), wanted.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("network", SHAPES)
@pytest.mark.parametrize("name", CONFIGS)
def test_agents_side_by_side_do_what_each_does_alone(name: str, network: str) -> None:
    config = CONFIGS[name]
    alone, together = made(config, network), made(config, network)
    for seed, (agent, source) in enumerate(alone):
        agent.begin(source, source.reset(seed))
    stack = stacked(together)
    present = [0, 1, 2]
    for step in range(6):
        if step == 3:  # one leaves
            stack.keep([2, 0])
            present = [2, 0]
        updates = stack.step([measured(number, step) for number in present])
        for number, update in zip(present, updates, strict=True):
            require_equal(update, alone[number][0].step(**measured(number, step)))
    for number in present:
        require_equal_weights(together[number][0], alone[number][0])
    assert together[1][0].updates == 3 * config.updates_per_rollout


@pytest.mark.parametrize("name", ["A2C", "PPO"])
def test_an_agent_that_leaves_trains_on_by_itself(name: str) -> None:
    """Its weights, optimiser and random numbers are its own all the time."""
    alone, together = made(CONFIGS[name], "mlp"), made(CONFIGS[name], "mlp")
    agent, source = alone[0]
    agent.begin(source, source.reset(0))
    stack = stacked(together)
    for _ in range(3):
        agent.step()
        stack.step([{}, {}, {}])
    stack.keep([1, 2])
    left, source_of_left = together[0]
    require_equal_weights(left, agent)
    for own, its in ((agent, source), (left, source_of_left)):
        own.begin(its, its.reset(9))
    for _ in range(3):
        stack.step([{}, {}])
        require_equal(left.step(), agent.step())


def test_an_agent_whose_numbers_are_not_finite_disturbs_nobody() -> None:
    alone, together = made(CONFIGS["A2C"], "convolutions"), made(CONFIGS["A2C"], "convolutions")
    for seed, (agent, source) in enumerate(alone):
        agent.begin(source, source.reset(seed))
    with torch.no_grad():
        next(together[1][0].network.parameters()).fill_(torch.nan)
    stack = stacked(together)
    for _ in range(3):
        updates = stack.step([{}, {}, {}])
        assert updates[1].grad_norm.isnan()
        for number in (0, 2):
            require_equal(updates[number], alone[number][0].step())


def test_agents_that_cannot_stand_side_by_side_are_refused() -> None:
    agents = [agent for agent, _ in made(CONFIGS["A2C"], "mlp")]
    agents[0].network.compute_dtype = torch.bfloat16
    with pytest.raises(ValueError, match="own precision"):
        Stack(agents)


def test_an_algorithm_of_its_own_says_that_it_trains_alone() -> None:
    own = {"step_together": vars(Agent)["step_together"]}  # what an algorithm has that says nothing of it
    Other: Any = type("Other", (A2C,), own)
    agents = [Other(CONFIGS["A2C"], (5,), 3, total_updates=9, network=network_of("mlp")) for _ in range(2)]
    with pytest.raises(NotImplementedError, match="Other does not train side by side"):
        Stack(agents).step([{}, {}])
