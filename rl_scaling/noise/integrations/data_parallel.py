"""The noise scale from the ranks of a data-parallel job, as in appendix A.1 of McCandlish et al. 2018.

DistributedDataParallel hands each rank's own gradient to a communication hook, bucket by bucket, and takes the mean
over ranks back. Both norms are taken there; the only further communication is one small all_gather per measurement.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import harmonic_mean
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from rl_scaling.noise.torch.adapter import Adapter, SquaredNorms

Bucket = dist.GradBucket  # pyright: ignore[reportPrivateImportUsage] - public by torch's documentation
CommunicationHook = Callable[[Any, Bucket], torch.futures.Future[Tensor]]


class RankNoise(Adapter):
    """Measures B_simple (McCandlish et al. 2018, eq. 2.9, A.2) with the ranks of a data-parallel job as groups.

    Registers itself as the model's communication hook, before the first backward pass, and passes buckets on to
    another. Call `step` on every rank after the backward pass that exchanges gradients; with gradient accumulation that
    is the last one, outside `no_sync`, and a rank's group is all that it accumulated. All ranks get the same estimates.
    The ranks' mean counts ranks alike; where their numbers of examples differ, the harmonic mean of these is the group
    size for which A.2 stays unbiased.

    Args:
        model: wrapped in DistributedDataParallel, in two or more processes; without another communication hook.
        hook: exchanges the gradients: `allreduce_hook`, `fp16_compress_hook`, `bf16_compress_hook` or any other
            that gives the mean over ranks up to rounding.
        hook_state: what that hook is given first; None: the model's process group.
        options: parts, every, window, optimizer, preconditioner, scaler: as `Adapter`.

    Raises:
        ValueError: another model than a DistributedDataParallel one (a sharded one, say), a single rank, or as
            `Adapter`.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        hook: CommunicationHook = allreduce_hook,
        hook_state: Any = None,
        **options: Any,
    ):
        super().__init__(model.module if isinstance(model, DistributedDataParallel) else model, **options)
        if not isinstance(model, DistributedDataParallel):
            raise ValueError(
                f"the model is a {type(model).__name__}: wrap it in torch.nn.parallel.DistributedDataParallel; without"
                " it, GradientNoise and MicroBatchNoise measure within one process"
            )
        self._group = model.process_group
        self._ranks = dist.get_world_size(self._group)
        if self._ranks < 2:
            raise ValueError("one rank gives no groups to compare: use GradientNoise or MicroBatchNoise")
        self._inner, self._inner_state = hook, self._group if hook_state is None else hook_state
        self._begin()
        model.register_comm_hook(self, _measuring_hook)

    def step(self, examples: float) -> None:
        """Say that the gradient is complete; every rank must, for they wait for each other.

        Args:
            examples: of which this rank's gradient is the mean.

        Raises:
            ValueError: no gradients were exchanged since the last call, or more than once; no examples.
        """
        if self._measuring:
            if not examples > 0:
                raise ValueError(f"a rank with {examples} examples has no mean gradient: give their number")
            if not self._own:
                raise ValueError("no gradients were exchanged: call step() after the backward pass outside no_sync()")
            if self._twice:
                raise ValueError("gradients were exchanged twice: call step() after each backward pass that does so")
            own = self._by_parameter(self._own.get)
            own = torch.cat([own, own.new_tensor([examples])])
            gathered = [torch.empty_like(own) for _ in range(self._ranks)]
            dist.all_gather(gathered, own, group=self._group)
            by_rank = torch.stack(gathered, dim=1)
            self._record(
                by_rank[:-1] / self._gradient_scale**2,
                self._by_parameter(self._mean.get) / self._gradient_scale**2,
                [harmonic_mean(by_rank[-1].tolist())] * self._ranks,
            )
        self._steps += 1
        self._begin()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._begin()

    def exchange(self, bucket: Bucket) -> torch.futures.Future[Tensor]:
        """The mean of a bucket over ranks, from the hook that exchanges gradients; both norms are noted."""
        if not self._measuring:
            return self._inner(self._inner_state, bucket)
        if not self._own:
            self._gradient_scale = self._scale()
        parameters, gradients = bucket.parameters(), bucket.gradients()
        self._note(self._own, parameters, gradients)
        start = bucket.buffer().storage_offset()
        places = [(g.storage_offset() - start, g.numel(), g.shape) for g in gradients]

        def note_mean(future: torch.futures.Future[Any]) -> Tensor:
            value = future.value()
            mean = value[0] if isinstance(value, list) else value
            pieces = [mean[at : at + size].view(shape) for at, size, shape in places]
            self._note(self._mean, parameters, pieces)
            return mean

        return self._inner(self._inner_state, bucket).then(note_mean)

    def _begin(self) -> None:
        self._own: dict[Tensor, Tensor] = {}
        self._mean: dict[Tensor, Tensor] = {}
        self._twice = False
        self._sq_norm = SquaredNorms(self._preconditioner)

    @torch.no_grad()
    def _note(self, norms: dict[Tensor, Tensor], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            self._twice |= parameter in norms
            norms[parameter] = self._sq_norm(parameter, gradient)


# DistributedDataParallel looks at the types themselves, and annotations in this module are strings.
def _measuring_hook(state, bucket):  # pyright: ignore[reportMissingParameterType]
    return state.exchange(bucket)
