"""Whether layers compute in bfloat16: the hardware (faked here), the gradient and the time each have their say."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rl_scaling.agents import A2C, PPO, Agent
from rl_scaling.agents import precision as module
from rl_scaling.agents.config import A2CConfig, PPOConfig
from rl_scaling.agents.precision import MOST_GRADIENT_ERROR, judge_bfloat16, lacks_bfloat16, speed_gain
from tests.agents.reference import TapeSource

CPU = torch.device("cpu")


def acting(algorithm: str) -> Agent[Any]:
    source = TapeSource(4, (4, 84, 84))
    shape, count = source.observation_shape, source.num_actions
    agent: Agent[Any]
    if algorithm == "a2c":
        agent = A2C(A2CConfig(network="small"), shape, count, total_updates=10, seed=3)
    else:
        agent = PPO(PPOConfig(network="small", rollout_steps=8), shape, count, total_updates=10, seed=3)
    agent.begin(source, source.reset(5))
    return agent


@pytest.mark.parametrize(
    ("features", "has"),
    [
        ({"amx_bf16": True}, True),
        ({"amx_bf16": False, "avx512_bf16": True}, True),
        ({"bf16": True}, True),
        ({"avx512_f": True, "avx2": True}, False),
        ({}, False),
    ],
)
def test_a_processor_has_bfloat16_or_lacks_it(
    features: dict[str, bool], has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert (lacks_bfloat16(CPU) == "") == has
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert "no bfloat16 arithmetic" in lacks_bfloat16(CPU)


def test_a_gpu_has_bfloat16_where_torch_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for has in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has=has: has)
        assert (lacks_bfloat16(torch.device("cuda")) == "") == has
    assert lacks_bfloat16(torch.device("meta"))


@pytest.mark.parametrize("algorithm", ["a2c", "ppo"])
def test_all_three_must_agree(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = acting(algorithm)
    monkeypatch.setattr(module, "speed_gain", lambda *_: 1.8)
    monkeypatch.setattr(module, "lacks_bfloat16", lambda _: "no such arithmetic")
    assert judge_bfloat16(agent) == ("float32", "no such arithmetic")
    monkeypatch.setattr(module, "lacks_bfloat16", lambda _: "")
    taken = judge_bfloat16(agent)
    assert taken.precision == "bfloat16"
    assert taken.reason.startswith("1.8 times as fast as float32 here, its gradient ")
    monkeypatch.setattr(module, "speed_gain", lambda *_: 1.05)
    assert judge_bfloat16(agent) == ("float32", "bfloat16 is only 1.1 times as fast here")
    for squares in ((0.02, 1.0), (math.nan, 1.0)):
        monkeypatch.setattr(module, "_squares", lambda *_, squares=squares: squares)
        found = judge_bfloat16(agent)
        assert found.precision == "float32"
        assert "gradient is" in found.reason
    assert agent.network.compute_dtype is None


def test_ppos_gradient_errs_by_rounding() -> None:
    agent = acting("ppo")
    assert 2**-10 < agent.gradient_error(torch.bfloat16) < MOST_GRADIENT_ERROR


@pytest.mark.parametrize("algorithm", ["a2c", "ppo"])
def test_the_sampled_loss_is_that_of_an_update(algorithm: str) -> None:
    """Its gradient in float32 is that of the rollout as it was acted."""
    ours, same = acting(algorithm), acting(algorithm)
    observations, loss = ours.sampled_loss()
    rollout = same._roll_out()
    parameters = list(ours.network.parameters())
    found = torch.autograd.grad(loss(*ours.network(observations)), parameters)
    expected = torch.autograd.grad(
        same._loss_of(rollout)(*same.network(rollout.observations)), list(same.network.parameters())
    )
    assert observations.shape == (len(rollout.observations) + 4, 4, 84, 84)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_gain_is_of_the_fastest_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first round, which prepares, does not count; of the others the fastest in each arithmetic does."""
    spent = iter([9.0, 9.0, 3.0, 1.5, 2.0, 4.0, 5.0, 1.0, 2.5, 1.2])
    clock = [0.0]

    def now() -> float:
        clock.append(clock[-1] + (next(spent) if len(clock) % 2 == 0 else 0.0))
        return clock[-1]

    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=None, process_time=now))
    agent = acting("a2c")
    assert speed_gain(agent.network, agent._acting.current, torch.bfloat16) == pytest.approx(2.0)
    assert agent.network.compute_dtype is None


def test_weights_are_rounded_once_per_rollout_and_anew_after_an_update() -> None:
    """Acting in bfloat16 gives what single passes give, before and after the weights change."""
    agent = acting("a2c")
    agent.network.compute_dtype = torch.bfloat16
    for _ in range(2):
        rollout = agent._roll_out()
        with torch.no_grad():
            logits, values = agent.network(rollout.observations)
        torch.testing.assert_close(rollout.values.flatten(), values, rtol=1e-2, atol=1e-2)
        torch.testing.assert_close(rollout.logits.flatten(0, 1), logits, rtol=1e-2, atol=1e-2)
        assert rollout.values.dtype == torch.float32
        with torch.no_grad():
            for parameter in agent.network.parameters():
                parameter.mul_(1.5)
