"""The noise scale of weights that are kept: an agent plays on, learns nothing, and only gradients are looked at.

While an agent trains, |G|^2 changes from update to update, so that a meter must forget what it saw. With the weights
kept nothing has to be forgotten, and gradients of one and the same G can be averaged before their norm is taken: the
noise in |G|^2 falls with the frames and not with their root.

For k groups of whole environments with mean gradients g_i over several rollouts in a row, the mean of g_i . g_j over
pairs of different groups has the mean |G|^2, whatever the rollouts of one environment owe to each other; tr(Sigma) is
taken from every rollout by itself, as while training. In the same way, with H the Hessian on the frames of some groups
and u, v sums of the gradients of others, u^T H v gives G^T H G; and with w a sum of other groups' gradients in one
rollout under signs that add up to 0, w^T H w gives tr(H Sigma) (McCandlish et al. 2018, eq. 2.8). All three sets of
groups are disjoint, so neither is biased. Each row has one estimate of every moment, and the intervals are those of
`rl_scaling.statistics.jackknife` over the rows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rl_scaling.agents.agent import Agent
from rl_scaling.agents.frozen import FrozenGradients
from rl_scaling.agents.rollout import Rollout
from rl_scaling.config import ConfigError
from rl_scaling.domains.base import Control, Ended
from rl_scaling.domains.rl.config import FrozenConfig
from rl_scaling.estimates import UNKNOWN, Estimate
from rl_scaling.noise import NoiseScaleEstimate, estimate_noise_scale, example_trace, moments_from_groups
from rl_scaling.records import NAN, PARTS, TrainingRecord
from rl_scaling.statistics.jackknife import SHORTEST_SERIES, invert, ratio_of_means

# The moments that are kept of every row, and their names among its values.
_SERIES = {
    "grad_sq_norms": "grad_sq_norm",
    "trace_covs": "trace_cov",
    "frame_traces": "trace_cov_frames",
    "grad_curvatures": "grad_curvature",
    "noise_curvatures": "noise_curvature",
}
# Of the groups in which gradients are taken for B_noise, this part is left to the Hessian.
_HESSIAN_SHARE = 4


@dataclass
class FrozenProgress:
    """How far a measurement has come: totals, and the moments of every row so far."""

    rollouts: int = 0
    frames: int = 0
    wall_seconds: float = 0.0
    series: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in _SERIES})

    def state_dict(self) -> dict[str, Any]:
        """As numbers and lists; see `load_state_dict`."""
        return {**vars(self), "series": {name: list(values) for name, values in self.series.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where the measurement that gave the state was."""
        for name, value in state.items():
            setattr(self, name, value)
        self.series = {name: list(values) for name, values in self.series.items()}  # the checkpoint's own stay

    def add(self, row: _Row, values: Mapping[str, float]) -> None:
        """Take in a row whose moments are these."""
        for series, name in _SERIES.items():
            self.series[series].append(values[name])
        self.rollouts += row.rollouts
        self.frames += row.frames

    @property
    def noise_scale(self) -> NoiseScaleEstimate:
        """B_simple by all rows so far; there is one at least."""
        s = self.series
        return estimate_noise_scale(s["grad_sq_norms"], s["trace_covs"], example_traces=s["frame_traces"])

    @property
    def hessian_noise_scale(self) -> Estimate:
        """B_noise by all rows so far."""
        numerators, denominators = self.series["noise_curvatures"], self.series["grad_curvatures"]
        return invert(ratio_of_means(denominators, numerators)) if np.isfinite(numerators).all() else UNKNOWN

    def is_over(self, config: FrozenConfig) -> bool:
        """Whether the interval of B_simple is as narrow as asked, or all frames are spent."""
        if self.frames >= config.frames:
            return True
        if len(self.series["trace_covs"]) < SHORTEST_SERIES:  # too few rows to tell how they depend on each other
            return False
        found = self.noise_scale
        return found.resolved and found.high <= config.until_factor**2 * found.low


