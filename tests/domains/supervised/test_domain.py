"""The plug: which runs train together, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from rl_scaling.config import ConfigError
from rl_scaling.domains.base import Ended, Hardware
from rl_scaling.domains.supervised import domain as module
from rl_scaling.domains.supervised.config import (
    SupervisedConfig,
)
from tests.domains.supervised.test_loop import DIGITS, SINGLE, STACKED, UPDATES, config_of, events, of, records


def test_runs_train_together_where_they_can_and_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(module, "_pays", lambda config, data, trials: asked.append(trials) is None and trials > 2)
    alike, adaptive = STACKED["optimizer 1"], SINGLE["adaptive"]
    others = [dataclasses.replace(config, batch_size=4) for config in alike[:2]]
    normalised = [dataclasses.replace(config, model="wide-resnet") for config in alike]
    augmented = [dataclasses.replace(config, augment=True) for config in alike]
    found = DIGITS.together([*alike, adaptive, *others, *normalised, *augmented, adaptive])
    singles = [adaptive, adaptive, *others, *normalised, *augmented]
    assert [group for group in found if len(group) > 1] == [alike]
    assert sorted(config.run_id for group in found if len(group) == 1 for config in group) == sorted(
        config.run_id for config in singles
    )
    assert asked == [3, 2]


def test_runs_with_batch_normalisation_train_one_by_one() -> None:
    """And measure no noise scale, as their gradients do not come apart."""
    configs = [config_of(model="resnet32", updates=2, batch_size=4, seed=seed) for seed in (0, 1)]
    assert DIGITS.together(configs) == [[configs[0]], [configs[1]]]
    said = of(events(configs[:1]), 0)
    assert said[-1] == Ended()
    assert [row.noise_measurements for row in records(said)] == [0, 0, 0]
    with pytest.raises(ConfigError, match="one at a time"):
        events(configs)


def test_the_probe_leaves_threads_as_they_were() -> None:
    threads = torch.get_num_threads()
    tiny = [config_of(batch_size=1, seed=seed) for seed in range(16)]
    assert DIGITS.together(tiny) == [tiny]  # the one case that needs no stop-watch
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("config", "hardware", "complaint"),
    [
        (config_of(), Hardware(device="cuda:7"), "no GPU is to be seen for device 'cuda:7'"),
        (config_of(), Hardware(device="abacus"), "there is no device 'abacus'"),
        (config_of(), Hardware(device="cpu", compute_dtype="bfloat16"), "compute in float32"),
        (config_of(model="vgg11"), Hardware(device="cpu"), "needs images of 32 x 32"),
        (config_of(model="perceptron"), Hardware(device="cpu"), "no model 'perceptron'"),
        (config_of(dropout=0.5), Hardware(device="cpu"), "does not take these options"),
        (config_of(batch_size=151, sampling="epoch"), Hardware(device="cpu"), "a batch of 151 is larger"),
    ],
)
def test_what_this_machine_cannot_run_is_refused(config: SupervisedConfig, hardware: Hardware, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        DIGITS.refuse([config_of(), config], hardware, 1)


def test_what_it_can_run_is_not_refused_and_has_a_length() -> None:
    DIGITS.refuse(list(SINGLE.values()), Hardware(device="cpu"), 2)
    assert config_of().length == 16 * UPDATES
    plain = {"kind": "supervised", "optimizer": {"learning_rate": 0.2}, "batch_size": 16, "updates": UPDATES}
    assert DIGITS.parse(plain) == config_of()
