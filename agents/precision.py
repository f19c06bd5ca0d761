"""How far a gradient in half precision is from the one in float32."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rl_scaling.agents.networks import ActorCritic

# Adds its square, 1 %, to a relative variance that is 100 % in a batch as large as the noise scale.
MOST_GRADIENT_ERROR = 0.1


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

    def gradient(of: torch.dtype | None) -> Tensor:
        network.compute_dtype = of
        parts = torch.autograd.grad(loss(*network(observations)), list(network.parameters()), materialize_grads=True)
        return torch.cat([part.flatten() for part in parts]).double()

    before = network.compute_dtype
    try:
        exact, rounded = gradient(None), gradient(dtype)
    finally:
        network.compute_dtype = before
    return float((rounded - exact).norm() / exact.norm())
