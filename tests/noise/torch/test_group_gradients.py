"""Group gradients of modules of every kind, against one pass of plain autograd per group."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rl_scaling.noise.torch.group_gradients import ModuleGradients
from tests.noise.torch.reference import sq_norm

GROUPS = [slice(0, 3), slice(3, 4), slice(4, 12)]
ROWS = [0, 5, 11]


class Shared(nn.Module):
    """Uses a layer twice, or its weight behind its back, or two layers with one weight."""

    def __init__(self, way: str):
        super().__init__()
        self.way, self.first, self.second = way, nn.Linear(6, 6), nn.Linear(6, 6)
        if way == "tied":
            self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x).tanh()
        if self.way == "twice":
            return self.first(hidden)
        if self.way == "behind":
            return nn.functional.linear(self.second(hidden), self.first.weight)
        return self.second(hidden)


class Scaled(nn.Module):
    """With a parameter of its own, a layer that is called and not used, and one that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.body, self.unused = nn.Parameter(torch.tensor(0.3)), nn.Linear(6, 4), nn.Linear(6, 2)
        self.frozen = nn.Linear(6, 6).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        self.unused(x)
        return self.body(self.frozen(x)).relu() * self.scale.exp()


class Tokens(nn.Module):
    """Rows become tokens, three for each."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(2, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.reshape(-1, 2)).tanh().reshape(len(x), -1)


class Words(nn.Module):
    """Numbers become words, looked up in a table."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.norm = nn.Embedding(4, 5), nn.RMSNorm(5)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.words((x > 0).long() + 2 * (x > 1).long())).tanh().flatten(1)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(2, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x.unflatten(1, (3, 2)))[0].flatten(1)


class Bent(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input**2)


MODULES: dict[str, tuple[Callable[[], nn.Module], bool]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 3, bias=False)), True),
    "in place": (lambda: nn.Sequential(nn.Linear(6, 7), nn.ReLU(inplace=True), nn.Linear(7, 3)), True),
    "convolution": (
        lambda: nn.Sequential(nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2), nn.ReLU(inplace=True), nn.Flatten()),
        True,
    ),
    "own parameter": (Scaled, True),
    "layer norm": (lambda: nn.Sequential(nn.Linear(6, 7), nn.LayerNorm(7)), True),
    "grouped convolution": (
        lambda: nn.Sequential(nn.Unflatten(1, (2, 1, 3)), nn.Conv2d(2, 4, 1, groups=2), nn.Flatten()),
        True,
    ),
    "embedding": (Words, True),
    "recurrent": (Recurrent, False),
    "weight norm": (lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 3))), False),
    "subclass": (lambda: nn.Sequential(Bent(6, 3)), False),
    "bias alone": (lambda: nn.Sequential(bias_alone()), True),
    "twice": (lambda: Shared("twice"), False),
    "behind": (lambda: Shared("behind"), False),
    "tied": (lambda: Shared("tied"), False),
    "tokens": (Tokens, False),
}


def bias_alone() -> nn.Linear:
    layer = nn.Linear(6, 3)
    layer.weight.requires_grad_(False)
    return layer


def problem(name: str) -> tuple[nn.Module, Callable[[slice | list[int]], Tensor]]:
    torch.manual_seed(0)
    module = MODULES[name][0]()
    inputs = torch.randn(12, 6)
    return module, lambda rows: (module(inputs[rows]) - 0.5).square().sum(1)


def naive(module: nn.Module, loss: Tensor) -> list[Tensor]:
    parameters = [p for p in module.parameters() if p.requires_grad]
    return list(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))


@pytest.mark.parametrize("rows_per_pass", [1024, 2])
@pytest.mark.parametrize("name", list(MODULES))
def test_equal_to_one_pass_of_autograd_per_group(name: str, rows_per_pass: int) -> None:
    module, losses = problem(name)
    gradients = ModuleGradients(module, rows_per_pass=rows_per_pass)
    for _ in range(2):
        taken = gradients.take(losses, GROUPS, ROWS)
        for found, expected in zip(taken.gradient, naive(module, losses(slice(0, 12)).mean()), strict=True):
            torch.testing.assert_close(found, expected)
        for norms, parts in ((taken.group_sq_norms, GROUPS), (taken.row_sq_norms, [[row] for row in ROWS])):
            expected = torch.tensor(
                [sq_norm(naive(module, losses(part).mean())) for part in parts], dtype=torch.float64
            )
            torch.testing.assert_close(norms, expected, rtol=1e-4, atol=1e-7)
        assert taken.batch_sq_norm == pytest.approx(sq_norm(taken.gradient))
    if rows_per_pass == 1024:
        assert gradients.in_one_pass == MODULES[name][1]
    assert all(p.grad is None for p in module.parameters())
    assert not any(layer._forward_hooks or "forward" in vars(layer) for layer in module.modules())


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(6), nn.SyncBatchNorm(6)])
def test_batch_normalisation_is_refused(layer: nn.Module) -> None:
    with pytest.raises(ValueError, match="1 is batch normalisation"):
        ModuleGradients(nn.Sequential(nn.Linear(6, 6), layer))
