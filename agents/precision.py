"""What the layers compute in: float32, or bfloat16 where the hardware has it, the gradient allows it and it is faster.

Weights, optimiser, heads and losses are float32 in either case; see `rl_scaling.agents.networks.ActorCritic`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from rl_scaling.agents.networks import ActorCritic

if TYPE_CHECKING:
    from rl_scaling.agents.agent import Agent

# Of the gradient in half precision: adds its square, 1 %, to a relative variance that is 100 % in a batch as large as
# the noise scale.
MOST_GRADIENT_ERROR = 0.1
# Less is within what such a short measurement can tell.
LEAST_GAIN = 1.1
_ROUNDS = 5
_ROLLOUTS = 4
# As torch names them: Intel, AMD, Arm.
_CPU_FEATURES = ("amx_bf16", "avx512_bf16", "bf16")

DTYPES: dict[str, torch.dtype | None] = {"float32": None, "bfloat16": torch.bfloat16}


class Verdict(NamedTuple):
    """What layers should compute in, and why, in words."""

    precision: Literal["float32", "bfloat16"]
    reason: str


def lacks_bfloat16(device: torch.device) -> str:
    """Why a device does not compute in bfloat16, in words; empty where it does. A CPU without would only imitate it."""
    if device.type == "cuda":
        return "" if torch.cuda.is_bf16_supported(including_emulation=False) else "this GPU has no bfloat16 arithmetic"
    features = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    if any(features.get(name) for name in _CPU_FEATURES) and torch.backends.mkldnn.is_available():
        return ""
    return "this processor has no bfloat16 arithmetic (AMX or AVX512_BF16)"


def judge_bfloat16(agent: Agent[Any]) -> Verdict:
    """Whether an agent's layers should compute in bfloat16, from a few rollouts, which are acted but not learned from.

    The gradient may be off by `MOST_GRADIENT_ERROR`, over the rollouts together, as that of a single one may be small
    by chance; and forward and backward passes must be `LEAST_GAIN` times as
    fast as in float32; both are measured here and now.

    Args:
        agent: that acts in environments (`Agent.begin`); is left as it was, but for its random numbers.
    """
    if lack := lacks_bfloat16(agent.device):
        return Verdict("float32", lack)
    observations, loss = agent.sampled_loss()
    squares = [_squares(agent.network, loss, observations, torch.bfloat16)]
    for _ in range(1, _ROLLOUTS):
        observations, loss = agent.sampled_loss()
        squares.append(_squares(agent.network, loss, observations, torch.bfloat16))
    of_errors, of_gradients = (sum(column) for column in zip(*squares, strict=True))
    error = math.sqrt(of_errors / of_gradients) if of_gradients else 0.0
    if not error <= MOST_GRADIENT_ERROR:
        return Verdict("float32", f"bfloat16's gradient is {error:.0%} off, more than {MOST_GRADIENT_ERROR:.0%}")
    gain = speed_gain(agent.network, observations, torch.bfloat16)
    if gain < LEAST_GAIN:
        return Verdict("float32", f"bfloat16 is only {gain:.1f} times as fast here")
    return Verdict("bfloat16", f"{gain:.1f} times as fast as float32 here, its gradient {error:.1%} off")


def gradient_error(
    network: ActorCritic, loss: Callable[[Tensor, Tensor], Tensor], observations: Tensor, dtype: torch.dtype
) -> float:
    """|g - g32| / |g32|, the relative error of a gradient whose layers compute in `dtype` under autocast.

    Args:
        network: is left as it was.
        loss: of its logits and values.
        observations: (m, *shape) what both gradients are taken on.
        dtype: torch.bfloat16, usually.
    """
    of_error, of_gradient = _squares(network, loss, observations, dtype)
    return math.sqrt(of_error / of_gradient)


def _squares(
    network: ActorCritic, loss: Callable[[Tensor, Tensor], Tensor], observations: Tensor, dtype: torch.dtype
) -> tuple[float, float]:
    """|g - g32|^2 and |g32|^2."""

    def gradient() -> Tensor:
        parts = torch.autograd.grad(loss(*network(observations)), list(network.parameters()), materialize_grads=True)
        return torch.cat([part.flatten() for part in parts]).double()

    exact, rounded = (_computing_in(network, each, gradient) for each in (None, dtype))
    return float((rounded - exact).square().sum()), float(exact.square().sum())


def speed_gain(network: ActorCritic, observations: Tensor, dtype: torch.dtype) -> float:
    """How many times as fast passes forward and backward are in `dtype`; the two take turns, and the fastest count."""
    parameters = list(network.parameters())
    # The time of this process alone, where it is to be had: others may use the processor as well.
    now = time.perf_counter if observations.is_cuda else time.process_time

    def seconds() -> float:
        begun = now()
        logits, values = network(observations)
        torch.autograd.grad(logits.sum() + values.sum(), parameters, allow_unused=True)
        if observations.is_cuda:
            torch.cuda.synchronize(observations.device)
        return now() - begun

    rounds = [[_computing_in(network, each, seconds) for each in (None, dtype)] for _ in range(_ROUNDS)]
    plain, rounded = (min(column) for column in zip(*rounds[1:], strict=True))  # the first prepares kernels
    return plain / rounded


def _computing_in(network: ActorCritic, dtype: torch.dtype | None, work: Callable[[], Any]) -> Any:
    before, network.compute_dtype = network.compute_dtype, dtype
    try:
        return work()
    finally:
        network.compute_dtype = before
