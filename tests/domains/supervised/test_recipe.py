"""Batches, rates and optimisers follow from the config and the place in the run."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.config import OptimizerConfig, ScheduleConfig, SupervisedConfig
from rl_scaling.domains.supervised.recipe import ExampleStream, learning_rate_at, make_average, make_optimizer


def _stream(sampling: str, batch_size: int, examples: int, seed: int = 0) -> ExampleStream:
    optimizer = OptimizerConfig(learning_rate=1)
    sampled = "epoch" if sampling == "epoch" else "replacement"
    config = SupervisedConfig(optimizer=optimizer, sampling=sampled, batch_size=batch_size, seed=seed)
    return ExampleStream(config, examples)


@pytest.mark.parametrize("sampling", ["replacement", "epoch"])
def test_a_batch_depends_on_seed_and_update_alone(sampling: str) -> None:
    there = _stream(sampling, 7, 100)
    forwards = [there.rows(update) for update in range(3000)]
    back = _stream(sampling, 7, 100)
    assert all(torch.equal(back.rows(u), forwards[u]) for u in reversed(range(2900, 3000)))
    other = _stream(sampling, 7, 100, seed=1)
    assert not torch.equal(torch.cat([other.rows(u) for u in range(9)]), torch.cat(forwards[:9]))


def test_by_epoch_every_example_comes_once_before_any_comes_again() -> None:
    stream = _stream("epoch", 7, 10)
    seen = torch.cat([stream.rows(update) for update in range(20)])
    for epoch in seen.split(10):
        assert sorted(epoch.tolist()) == list(range(10))


def test_a_batch_larger_than_the_data_needs_replacement() -> None:
    assert len(_stream("replacement", 11, 10).rows(0)) == 11
    with pytest.raises(ConfigError, match="larger than the 10 training examples"):
        _stream("epoch", 11, 10)


def _rates(updates: int, **schedule: object) -> list[float]:
    chosen = ScheduleConfig(**schedule)  # pyright: ignore[reportArgumentType]
    config = SupervisedConfig(optimizer=OptimizerConfig(learning_rate=2), schedule=chosen, updates=updates)
    return [learning_rate_at(config, update) for update in range(updates)]


def test_halving_is_constant_for_half_and_halves_every_twentieth_after() -> None:
    rates = _rates(40, name="halving")
    assert rates[:20] == [2.0] * 20
    assert rates[20::2] == [2 * 0.5**n for n in range(1, 11)]
    assert rates[21::2] == rates[20::2]


def test_linear_decay_ends_at_its_share_and_stays() -> None:
    rates = _rates(8, name="linear", final_factor=0.5, decay_updates=4)
    assert rates == pytest.approx([2, 1.75, 1.5, 1.25, 1, 1, 1, 1])


def test_warm_up_rises_to_the_rate() -> None:
    assert _rates(5, warmup_updates=4) == pytest.approx([0.5, 1, 1.5, 2, 2])


def _after(config: OptimizerConfig, gradients: list[float]) -> float:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = make_optimizer(config, model)
    for gradient in gradients:
        model.weight.grad = torch.tensor([[gradient]])
        optimizer.step()
    return model.weight.item()


@pytest.mark.parametrize(
    ("name", "momentum", "expected"),
    [("sgd", 0.0, -0.3), ("momentum", 0.9, -0.39), ("nesterov", 0.9, -0.651), ("adam", 0.9, None)],
)
def test_first_two_steps_by_hand(name: str, momentum: float, expected: float | None) -> None:
    config = OptimizerConfig(name=name, learning_rate=0.1, momentum=momentum)
    if expected is None:
        first, second = 0.1 * 1 / 0.1, 0.1 * 2 + 0.9 * 0.1
        root = ((0.99 * 0.01 + 0.01 * 4) / (1 - 0.99**2)) ** 0.5
        expected = -0.1 * first - 0.1 * second / (1 - 0.9**2) / root
    assert _after(config, [1.0, 2.0]) == pytest.approx(expected, rel=1e-5)


def test_the_average_follows_the_weights() -> None:
    model = nn.Linear(1, 1, bias=False)
    config = OptimizerConfig(learning_rate=0.1, ema=0.75)
    average = make_average(config, model)
    assert average is not None
    for value in (0.0, 4.0):
        nn.init.constant_(model.weight, value)
        average.update_parameters(model)
    assert [weight.item() for weight in average.module.parameters()] == pytest.approx([1.0])
    assert make_average(OptimizerConfig(learning_rate=0.1), model) is None
