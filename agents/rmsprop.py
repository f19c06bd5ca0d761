"""RMSProp as TensorFlow computes it, which the Baselines' A2C was tuned with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class RMSpropInsideRoot(torch.optim.Optimizer):
    """v <- decay v + (1 - decay) g^2 from v = 1; theta <- theta - lr g / sqrt(v + epsilon).

    torch.optim.RMSprop starts at v = 0 and adds epsilon outside the root, which makes its first steps far larger.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, decay: float, epsilon: float):
        super().__init__(params, {"lr": lr, "decay": decay, "epsilon": epsilon})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            decay, epsilon, lr = group["decay"], group["epsilon"], group["lr"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["square_mean"] = torch.ones_like(p)
                square_mean = state["square_mean"]
                square_mean.mul_(decay).addcmul_(p.grad, p.grad, value=1 - decay)
                p.addcdiv_(p.grad, (square_mean + epsilon).sqrt_(), value=-lr)
