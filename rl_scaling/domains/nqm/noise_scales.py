"""The gradient noise scales of the model itself along a trajectory, in closed form (McCandlish et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rl_scaling.domains.nqm.dynamics import check_settings, find_optimizer
from rl_scaling.domains.nqm.spectrum import Spectrum

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ModelNoiseScales:
    """Expectations over the distribution of theta after given numbers of steps; all arrays (n,), one for each.

    The scales are ratios of expectations, which is what accumulating |G|^2 and tr(Sigma) over runs estimates.

    Attributes:
        steps: t.
        grad_sq_norm: E |G|^2 = sum h^2 E theta^2.
        grad_curvature: E G'HG = sum h^3 E theta^2.
        trace_cov: tr(Sigma) = sum c.
        hessian_trace_cov: tr(H Sigma) = sum h c.
    """

    steps: FloatArray
    grad_sq_norm: FloatArray
    grad_curvature: FloatArray
    trace_cov: float
    hessian_trace_cov: float

    @property
    def b_simple(self) -> FloatArray:
        """tr(Sigma) / |G|^2, examples (eq. 2.9)."""
        return self.trace_cov / self.grad_sq_norm

    @property
    def b_noise(self) -> FloatArray:
        """tr(H Sigma) / G'HG, examples (eq. 2.8)."""
        return self.hessian_trace_cov / self.grad_curvature


def noise_scales(
    spectrum: Spectrum,
    steps: ArrayLike,
    *,
    learning_rate: float,
    batch_size: float,
    optimizer: str = "sgd",
    coefficient: float = 0.0,
    power: float = 0.0,
    preconditioned: bool = True,
) -> ModelNoiseScales:
    """B_simple and B_noise at the optimiser's iterates after `steps`; arguments as in `risk`.

    Of an average these are the iterates that it averages, where the gradients are taken.

    With a preconditioner they are those of the problem behind it, in which the optimiser is plain: the scales that
    then predict its critical batch size. `preconditioned=False` gives those of the gradients as they are drawn, which
    is what a measurement that knows nothing of the preconditioner sees.

    Raises:
        ValueError: an argument outside its range, or a setting that diverges.

    >>> scales = noise_scales(Spectrum.power_law(), [0, 1000], learning_rate=0.1, batch_size=64)
    >>> scales.b_simple.round(1), scales.b_noise.round(1)
    (array([   6. , 1571.3]), array([1.400e+00, 1.631e+03]))
    """
    found, problem = find_optimizer("sgd" if optimizer == "ema" else optimizer), spectrum.preconditioned(power)
    t = np.atleast_1d(np.asarray(steps, dtype=np.float64))
    check_settings(learning_rate, batch_size, coefficient, t)
    h = problem.eigenvalues
    modes = found.modes(learning_rate * h, np.asarray(coefficient, dtype=np.float64))
    if not modes.stable.all():
        raise ValueError("this setting diverges: choose a smaller learning rate")
    start, noise = found.moments(modes, t[:, None])
    squares = start * problem.initial + learning_rate**2 / batch_size * modes.gain * noise * problem.noise
    squares = squares * problem.counts
    if not preconditioned:
        problem, squares, h = spectrum, squares / spectrum.eigenvalues**power, spectrum.eigenvalues
    return ModelNoiseScales(
        steps=t,
        grad_sq_norm=squares @ h**2,
        grad_curvature=squares @ h**3,
        trace_cov=float(problem.counts @ problem.noise),
        hessian_trace_cov=float(problem.counts @ (h * problem.noise)),
    )
