"""The diagonal by which Adam and RMSProp divide gradients, for the noise scale of the steps that they make.

With D = diag(sqrt(v) + eps) a step is -lr D^-1 m. In the coordinates D^1/2 theta it is plain gradient descent along
D^-1/2 g, and the simple noise scale of those gradients is

    B_simple(D) = tr(D^-1 Sigma) / (G^T D^-1 G),

eq. 2.9 of McCandlish et al. 2018 with every direction weighed by the rate at which the optimiser moves along it. v is
that of the last step: it does not depend on the batch that is measured, so the estimates stay unbiased.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

_KNOWN = (torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RMSprop)


def require_known(optimizer: Optimizer) -> None:
    """Refuse an optimiser whose diagonal is not known here.

    Raises:
        ValueError: it is none of torch's Adam, AdamW, NAdam and RMSprop.
    """
    if not isinstance(optimizer, _KNOWN):
        raise ValueError(
            f"preconditioner is a {type(optimizer).__name__}: give torch's Adam, AdamW, NAdam or RMSprop, or None"
        )


@torch.no_grad()
def inverse_diagonal(optimizer: Optimizer) -> dict[Tensor, Tensor]:
    """1 / (sqrt(v) + eps) of each parameter that has been stepped, with Adam's bias correction of v.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    >>> optimizer = torch.optim.Adam([weight], eps=0.5)
    >>> weight.grad = torch.tensor([3.0, 0.0])
    >>> optimizer.step()
    >>> inverse_diagonal(optimizer)[weight]
    tensor([0.2857, 2.0000])
    """
    return {
        parameter: 1 / (_second_moment(optimizer.state[parameter], group).sqrt() + group["eps"])
        for group in optimizer.param_groups
        for parameter in group["params"]
        if optimizer.state.get(parameter)
    }


def _second_moment(state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    if "square_avg" in state:  # RMSprop
        centre = state["grad_avg"] ** 2 if group["centered"] else 0.0
        return (state["square_avg"] - centre).clamp(min=0)
    moment = state["max_exp_avg_sq"] if group.get("amsgrad") else state["exp_avg_sq"]
    return moment / (1 - group["betas"][1] ** float(state["step"]))