def measure(
    frozen: FrozenGradients, config: FrozenConfig, progress: FrozenProgress, control: Control | None = None
) -> Iterator[TrainingRecord | Ended]:
    """Play on until the interval is as narrow as asked or the frames are spent; a record for each pooled estimate.

    Args:
        frozen: the agent, in its environments.
        config: how it is measured.
        progress: kept up to date between two records.
        control: an interrupt or a stop ends measuring after the rollout under way; what is not yet pooled is dropped.

    Yields:
        Records whose `updates` count rollouts, as no update is made; and `Ended` where gradients are not finite.
    """
    control = control or Control()
    for _ in range(-(-config.settle_steps // config.agent.rollout_steps)):
        if _asked_to_leave(control) or progress.is_over(config):
            return
        frozen.roll_out()
    while not progress.is_over(config):
        row = _Row(frozen, config)
        started = time.perf_counter()
        while row.frames < config.pooled_frames:
            if _asked_to_leave(control):
                return
            row.add(frozen.roll_out())
        if not row.is_finite:
            yield Ended("diverged", "the gradients of these weights are not finite")
            return
        values = row.values()
        progress.add(row, values)
        seconds = time.perf_counter() - started
        progress.wall_seconds += seconds
        yield _record(progress, row, values, seconds, config)


def _asked_to_leave(control: Control) -> bool:
    return control.interrupt or 0 in control.stop


class _Row:
    """What some rollouts in a row give: sums of the groups' gradients, and what each rollout says of their spread."""

    def __init__(self, frozen: FrozenGradients, config: FrozenConfig) -> None:
        self.frozen, self.config = frozen, config
        self.rollouts = self.frames = 0
        self._sums: Tensor | None = None
        self._sizes = np.zeros(len(frozen.groups))
        self._traces: dict[str, list[float]] = {name: [] for name in ("", *PARTS)}
        self._frame_sq_norms: list[float] = []
        self._losses: list[np.ndarray] = []
        self._scores: list[np.ndarray] = []
        self._lengths: list[np.ndarray] = []
        self._latest: tuple[Rollout, Tensor, np.ndarray] | None = None

    def add(self, rollout: Rollout) -> None:
        """Take the gradients of a rollout."""
        taken = self.frozen.gradients_of_groups(rollout)
        for name, gradients in _by_name(taken.means):
            if (moments := _moments(gradients, taken.sizes)) is not None:
                self._traces[name].append(moments[1])
        self._latest = (rollout, taken.means.sum(dim=0), taken.sizes)
        scaled = taken.means.mul_(_column(taken.sizes, taken.means))  # in place: they are large
        self._sums = scaled if self._sums is None else self._sums.add_(scaled)
        self._sizes += taken.sizes
        if self.config.frame_gradients:
            self._frame_sq_norms += self.frozen.frame_sq_norms(rollout, self.config.frame_gradients).tolist()
        self._losses.append(taken.losses)
        self._scores.append(rollout.episode_scores)
        self._lengths.append(rollout.episode_frames)
        self.rollouts += 1
        self.frames += rollout.frames

    @property
    def is_finite(self) -> bool:
        return self._sums is not None and bool(torch.isfinite(self._sums).all())

    def values(self) -> dict[str, float]:
        """The moments that the row has of the whole gradient and of its parts; nothing can be added afterwards."""
        assert self._sums is not None
        found: dict[str, float] = {}
        means, self._sums = self._sums.div_(_column(self._sizes.clip(1), self._sums)), None
        for name, gradients in _by_name(means):
            prefix = f"{name}_" if name else ""
            moments = _moments(gradients, self._sizes)
            found[f"{prefix}grad_sq_norm"] = moments[0] if moments else NAN
            found[f"{prefix}trace_cov"] = _mean(self._traces[name])
        found["trace_cov_frames"] = NAN
        if self._frame_sq_norms:
            found["trace_cov_frames"] = example_trace(self._frame_sq_norms, found["grad_sq_norm"])
        curvatures = self._curvatures(means.sum(dim=0))
        return found | dict(zip(("grad_curvature", "noise_curvature"), curvatures, strict=True))

    def _curvatures(self, pooled: Tensor) -> tuple[float, float]:
        """G^T H G and tr(H Sigma), with H on the latest rollout; means over random splits of the groups."""
        assert self._latest is not None
        rollout, latest, sizes = self._latest
        usable, found = np.flatnonzero(sizes > 0), []
        for _ in range(self.config.curvature_splits):
            shuffled = self.frozen.random.permutation(usable)
            half = (len(shuffled) - max(1, len(shuffled) // _HESSIAN_SHARE)) // 2
            if half < 1:
                break
            one, other, rest = np.split(shuffled, [half, 2 * half])
            noise = latest[one].sum(dim=0) - latest[other].sum(dim=0)
            pairs = [(self._mean_of(pooled, one), self._mean_of(pooled, other)), (noise, noise)]
            along_gradient, along_noise = self.frozen.curvatures(rollout, rest.tolist(), pairs)
            found.append((along_gradient, along_noise / float((1 / sizes[shuffled[: 2 * half]]).sum())))
        return (_mean([f[0] for f in found]), _mean([f[1] for f in found]))

    def _mean_of(self, pooled: Tensor, groups: np.ndarray) -> Tensor:
        """(P,) the mean gradient of some groups, each of which counts by its frames."""
        return _column(self._sizes[groups] / self._sizes[groups].sum(), pooled).T[0] @ pooled[groups]

    def means_of_play(self) -> dict[str, Any]:
        """What was played: the terms of the loss before their coefficients, and the games that ended."""
        agent = self.frozen.agent.config
        policy, value, entropy = np.mean(self._losses, axis=0)
        scores, lengths = np.concatenate(self._scores), np.concatenate(self._lengths)
        return {
            "policy_loss": float(policy),
            "value_loss": _over(value, agent.value_coefficient),
            "entropy": _over(-entropy, agent.entropy_coefficient),
            "episodes": len(scores),
            "score": _mean(scores),
            "episode_frames": _mean(lengths),
        }


def _column(sizes: np.ndarray, like: Tensor) -> Tensor:
    """(k, 1) of the type and on the device of (3, k, P)."""
    return torch.as_tensor(sizes, dtype=like.dtype, device=like.device)[:, None]


def _by_name(means: Tensor) -> list[tuple[str, Tensor]]:
    """(k, P) gradients of the whole, under "", and of each part, from (3, k, P)."""
    return [("", means.sum(dim=0)), *zip(PARTS, means, strict=True)]


def _moments(gradients: Tensor, sizes: np.ndarray) -> tuple[float, float] | None:
    """|G|^2 and tr(Sigma) from (k, P) mean gradients of groups; None where they are not finite, or of one group."""
    filled = np.flatnonzero(sizes > 0)
    if len(filled) < 2:
        return None
    kept = gradients[filled]
    pairs = (kept @ kept.T).double().cpu().numpy()
    if not np.isfinite(pairs).all():
        return None
    shares = sizes[filled] / sizes[filled].sum()
    return moments_from_groups(np.diag(pairs), float(shares @ pairs @ shares), sizes[filled])


def _record(
    progress: FrozenProgress, row: _Row, values: Mapping[str, float], seconds: float, config: FrozenConfig
) -> TrainingRecord:
    noise, hessian = progress.noise_scale, progress.hessian_noise_scale
    return TrainingRecord(
        updates=progress.rollouts,
        frames=progress.frames,
        frames_used=float(progress.frames),
        wall_seconds=progress.wall_seconds,
        frames_per_second=row.frames / seconds,
        grad_norm=math.sqrt(max(values["grad_sq_norm"], 0.0)),
        current_learning_rate=config.agent.learning_rate,
        current_batch_size=config.identity.batch_size,
        noise_measurements=row.rollouts,
        noise_scale=noise.b_simple,
        noise_scale_low=noise.low,
        noise_scale_high=noise.high,
        **hessian.columns("hessian_noise_scale"),
        **values,
        **row.means_of_play(),
    )


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else NAN


def _over(value: float, coefficient: float) -> float:
    return float(value) / coefficient if coefficient else NAN


def load_weights(agent: Agent[Any], config: FrozenConfig, state: Mapping[str, Any]) -> None:
    """Put the weights that are to be measured into an agent that has those of the start.

    Args:
        agent: freshly made with the config's seed, whose weights they are where the config names no run.
        config: of the measurement.
        state: of a checkpoint of this measurement, or with nothing but "weights"; may be empty.

    Raises:
        ConfigError: there are no weights of the run that the config names, or those of another network.
    """
    if not config.of_run:
        return
    if "weights" not in state:
        raise ConfigError(f"the weights of run {config.of_run} are not here: give `rl-scaling measure` that run again")
    try:
        agent.network.load_state_dict(state["weights"])
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"the checkpoint of run {config.of_run} is of another network than {config.agent.network!r} on"
            f" {config.environment.name}: give the run that it belongs to"
        ) from error
