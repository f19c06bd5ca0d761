"""Steps to a target as a smooth function of the model's parameters, with its slopes, cheap enough to fit.

For every batch size Newton's method follows the best learning rate and coefficients, and with them the number of steps
at which the least risk is the target, from one set of parameters to the next: all batch sizes at once. Learning rates
are logits of their share of the limit of stability and coefficients logits of their distance from 1, so that nothing
diverges on the way. At the optimum the settings may be held fixed to first order, which gives the slopes for little.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from rl_scaling.domains.nqm.config import Setting
from rl_scaling.domains.nqm.dynamics import check_settings, risk_behind
from rl_scaling.domains.nqm.optimizers import find_optimizer
from rl_scaling.domains.nqm.search import bisect_grid, newton_step, stencil
from rl_scaling.domains.nqm.spectrum import FloatArray, Parameters, Spectrum

# The optimisers whose steps are smooth in the parameters.
FITTED = ("sgd", "ema")
# The ranges of a, q and log s: beyond a = 2 the largest few directions are all there is.
LOWEST, HIGHEST = (0.4, 0.0, -15.0), (2.0, 2.5, 25.0)
WIDTH, LONGEST, MOST_ROUNDS, SETTLED = 0.03, 20.0, 80, 1e-5
FIRST_BINS, FIRST_STEPS = 32, 10**13
_NUDGE = 1e-4


class Forecast:
    """Log steps of SGD or its average at given batch sizes, with the best constant settings for each.

    Momentum is left out: its risk swings, so that its optimum lies in one of many narrow valleys and jumps from one to
    the next when the parameters move.

    Args:
        setting: dimension and target.
        optimizer: one of `FITTED`.
        power: of the preconditioner.
        log_batch: (n,) logs of batch sizes.
    """

    def __init__(self, setting: Setting, optimizer: str, power: float, log_batch: FloatArray) -> None:
        self._setting, self._optimizer, self._power = setting, find_optimizer(optimizer), power
        self._size = self._optimizer.tuned
        self._batch = np.exp(log_batch)
        self._points, self._log_steps = np.empty((0, self._size)), np.empty(0)

    def log_steps(self, x: FloatArray) -> FloatArray:
        """(n,) log steps at x = (a, q, log s), not rounded; from where the last call ended."""
        problem = self._problem(x)
        if not len(self._points):
            self._begin(problem, x)
        if not self._follow(problem, x):
            self._begin(problem, x)
            self._follow(problem, x)
        return self._log_steps.copy()

    def slopes(self, x: FloatArray) -> FloatArray:
        """(n, 3) derivatives by x of what `log_steps` has just given at x."""
        steps = self._whole_steps()
        points, problem = self._points[:, None, :], self._problem(x)
        here = self._excess(problem, x, points, steps[:, None])[:, 0]
        later = np.maximum(steps + 1, np.rint(1.002 * steps))
        fall = (self._excess(problem, x, points, later[:, None])[:, 0] - here) / np.log(later / steps)
        columns = []
        for place in range(len(x)):
            moved = x.copy()
            moved[place] += _NUDGE
            columns.append((self._excess(self._problem(moved), moved, points, steps[:, None])[:, 0] - here) / _NUDGE)
        return -np.stack(columns, axis=-1) / np.minimum(fall, -1e-3)[:, None]

    def _problem(self, x: FloatArray) -> Spectrum:
        return Parameters(float(x[0]), float(x[1])).spectrum(self._setting.dimension).preconditioned(self._power)

    def _whole_steps(self) -> FloatArray:
        return np.maximum(np.rint(np.exp(self._log_steps)), 1.0)

    def _excess(self, problem: Spectrum, x: FloatArray, points: FloatArray, steps: FloatArray) -> FloatArray:
        """(n, k) log of risk over target at points (n, k, size) after steps (n, k): of batch size B / s, noise h^q."""
        rate = 2 * (1 - 1e-12) * expit(points[..., 0]) / problem.eigenvalues[0]
        coefficient = 1 - expit(points[..., 1]) if self._size > 1 else 0.0
        batch = self._batch[:, None] * np.exp(-x[2])
        risks = risk_behind(self._optimizer, problem, check_settings(rate, batch, coefficient, steps))
        return np.log(risks / self._setting.target)

    def _begin(self, problem: Spectrum, x: FloatArray) -> None:
        """Settings and steps from a coarse grid."""
        small = problem.compressed(FIRST_BINS)
        lags = [logit(np.geomspace(1e-6, 0.95, 12))] * (self._size - 1)
        grid = np.stack(np.meshgrid(np.linspace(-20.0, 5.0, 32), *lags, indexing="ij"), axis=-1)
        grid = grid.reshape(1, -1, self._size)
        everything, found = self._batch, []
        for size in everything:
            self._batch = np.array([size])

            def reached(places: NDArray[np.intp], steps: int) -> NDArray[np.bool_]:
                return self._excess(small, x, grid[:, places], np.full((1, len(places)), float(steps)))[0] <= 0

            hit = bisect_grid(reached, grid.shape[1], FIRST_STEPS)
            found.append((grid[0, hit.index], hit.steps + 1) if hit else (grid[0, 0], FIRST_STEPS))
        self._batch = everything
        self._points = np.array([point for point, _ in found])
        self._log_steps = np.log([float(steps) for _, steps in found])

    def _follow(self, problem: Spectrum, x: FloatArray) -> bool:
        """Newton's method for settings and steps together; whether it settled."""
        offsets, quadratic = stencil(self._size)
        reach, before = np.full(len(self._batch), LONGEST), np.zeros_like(self._points)
        for _ in range(MOST_ROUNDS):
            steps = self._whole_steps()
            later = np.maximum(steps + 1, np.rint(1.002 * steps))
            around = self._points[:, None, :] + np.concatenate([WIDTH * offsets, np.zeros((1, self._size))])
            counts = np.append(np.repeat(steps[:, None], len(offsets), axis=1), later[:, None], axis=1)
            values = self._excess(problem, x, around, counts)
            here = values[:, len(offsets) // 2]
            coefficients = (values[:, :-1] - here[:, None]) @ quadratic.T
            step = np.array([newton_step(row, self._size, far) for row, far in zip(coefficients, reach, strict=True)])
            # a step back halves the next ones: settings and steps that move together can swing
            reach = np.where(np.sum(step * before, axis=1) < 0, reach / 2, np.minimum(1.3 * reach, LONGEST))
            before = step
            gain = np.maximum(-0.5 * np.sum(coefficients[:, 1 : 1 + self._size] * step, axis=1), 0.0)
            fall = (values[:, -1] - here) / np.log(later / steps)
            moved = np.log(steps) + np.clip((here - np.minimum(gain, 0.5)) / np.maximum(-fall, 0.1), -1.0, 1.0)
            change = np.abs(moved - self._log_steps).max()
            self._log_steps = np.clip(moved, 0.0, np.log(FIRST_STEPS))
            self._points = np.clip(self._points + WIDTH * step, -35.0, 35.0)
            if not np.isfinite(moved).all():
                return False
            if change < SETTLED and gain.max() < math.sqrt(SETTLED):
                return True
        return False
