"""What "auto" comes to for runs: settled once for all of them, said, kept as provenance, and no part of the run id."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import pytest

from rl_scaling import run
from rl_scaling.agents.config import A2CConfig, PPOConfig
from rl_scaling.agents.precision import Verdict
from rl_scaling.config import ConfigError
from rl_scaling.domains.base import Hardware
from rl_scaling.domains.rl import precision as module
from rl_scaling.domains.rl.config import RunConfig
from rl_scaling.domains.rl.precision import settle_precision
from rl_scaling.envs.config import GymnasiumConfig
from rl_scaling.store import Store

CARTPOLE = RunConfig(
    environment=GymnasiumConfig(env_id="CartPole-v1", num_envs=4),
    agent=A2CConfig(network="mlp"),
    frames=40,
    record_every_frames=20,
)
AUTO = Hardware(device="cpu", compute_dtype="auto")


@pytest.fixture
def with_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "lacks_bfloat16", lambda _: "")


def test_what_is_named_stays(with_bfloat16: None) -> None:
    for precision in ("float32", "bfloat16"):
        hardware = dataclasses.replace(AUTO, compute_dtype=precision)
        assert settle_precision([CARTPOLE], hardware) == (hardware, [])
    assert settle_precision([], AUTO) == (AUTO, [])


def test_hardware_without_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "lacks_bfloat16", lambda _: "this processor has none")
    settled, said = settle_precision([CARTPOLE], AUTO)
    assert settled.compute_dtype == "float32"
    assert said == ["layers compute in float32: this processor has none"]
    with pytest.raises(ConfigError, match="this processor has none: give --precision float32, or auto"):
        settle_precision([CARTPOLE], dataclasses.replace(AUTO, compute_dtype="bfloat16"))


def test_one_kind_of_run_that_may_not_is_enough(with_bfloat16: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of a sweep are compared with each other; each kind is tried once."""
    tried: list[str] = []

    def judge(agent: object) -> Verdict:
        tried.append(type(agent).__name__)
        return Verdict("bfloat16", "fast") if tried[-1] == "A2C" else Verdict("float32", "slow")

    monkeypatch.setattr(module, "judge_bfloat16", judge)
    many = [dataclasses.replace(CARTPOLE, seed=seed) for seed in range(3)]
    settled, said = settle_precision(many, AUTO)
    assert (settled.compute_dtype, said, tried) == ("bfloat16", ["layers compute in bfloat16: fast"], ["A2C"])
    other = dataclasses.replace(CARTPOLE, agent=PPOConfig(network="mlp"))
    settled, said = settle_precision([*many, other], AUTO)
    assert (settled.compute_dtype, said) == ("float32", ["layers compute in float32: slow"])


@pytest.mark.parametrize("taken", ["float32", "bfloat16"])
def test_what_was_taken_is_provenance(
    taken: Literal["float32", "bfloat16"], with_bfloat16: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "judge_bfloat16", lambda _: Verdict(taken, "so it is"))
    assert run(CARTPOLE, tmp_path, hardware=AUTO) == "done"
    info = Store(tmp_path).info(CARTPOLE.run_id)
    assert info is not None
    assert info.provenance["compute_dtype"] == taken


def test_the_rollout_that_is_tried_is_judged(with_bfloat16: None) -> None:
    """On the real environment, whatever the machine makes of it."""
    settled, (said,) = settle_precision([CARTPOLE], AUTO)
    assert settled.compute_dtype in ("float32", "bfloat16")
    assert said.startswith(f"layers compute in {settled.compute_dtype}: ")


@pytest.mark.parametrize(
    "config",
    [
        dataclasses.replace(CARTPOLE, environment=GymnasiumConfig(env_id="Pendulum-v1", num_envs=4)),
        dataclasses.replace(
            CARTPOLE,
            agent=PPOConfig(
                network="mlp",
                rollout_steps=25,
                scaling="minibatch",
                minibatch_of="environments",
                minibatch_frames=100,
            ),
        ),
    ],
    ids=["actions that are not numbered", "minibatches of whole environments"],
)
def test_every_run_can_be_judged(config: RunConfig, with_bfloat16: None) -> None:
    hardware, (said,) = settle_precision([config], AUTO)
    assert hardware.compute_dtype in said
