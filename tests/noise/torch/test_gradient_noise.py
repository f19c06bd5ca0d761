"""One backward pass with the layers' help gives what a backward pass for each group gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from rl_scaling.noise import GradientNoise
from rl_scaling.noise.torch.layer_gradients import LearnedConstant
from tests.noise.torch.reference import Model, losses, mean_gradient, naive_meter, regression, same, sq_norm


class Beside(nn.Module):
    """A parameter that does not depend on the inputs, beside a function of them."""

    def __init__(self, width: int):
        super().__init__()
        self.learned = LearnedConstant(torch.zeros(width))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.cat([inputs, self.learned(inputs).exp()], dim=1)


LAYERS: dict[str, tuple[tuple[int, ...], Sequence[nn.Module]]] = {
    "linear": ((5,), [nn.Linear(5, 7), nn.ReLU(inplace=True), nn.Linear(7, 3, bias=False)]),
    "sequence": ((4, 5), [nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)]),
    "wide": ((6,), [nn.Linear(6, 300), nn.Tanh(), nn.Linear(300, 200)]),
    "conv1d": ((2, 9), [nn.Conv1d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv1d(4, 4, 2, stride=2, groups=2)]),
    "conv2d": ((2, 8, 8), [nn.Conv2d(2, 4, 3, dilation=2), nn.ReLU(), nn.Conv2d(4, 3, 2, bias=False)]),
    "conv3d": ((1, 4, 4, 4), [nn.Conv3d(1, 2, 2), nn.Tanh()]),
    "layer norm": ((4, 6), [nn.LayerNorm(6), nn.Tanh(), nn.LayerNorm([4, 6], bias=False), nn.Linear(6, 2)]),
    "rms norm": ((4, 6), [nn.Linear(6, 6), nn.RMSNorm(6), nn.Tanh()]),
    "group norm": ((4, 3, 3), [nn.GroupNorm(2, 4), nn.Tanh(), nn.Conv2d(4, 2, 2), nn.Flatten(), nn.GroupNorm(2, 8)]),
    "constant": ((6,), [nn.Linear(6, 4), nn.Tanh(), Beside(3)]),
    "no affine": ((6,), [nn.Linear(6, 4), nn.LayerNorm(4, elementwise_affine=False), nn.Linear(4, 2)]),
}


def model_of(kind: str) -> tuple[Model, tuple[int, ...]]:
    torch.manual_seed(0)
    shape, layers = LAYERS[kind]
    model = Model(*layers).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model, shape


def measured(noise: GradientNoise, model: nn.Module, batches: list[tuple[Tensor, Tensor]], rows: Any = None) -> None:
    for inputs, targets in batches:
        model.zero_grad()
        with noise.measure(len(inputs) if rows is None else rows):
            losses(model, inputs, targets).mean().backward()


@pytest.mark.parametrize("kind", list(LAYERS))
def test_layers_of_every_kind(kind: str) -> None:
    model, shape = model_of(kind)
    batches = regression(1, 6, 11, *shape)
    noise = GradientNoise(model, groups=3, every=1)
    measured(noise, model, batches)
    assert same(noise.estimate(), naive_meter(model, batches, [range(4), range(4, 7), range(7, 11)]).estimate())
    inputs, targets = batches[-1]
    for parameter, expected in zip(model.parameters(), mean_gradient(model, inputs, targets), strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, expected)
    assert all("forward" not in vars(module) for module in model.modules()), "layers must be left as they were"


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(9, 5, padding_idx=0), nn.Embedding(6, 5)
        self.head = nn.Linear(5, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1]).expand_as(tokens)
        return self.head(torch.tanh(self.words(tokens) + self.places(places))).flatten(1).mean(1)


def test_embeddings_and_keys() -> None:
    torch.manual_seed(0)
    model, generator = Words().double(), torch.Generator().manual_seed(3)
    batches = [
        (torch.randint(9, (8, 6), generator=generator), torch.randn(8, generator=generator).double()) for _ in range(5)
    ]
    keys = ["b", "a", "a", "b", "c", "a", "c", "b"]  # documents: three groups of 3, 3 and 2 rows that are not in order
    noise = GradientNoise(model, every=1)
    measured(noise, model, batches, keys)
    groups = [[i for i, key in enumerate(keys) if key == name] for name in "abc"]
    found, expected = noise.estimate(), naive_meter(model, batches, groups).estimate()
    assert same(found, expected), (found, expected)


def test_sums_and_rows_of_several_examples() -> None:
    """Sequences of different length: the loss is a mean or a sum over tokens that are not padding."""
    model, _ = model_of("linear")
    inputs = torch.randn(6, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    lengths = torch.tensor([4, 1, 2, 3, 4, 2])
    used = torch.arange(4)[None, :] < lengths[:, None]

    def loss(rows: slice) -> Tensor:
        return (((model.layers(inputs[rows]).sum(-1) - 1) ** 2) * used[rows]).sum()

    expected = []
    for rows in (slice(0, 3), slice(3, 6), slice(0, 6)):
        gradient = torch.autograd.grad(loss(rows) / lengths[rows].sum(), list(model.parameters()))
        expected.append(sq_norm(list(gradient)))
    for reduction, divisor in (("mean", 16.0), ("sum", 1.0)):
        noise = GradientNoise(model, groups=2, every=1, loss=reduction)  # pyright: ignore[reportArgumentType]
        with noise.measure(6, examples=lengths.tolist()):
            (loss(slice(0, 6)) / divisor).backward()
        sizes = (7.0, 9.0)
        cross = (256 * expected[2] - 49 * expected[0] - 81 * expected[1]) / (256 - 49 - 81)
        assert noise.estimate().grad_sq_norm == pytest.approx(cross), sizes


def test_cadence_state_and_skipped_steps() -> None:
    model, shape = model_of("linear")
    batches = regression(4, 9, 8, *shape)
    whole, first = GradientNoise(model, every=3, window=5), GradientNoise(model, every=3, window=5)
    measured(whole, model, batches)
    assert whole.estimate().steps == 3
    measured(first, model, batches[:4])
    second = GradientNoise(model, every=3, window=5)
    second.load_state_dict(first.state_dict())
    measured(second, model, batches[4:])
    assert repr(second.estimate()) == repr(whole.estimate()), "NaN included"
    with whole.measure(8):
        (losses(model, *batches[0]).mean() * float("nan")).backward()
    assert (whole.estimate().steps, whole.estimate().skipped) == (3, 1)
    with pytest.raises(ValueError, match="its parts is"):
        GradientNoise(model, parts="layers").load_state_dict(whole.state_dict())
    with pytest.raises(ValueError, match="not the state of a GradientNoise"):
        second.load_state_dict({"meter": {}})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_automatic_mixed_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = Model(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.LayerNorm(8))
    batches = [(x.float(), y.float()) for x, y in regression(6, 4, 8, 1, 6, 6)]
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    exact = naive_meter(model, batches, [range(4), range(4, 8)]).estimate()
    noise = GradientNoise(model, groups=2, every=1, scaler=scaler)
    for inputs, targets in batches:
        with noise.measure(8):
            with torch.autocast("cpu", dtype):
                loss = losses(model, inputs, targets).mean()
            scaler.scale(loss).backward()
    found = noise.estimate()
    assert found.grad_sq_norm == pytest.approx(exact.grad_sq_norm, rel=0.05)
    assert found.trace_cov == pytest.approx(exact.trace_cov, rel=0.05)


def test_compiled_models_run_plainly_while_they_are_measured() -> None:
    model, shape = model_of("linear")
    batches = regression(7, 4, 8, *shape)
    compiled: Any = torch.compile(model, backend="aot_eager")
    compiled(batches[0][0])
    noise = GradientNoise(compiled, groups=2, every=1, parts="layers")
    measured(noise, compiled, batches)
    assert same(noise.estimate(), naive_meter(model, batches, [range(4), range(4, 8)]).estimate())
    assert list(noise.estimates()) == ["total", "layers.0", "layers.2"]


class Uses(nn.Module):
    """A layer whose weight is also used in another way."""

    def __init__(self, way: str):
        super().__init__()
        self.way, self.layer, self.other = way, nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.layer(x)
        if self.way == "twice":
            return self.layer(hidden).sum(1)
        if self.way == "weight":
            hidden = functional.linear(hidden, self.layer.weight)
        if self.way == "bypassed":
            hidden = functional.linear(hidden, self.other.weight)
        if self.way == "time first":
            hidden = self.other(torch.stack([hidden] * 3)).sum(0)
        return hidden.sum(1)


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("twice", "layer is used more than once"),
        ("weight", r"layer\.weight has a gradient that does not come from its layer's rows"),
        ("bypassed", r"other\.weight has a gradient that does not come"),
        ("time first", r"other is given a tensor of shape \(3, 8, 4\): its first dimension must be the 8 rows"),
    ],
)
def test_what_layers_alone_do_not_explain_is_refused(way: str, message: str) -> None:
    model, ((inputs, targets),) = Uses(way).double(), regression(8, 1, 8, 4)
    with pytest.raises(ValueError, match=message):
        measured(GradientNoise(model, every=1), model, [(inputs, targets)])
    assert all("forward" not in vars(module) for module in model.modules())


@pytest.mark.parametrize("first", ["decay", "losses"])
def test_weight_decay_in_the_loss_is_refused(first: str) -> None:
    """Whichever was computed first: autograd adds what arrives later to what arrived before, in place if it can."""
    model, ((inputs, targets),) = Uses("").double(), regression(8, 1, 8, 4)
    noise = GradientNoise(model, every=1)
    terms = {
        "decay": lambda: 0.1 * (model.layer.weight**2).sum(),
        "losses": lambda: losses(model, inputs, targets).mean(),
    }
    with pytest.raises(ValueError, match="as weight decay"), noise.measure(8):
        torch.stack([terms[name]() for name in sorted(terms, key=lambda name: name != first)]).sum().backward()


def tied() -> nn.Module:
    model = Model(nn.Linear(4, 4), nn.Linear(4, 4))
    model.layers[1].weight = model.layers[0].weight
    return model


def normed() -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Model(nn.Linear(3, 3), nn.BatchNorm1d(3)), r"layers\.1 is BatchNorm1d: .* use MicroBatchNoise"),
        (tied(), r"layers\.1\.weight is layers\.0\.weight as well: tied weights"),
        (nn.LSTM(3, 3), "weight_ih_l0 is in a LSTM, which is none of Linear"),
        (nn.MultiheadAttention(4, 2), "in_proj_weight is in a MultiheadAttention"),
        (normed(), r"original0 is in a ParametrizationList|bias is in a ParametrizedLinear"),
        (nn.Conv2d(1, 1, 3, padding="same"), "padding other than zeros"),
        (nn.Embedding(3, 3, sparse=True), "sparse"),
        (nn.Flatten(), "no parameters that are trained"),
    ],
)
def test_models_that_cannot_be_measured_are_refused_by_name(model: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GradientNoise(model)


def backward_twice(loss: Tensor) -> None:
    loss.backward(retain_graph=True)
    loss.backward()


def test_bad_input_is_refused_in_one_line() -> None:
    model = nn.Linear(3, 1)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"groups": 1}, "groups is 1"),
        ({"loss": "median"}, "loss is 'median'"),
        ({"every": 0}, "every is 0"),
        ({"window": 0.5}, "window is 0.5"),
        ({"preconditioner": torch.optim.Adam(model.parameters())}, "use MicroBatchNoise or PerExampleNoise"),
        ({"parts": {"head": nn.Linear(1, 1)}}, "part 'head' has no trained parameter"),
        ({"parts": {"total": model}}, 'cannot be called "total"'),
        ({"parts": "blocks"}, "parts is 'blocks'"),
    ]
    for options, message in wrong:
        with pytest.raises(ValueError, match=message):
            GradientNoise(model, **options)
    noise = GradientNoise(model, every=1)
    with pytest.raises(ValueError, match="no measurements yet"):
        noise.estimate()
    with pytest.raises(ValueError, match=r"put loss\.backward\(\) inside"), noise.measure(4):
        model(torch.ones(4, 3)).mean()
    with pytest.raises(ValueError, match="one group"), noise.measure(1):
        model(torch.ones(1, 3)).mean().backward()
    with pytest.raises(ValueError, match=r"more than once"), noise.measure(4):
        backward_twice(model(torch.randn(4, 3)).mean())
    with pytest.raises(ValueError, match=r"examples has shape \(2,\)"), noise.measure(4, examples=[1, 2]):
        model(torch.ones(4, 3)).mean().backward()


def test_a_short_last_batch_is_skipped_and_zero_gradients_are_taken() -> None:
    model = nn.Linear(3, 1)
    noise = GradientNoise(model, every=1)
    for rows, factor in ((4, 0.0), (1, 1.0)):
        with noise.measure(rows):
            (factor * model(torch.ones(rows, 3))).mean().backward()
    estimate = noise.estimate()
    assert (estimate.steps, estimate.skipped, estimate.resolved) == (1, 1, False)


def test_a_forward_that_was_replaced_is_refused_and_stays() -> None:
    model, shape = model_of("linear")
    layer: Any = next(m for m in model.modules() if isinstance(m, nn.Linear))
    original = layer.forward
    layer.forward = lambda x: 100 * original(x)
    noise, inputs = GradientNoise(model, every=1), torch.randn(8, *shape).double()
    before = model(inputs)
    with pytest.raises(ValueError, match="has a forward of its own"), noise.measure(8):
        pass
    torch.testing.assert_close(model(inputs), before)


def test_numbers_of_rows_and_inputs_by_name() -> None:
    model = nn.Linear(3, 1)
    noise = GradientNoise(model, every=1)
    rows: Any = np.int64(8)
    with noise.measure(rows):
        model(input=torch.randn(8, 3)).mean().backward()
    assert noise.estimate().steps == 1


def test_a_batch_without_backward_is_skipped_once_there_are_others() -> None:
    model = nn.Linear(3, 1)
    noise = GradientNoise(model, every=1)
    with pytest.raises(ValueError, match=r"put loss\.backward"), noise.measure(8):
        pass
    with noise.measure(8):
        model(torch.randn(8, 3)).mean().backward()
    with noise.measure(8):
        pass
    assert (noise.estimate().steps, noise.estimate().skipped) == (1, 1)
