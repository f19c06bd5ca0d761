from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rl_scaling.noise.torch.hessian import Curvature, curvature_operator, hessian_noise_scale, mean_gradient
from rl_scaling.noise.torch.line_search import draw_examples
from rl_scaling.validation.digits import GroupedSGD, load_digits, small_mlp
from tests.noise.reference import pairwise_moments
from tests.noise.torch.curvature_reference import Bowl, Data, exact_noise_scale


def measurements(data: Data, count: int, groups: int, size: int, seed: int = 0) -> list[list[Data]]:
    generator = torch.Generator().manual_seed(seed)
    return [[draw_examples(data, size, generator) for _ in range(groups)] for _ in range(count)]


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Data]:
    """A small network, half-trained, in double precision, and 400 of the digits."""
    images, classes = load_digits()
    data = (images[:400].double(), classes[:400])
    model = small_mlp(4, 0).double()
    GroupedSGD(model, data, torch.Generator().manual_seed(1)).train(100)
    return model, data


def test_moments_are_those_of_pairs_of_groups() -> None:
    """In the basis where H is the identity g^T H g is |g|^2, and the slow version of A.2 applies; sizes differ."""
    bowl = Bowl()
    data = bowl.data()
    groups = [draw_examples(data, size, torch.Generator().manual_seed(size)) for size in (3, 5, 9, 2)]
    found = hessian_noise_scale(bowl, bowl.loss, [groups], [data])
    root = bowl.curvatures.sqrt()
    gradients = np.stack([(mean_gradient(bowl, bowl.loss, group) * root).numpy() for group in groups])
    square, trace = pairwise_moments(gradients, np.array([3.0, 5.0, 9.0, 2.0]))
    assert found.grad_curvature == pytest.approx(square, rel=1e-9)
    assert found.noise_curvature == pytest.approx(trace, rel=1e-9)
    assert not found.b_noise.resolved, "one measurement has no interval"


def test_gradients_without_noise_give_the_step_and_gain_of_the_closed_form() -> None:
    bowl = Bowl()
    data = bowl.data()
    _, eps_max, gain_max = bowl.closed_form(data)
    found = hessian_noise_scale(bowl, bowl.loss, [[data, data], [data, data], [data, data]], [data])
    assert found.curvature_along_gradient.ratio == pytest.approx(1 / eps_max, rel=1e-9)
    assert found.eps_max.value == pytest.approx(eps_max, rel=1e-9)
    assert found.delta_loss_max.value == pytest.approx(gain_max, rel=1e-9)


@pytest.mark.statistical
def test_intervals_cover_the_closed_form() -> None:
    """40 repetitions of three 95 % intervals: at least 34 of 40 cover, which each fails once in 300 by chance."""
    bowl = Bowl()
    data = bowl.data()
    truth = np.array(bowl.closed_form(data))
    inside = np.zeros(3)
    for seed in range(40):
        found = hessian_noise_scale(bowl, bowl.loss, measurements(data, 20, 4, 8, seed), [data])
        for i, estimate in enumerate((found.b_noise, found.eps_max, found.delta_loss_max)):
            inside[i] += estimate.low < truth[i] < estimate.high
    assert np.all(inside >= 34), inside


@pytest.mark.parametrize("curvature", ["hessian", "ggn"])
def test_products_are_those_of_the_whole_matrix(digits: tuple[nn.Module, Data], curvature: Curvature) -> None:
    """Batches of different sizes count by their size; the matrix is torch's own."""
    model, (images, classes) = digits
    data = (images[:60], classes[:60])
    model = small_mlp(2, 1).double()
    operator = curvature_operator(
        model, cross_entropy, [(data[0][:45], data[1][:45]), (data[0][45:], data[1][45:])], curvature
    )
    place = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    vector = torch.randn(len(place), 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def outputs(flat: Tensor) -> Tensor:
        split = flat.split([weight.numel() for weight in model.parameters()])
        parts = {n: part.view_as(w) for part, (n, w) in zip(split, model.named_parameters(), strict=True)}
        return torch.func.functional_call(model, parts, (data[0],))

    if curvature == "hessian":
        matrix = torch.autograd.functional.hessian(lambda flat: cross_entropy(outputs(flat), data[1]), place)
        assert isinstance(matrix, Tensor)
    else:
        jacobian = torch.autograd.functional.jacobian(outputs, place)
        assert isinstance(jacobian, Tensor)
        p = outputs(place).softmax(-1)
        inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        matrix = torch.einsum("nip,nij,njq->pq", jacobian, inner, jacobian) / len(p)
    torch.testing.assert_close(operator @ vector, matrix @ vector)


@pytest.mark.statistical
def test_half_trained_digits_agree_with_every_example_and_the_whole_hessian(digits: tuple[nn.Module, Data]) -> None:
    """Two intervals of 99.9 %, so once in 500 by chance; narrow enough to tell noise scales a factor of three apart."""
    model, data = digits
    b_noise, eps_max = exact_noise_scale(model, cross_entropy, data)
    found = hessian_noise_scale(model, cross_entropy, measurements(data, 400, 8, 64), [data], confidence=0.999)
    assert found.b_noise.low < b_noise < found.b_noise.high < 3 * found.b_noise.low
    assert found.eps_max.low < eps_max < found.eps_max.high


def test_concave_along_the_gradient_is_unresolved_and_visible() -> None:
    """A hill: g^T H g is negative, no step is best, and nothing is clipped to look as if there were one."""
    bowl = Bowl()
    data = bowl.data()

    def hill(offsets: Tensor, targets: Tensor) -> Tensor:
        return -bowl.loss(offsets, targets)

    found = hessian_noise_scale(bowl, hill, measurements(data, 20, 4, 64), [data])
    assert found.grad_curvature < 0
    assert found.noise_curvature < 0
    assert found.curvature_along_gradient.high < 0
    for estimate in (found.b_noise, found.eps_max, found.delta_loss_max):
        assert not estimate.resolved
        assert math.isnan(estimate.value)
    assert found.b_simple.resolved, "without the Hessian nothing is wrong"


def test_the_model_is_left_as_it_was(digits: tuple[nn.Module, Data]) -> None:
    model, data = digits
    before = [weight.detach().clone() for weight in model.parameters()]
    hessian_noise_scale(model, cross_entropy, measurements(data, 2, 2, 8), [data])
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(weight.grad is None or not weight.grad.requires_grad for weight in model.parameters())


def test_bad_input() -> None:
    bowl = Bowl()
    data = bowl.data(20)
    with pytest.raises(ValueError, match="no measurements"):
        hessian_noise_scale(bowl, bowl.loss, [], [data])
    with pytest.raises(ValueError, match=r"1 group\(s\)"):
        hessian_noise_scale(bowl, bowl.loss, [[data]], [data])
    with pytest.raises(ValueError, match="choose 'hessian' or 'ggn'"):
        hessian_noise_scale(bowl, bowl.loss, [[data, data]], [data], curvature="fisher")  # pyright: ignore[reportArgumentType]


def test_tied_weights_are_refused() -> None:
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    second.weight = first.weight
    data = (torch.ones(4, 3), torch.ones(4, 3))
    with pytest.raises(ValueError, match=r"0\.weight and 1\.weight are tied"):
        hessian_noise_scale(nn.Sequential(first, second), nn.functional.mse_loss, [[data, data]], [data])


def test_a_random_model_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
    data = (torch.ones(4, 3), torch.ones(4, 3))
    with pytest.raises(RuntimeError):
        hessian_noise_scale(model, nn.functional.mse_loss, [[data, data]], [data])
