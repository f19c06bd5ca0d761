"""Micro-batches as groups: every way to accumulate, mixed precision, compiled models, preconditioned norms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from rl_scaling.noise import MicroBatchNoise, NoiseScaleMeter
from tests.noise.torch.reference import (
    GROUPS,
    Model,
    accumulated,
    losses,
    mean_gradient,
    model_of,
    naive_meter,
    regression,
    same,
    sq_norm,
)


@pytest.mark.parametrize("kind", ["mean/k", "mean", "sum/n", "sum"])
def test_every_way_to_accumulate(kind: Any) -> None:
    model, batches = model_of(), regression(1, 6, 12, 5)
    noise = MicroBatchNoise(model, every=1, loss=kind)
    for batch in batches:
        accumulated(noise, model, batch, kind)
    assert same(noise.estimate(), naive_meter(model, batches, GROUPS).estimate())


@pytest.mark.statistical
def test_micro_batches_of_unequal_size() -> None:
    """Counted alike in the gradient they make a group of their harmonic mean size; by examples, of their own.

    Four numbers from 1,500 steps each, within 4.3 standard errors: fails by chance for one seed in 10,000.
    """
    sizes, generator = [2, 8], torch.Generator().manual_seed(0)
    model = nn.Linear(3, 1, bias=False).double()
    examples = torch.randn(1500, 10, 3, generator=generator, dtype=torch.float64) + 0.3
    for kind in ("mean/k", "sum/n"):
        noise = MicroBatchNoise(model, every=1, loss=kind)
        for batch in examples:
            model.zero_grad()
            for rows in batch.split(sizes):
                outputs = model(rows)  # linear in the weights: the gradient of an example is the example
                (outputs.mean() / 2 if kind == "mean/k" else outputs.sum() / 10).backward()
                noise.micro_batch(len(rows))
            noise.step()
        estimate = noise.estimate()
        assert estimate.grad_sq_norm == pytest.approx(0.27, rel=0.25), kind  # standard error 0.058
        assert estimate.trace_cov == pytest.approx(3, rel=0.1), kind  # standard error 0.021


def test_batch_normalisation_and_tied_weights() -> None:
    model = model_of(nn.BatchNorm1d(6), nn.Linear(6, 6), nn.Linear(6, 6))
    model.layers[3].weight = model.layers[2].weight
    model.train()
    batches = regression(2, 4, 12, 5)
    noise, meter = MicroBatchNoise(model, every=1), NoiseScaleMeter(4)
    for inputs, targets in batches:
        gradients = [mean_gradient(model, inputs[rows], targets[rows]) for rows in GROUPS]
        mean = [torch.stack(parts).mean(0) for parts in zip(*gradients, strict=True)]
        meter.update([sq_norm(g) for g in gradients], sq_norm(mean))
        accumulated(noise, model, (inputs, targets))
    assert same(noise.estimate(), meter.estimate())


def test_clipping_unscaling_and_stepping_before_step_change_nothing() -> None:
    model, batches = model_of(), regression(3, 4, 12, 5)
    noise, expected = MicroBatchNoise(model, every=1), naive_meter(model, batches, GROUPS).estimate()
    for inputs, targets in batches:
        model.zero_grad()
        for rows in GROUPS:
            (losses(model, inputs[rows], targets[rows]).mean() / 3).backward()
            noise.micro_batch(4)
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        noise.step()
    assert same(noise.estimate(), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_skips_and_counts_a_step_that_overflows(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = Model(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2))
    batches = [(x.float(), y.float()) for x, y in regression(4, 5, 12, 5)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    noise = MicroBatchNoise(model, every=1, scaler=scaler)
    for step, (inputs, targets) in enumerate(batches):
        optimizer.zero_grad()
        for rows in GROUPS:
            with torch.autocast("cpu", dtype):
                loss = losses(model, inputs[rows], targets[rows]).mean() / 3
            scaler.scale(loss * (1e38 if step == 2 else 1)).backward()
            noise.micro_batch(4)
        scaler.step(optimizer)
        scaler.update()
        noise.step()  # after the scale was halved, which must not matter
    kept = [batch for step, batch in enumerate(batches) if step != 2]
    found, exact = noise.estimate(), naive_meter(model, kept, GROUPS).estimate()
    assert (scaler.get_scale(), found.steps, found.skipped) == (512.0, 4, 1)
    assert found.grad_sq_norm == pytest.approx(exact.grad_sq_norm, rel=0.05)
    assert found.trace_cov == pytest.approx(exact.trace_cov, rel=0.05)


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")  # torch's own call
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_models(backend: str) -> None:
    model, batches = model_of(), regression(5, 4, 12, 5)
    compiled: Any = torch.compile(model, backend=backend)
    noise = MicroBatchNoise(compiled, every=2, parts="layers")
    for batch in batches:
        accumulated(noise, compiled, batch)
    assert same(noise.estimate(), naive_meter(model, batches[::2], GROUPS).estimate())
    assert list(noise.estimates()) == ["total", "layers.0", "layers.2"]


def test_a_resumed_meter_goes_on_exactly() -> None:
    batches, models = regression(7, 8, 12, 5), [model_of() for _ in range(3)]
    whole, first, second = (MicroBatchNoise(model, every=3, window=4) for model in models)
    for batch in batches:
        accumulated(whole, models[0], batch)
    for batch in batches[:4]:
        accumulated(first, models[1], batch)
    second.load_state_dict(first.state_dict())
    for batch in batches[4:]:
        accumulated(second, models[2], batch)
    assert second.state_dict() == whole.state_dict()
    assert repr(second.estimate()) == repr(whole.estimate()), "NaN included"
    with pytest.raises(ValueError, match="its loss is 'mean/k', here it is 'sum'"):
        MicroBatchNoise(models[0], loss="sum").load_state_dict(whole.state_dict())


def test_calls_that_are_missing_are_refused_in_one_line() -> None:
    model = nn.Linear(3, 1)

    def backward() -> None:
        model(torch.ones(2, 3)).mean().backward()

    noise = MicroBatchNoise(model, every=1)
    with pytest.raises(ValueError, match=r"no micro-batches in this step: call micro_batch\(\)"):
        noise.step()
    with pytest.raises(ValueError, match=r"no gradient since the last micro_batch\(\)"):
        noise.micro_batch(2)
    backward()
    with pytest.raises(ValueError, match="of 0 examples"):
        noise.micro_batch(0)
    noise.micro_batch(2)
    with pytest.raises(ValueError, match="one group of examples"):
        noise.step()
    backward()
    with pytest.raises(ValueError, match=r"a backward pass without its micro_batch\(\)"):
        noise.step()
    noise = MicroBatchNoise(model, every=1)
    for _ in range(2):
        backward()
        noise.micro_batch(2)
    with pytest.raises(ValueError, match=r"call optimizer\.zero_grad\(\) after each step"):
        noise.step()


def test_bad_options_are_refused_in_one_line() -> None:
    model = nn.Linear(3, 1)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"loss": "average"}, "loss is 'average': give one of 'mean/k'"),
        ({"preconditioner": torch.optim.SGD(model.parameters())}, "preconditioner is a SGD: give torch's Adam"),
    ]
    for options, message in wrong:
        with pytest.raises(ValueError, match=message):
            MicroBatchNoise(model, **options)


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad_between_micro_batches_is_refused(set_to_none: bool) -> None:
    model = model_of()
    noise = MicroBatchNoise(model, every=1, loss="mean")
    model(torch.randn(4, 5).double()).mean().backward()
    noise.micro_batch(4)
    model.zero_grad(set_to_none)
    model(torch.randn(4, 5).double()).mean().backward()
    with pytest.raises(ValueError, match="not the sum of the micro-batches' gradients"):
        noise.micro_batch(4)
