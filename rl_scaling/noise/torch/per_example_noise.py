"""The noise scale from the gradients of single examples, by `torch.func`, for any loss of a model's output.

The way that asks least of the model and costs most: memory for the gradients of `chunk_size` examples.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from rl_scaling.noise.torch.adapter import Adapter, SquaredNorms, as_list
from rl_scaling.noise.torch.group_gradients import BATCH_NORMS

ExampleLoss = Callable[..., Tensor]


class PerExampleNoise(Adapter):
    """Measures B_simple (McCandlish et al. 2018, eq. 2.9, A.2) from one gradient for each example.

    Without keys each example is a group. With keys the examples of one key (environment, document) are a group, for
    they depend on each other; `tr(Sigma)` of single examples is taken as well, which gives the design effect.

    Args:
        model: evaluated with one example at a time, as a batch of one; batch normalisation in training mode is refused.
        loss: `loss(output, *targets)` of one example, a scalar; the output and the targets keep their dimension of 1.
        chunk_size: examples whose gradients are in memory at once; None: all.
        options: parts, window, optimizer, preconditioner: as `Adapter`. Every batch handed in is measured.

    Raises:
        ValueError: batch normalisation, a chunk size below 1, or as `Adapter`.

    >>> _ = torch.manual_seed(0)
    >>> model = nn.Linear(3, 1)
    >>> noise = PerExampleNoise(model, nn.functional.mse_loss)
    >>> for _ in range(20):
    ...     noise.measure(torch.randn(32, 3), torch.ones(32, 1))
    >>> noise.estimate().resolved
    True
    """

    def __init__(self, model: nn.Module, loss: ExampleLoss, *, chunk_size: int | None = None, **options: Any):
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"chunk_size is {chunk_size}: give a number of examples, 1 or more, or None for all")
        super().__init__(model, every=1, **options)
        self._model: nn.Module = getattr(model, "_orig_mod", model)  # compiled code cannot be mapped over examples
        self._chunk_size = chunk_size
        self._names = [name for name, p in self._model.named_parameters() if p.requires_grad]
        self._parameters = list(self.parameters.values())
        self._of_examples = vmap(grad(self._loss_of(loss)), in_dims=(None, 0, 0), randomness="different")

    def measure(self, inputs: Tensor, *targets: Tensor, keys: Sequence[Hashable] | None = None) -> None:
        """Take in one batch; `.grad` is left as it is.

        Args:
            inputs: (n, ...) of the model.
            targets: (n, ...) each, handed to the loss.
            keys: (n,) what each example belongs to.

        Raises:
            ValueError: sizes that do not fit, batch normalisation in training mode, or one group in the first step.
        """
        n = len(inputs)
        for name, given in [("targets", target) for target in targets] + [("keys", keys)]:
            if given is not None and len(given) != n:
                raise ValueError(f"{n} inputs but {len(given)} {name}: give one for each")
        self._refuse_batch_norm()
        sq_norm, groups = SquaredNorms(self._preconditioner), _groups(keys)
        count = 1 if groups is None else int(groups.max()) + 1
        # Hundreds of gradients are added up: half precision would lose them.
        precisions = [torch.promote_types(p.dtype, torch.float32) for p in self._parameters]
        sums = [p.new_zeros(count, *p.shape, dtype=d) for p, d in zip(self._parameters, precisions, strict=True)]
        of_examples = []
        for rows in torch.arange(n).split(self._chunk_size or n):
            chunk = self._gradients(inputs[rows], tuple(t[rows] for t in targets))
            of_examples.append(torch.stack([sq_norm.each(p, g) for p, g in zip(self._parameters, chunk, strict=True)]))
            into = torch.zeros_like(rows) if groups is None else groups[rows]
            for total, gradients in zip(sums, chunk, strict=True):
                total.index_add_(0, into.to(total.device), gradients.to(total.dtype))
        self._finish(sums, torch.cat(of_examples, dim=1), None if groups is None else groups.bincount(), sq_norm)
        self._steps += 1

    def _finish(self, sums: list[Tensor], of_examples: Tensor, sizes: Tensor | None, sq_norm: SquaredNorms) -> None:
        """From gradients added up over groups, or over all examples where `sizes` is None."""
        pairs, n = list(zip(self._parameters, sums, strict=True)), of_examples.shape[1]
        batch = torch.stack([sq_norm(p, total.sum(0) / n) for p, total in pairs])
        if sizes is None:
            self._record(of_examples, batch, [1.0] * n)
            return
        of_groups = torch.stack([sq_norm.each(p, total) for p, total in pairs]) / sizes.to(batch.device) ** 2
        self._record(of_groups, batch, sizes.tolist(), example_sq_norms=of_examples)

    def _gradients(self, inputs: Tensor, targets: tuple[Tensor, ...]) -> list[Tensor]:
        """(m, *shape) gradients of m examples, for each parameter."""
        parameters = {name: p.detach() for name, p in zip(self._names, self._parameters, strict=True)}
        gradients = self._of_examples(parameters, inputs, targets)
        return [gradients[name] for name in self._names]

    def _refuse_batch_norm(self) -> None:
        for name, module in self._model.named_modules():
            if isinstance(module, BATCH_NORMS) and (module.training or not module.track_running_stats):
                raise ValueError(
                    f"{name} is {type(module).__name__} in training mode: an example has no gradient of its own, for it"
                    " depends on the others; use MicroBatchNoise, or model.eval()"
                )

    def _loss_of(self, loss: ExampleLoss) -> Callable[[dict[str, Tensor], Tensor, tuple[Tensor, ...]], Tensor]:
        def of_one(parameters: dict[str, Tensor], inputs: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
            output = functional_call(self._model, parameters, (inputs[None],))
            return loss(output, *(target[None] for target in targets))

        return of_one


def _groups(keys: Sequence[Hashable] | None) -> Tensor | None:
    """(n,) the number of each example's key."""
    if keys is None:
        return None
    numbers: dict[Hashable, int] = {}
    return torch.tensor([numbers.setdefault(key, len(numbers)) for key in as_list(keys)])
