"""Measuring with the weights kept: where the answer is known, and as a run that is kept, left and resumed."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from rl_scaling import run
from rl_scaling.agents import A2C
from rl_scaling.agents.config import A2CConfig, PPOConfig
from rl_scaling.agents.frozen import FrozenGradients, PartGradients
from rl_scaling.config import ConfigError, to_dict
from rl_scaling.domains.base import Checkpoint, Control, Ended, Event, Hardware
from rl_scaling.domains.rl.config import FrozenConfig, RunConfig
from rl_scaling.domains.rl.domain import ReinforcementLearning
from rl_scaling.domains.rl.measure import FrozenProgress, _Row, measure
from rl_scaling.envs.config import GymnasiumConfig
from rl_scaling.records import TrainingRecord
from rl_scaling.store import Store
from rl_scaling.sweeps.trial import Job

CPU = Hardware(device="cpu")
CONFIG = FrozenConfig(
    environment=GymnasiumConfig(env_id="CartPole-v1", num_envs=12),
    agent=A2CConfig(network="mlp"),
    frames=1_200,
    groups=6,
    pooled_frames=200,
    frame_gradients=2,
    curvature_splits=1,
)
PPO = dataclasses.replace(CONFIG, agent=PPOConfig(network="mlp", rollout_steps=16))


# --- where the answer is known ------------------------------------------------------------------------------------

DIMENSIONS, GROUP_FRAMES = 12, 10
HESSIAN = np.linspace(0.5, 3.0, DIMENSIONS)
GRADIENT = np.full(DIMENSIONS, 0.35)
# Of one frame, all of it shared by the frames of a group: a design effect of GROUP_FRAMES.
VARIANCES = np.linspace(1.0, 6.0, DIMENSIONS)
B_SIMPLE = GROUP_FRAMES * VARIANCES.sum() / (GRADIENT**2).sum()
B_NOISE = GROUP_FRAMES * (HESSIAN * VARIANCES).sum() / (HESSIAN * GRADIENT**2).sum()


class Bowl:
    """Stands in for `FrozenGradients`: a quadratic loss whose gradient noise lasts from one rollout to the next."""

    def __init__(self, seed: int, groups: int = 12, lasting: float = 0.5, signal: float = 1.0) -> None:
        self.random = np.random.default_rng(seed)
        self.groups = [slice(i * GROUP_FRAMES, (i + 1) * GROUP_FRAMES) for i in range(groups)]
        self.agent = SimpleNamespace(config=CONFIG.agent)
        self.lasting, self.gradient = lasting, signal * GRADIENT
        self.noise = self._draw()

    def _draw(self) -> np.ndarray:
        return self.random.normal(size=(len(self.groups), DIMENSIONS)) * np.sqrt(VARIANCES)

    def roll_out(self) -> Any:
        self.noise = self.lasting * self.noise + math.sqrt(1 - self.lasting**2) * self._draw()
        none = np.zeros(0)
        return SimpleNamespace(frames=GROUP_FRAMES * len(self.groups), episode_scores=none, episode_frames=none)

    def gradients_of_groups(self, rollout: Any) -> PartGradients:
        gradients = torch.as_tensor(self.gradient + self.noise)
        means = torch.stack([0.5 * gradients, 0.5 * gradients, 0 * gradients])
        return PartGradients(means, np.full(len(self.groups), float(GROUP_FRAMES)), np.zeros(3))

    def frame_sq_norms(self, rollout: Any, count: int) -> np.ndarray:
        return ((self.gradient + self.noise) ** 2).sum(axis=1)[:count]

    def curvatures(self, rollout: Any, groups: Sequence[int], pairs: Sequence[tuple[Any, Any]]) -> list[float]:
        # A Hessian from few frames: right on average, and its error is that of the same groups' noise.
        found = HESSIAN + 0.3 * self.noise[list(groups)].mean(axis=0)
        return [float((left.numpy() * found * right.numpy()).sum()) for left, right in pairs]


BOWL = dataclasses.replace(CONFIG, frames=14_400, pooled_frames=480, until_factor=1.01)


def measured(bowl: Bowl, config: FrozenConfig = BOWL) -> FrozenProgress:
    """All frames, without an estimate after every row."""
    progress, frozen = FrozenProgress(), cast(FrozenGradients, bowl)
    while progress.frames < config.frames:
        row = _Row(frozen, config)
        while row.frames < config.pooled_frames:
            row.add(frozen.roll_out())
        progress.add(row, row.values())
    return progress


def rows_of(bowl: Bowl, config: FrozenConfig = BOWL) -> tuple[list[Event], FrozenProgress]:
    progress = FrozenProgress()
    return list(measure(cast(FrozenGradients, bowl), config, progress)), progress


@pytest.mark.statistical
def test_both_noise_scales_are_without_bias_and_their_intervals_cover() -> None:
    """40 repetitions of 30 rows. Of 95 % intervals at least 33 cover, which fails by chance 1 in 1,400 times; the mean
    of |G|^2, tr(Sigma), G^T H G and tr(H Sigma) lies within 4 standard errors, which fails 1 in 4,000 times.
    """
    found = [measured(Bowl(seed)) for seed in range(40)]
    truths = {
        "grad_sq_norms": (GRADIENT**2).sum(),
        "trace_covs": GROUP_FRAMES * VARIANCES.sum(),
        "grad_curvatures": (HESSIAN * GRADIENT**2).sum(),
        "noise_curvatures": GROUP_FRAMES * (HESSIAN * VARIANCES).sum(),
    }
    for name, truth in truths.items():
        means = np.array([np.mean(progress.series[name]) for progress in found])
        assert abs(means.mean() - truth) < 4 * means.std() / math.sqrt(len(means)), name
    simple = [progress.noise_scale for progress in found]
    assert sum(estimate.low <= B_SIMPLE <= estimate.high for estimate in simple) >= 33
    assert sum(estimate.resolved for estimate in simple) >= 33
    noise = [progress.hessian_noise_scale for progress in found]
    assert sum(estimate.low <= B_NOISE <= estimate.high for estimate in noise) >= 33


@pytest.mark.statistical
def test_pooling_gradients_lowers_the_noise_of_a_gradient_that_is_lost_in_it() -> None:
    """Noise without memory far above the gradient, 30 repetitions: pools of four have errors half as large (A.1). A
    ratio of two such deviations has a standard error of 0.13 of itself and a bit: above 0.75 once in 200 times.
    """
    config = dataclasses.replace(BOWL, frames=4_800)
    deviation = {
        pooled: np.std(
            [np.mean(measured(Bowl(seed, lasting=0.0, signal=0.1), each).series["grad_sq_norms"]) for seed in range(30)]
        )
        for pooled in (120, 480)
        for each in [dataclasses.replace(config, pooled_frames=pooled)]
    }
    assert deviation[480] < 0.75 * deviation[120]


def test_measuring_ends_when_the_interval_is_as_narrow_as_asked() -> None:
    config = dataclasses.replace(BOWL, until_factor=3.0)
    _, progress = rows_of(Bowl(0), config)
    assert progress.frames < config.frames
    assert progress.noise_scale.high <= 9 * progress.noise_scale.low
    assert len(progress.series["trace_covs"]) >= 13


def test_rows_hold_what_they_add_to_the_estimate() -> None:
    rows, progress = rows_of(Bowl(1), dataclasses.replace(BOWL, frames=4_800))
    assert all(isinstance(row, TrainingRecord) for row in rows)
    last = rows[-1]
    assert isinstance(last, TrainingRecord)
    assert (last.frames, last.updates, last.noise_measurements) == (4_800, 40, 4)
    assert [row.grad_sq_norm for row in rows] == progress.series["grad_sq_norms"]  # pyright: ignore[reportAttributeAccessIssue]
    assert last.noise_scale_low == progress.noise_scale.low
    assert last.policy_grad_sq_norm == pytest.approx(last.grad_sq_norm / 4)
    assert last.entropy_trace_cov == 0


def test_gradients_that_are_not_finite_end_it() -> None:
    bowl = Bowl(0)
    bowl.noise[:] = math.inf
    found, _ = rows_of(bowl)
    assert found == [Ended("diverged", "the gradients of these weights are not finite")]


# --- as a run -----------------------------------------------------------------------------------------------------


def events(
    config: FrozenConfig,
    resume: Mapping[str, Any] | None = None,
    ask: Callable[[Event, Control], None] = lambda event, control: None,
) -> list[Event]:
    control, found = Control(), []
    domain: Any = ReinforcementLearning()
    for _, event in domain.run([config], [resume], control, CPU):
        found.append(event)
        ask(event, control)
    return found


def records(found: Sequence[Event]) -> list[TrainingRecord]:
    return [event for event in found if isinstance(event, TrainingRecord)]


@pytest.mark.parametrize("config", [CONFIG, PPO], ids=["a2c", "ppo"])
def test_a_measurement_says_its_rows_and_that_it_is_done(config: FrozenConfig) -> None:
    found = events(config)
    rows = records(found)
    assert found[-1] == Ended()
    assert rows[-1].frames >= config.frames
    assert all(b.frames - a.frames >= 200 for a, b in itertools.pairwise(rows))
    assert all(math.isfinite(row.trace_cov + row.trace_cov_frames + row.noise_curvature) for row in rows)
    again = [(row.frames, row.grad_sq_norm) for row in records(events(config))]
    assert again == [(row.frames, row.grad_sq_norm) for row in rows]
    other = records(events(dataclasses.replace(config, seed=1)))
    assert other[0].grad_sq_norm != rows[0].grad_sq_norm


def test_an_interrupted_measurement_continues_and_says_nothing_twice() -> None:
    def after_two(event: Event, control: Control) -> None:
        if isinstance(event, TrainingRecord) and event.frames >= 400:
            control.interrupt = True

    first = events(CONFIG, ask=after_two)
    checkpoint = first[-1]
    assert isinstance(checkpoint, Checkpoint)
    assert checkpoint.updates == records(first)[-1].updates
    rest = records(events(CONFIG, checkpoint.state))
    assert rest[0].frames > records(first)[-1].frames
    # All rows count towards the last estimate, those from before the interrupt too.
    squares = [row.grad_sq_norm for row in [*records(first), *rest]]
    progress = FrozenProgress()
    progress.load_state_dict(checkpoint.state["progress"])
    assert progress.series["grad_sq_norms"] == squares[: len(records(first))]
    assert len(rest) + len(records(first)) == len(squares)


def agent_weights(width: int = 4, seed: int = 5) -> dict[str, Any]:
    return A2C(A2CConfig(network="mlp"), (width,), 2, total_updates=1, seed=seed).network.state_dict()


def test_the_weights_of_a_run_are_those_that_are_measured() -> None:
    config = dataclasses.replace(CONFIG, of_run="abc", of_updates=10, of_frames=600, goal=20.0, settle_steps=10)
    assert config.place == "at 20"
    found = events(config, {"weights": agent_weights(seed=5)})
    assert found[-1] == Ended()
    other = events(config, {"weights": agent_weights(seed=6)})
    assert records(found)[0].grad_sq_norm != records(other)[0].grad_sq_norm


def test_weights_that_are_not_there_or_of_another_network_are_refused() -> None:
    config = dataclasses.replace(CONFIG, of_run="abc")
    with pytest.raises(ConfigError, match="the weights of run abc are not here"):
        events(config)
    with pytest.raises(ConfigError, match="run abc is of another network than 'mlp' on CartPole-v1"):
        events(config, {"weights": agent_weights(width=7)})


def test_a_measurement_is_kept_as_a_run(tmp_path: Path) -> None:
    assert run(CONFIG, tmp_path) == "done"
    info = Store(tmp_path).info(CONFIG.run_id)
    assert info is not None
    assert info.identity.frozen
    assert info.identity.task == "CartPole-v1 a2c frozen network=mlp"
    job = Job((CONFIG,), tmp_path)
    assert Job.from_plain(job.to_plain()) == job
    assert run(CONFIG, tmp_path) == "done"


def test_weights_that_are_handed_over_last_until_it_is_resumed(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, of_run="abc", of_updates=10)
    asked = iter([False] * 8 + [True] * 100)
    initial = {"weights": agent_weights()}
    assert run(config, tmp_path, initial=initial, asked_to_stop=lambda: next(asked)) == "interrupted"
    assert run(config, tmp_path) == "done"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": 1}, "the noise scale needs 2 groups or more"),
        ({"until_factor": 1.0}, "give a factor above 1"),
        ({"until_factor": math.inf}, "until_factor is inf"),
        ({"pooled_frames": 0}, "pooled_frames is 0"),
        ({"settle_steps": -1}, "settle_steps is -1"),
        ({"environment": GymnasiumConfig(env_id="CartPole-v1", num_envs=1)}, "one environment gives no groups"),
        ({"groups": 2}, "B_noise needs 3 groups or more"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(CONFIG, **changes)


def test_keeping_weights_is_part_of_a_run_and_leaves_other_ids_as_they_were() -> None:
    plain = RunConfig(environment=CONFIG.environment, agent=CONFIG.agent)
    keeping = dataclasses.replace(plain, measure_at="goals")
    assert "measure_at" not in to_dict(plain)
    assert keeping.run_id != plain.run_id
    assert keeping.task == plain.task
    with pytest.raises(ConfigError, match="no measure_at 'never'"):
        dataclasses.replace(plain, measure_at="never")
