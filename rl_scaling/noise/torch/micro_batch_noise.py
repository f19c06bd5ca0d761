"""The noise scale from micro-batches whose gradients are accumulated: two calls in any loop, for any model.

Each micro-batch is a group. A hook before each parameter's accumulation sees what a backward pass is about to add to
`.grad`, so that nothing is copied; what has been added up is read when the micro-batch ends. Gradients that go
elsewhere (`torch.autograd.grad`) are not seen.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import harmonic_mean
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.utils.hooks import RemovableHandle

from rl_scaling.noise.torch.adapter import Adapter, SquaredNorms

# Sums in half precision differ by less from those taken here, sums of something else by more.
_ROUNDING = 0.02

Loss = Literal["mean/k", "mean", "sum/n", "sum"]


class MicroBatchNoise(Adapter):
    """Measures B_simple (McCandlish et al. 2018, eq. 2.9, A.2) from the micro-batches of gradient accumulation.

    Call `micro_batch` after each backward pass and `step` once after the last. What happens to the gradients between
    the last `micro_batch` and `step` (clipping, unscaling, the optimiser's step) changes nothing. Works with
    batch normalisation (each micro-batch has its own statistics, as it has in training), tied weights, compiled
    models and automatic mixed precision: a step with gradients that overflowed is skipped and counted.

    Args:
        model: whose `.grad` is accumulated, from nothing (`zero_grad`), in each step.
        loss: what is differentiated for each of the k micro-batches: "mean/k", its mean loss divided by k, or "mean",
            undivided; "sum/n", the sum over its examples divided by the n of all micro-batches, or "sum", undivided. In
            the first two all micro-batches count alike in the gradient, in the last two all examples do.
        options: parts, every, window, optimizer, preconditioner, scaler: as `Adapter`.

    Raises:
        ValueError: an unknown kind of loss, a DistributedDataParallel model, or as `Adapter`.

    >>> _ = torch.manual_seed(0)
    >>> model = nn.Linear(3, 1)
    >>> noise = MicroBatchNoise(model, every=1)
    >>> for step in range(20):
    ...     model.zero_grad()
    ...     for inputs in torch.randn(4, 8, 3):
    ...         (((model(inputs) - 1) ** 2).mean() / 4).backward()
    ...         noise.micro_batch(len(inputs))
    ...     noise.step()
    >>> noise.estimate().resolved
    True
    """

    def __init__(self, model: nn.Module, *, loss: Loss = "mean/k", **options: Any):
        if loss not in get_args(Loss):
            raise ValueError(f"loss is {loss!r}: give one of {', '.join(map(repr, get_args(Loss)))}")
        if isinstance(model, nn.parallel.DistributedDataParallel):
            raise ValueError("DistributedDataParallel mixes the ranks' gradients into .grad: use RankNoise for it")
        super().__init__(model, **options)
        self._loss = loss
        self._witness = min(self.parameters.values(), key=Tensor.numel)
        self._handles: list[RemovableHandle] = []
        self._begin()

    @torch.no_grad()
    def micro_batch(self, examples: float) -> None:
        """Say that a backward pass is over.

        Raises:
            ValueError: no backward pass since the last call, more than one, or no examples.
        """
        if not self._measuring:
            return
        if not examples > 0:
            raise ValueError(f"a micro-batch of {examples} examples has no mean gradient: give their number")
        if not self._share:
            raise ValueError("no gradient since the last micro_batch(): call it after each loss.backward()")
        if not self._sizes:
            self._gradient_scale = self._scale()
        self._check_witness()
        self._shares.append(self._by_parameter(self._share.get))
        self._batch = self._by_parameter(lambda p: None if p.grad is None else self._sq_norm(p, p.grad))
        self._sizes.append(float(examples))
        self._share = {}

    def step(self) -> None:
        """Say that the gradient is complete, once for each step of the optimiser.

        Raises:
            ValueError: no micro-batches, one alone in the first step, a backward pass without its `micro_batch`, or
                gradients that were there before the first one.
        """
        if self._measuring:
            self._check()
            k, n, sizes = len(self._sizes), sum(self._sizes), torch.tensor(self._sizes, dtype=torch.float64)
            of_share, of_batch = {
                "mean/k": (torch.full((k,), float(k)), 1.0),
                "mean": (torch.ones(k), 1 / k),
                "sum/n": (n / sizes, 1.0),
                "sum": (1 / sizes, 1 / n),
            }[self._loss]
            shares = torch.stack(self._shares, dim=1)
            self._record(
                shares * (of_share.to(shares) / self._gradient_scale) ** 2,
                self._batch * (of_batch / self._gradient_scale) ** 2,
                self._sizes if self._loss.startswith("sum") else [harmonic_mean(self._sizes)] * k,
            )
        self._steps += 1
        self._begin()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._begin()

    def _configuration(self) -> dict[str, Any]:
        return {**super()._configuration(), "loss": self._loss}

    def _begin(self) -> None:
        """A new step: hooks are there only where it is measured."""
        self._share: dict[nn.Parameter, Tensor] = {}
        self._shares: list[Tensor] = []
        self._sizes: list[float] = []
        self._before: list[Tensor] = []
        self._twice = False
        single = torch.promote_types(self._witness.dtype, torch.float32)
        self._witness_sum = torch.zeros_like(self._witness, dtype=single, requires_grad=False)
        self._witness_length = self._witness_sum.new_zeros(())
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._sq_norm = SquaredNorms(self._preconditioner)
        if self._measuring:
            self._require_same_parameters()
            # A node that adds to .grad lives as long as someone holds it.
            self._nodes = [get_gradient_edge(p).node for p in self.parameters.values()]
            pairs = zip(self._nodes, self.parameters.values(), strict=True)
            self._handles = [node.register_prehook(self._hook(p)) for node, p in pairs]

    def _hook(self, parameter: nn.Parameter) -> Callable[[tuple[Tensor, ...]], None]:
        def note(gradients: tuple[Tensor, ...]) -> None:
            (gradient,) = gradients
            with torch.no_grad():
                if not self._sizes and parameter.grad is not None:
                    self._before.append(parameter.grad.count_nonzero())
                self._twice |= parameter in self._share
                if parameter is self._witness:
                    self._add_to_witness(gradient)
                self._share[parameter] = self._sq_norm(parameter, gradient)

        return note

    def _add_to_witness(self, gradient: Tensor) -> None:
        share = gradient.detach().to(self._witness_sum.dtype)
        self._witness_sum = self._witness_sum + share
        self._witness_length = self._witness_length + share.norm()

    def _check_witness(self) -> None:
        """What was accumulated in one small parameter must be the sum of the shares that were seen."""
        grad = self._witness.grad
        missing = self._witness_sum if grad is None else self._witness_sum - grad.to(self._witness_sum.dtype)
        differs = (missing.norm() > _ROUNDING * self._witness_length) & self._witness_length.isfinite()
        if bool(differs) and not self._had_gradients():
            raise ValueError(
                ".grad is not the sum of the micro-batches' gradients: call zero_grad() only after step(), and measure"
                " a DistributedDataParallel model with RankNoise"
            )

    def _had_gradients(self) -> bool:
        return bool(self._before) and bool(torch.stack(self._before).any())

    def _check(self) -> None:
        if self._share or self._twice:
            raise ValueError("a backward pass without its micro_batch(): call it after each loss.backward()")
        if not self._sizes:
            raise ValueError("no micro-batches in this step: call micro_batch() after each loss.backward()")
        if self._had_gradients():
            raise ValueError(
                "the gradients were not zero before the first micro-batch: call optimizer.zero_grad() after each step"
            )
