"""What one step of an agent did, as the training loop hears of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class GradientGroups:
    """Gradients of groups of whole environments, reduced to what the noise scale needs.

    Attributes:
        sq_norms: (k,) squared norms of the groups' mean gradients.
        sizes: (k,) frames in each group.
        batch_sq_norm: squared norm of the mean gradient over all frames.
        frame_sq_norms: (m,) squared norms of the gradients of single frames drawn at random; empty if not taken.
    """

    sq_norms: np.ndarray
    sizes: np.ndarray
    batch_sq_norm: float
    frame_sq_norms: np.ndarray


@dataclass(frozen=True)
class Update:
    """What one rollout and the optimiser updates from it did.

    Scalars stay tensors, so that nothing waits for the device until they are read; they are means over the updates.

    Attributes:
        frames: valid frames of the rollout.
        updates: optimiser updates made from it.
        epochs: how often each of its frames was used.
        policy_loss, value_loss, entropy: the terms of the loss before their coefficients.
        grad_norm: of the gradient before clipping.
        learning_rate: that of the updates.
        episode_scores, episode_frames: raw scores and lengths of the games that ended in the rollout.
        groups: of an update of the first epoch, where it was measured.
        reuse: of an update of a later epoch, whose frames were used before, where it was measured.
        parts: as `groups`, for the loss's terms as they are weighted in it (`PARTS`), where they were asked for: their
            sum is the gradient whose groups are in `groups`.
        clip_fraction, approx_kl: PPO's share of clipped frames, and its estimate of how far the policy has moved.
    """

    frames: int
    policy_loss: Tensor
    value_loss: Tensor
    entropy: Tensor
    grad_norm: Tensor
    learning_rate: float
    episode_scores: np.ndarray
    episode_frames: np.ndarray
    groups: GradientGroups | None
    parts: dict[str, GradientGroups] = field(default_factory=dict)
    updates: int = 1
    epochs: int = 1
    reuse: GradientGroups | None = None
    clip_fraction: Tensor | None = None
    approx_kl: Tensor | None = None
