"""One run at a time, for any model: batch normalisation, dropout and augmentation, which batched training refuses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from rl_scaling.supervised.batched import Ended, Progress
from rl_scaling.supervised.batched.losses import example_losses
from rl_scaling.supervised.config import SupervisedConfig
from rl_scaling.supervised.curvature import b_noise
from rl_scaling.supervised.data.augmentation import augment, draw_augmentation
from rl_scaling.supervised.data.dataset import Dataset, Split
from rl_scaling.supervised.models import make_model, project_channels
from rl_scaling.supervised.optimizers import make_average, make_optimizer
from rl_scaling.supervised.sampling import ExampleStream

_IMAGES_AT_ONCE = 1_000
# Data sets whose mirror images mean something else, or nothing.
_OF_DIGITS = ("digits", "mnist", "svhn", "svhn-extra")


def train_alone(
    config: SupervisedConfig,
    data: Dataset,
    rate: Callable[[int], float],
    *,
    record_every: int,
    stop: Callable[[Progress], bool] = lambda _: False,
    b_noise_every_rows: int = 0,
) -> Iterator[Progress | Ended]:
    """Train one run by torch's own optimiser; channels that are kept at norm 1 are put back after every update.

    Args:
        config: model, optimiser, batches, augmentation and updates.
        data: to train and to validate on.
        rate: the learning rate of an update.
        record_every: updates between two rows; the last update has a row as well.
        stop: asked after every row but the first: whether the run has seen enough.
        b_noise_every_rows: measure B_noise at the first row and then at one in so many; 0: never.

    Yields:
        Rows, the first before any update, and at last how it ended. B_simple is not measured.

    Raises:
        ConfigError: the model does not fit the images, or by epoch a batch is larger than the data.
    """
    options = {"dropout": config.dropout} if config.dropout else {}
    model = make_model(config.model, data.image_shape, data.num_classes, seed=config.seed, **options)
    model = model.to(data.train.device)
    optimizer, average = make_optimizer(config.optimizer, model), make_average(config.optimizer, model)
    stream, losses = ExampleStream(config, len(data.train)), []
    shown = average.module if average is not None else model
    every = record_every * b_noise_every_rows
    curved = model if every else None
    yield _row(0, math.nan, shown, data, curved)
    for update in range(config.updates):
        for group in optimizer.param_groups:
            group["lr"] = rate(update)
        loss = _step(config, model, optimizer, data.train, stream.rows(update), update)
        if average is not None:
            average.update_parameters(model)
        if not math.isfinite(loss):
            yield Ended(updates=update, status="diverged", weights=_weights(model))
            return
        losses.append(loss)
        last = update + 1 == config.updates
        if last or (update + 1) % record_every == 0:
            curved = model if every and (update + 1) % every == 0 else None
            row = _row(update + 1, sum(losses) / len(losses), shown, data, curved)
            losses.clear()
            yield row
            if last or stop(row):
                yield Ended(updates=update + 1, status="done" if last else "stopped", weights=_weights(model))
                return


def _step(
    config: SupervisedConfig,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    split: Split,
    rows: Tensor,
    update: int,
) -> float:
    """One update; its draws follow from the run's seed and the update alone."""
    model.train()
    inputs, targets = split.batch(rows)
    generator = torch.Generator().manual_seed(config.seed * 2**32 + update)
    if config.augment:
        mirror = config.dataset not in _OF_DIGITS
        inputs = augment(inputs, draw_augmentation(len(rows), generator, mirror=mirror))
    with torch.random.fork_rng():
        torch.manual_seed(generator.initial_seed())
        outputs = model(inputs)
    loss = example_losses(model, outputs, inputs, targets, config.label_smoothing).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    project_channels(model)
    return float(loss.detach())


@torch.no_grad()
def _mean_loss(model: nn.Module, split: Split) -> tuple[float, float]:
    """Loss without smoothing, and share that is classified right (NaN for an autoencoder), over a whole split."""
    model.eval()
    losses, right = 0.0, 0.0
    for first in range(0, len(split), _IMAGES_AT_ONCE):
        inputs, targets = split.batch(slice(first, first + _IMAGES_AT_ONCE))
        outputs = model(inputs)
        losses += float(example_losses(model, outputs, inputs, targets).double().sum())
        right += float((outputs.argmax(1) == targets).sum()) if outputs.dim() == 2 else math.nan
    return losses / len(split), right / len(split)


def _row(updates: int, loss: float, model: nn.Module, data: Dataset, curved: nn.Module | None) -> Progress:
    """A row about a model, with B_noise at the weights of another, which trains."""
    training_loss, _ = _mean_loss(model, data.training_sample)
    validation_loss, accuracy = _mean_loss(model, data.validation)
    return Progress(
        updates=updates,
        loss=loss,
        training_loss=training_loss,
        validation_loss=validation_loss,
        validation_accuracy=accuracy,
        noise_measurements=0,
        grad_sq_norm=math.nan,
        trace_cov=math.nan,
        hessian_noise_scale=math.nan if curved is None else b_noise(curved, data.train).b_noise.value,
    )


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
