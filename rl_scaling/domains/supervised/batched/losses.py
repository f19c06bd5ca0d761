"""The loss of every single example, which a batch's loss is the mean of."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from rl_scaling.domains.supervised.models.autoencoder import Autoencoder


def example_losses(
    model: nn.Module, outputs: Tensor, inputs: Tensor, targets: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """(n,) losses in nats: of an autoencoder's reconstructions, of other models' logits.

    Args:
        model: what gave the outputs.
        outputs: (n, num_classes) logits, or (n, C, H, W) of an autoencoder.
        inputs: (n, C, H, W).
        targets: (n,) classes.
        label_smoothing: share of the target that goes to all classes alike.
    """
    if isinstance(model, Autoencoder):
        return binary_cross_entropy_with_logits(outputs, inputs, reduction="none").flatten(1).sum(1)
    return cross_entropy(outputs, targets, reduction="none", label_smoothing=label_smoothing)
