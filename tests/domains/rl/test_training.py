"""The training loop on Gymnasium's CartPole and on the real emulator."""

import dataclasses
import functools
import math
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from rl_scaling.agents.agent import Update
from rl_scaling.agents.config import A2CConfig, PPOConfig
from rl_scaling.domains.rl.config import AdaptiveBatchConfig, NoiseScaleConfig, RunConfig
from rl_scaling.domains.rl.registry import make_agent
from rl_scaling.domains.rl.training import AdaptiveBatch, Diverged, Progress, run
from rl_scaling.envs import VectorSource, make_vector
from rl_scaling.envs.config import AtariConfig, GymnasiumConfig
from rl_scaling.noise import NoiseScaleMeter
from rl_scaling.records import PARTS, TrainingRecord

CARTPOLE = RunConfig(
    environment=GymnasiumConfig(env_id="CartPole-v1", num_envs=8),
    agent=A2CConfig(network="mlp", learning_rate=2e-3),
    noise_scale=NoiseScaleConfig(every_updates=2, groups=4),
    frames=4_000,
    record_every_frames=1_000,
)
PONG = RunConfig(
    environment=AtariConfig(game="Pong", num_envs=2, max_start_steps=20),
    agent=A2CConfig(network="small"),
    frames=300,
    record_every_frames=100,
)


PPO_CARTPOLE = dataclasses.replace(
    CARTPOLE,
    agent=PPOConfig(network="mlp", rollout_steps=32, minibatches=2, epochs=3, learning_rate=2e-3),
    noise_scale=NoiseScaleConfig(every_updates=6, groups=4),
)
BOTH = pytest.mark.parametrize("config", [CARTPOLE, PPO_CARTPOLE], ids=["A2C", "PPO"])


def start(config: RunConfig):
    group_envs = config.adaptive.group_envs if config.adaptive else None
    source = make_vector(config.environment, num_threads=1, group_envs=group_envs)
    agent = make_agent(
        config.agent,
        source.observation_shape,
        source.num_actions or source.action_space,
        total_updates=config.updates,
        seed=config.seed,
    )
    return agent, source, Progress.start(config)


def train(config: RunConfig) -> list[TrainingRecord]:
    agent, source, progress = start(config)
    records = list(run(agent, source, config, progress))
    source.close()
    return records


@functools.cache
def trained(config: RunConfig) -> list[TrainingRecord]:
    """As `train`, once for all tests that only read."""
    return train(config)


def same_but_for_the_clock(a: TrainingRecord, b: TrainingRecord) -> bool:
    timed = {"wall_seconds", "frames_per_second"}
    return all(
        (x := getattr(a, name)) == (y := getattr(b, name)) or (math.isnan(x) and math.isnan(y))
        for name in vars(a)
        if name not in timed
    )


ADAPTIVE = AdaptiveBatchConfig(
    exchange_rate=1e3, min_envs=4, max_envs=16, group_envs=4, change_every_updates=20, rate_power=1.0
)


@pytest.mark.parametrize(
    "config", [CARTPOLE, PONG, dataclasses.replace(CARTPOLE, adaptive=ADAPTIVE)], ids=["CartPole", "Pong", "adaptive"]
)
def test_same_seed_same_records_other_seed_others(config: RunConfig) -> None:
    first, second = trained(config), train(config)
    other = train(dataclasses.replace(config, seed=1))
    assert len(first) == len(second)
    assert all(same_but_for_the_clock(a, b) for a, b in zip(first, second, strict=True))
    assert not same_but_for_the_clock(first[-1], other[-1])


def test_records_count_what_was_learned_from() -> None:
    records = trained(CARTPOLE)
    assert [r.frames for r in records] == sorted(r.frames for r in records)
    assert records[-1].frames >= CARTPOLE.frames
    # Resets do not count, so that each update has at most a full batch.
    assert all(r.frames <= r.updates * CARTPOLE.batch_size for r in records)
    assert records[-1].frames < records[-1].updates * CARTPOLE.batch_size
    assert sum(r.noise_measurements for r in records) == math.ceil(records[-1].updates / 2)
    assert all(r.wall_seconds > 0 and r.frames_per_second > 0 for r in records)
    assert all(r.trace_cov > 0 and r.trace_cov_frames > 0 for r in records)


def test_records_of_ppo_count_updates_and_how_often_frames_were_used() -> None:
    records = train(PPO_CARTPOLE)
    assert all(r.updates % 6 == 0 and r.frames_used == 3 * r.frames for r in records)
    # One update in six of each kind: of the first epoch, and of those in which frames are used again.
    rollouts = records[-1].updates // 6
    assert sum(r.noise_measurements for r in records) == math.ceil(rollouts / 2)
    measured = [r for r in records if r.noise_measurements]
    assert all(r.trace_cov > 0 and r.reuse_trace_cov > 0 and r.trace_cov_frames > 0 for r in measured)
    assert all(0 <= r.clip_fraction < 1 and r.approx_kl >= 0 for r in records)
    for record in trained(CARTPOLE):
        assert record.frames_used == record.frames
        assert math.isnan(record.reuse_trace_cov)
        assert math.isnan(record.clip_fraction)


