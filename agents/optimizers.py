"""RMSProp and Adam in one pass over the weights, and the clipping that goes before a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

# What torch.optim is built on: the names are private, and the tests hold their meaning.
_KERNELS: Any = torch
# torch's fused Adam takes 1 - decay^step out of its second moment; at this step nothing is left to take out.
_LATE = 1e12
_FUSED_DECAYS = (1e-3, 0.99999)


class RMSprop(torch.optim.Optimizer):
    """RMSProp, as TensorFlow or as torch computes it, on gradients that may be scaled down in the same pass.

    With v <- decay v + (1 - decay) g^2:

    - epsilon inside the root: theta <- theta - lr g / sqrt(v + epsilon) from v = 1, TensorFlow's convention, which the
      Baselines' A2C was tuned with;
    - outside: theta <- theta - lr g / (sqrt(v) + epsilon) from v = 0, as torch.optim.RMSprop, whose first steps are
      far larger.

    On a CPU the kernel of torch's fused Adam does it all in one pass: with no mean of the gradient (beta1 = 0) and no
    bias left to correct it is RMSProp. What is kept of every weight is what stands under the root.

    Args:
        params: tensors to learn.
        lr: learning rate.
        decay: of the mean of squared gradients, in (0, 1).
        epsilon: above 0.
        inside_root: where epsilon is added.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, decay: float, epsilon: float, *, inside_root: bool = True
    ) -> None:
        super().__init__(params, {"lr": lr, "decay": decay, "epsilon": epsilon, "inside_root": inside_root})
        self._late = torch.tensor(_LATE)

    @torch.no_grad()
    def step(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, closure: Callable[[], Any] | None = None, *, factor: Tensor | None = None
    ) -> None:
        """One step.

        Args:
            closure: none is called.
            factor: 0-dimensional; gradients are multiplied by it, also where they are kept.
        """
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            _lay_out_as_weights(weights)
            roots = [self._under_root(p, group) for p in weights]
            if _fuses(weights, group["decay"]):
                _fused_step(weights, roots, group, factor, self._late)
            else:
                _plain_step(weights, roots, group, factor)

    def _under_root(self, weight: Tensor, group: dict[str, Any]) -> Tensor:
        state = self.state[weight]
        if not state:
            start = 1.0 + group["epsilon"] if group["inside_root"] else 0.0
            state["under_root"] = torch.full_like(weight, start, memory_format=torch.preserve_format)
        return state["under_root"]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Also what earlier versions saved, which kept v, or torch.optim.RMSprop; settings but the rate stay."""
        groups = [
            {**own, "params": saved["params"], "lr": saved["lr"]}
            for own, saved in zip(self.param_groups, state_dict["param_groups"], strict=True)
        ]
        super().load_state_dict({"state": state_dict["state"], "param_groups": groups})
        for group in self.param_groups:
            for weight in group["params"]:
                if (state := self.state.get(weight)) and "under_root" not in state:
                    kept = state["square_mean"] + group["epsilon"] if group["inside_root"] else state["square_avg"]
                    self.state[weight] = {"under_root": kept}


def _lay_out_as_weights(weights: Sequence[Tensor]) -> None:
    """Copy gradients that lie in memory in another order than their weights: the fused kernels take no notice of it."""
    for weight in weights:
        if weight.grad is not None and weight.grad.stride() != weight.stride():
            weight.grad = torch.empty_like(weight).copy_(weight.grad)


def _fuses(weights: Sequence[Tensor], decay: float) -> bool:
    low, high = _FUSED_DECAYS
    return low < decay < high and all(w.device.type == "cpu" and w.dtype == torch.float32 for w in weights)


def _fused_step(
    weights: list[Tensor], roots: list[Tensor], group: dict[str, Any], factor: Tensor | None, late: Tensor
) -> None:
    gradients: Any = [w.grad for w in weights]
    decay, epsilon, inside = group["decay"], group["epsilon"], group["inside_root"]
    if inside:  # the kernel makes decay (v + epsilon) of it, and epsilon is to stay whole
        _KERNELS._foreach_add_(roots, epsilon * (1 / decay - 1))
    _KERNELS._fused_adam_(
        weights,
        gradients,
        gradients,  # the mean of the gradient with beta1 = 0: itself
        roots,
        [],
        [late] * len(weights),
        lr=group["lr"],
        beta1=0.0,
        beta2=decay,
        weight_decay=0.0,
        eps=0.0 if inside else epsilon,
        amsgrad=False,
        maximize=False,
        grad_scale=None if factor is None else factor.reciprocal(),
    )


def _plain_step(weights: list[Tensor], roots: list[Tensor], group: dict[str, Any], factor: Tensor | None) -> None:
    gradients: Any = [w.grad for w in weights]
    decay, epsilon, inside = group["decay"], group["epsilon"], group["inside_root"]
    if factor is not None:
        _KERNELS._foreach_mul_(gradients, factor)
    _KERNELS._foreach_mul_(roots, decay)
    _KERNELS._foreach_addcmul_(roots, gradients, gradients, 1 - decay)
    if inside:
        _KERNELS._foreach_add_(roots, epsilon * (1 - decay))
    denominators = _KERNELS._foreach_sqrt(roots)
    if not inside:
        _KERNELS._foreach_add_(denominators, epsilon)
    _KERNELS._foreach_addcdiv_(weights, gradients, denominators, -group["lr"])


class Adam(torch.optim.Adam):
    """torch.optim.Adam, in one pass on a CPU, also after a checkpoint of one that took several.

    Args:
        params: tensors to learn.
        lr: learning rate.
        eps: added to the root of the second moment.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, eps: float) -> None:
        weights = list(params)
        fused = all(w.device.type == "cpu" and w.is_floating_point() for w in weights)
        super().__init__(weights, lr, eps=eps, fused=True if fused else None)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:
        """One step; no closure is called."""
        for group in self.param_groups:
            _lay_out_as_weights(group["params"])
        super().step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See torch.optim.Optimizer.load_state_dict."""
        own = [{name: group[name] for name in ("fused", "foreach")} for group in self.param_groups]
        saved = [{**group, **kept} for group, kept in zip(state_dict["param_groups"], own, strict=True)]
        super().load_state_dict({**state_dict, "param_groups": saved})


def clipped_step(optimizer: torch.optim.Optimizer, gradient: Sequence[Tensor], max_norm: float) -> Tensor:
    """One step of an optimiser along the gradient clipped to a norm.

    Args:
        optimizer: of the weights whose `.grad` the gradient is.
        gradient: tensors.
        max_norm: as in torch.nn.utils.clip_grad_norm_.

    Returns:
        The norm before clipping, 0-dimensional.
    """
    norm = nn.utils.get_total_norm(gradient)
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    # Looking at the number would make a GPU's host wait for it.
    leave = norm.device.type == "cpu" and float(factor) == 1.0
    if isinstance(optimizer, RMSprop):
        optimizer.step(factor=None if leave else factor)
        return norm
    if not leave:
        _KERNELS._foreach_mul_(list(gradient), factor)
    optimizer.step()
    return norm
