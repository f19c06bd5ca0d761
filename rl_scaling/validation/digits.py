"""Real data that are always at hand, scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, and SGD on them.

The supervised domain trains for a goal; here every update says what its groups found, the rate and the batch size may
change from one to the next, and all of the data stand for the truth.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from rl_scaling.domains.supervised.data import read_digits

Data = tuple[Tensor, Tensor]
Weights = dict[str, Tensor]


def load_digits() -> Data:
    """(1797, 64) float32 pixels of mean 0 and standard deviation 1 over the whole set, and (1797,) classes."""
    digits = read_digits()
    images = torch.from_numpy(digits.images).float().flatten(1)
    return (images - images.mean()) / images.std(), torch.from_numpy(digits.targets)


def small_mlp(hidden: int, seed: int) -> nn.Sequential:
    """A network of one hidden layer of tanh for the digits, with torch's default starting weights from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(64, hidden), nn.Tanh(), nn.Linear(hidden, 10))


class GroupedSGD:
    """Plain SGD on the cross-entropy, whose gradients come in groups; batches are drawn with replacement.

    Args:
        model: trained in place.
        data: inputs and classes.
        generator: of the batches.
        groups: of an update; its batch must divide into them.
        weight_decay: coefficient w of w |theta|^2 / 2 in the loss.
    """

    def __init__(
        self, model: nn.Module, data: Data, generator: torch.Generator, *, groups: int = 1, weight_decay: float = 0.0
    ):
        self.model, self.generator = model, generator
        self._data, self._groups, self._weight_decay = data, groups, weight_decay

    def copy(self) -> GroupedSGD:
        """The same place, model and draws to come, to train on from there in another way."""
        generator = self.generator.clone_state()
        options = {"groups": self._groups, "weight_decay": self._weight_decay}
        return GroupedSGD(copy.deepcopy(self.model), self._data, generator, **options)

    def train(self, updates: int, *, learning_rate: float = 0.1, batch_size: int = 64) -> None:
        """Some updates, all alike."""
        for _ in range(updates):
            self.update(learning_rate, batch_size)

    def update(self, learning_rate: float, batch_size: int) -> tuple[list[float], float]:
        """One update; the squared norms of the groups' mean gradients, and that of the batch's."""
        inputs, classes = self._data
        rows = torch.randint(len(classes), (self._groups, batch_size // self._groups), generator=self.generator)
        weights = self._weights()
        groups = vmap(grad(self._loss), in_dims=(None, 0, 0))(weights, inputs[rows], classes[rows])
        batch = {name: gradients.mean(0) for name, gradients in groups.items()}
        for name, weight in weights.items():
            weight.sub_(learning_rate * batch[name])
        norms = torch.stack([gradients.square().flatten(1).sum(1) for gradients in groups.values()]).sum(0)
        return norms.tolist(), _sq_norm(batch)

    def whole(self) -> tuple[float, float]:
        """|G|^2 and the loss over all the data, weight decay included."""
        weights = self._weights()
        return _sq_norm(grad(self._loss)(weights, *self._data)), float(self._loss(weights, *self._data))

    def _weights(self) -> Weights:
        """The model's own, to be changed in place."""
        return {name: weight.detach() for name, weight in self.model.named_parameters()}

    def _loss(self, weights: Weights, inputs: Tensor, classes: Tensor) -> Tensor:
        loss = cross_entropy(functional_call(self.model, weights, (inputs,)), classes)
        if not self._weight_decay:
            return loss
        return loss + self._weight_decay / 2 * torch.stack([w.square().sum() for w in weights.values()]).sum()


def _sq_norm(gradient: Weights) -> float:
    return float(torch.stack([part.square().sum() for part in gradient.values()]).sum())