def test_parts_of_the_gradient_are_in_the_records_if_asked_for() -> None:
    columns = [f"{part}_{name}" for part in PARTS for name in ("grad_sq_norm", "trace_cov")]
    noise_scale = dataclasses.replace(CARTPOLE.noise_scale, parts=True)
    measured, plain = train(dataclasses.replace(CARTPOLE, noise_scale=noise_scale)), trained(CARTPOLE)
    for record, without in zip(measured, plain, strict=True):
        assert all(math.isfinite(getattr(record, name)) for name in columns)
        assert all(math.isnan(getattr(without, name)) for name in columns)
        parts = dict.fromkeys(columns, math.nan)
        assert same_but_for_the_clock(dataclasses.replace(record, **parts), without)
    assert all(record.value_trace_cov > 0 for record in measured)


def test_cartpole_is_learned() -> None:
    """A random policy keeps the pole up for 22 steps on average; the trained one for more than five times that."""
    agent = A2CConfig(
        network="mlp", learning_rate=3e-3, learning_rate_schedule="linear", rmsprop_epsilon_inside_root=False
    )
    records = train(dataclasses.replace(CARTPOLE, agent=agent, frames=25_000))
    assert records[0].score < 40
    late = [r for r in records[-10:] if r.episodes]
    assert np.average([r.score for r in late], weights=[r.episodes for r in late]) > 120


def test_ppo_learns_cartpole() -> None:
    """As A2C above, from as many frames."""
    agent = PPOConfig(network="mlp", rollout_steps=32, minibatches=1, epochs=10, learning_rate=2e-3)
    records = train(dataclasses.replace(PPO_CARTPOLE, agent=agent, frames=25_000))
    assert records[0].score < 40
    late = [r for r in records[-10:] if r.episodes]
    assert np.average([r.score for r in late], weights=[r.episodes for r in late]) > 120


@BOTH
def test_goes_on_from_a_checkpoint_where_it_was(config: RunConfig) -> None:
    agent, source, progress = start(config)
    records = []
    for record in run(agent, source, config, progress):
        records.append(record)
        if len(records) == 2:
            break
    state = {"learner": agent.state_dict(), "progress": progress.state_dict()}
    again, source, resumed = start(config)
    again.load_state_dict(state["learner"])
    resumed.load_state_dict(state["progress"])
    for old, new in zip(agent.network.parameters(), again.network.parameters(), strict=True):
        torch.testing.assert_close(old, new, rtol=0, atol=0)
    rest = list(run(again, source, config, resumed))
    assert rest[0].updates > records[-1].updates
    assert rest[0].wall_seconds > records[-1].wall_seconds
    assert rest[-1].frames >= config.frames
    assert rest[-1].frames_used == rest[-1].frames * config.agent.frame_uses
    # The environments begin anew, and not with the games the run began with.
    assert rest[0].score != records[0].score


@BOTH
def test_divergence_is_recorded_and_then_raised(config: RunConfig) -> None:
    wild = dataclasses.replace(config, agent=dataclasses.replace(config.agent, learning_rate=1e30, max_grad_norm=1e38))
    agent, source, progress = start(wild)
    records: list[TrainingRecord] = []
    with pytest.raises(Diverged, match="not finite after"):
        records.extend(run(agent, source, wild, progress))
    assert not math.isfinite(records[-1].grad_norm) or not math.isfinite(records[-1].value_loss)


@BOTH
def test_linear_learning_rate_reaches_nought(config: RunConfig) -> None:
    agent = dataclasses.replace(config.agent, learning_rate_schedule="linear")
    rates = [r.current_learning_rate for r in train(dataclasses.replace(config, agent=agent))]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.5 * 2e-3
    assert rates[-1] < 0.05 * 2e-3


def test_an_adaptive_batch_changes_while_training_and_the_records_say_so() -> None:
    config = dataclasses.replace(CARTPOLE, adaptive=ADAPTIVE, record_every_frames=400)
    records = train(config)
    assert [r.current_batch_size for r in trained(CARTPOLE)] == [40.0] * 4
    batches = [r.current_batch_size for r in records]
    assert {40.0, 80.0} <= set(batches)
    frames = np.diff([r.frames for r in records], prepend=0)
    updates = np.diff([r.updates for r in records], prepend=0)
    most = np.maximum(batches, [40.0, *batches[:-1]])
    assert (frames <= updates * most).all()
    for record in records:  # A.3 with alpha = 1 and B* = 1000
        scale = (1 + 1000 / 40) / (1 + 1000 / record.current_batch_size)
        assert record.current_learning_rate == pytest.approx(2e-3 * scale)


