import pytest
import torch

from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.config import OptimizerConfig, SupervisedConfig
from rl_scaling.domains.supervised.sampling import ExampleStream


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
