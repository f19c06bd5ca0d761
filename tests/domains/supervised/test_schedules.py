import pytest

from rl_scaling.domains.supervised.config import OptimizerConfig, ScheduleConfig, SupervisedConfig
from rl_scaling.domains.supervised.schedules import learning_rate_at


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
