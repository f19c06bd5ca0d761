"""Gradients of single examples, and of clusters of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rl_scaling.noise import MicroBatchNoise, NoiseScaleMeter, PerExampleNoise
from tests.noise.torch.reference import Model, losses, mean_gradient, naive_meter, regression, same, sq_norm


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    return ((output - target) ** 2).sum()


def model_of(*more: nn.Module) -> Model:
    torch.manual_seed(0)
    return Model(nn.Conv1d(2, 3, 2), *more, nn.Flatten(), nn.Linear(12, 4), nn.LayerNorm(4), nn.Tanh()).double()


@pytest.mark.parametrize("chunk_size", [None, 5])
def test_every_example_is_a_group(chunk_size: int | None) -> None:
    model, batches = model_of(), regression(1, 4, 12, 2, 5)
    noise = PerExampleNoise(model, squared_error, chunk_size=chunk_size)
    for inputs, targets in batches:
        noise.measure(inputs, targets)
    assert same(noise.estimate(), naive_meter(model, batches, [[i] for i in range(12)]).estimate())
    assert all(p.grad is None for p in model.parameters())


def test_micro_batches_of_one_are_examples() -> None:
    model, batches = model_of(), regression(2, 3, 6, 2, 5)
    by_example, by_micro_batch = PerExampleNoise(model, squared_error), MicroBatchNoise(model, every=1)
    for inputs, targets in batches:
        by_example.measure(inputs, targets)
        model.zero_grad()
        for row in range(6):
            (losses(model, inputs[row : row + 1], targets[row : row + 1]).mean() / 6).backward()
            by_micro_batch.micro_batch(1)
        by_micro_batch.step()
    assert same(by_micro_batch.estimate(), by_example.estimate())


def test_clusters_are_groups_and_show_the_design_effect() -> None:
    model, keys = model_of(), ["a", "b", "a", "c", "c", "a", "b", "c"]
    batches = regression(3, 5, 8, 2, 5)
    noise, expected = PerExampleNoise(model, squared_error, chunk_size=3), NoiseScaleMeter(1)
    for inputs, targets in batches:
        noise.measure(inputs, targets, keys=keys)
        rows = [[i for i, key in enumerate(keys) if key == name] for name in "abc"]
        norms = [sq_norm(mean_gradient(model, inputs[r], targets[r])) for r in rows]
        batch = sq_norm(mean_gradient(model, inputs, targets))
        sizes = [len(r) for r in rows]
        g2 = (64 * batch - sum(b * b * n for b, n in zip(sizes, norms, strict=True))) / (64 - sum(b * b for b in sizes))
        single = [sq_norm(mean_gradient(model, inputs[[i]], targets[[i]])) for i in range(8)]
        expected.update(norms, batch, group_sizes=sizes, example_trace=np.mean(single) - g2)
    assert same(noise.estimate(), expected.estimate())
    assert noise.estimate().design_effect == pytest.approx(expected.estimate().design_effect)


def test_a_resumed_meter_goes_on_exactly() -> None:
    model, batches = model_of(), regression(4, 4, 6, 2, 5)
    whole, first, second = (PerExampleNoise(model, squared_error, parts="layers") for _ in range(3))
    for i, (inputs, targets) in enumerate(batches):
        whole.measure(inputs, targets)
        if i < 2:
            first.measure(inputs, targets)
    second.load_state_dict(first.state_dict())
    for inputs, targets in batches[2:]:
        second.measure(inputs, targets)
    assert second.state_dict() == whole.state_dict()


def test_what_cannot_be_measured_is_refused() -> None:
    model = model_of(nn.BatchNorm1d(3))
    inputs, targets = regression(5, 1, 6, 2, 5)[0]
    noise = PerExampleNoise(model, squared_error)
    with pytest.raises(ValueError, match=r"layers\.1 is BatchNorm1d in training mode"):
        noise.measure(inputs, targets)
    model.eval()
    noise.measure(inputs, targets)
    with pytest.raises(ValueError, match="6 inputs but 5 targets"):
        noise.measure(inputs, targets[:5])
    with pytest.raises(ValueError, match="6 inputs but 2 keys"):
        noise.measure(inputs, targets, keys=[1, 2])
    with pytest.raises(ValueError, match="chunk_size is 0"):
        PerExampleNoise(model, squared_error, chunk_size=0)
    with pytest.raises(ValueError, match="one group"):
        PerExampleNoise(model, squared_error).measure(inputs, targets, keys=["a"] * 6)


def test_half_precision_gradients_are_added_up_in_single() -> None:
    torch.manual_seed(0)
    model = nn.Linear(10, 1).bfloat16()
    inputs, targets = torch.randn(4096, 10).bfloat16(), torch.randn(4096, 1).bfloat16()
    keys = [i % 4 for i in range(4096)]
    half = PerExampleNoise(model, nn.functional.mse_loss)
    half.measure(inputs, targets, keys=keys)
    single = PerExampleNoise(nn.Linear(10, 1), nn.functional.mse_loss)
    single._model.load_state_dict(model.float().state_dict())
    single.measure(inputs.float(), targets.float(), keys=keys)
    assert half.estimate().trace_cov == pytest.approx(single.estimate().trace_cov, rel=0.05)


def test_an_unused_parameter_does_not_spoil_a_preconditioned_measurement() -> None:
    model = nn.ModuleDict({"used": nn.Linear(3, 1), "unused": nn.Linear(3, 1)})
    model.forward = model["used"].forward
    adam = torch.optim.Adam(model.parameters())
    nn.functional.mse_loss(model(torch.randn(8, 3)), torch.ones(8, 1)).backward()
    adam.step()
    noise = PerExampleNoise(model, nn.functional.mse_loss, preconditioner=adam)
    noise.measure(torch.randn(8, 3), torch.ones(8, 1))
    assert (noise.estimate().steps, noise.estimate().skipped) == (1, 0)