def test_a_resumed_adaptive_run_has_as_many_environments_as_before() -> None:
    config = dataclasses.replace(CARTPOLE, adaptive=ADAPTIVE, record_every_frames=400)
    agent, source, progress = start(config)
    record = next(r for r in run(agent, source, config, progress) if r.current_batch_size == 80)
    again, source, resumed = start(config)
    again.load_state_dict(agent.state_dict())
    resumed.load_state_dict(progress.state_dict())
    following = next(run(again, source, config, resumed))
    assert source.num_envs >= 16
    assert following.current_batch_size == 80
    assert following.current_learning_rate == pytest.approx(record.current_learning_rate)


class Listener:
    """Stands in for an agent."""

    def __init__(self) -> None:
        self.learning_rate_factor = 1.0
        self.begun: list[tuple[int, ...]] = []

    def begin(self, source: VectorSource, observations: np.ndarray) -> None:
        self.begun.append(observations.shape)

    def step(self, *, num_groups: int = 1, frame_gradients: int = 0, parts: bool = False) -> Update:
        raise NotImplementedError


def meter_of(noise_scale: float) -> NoiseScaleMeter:
    """Eight groups of five frames each, again and again with the same moments: tr(Sigma) = noise_scale, |G|^2 = 1."""
    meter = NoiseScaleMeter(group_size=5)
    for _ in range(20):
        meter.update([1 + noise_scale / 5] * 8, 1 + noise_scale / 40)
    return meter


def test_environments_and_learning_rate_follow_when_it_is_time() -> None:
    adaptive = AdaptiveBatchConfig(
        exchange_rate=200,
        min_envs=8,
        max_envs=128,
        group_envs=8,
        change_every_updates=10,
        rate_power=1.0,
        rate_turn=400,
    )
    config = dataclasses.replace(CARTPOLE, adaptive=adaptive)
    source, learner = make_vector(CARTPOLE.environment, group_envs=8), Listener()
    source.reset(0)
    batch = AdaptiveBatch(config, learner, source)
    meter = meter_of(800.0)  # B = sqrt(200 * 800) = 400 frames: 80 environments
    assert batch.after_update(9, meter) == 8
    assert batch.after_update(10, None) == 8
    assert [batch.after_update(n, meter) for n in (20, 30, 40, 50, 60)] == [16, 32, 64, 80, 80]
    assert learner.begun == [(n, 4) for n in (16, 32, 64, 80)]
    assert source.num_envs == 80
    # A.3 with alpha = 1: eps(400) / eps(40) = (1 + 400 / 40) / (1 + 400 / 400)
    assert learner.learning_rate_factor == pytest.approx(5.5)
    source.close()


def test_a_source_that_cannot_change_is_refused() -> None:
    with pytest.raises(TypeError, match="group_envs"):
        AdaptiveBatch(dataclasses.replace(CARTPOLE, adaptive=ADAPTIVE), Listener(), make_vector(CARTPOLE.environment))


class Aim(gymnasium.Env[np.ndarray, np.ndarray]):
    """Say where the mark is: every step costs the squared distance, and the mark moves. A game has eight steps."""

    observation_space = Box(-1, 1, (1,))
    action_space = Box(-1, 1, (1,))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        return self.look(), {}

    def step(self, action: np.ndarray):
        cost = float(np.square(action - self.mark).sum())
        return self.look(), -cost, False, False, {}

    def look(self) -> np.ndarray:
        self.mark = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.mark


@pytest.mark.statistical
@pytest.mark.parametrize(
    "agent",
    [
        A2CConfig(network="mlp", learning_rate=7e-3, discount=0.5, entropy_coefficient=0.0),
        PPOConfig(network="mlp", rollout_steps=16, learning_rate=3e-3, discount=0.5, entropy_coefficient=0.0),
    ],
    ids=["A2C", "PPO"],
)
def test_continuous_actions_are_learned(agent: A2CConfig | PPOConfig) -> None:
    """From about -6.8, which is chance, to -3 within 12,000 frames (A2C -2.4, PPO -0.5); deviations fall on the way.

    One seed of each, fixed: it fails by chance in none of its repetitions on one version of torch.
    """
    gymnasium.register("Aim-v0", entry_point=lambda **_: Aim(), max_episode_steps=8)
    try:
        config = RunConfig(
            environment=GymnasiumConfig(env_id="Aim-v0", num_envs=16),
            agent=agent,
            noise_scale=NoiseScaleConfig(every_updates=8),
            frames=12_000,
            record_every_frames=2_000,
        )
        records = train(config)
    finally:
        del gymnasium.registry["Aim-v0"]
    assert records[0].score < -2.5
    assert records[-1].score > -3
    assert records[-1].score > records[0].score + 2
    assert records[-1].entropy < records[0].entropy < 1.42  # of a normal number with deviation 1
    assert np.isfinite([record.trace_cov for record in records]).all()
