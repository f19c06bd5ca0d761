"""Real data that are always at hand: scikit-learn's 1,797 handwritten digits of 8 x 8 pixels; a network for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rl_scaling.domains.supervised.data.load import read_digits
from rl_scaling.noise.torch.line_search import draw_examples


def load_digits() -> tuple[Tensor, Tensor]:
    """(1797, 64) float32 pixels of mean 0 and standard deviation 1 over the whole set, and (1797,) classes."""
    digits = read_digits()
    images = torch.from_numpy(digits.images).float().flatten(1)
    return (images - images.mean()) / images.std(), torch.from_numpy(digits.targets)


def small_mlp(hidden: int, seed: int) -> nn.Sequential:
    """A network of one hidden layer of tanh for the digits, with torch's default starting weights from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(64, hidden), nn.Tanh(), nn.Linear(hidden, 10))


def train(
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    updates: int,
    generator: torch.Generator,
    *,
    learning_rate: float = 0.1,
    batch_size: int = 64,
) -> None:
    """Plain SGD on the cross-entropy, with batches drawn with replacement."""
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    for _ in range(updates):
        images, classes = draw_examples(data, batch_size, generator)
        optimizer.zero_grad()
        cross_entropy(model(images), classes).backward()
        optimizer.step()
