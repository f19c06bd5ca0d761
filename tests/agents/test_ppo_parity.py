"""From the same weights and the same rollout, our PPO and Stable-Baselines3's make the same updates."""

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO as TheirPPO

from rl_scaling.agents import PPO
from rl_scaling.agents.config import PPOConfig
from tests.agents.test_stable_baselines3_parity import (
    ACTION_SPACES,
    DISCOUNT,
    NUM_ENVS,
    STEPS,
    copy_weights,
    hand_over,
    policy_and_envs,
    rolled_out,
    source_for,
)

Pairs = list[tuple[torch.nn.Parameter, torch.nn.Parameter]]
FRAMES = NUM_ENVS * STEPS


def both(config: PPOConfig, remaining: float, space: gymnasium.Space[Any] | None = None) -> Pairs:
    """Our parameters and theirs after all updates from one rollout, where `remaining` of the run is left."""

    def left(start: float, schedule: str) -> Any:
        return start if schedule == "constant" else lambda progress: start * progress

    model = TheirPPO(
        *policy_and_envs(space),
        learning_rate=left(config.learning_rate, config.learning_rate_schedule),
        n_steps=STEPS,
        batch_size=FRAMES // config.minibatches,
        n_epochs=config.epochs,
        gamma=DISCOUNT,
        gae_lambda=config.gae_lambda,
        clip_range=left(config.clip_range, config.clip_range_schedule),
        clip_range_vf=config.value_clip_range or None,
        normalize_advantage=config.normalize_advantages,
        ent_coef=config.entropy_coefficient,
        vf_coef=config.value_coefficient,
        max_grad_norm=config.max_grad_norm,
        device="cpu",
        seed=1,
    )
    model._setup_learn(total_timesteps=1000)
    model._current_progress_remaining = remaining
    source = source_for(space)
    agent = PPO(config, source.observation_shape, space or 4, total_updates=1000)
    agent.updates = round(1000 * (1 - remaining))
    pairs = copy_weights(agent, model)
    rollout = rolled_out(agent, source)
    hand_over(rollout, model)
    np.random.seed(7)  # noqa: NPY002 - theirs are drawn from it
    dealt = [np.random.permutation(FRAMES) for _ in range(config.epochs)]  # noqa: NPY002
    np.random.seed(7)  # noqa: NPY002
    model.train()

    def their_minibatches(num_envs: int, steps: int) -> Iterator[torch.Tensor]:
        for order in dealt:
            yield from torch.from_numpy(order).view(config.minibatches, -1).sort(dim=1).values

    agent._roll_out, agent._minibatches = lambda: rollout, their_minibatches
    update = agent.step()
    assert update.updates == config.epochs * config.minibatches
    return pairs


ONE = {"epochs": 1, "minibatches": 1}
# A learning rate that takes ratios and values out of their ranges within a few updates.
FAST = {"epochs": 3, "minibatches": 3, "learning_rate": 3e-3, "value_clip_range": 0.02}


@pytest.mark.parametrize(
    ("options", "remaining"),
    [
        ({**ONE, "max_grad_norm": 1e9}, 1.0),
        ({**ONE, "max_grad_norm": 0.01, "normalize_advantages": False}, 1.0),
        ({**FAST, "max_grad_norm": 1e9}, 1.0),
        ({**FAST, "learning_rate_schedule": "linear", "clip_range_schedule": "linear"}, 0.4),
        ({**FAST, "value_clip_range": 0.0}, 1.0),
    ],
    ids=["one minibatch", "clipped hard", "several epochs", "annealed", "values not clipped"],
)
def test_gradients_and_updates_equal_theirs(options: dict[str, Any], remaining: float) -> None:
    # After train() the gradient of the last minibatch is still there, clipped.
    for mine, other in both(PPOConfig(rollout_steps=STEPS, **options), remaining):
        assert mine.grad is not None
        assert other.grad is not None
        assert (mine.grad - other.grad).norm() <= 1e-5 * other.grad.norm()
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ACTION_SPACES)
@pytest.mark.parametrize("options", [ONE, {**FAST, "value_clip_range": 0.5}], ids=["one minibatch", "several epochs"])
def test_gradients_and_updates_equal_theirs_for_actions_of_every_kind(kind: str, options: dict[str, Any]) -> None:
    config = PPOConfig(rollout_steps=STEPS, network="mlp", max_grad_norm=1e9, **options)
    for mine, other in both(config, 1.0, ACTION_SPACES[kind]):
        assert mine.grad is not None
        assert other.grad is not None
        assert other.grad.any()
        assert (mine.grad - other.grad).norm() <= 1e-5 * other.grad.norm()
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-5)


def test_clipping_is_at_work_in_what_is_compared() -> None:
    changes = [{}, {"value_clip_range": 0.0}, {"clip_range": 10.0}]
    clipped, *others = [
        torch.cat(
            [mine.detach().flatten() for mine, _ in both(PPOConfig(rollout_steps=STEPS, **{**FAST, **change}), 1.0)]
        )
        for change in changes
    ]
    for other in others:
        assert (clipped - other).norm() > 1e-2 * clipped.norm()
