"""What all adapters share, seen through one of them: parts of a model, preconditioned norms, states."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rl_scaling.noise import GradientNoise, MicroBatchNoise, NoiseScaleMeter
from tests.noise.torch.reference import GROUPS, Model, accumulated, losses, mean_gradient, model_of, regression, sq_norm


def test_parts_by_layer_by_name_and_by_parameter_group() -> None:
    model, shape = Model(nn.Linear(5, 7), nn.ReLU(inplace=True), nn.Linear(7, 3, bias=False)).double(), (5,)
    first, second = model.layers[0], model.layers[2]
    assert isinstance(first, nn.Linear)
    groups = [{"params": [first.weight]}, {"params": [first.bias], "name": "bias"}, {"params": second.parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    ((inputs, targets),) = regression(2, 1, 8, *shape)
    gradients = [mean_gradient(model, inputs[r], targets[r]) for r in (slice(0, 4), slice(4, 8), slice(0, 8))]
    for parts, indices in (
        ("layers", {"layers.0": [0, 1], "layers.2": [2]}),
        (optimizer, {"group 0": [0], "bias": [1], "group 2": [2]}),
        ({"body": first, "weights": [first.weight, *second.parameters()]}, {"body": [0, 1], "weights": [0, 2]}),
    ):
        noise = GradientNoise(model, groups=2, every=1, parts=parts)
        with noise.measure(len(inputs)):
            losses(model, inputs, targets).mean().backward()
        estimates = noise.estimates()
        assert list(estimates) == ["total", *indices]
        for name, chosen in indices.items():
            a, b, both = (sq_norm([gradient[i] for i in chosen]) for gradient in gradients)
            assert estimates[name].grad_sq_norm == pytest.approx(2 * both - (a + b) / 2)


@pytest.mark.parametrize(
    "kind",
    [
        lambda p: torch.optim.Adam(p, lr=0.01, eps=1e-3),
        lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
        lambda p: torch.optim.NAdam(p, lr=0.01),
        lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True),
    ],
)
def test_preconditioned_norms_are_those_of_plain_gradients_in_other_coordinates(kind: Any) -> None:
    """The diagonal is read off the optimiser itself: an update along g moves every weight by -lr g / D."""
    model, batches = model_of(), regression(6, 6, 12, 5)
    optimizer = kind(model.parameters())
    noise, meter = MicroBatchNoise(model, every=1, preconditioner=optimizer, optimizer=optimizer), NoiseScaleMeter(4)
    for step, (inputs, targets) in enumerate(batches):
        if step:
            roots = [diagonal(optimizer, p).sqrt() for p in model.parameters()]
            gradients = [mean_gradient(model, inputs[rows], targets[rows]) for rows in [*GROUPS, range(12)]]
            norms = [sq_norm([g / root for g, root in zip(grad, roots, strict=True)]) for grad in gradients]
            meter.update(norms[:-1], norms[-1])
        accumulated(noise, model, (inputs, targets))
        optimizer.step()
    found, expected = noise.estimate(), meter.estimate()
    assert found.skipped == 1, "before the first step of the optimiser there is nothing to divide by"
    assert found.grad_sq_norm == pytest.approx(expected.grad_sq_norm)
    assert found.trace_cov == pytest.approx(expected.trace_cov)


def diagonal(optimizer: torch.optim.Optimizer, parameter: Tensor) -> Tensor:
    state, group = optimizer.state[parameter], optimizer.param_groups[0]
    if isinstance(optimizer, torch.optim.RMSprop):
        return torch.sqrt(state["square_avg"] - state["grad_avg"] ** 2) + group["eps"]
    square = state["max_exp_avg_sq"] if group.get("amsgrad") else state["exp_avg_sq"]
    return torch.sqrt(square / (1 - 0.999 ** int(state["step"]))) + group["eps"]


def test_parameters_unfrozen_later_are_not_left_out_silently() -> None:
    model = model_of()
    frozen = next(iter(model.parameters())).requires_grad_(False)
    noise = MicroBatchNoise(model, every=1)
    frozen.requires_grad_(True)
    for _ in range(2):
        model(torch.randn(4, 5).double()).mean().div(2).backward()
        noise.micro_batch(4)
    with pytest.raises(ValueError, match="is trained since this was made"):
        noise.step()


def test_the_state_of_another_model_or_number_of_groups_is_refused() -> None:
    noise = GradientNoise(nn.Linear(3, 1), every=1)
    with noise.measure(8):
        (noise._model(torch.randn(8, 3)) ** 2).mean().backward()
    for other, named in (
        (GradientNoise(nn.Linear(4, 1)), "model"),
        (GradientNoise(nn.Linear(3, 1), groups=4), "groups"),
    ):
        with pytest.raises(ValueError, match=f"another configuration: its {named}"):
            other.load_state_dict(noise.state_dict())
