"""The Hessian-weighted noise scale B_noise = tr(H Sigma) / (G^T H G), by Hessian-vector products.

McCandlish et al. 2018, eq. 2.8. The moments are those of B_simple with g^T H g in place of |g|^2: eq. A.1 holds for any
quadratic form, E[g^T H g] = G^T H G + tr(H Sigma) / B, whether or not it is positive.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rl_scaling.estimates import Estimate
from rl_scaling.noise.estimate import NoiseScaleEstimate, estimate_noise_scale, moments_from_groups
from rl_scaling.statistics.jackknife import RatioEstimate, invert, ratio_of_means

if TYPE_CHECKING:
    from curvlinops import GGNLinearOperator, HessianLinearOperator

FloatArray = NDArray[np.float64]
Batch = tuple[Tensor, Tensor]
Curvature = Literal["hessian", "ggn"]
LossFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class HessianNoiseScale:
    """What Hessian-vector products say about one point of training.

    Attributes:
        b_noise: tr(H Sigma) / (G^T H G), in examples (eq. 2.8).
        eps_max: |G|^2 / (G^T H G), the best step size without noise (eq. 2.6).
        delta_loss_max: |G|^4 / (2 G^T H G), what that step gains (eq. 2.7).
        b_simple: the noise scale without the Hessian, from the same gradients (eq. 2.9).
        curvature_along_gradient: G^T H G / |G|^2, the inverse of eps_max, with its interval. Where that lies below
            zero, as a Hessian allows, the loss is concave along the gradient: no step is best, and none of the first
            three exists.
        grad_curvature: mean of the unbiased estimates of G^T H G.
        noise_curvature: mean of the unbiased estimates of tr(H Sigma) per example; with a Hessian that is not positive
            semi-definite it may be negative, and then b_noise does not exist.
        measurements: that the estimates rest on.
        confidence: of the intervals.
    """

    b_noise: Estimate
    eps_max: Estimate
    delta_loss_max: Estimate
    b_simple: NoiseScaleEstimate
    curvature_along_gradient: RatioEstimate
    grad_curvature: float
    noise_curvature: float
    measurements: int
    confidence: float


def hessian_noise_scale(
    model: nn.Module,
    loss_fn: LossFunction,
    measurements: Iterable[Sequence[Batch]],
    curvature_data: Sequence[Batch],
    *,
    curvature: Curvature = "hessian",
    blocks: int = 20,
    confidence: float = 0.95,
) -> HessianNoiseScale:
    """B_noise at the model's present weights, which are left as they are.

    Each measurement is a batch in k >= 2 independent groups. With g_i their mean gradients, the products H g_i give
    g_i^T H g_j for all pairs: pairs of different groups estimate G^T H G without bias, equal ones G^T H G +
    tr(H Sigma) / b (`moments_from_groups` in this inner product). Numerators and denominators are averaged over the
    measurements and divided once; intervals are those of `ratio_of_means`.

    H is taken on `curvature_data`, which must not depend on the groups: all the data there is, or a batch of its own.
    Groups drawn with replacement estimate G and Sigma of the data at hand; disjoint groups, those of the distribution
    that the data came from.

    Cost of a measurement: k gradients, and k Hessian-vector products over `curvature_data`, each a few times a
    gradient of that data.

    Args:
        model: maps inputs (n, ...) to outputs (n, ...). Examples must not see each other, nor chance: put batch
            normalisation and dropout in evaluation mode.
        loss_fn: outputs and targets to the mean loss of the examples, a scalar.
        measurements: each one a sequence of k groups (inputs, targets), of any sizes.
        curvature_data: batches (inputs, targets).
        curvature: "hessian", or "ggn" for the generalised Gauss-Newton matrix, which is never negative for convex
            losses of the outputs.
        blocks: the largest number of jackknife blocks.
        confidence: of the intervals.

    Raises:
        ValueError: no measurements, fewer than two groups, tied weights, or another name than the two for `curvature`.
        RuntimeError: from curvlinops, for a model whose output is random.

    L = (a^2 + 4 b^2) / 2 - (x a + y b) with noise (x, y) of unit variance in both directions, at (1, 0): G = (1, 0),
    H = diag(1, 4), so B_noise = 5, B_simple = 2 and eps_max = 1.

    >>> class Bowl(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.place = nn.Parameter(torch.tensor([1.0, 0.0]))
    ...     def forward(self, noise):
    ...         return (self.place**2 * torch.tensor([0.5, 2.0])).sum() - noise @ self.place
    >>> noise = torch.randn(200, 8, 4, 2, generator=torch.Generator().manual_seed(0))
    >>> measurements = [[(group, torch.zeros(4)) for group in batch] for batch in noise]
    >>> data = [(torch.zeros(4, 2), torch.zeros(4))]
    >>> found = hessian_noise_scale(Bowl(), lambda losses, _: losses.mean(), measurements, data)
    >>> print(f"{found.b_noise.value:.1f}: {found.b_noise.low:.1f} to {found.b_noise.high:.1f}")
    5.2: 4.7 to 5.8
    """
    operator = curvature_operator(model, loss_fn, curvature_data, curvature)
    rows = np.array([_moments(model, loss_fn, groups, operator) for groups in measurements])
    if len(rows) == 0:
        raise ValueError("no measurements: give at least one batch of two or more groups")
    return _summarised(rows, blocks, confidence)


def curvature_operator(
    model: nn.Module, loss_fn: LossFunction, data: Sequence[Batch], curvature: Curvature
) -> HessianLinearOperator | GGNLinearOperator:
    """The curvature of the mean loss over `data`, to be multiplied with (P,) vectors or (P, K) matrices by `@`.

    P counts the trainable weights in the order of `model.parameters()`.

    Raises:
        ValueError: tied weights, or an unknown name.
        ImportError: curvlinops is not installed.
        RuntimeError: from curvlinops, for a model whose output is random.
    """
    _refuse_shared_weights(model)
    with warnings.catch_warnings():
        # What curvlinops imports, and torch's own forward mode at its first use, still call torch.jit.script.
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
        try:
            from curvlinops import GGNLinearOperator, HessianLinearOperator
        except ImportError as error:
            raise ImportError("Hessian products need curvlinops: pip install 'rl-scaling[curvature]'") from error
        kinds = {"hessian": HessianLinearOperator, "ggn": GGNLinearOperator}
        if curvature not in kinds:
            raise ValueError(f"curvature is {curvature!r}: choose 'hessian' or 'ggn'")
        return kinds[curvature](model, _MeanLoss(loss_fn), trainable(model), data)


def mean_gradient(model: nn.Module, loss_fn: LossFunction, batch: Batch) -> Tensor:
    """(P,) gradient of the mean loss over a batch with respect to the trainable weights."""
    inputs, targets = batch
    gradients = torch.autograd.grad(loss_fn(model(inputs), targets), trainable(model))
    return torch.cat([gradient.flatten() for gradient in gradients])


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The weights that have gradients, in the model's order."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _moments(
    model: nn.Module,
    loss_fn: LossFunction,
    groups: Sequence[Batch],
    operator: HessianLinearOperator | GGNLinearOperator,
) -> tuple[float, float, float, float]:
    """Unbiased |G|^2, tr(Sigma), G^T H G and tr(H Sigma) from one batch."""
    sizes = np.array([len(inputs) for inputs, _ in groups], dtype=np.float64)
    if len(sizes) < 2:
        raise ValueError(f"{len(sizes)} group(s) of examples: the noise scale compares groups and needs at least two")
    gradients = torch.stack([mean_gradient(model, loss_fn, group) for group in groups], dim=1)  # (P, k)
    products = operator @ gradients
    assert isinstance(products, Tensor)
    shares = sizes / sizes.sum()
    moments: list[float] = []
    for right in (gradients, products):
        pairs = (gradients.double().T @ right.double()).cpu().numpy()  # (k, k): g_i . g_j, then g_i . H g_j
        moments += moments_from_groups(np.diag(pairs), float(shares @ pairs @ shares), sizes)
    return moments[0], moments[1], moments[2], moments[3]


def _summarised(rows: FloatArray, blocks: int, confidence: float) -> HessianNoiseScale:
    """From (n, 4) measurements as `_moments` gives them."""
    squares, traces, grad_curvatures, noise_curvatures = rows.T

    def ratio(numerators: FloatArray, denominators: FloatArray) -> RatioEstimate:
        return ratio_of_means(numerators, denominators, blocks=blocks, confidence=confidence)

    return HessianNoiseScale(
        b_noise=invert(ratio(grad_curvatures, noise_curvatures)),
        eps_max=invert(ratio(grad_curvatures, squares)),
        delta_loss_max=invert(ratio(2 * grad_curvatures, _linear_in_the_mean(squares))),
        b_simple=estimate_noise_scale(squares, traces, blocks=blocks, confidence=confidence),
        curvature_along_gradient=ratio(grad_curvatures, squares),
        grad_curvature=float(grad_curvatures.mean()),
        noise_curvature=float(noise_curvatures.mean()),
        measurements=len(rows),
        confidence=confidence,
    )


def _linear_in_the_mean(values: FloatArray) -> FloatArray:
    """(n,) values whose mean is mean(values)^2, and whose scatter is that mean's to first order (delta method)."""
    mean = values.mean()
    return mean * (2 * values - mean)


def _refuse_shared_weights(model: nn.Module) -> None:
    """Curvlinops does not look for them, and not all of its products are right for them."""
    places: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        first = places.setdefault(parameter.data_ptr(), name)
        if first != name and parameter.numel() > 0:
            raise ValueError(f"{first} and {name} are tied: Hessian products need each weight to be used once")


class _MeanLoss(nn.Module):
    """A loss function in the form that curvlinops asks for: a module that says how it reduces."""

    reduction = "mean"

    def __init__(self, loss_fn: LossFunction):
        super().__init__()
        self._loss_fn = loss_fn

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self._loss_fn(outputs, targets)
