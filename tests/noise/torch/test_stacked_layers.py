"""Stacked layers give what each model's own layers give: outputs, gradients and norms of groups."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rl_scaling.noise.torch.group_gradients import GroupSqNorms, measurable_layers, watching
from rl_scaling.noise.torch.stacked_layers import StackedLayer, stacked_model, why_not_stackable


def dense() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(2 * 6 * 6, 5), nn.Tanh(), nn.Linear(5, 3, bias=False))


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=1, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 2, stride=2), nn.Tanh(),
        nn.Flatten(), nn.Linear(36, 3),
    )  # fmt: skip


def made(make: Callable[[], nn.Module], models: int) -> list[nn.Module]:
    torch.manual_seed(0)
    return [make().double() for _ in range(models)]


def alone(model: nn.Module, inputs: Tensor, weights: Tensor, groups: list[slice], rows: list[int]) -> tuple[Any, ...]:
    """Outputs, gradients, and norms, of copies."""
    model = copy.deepcopy(model)
    norms = GroupSqNorms(groups, rows)
    with watching(measurable_layers(model), norms):
        outputs = model(inputs)
    (outputs * weights).sum().backward()
    return outputs, [p.grad for p in model.parameters()], norms


@given(
    make=st.sampled_from([dense, convolutions]),
    models=st.integers(1, 4),
    # Convolutions are computed in one way for up to 12 rows, and in another for more.
    n=st.sampled_from([1, 4, 13]),
    measured=st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_stacked_models_give_what_each_gives_alone(
    make: Callable[[], nn.Module], models: int, n: int, measured: list[bool]
) -> None:
    own = made(make, models)
    inputs, weights = torch.randn(models, n, 2, 6, 6).double(), torch.randn(models, n, 3).double()
    half = max(1, n // 2)
    parts = [slice(0, half), slice(half, n)] if n > 1 else [slice(0, n)]
    plans = [(parts, [n - 1]) if measured[k] else ([slice(0, n)], []) for k in range(models)]
    wanted = [alone(own[k], inputs[k], weights[k], *plans[k]) for k in range(models)]

    stacked = stacked_model(own)
    groups = [slice(k * n + g.start, k * n + g.stop) for k in range(models) for g in plans[k][0]]
    norms = GroupSqNorms(groups, [k * n + row for k in range(models) for row in plans[k][1]])
    with watching(measurable_layers(stacked), norms):
        outputs = stacked(inputs.flatten(0, 1))
    (outputs * weights.flatten(0, 1)).sum().backward()

    torch.testing.assert_close(outputs, torch.cat([one[0] for one in wanted]))
    for place, parameter in enumerate(stacked.parameters()):
        torch.testing.assert_close(parameter.grad, torch.stack([one[1][place] for one in wanted]))
    first_group = first_row = 0
    for k, (_, _, of_model) in enumerate(wanted):
        last_group, last_row = first_group + len(of_model.groups), first_row + len(of_model.rows)
        if measured[k]:
            torch.testing.assert_close(norms.group_sq_norms[first_group:last_group], of_model.group_sq_norms)
            torch.testing.assert_close(norms.row_sq_norms[first_row:last_row], of_model.row_sq_norms)
        first_group, first_row = last_group, last_row


@pytest.mark.parametrize("make", [dense, convolutions])
def test_models_share_their_memory_with_the_stacked_one(make: Callable[[], nn.Module]) -> None:
    own = made(make, 3)
    before = [[p.clone() for p in model.parameters()] for model in own]
    stacked = stacked_model(own)
    for model, kept in zip(own, before, strict=True):
        assert all(torch.equal(p, old) for p, old in zip(model.parameters(), kept, strict=True))
    with torch.no_grad():
        for parameter in stacked.parameters():
            parameter[1] += 1
    assert all((p - old == 1).all() for p, old in zip(own[1].parameters(), before[1], strict=True))
    assert all(torch.equal(p, old) for p, old in zip(own[2].parameters(), before[2], strict=True))
    again = stacked_model(own[1:])
    assert torch.equal(next(again.parameters())[0], next(own[1].parameters()))


def test_what_is_not_finite_stays_in_its_model() -> None:
    for n in (4, 13):
        own = made(convolutions, 3)
        with torch.no_grad():
            next(own[1].parameters()).fill_(torch.nan)
        stacked, inputs = stacked_model(own), torch.randn(3 * n, 2, 6, 6).double()
        outputs = stacked(inputs).unflatten(0, (3, n))
        outputs.sum().backward()
        assert outputs[[0, 2]].isfinite().all()
        assert all(p.grad is not None and p.grad[[0, 2]].isfinite().all() for p in stacked.parameters())
        assert outputs[1].isnan().all()


@pytest.mark.parametrize(
    "layer",
    [nn.Dropout(0.5), nn.Conv2d(2, 2, 1, groups=2), nn.Flatten(0), nn.LayerNorm(6), nn.Softmax(0)],
    ids=lambda layer: type(layer).__name__,
)
def test_models_with_other_modules_are_refused_by_name(layer: nn.Module) -> None:
    model = nn.Sequential(nn.ReLU(), layer)
    assert why_not_stackable(model).startswith("1 is a ")
    with pytest.raises(ValueError, match="cannot be stacked"):
        stacked_model([model, model])


def test_groups_keep_to_one_model_and_rows_to_their_order() -> None:
    layer = StackedLayer([nn.Linear(2, 1), nn.Linear(2, 1)])
    for groups, rows, problem in (
        ([slice(0, 5), slice(5, 6)], [], "rows of two models"),
        ([slice(0, 2), slice(2, 3), slice(3, 6)], [4, 1], "out of order"),
    ):
        with watching({"layer": layer}, GroupSqNorms(groups, rows)):
            outputs = layer(torch.randn(6, 2))
        with pytest.raises(ValueError, match=problem):
            outputs.sum().backward()
