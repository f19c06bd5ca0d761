"""Distributions over actions against those of PyTorch, and what is drawn from them against their probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from rl_scaling.agents.actions import Actions, Bernoulli, Categorical, DiagonalGaussian, MultiCategorical, actions_of
from rl_scaling.config import ConfigError
from tests.agents.reference import distribution

KINDS = st.one_of(
    st.builds(Categorical, st.integers(1, 6)),
    st.builds(MultiCategorical, st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)),
    st.builds(Bernoulli, st.integers(1, 5)),
    st.builds(DiagonalGaussian, st.integers(1, 5)),
)
EXAMPLES = [Categorical(4), MultiCategorical((3, 2, 4)), Bernoulli(3), DiagonalGaussian(2)]
OF_EVERY_KIND = pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: type(kind).__name__)


def naive_judgement(kind: Actions, parameters: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies by PyTorch's distributions."""
    if isinstance(kind, MultiCategorical):
        parts = list(zip(kind.sizes, parameters.split(kind.sizes, -1), actions.unbind(-1), strict=True))
        each = [naive_judgement(Categorical(size), logits, choice) for size, logits, choice in parts]
        return sum((a for a, _ in each), torch.zeros(())), sum((b for _, b in each), torch.zeros(()))
    policy = distribution(kind, parameters)
    return policy.log_prob(actions.to(parameters.dtype)), policy.entropy()


def random_parameters(kind: Actions, seed: int, *rows: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*rows, kind.num_parameters, generator=generator, dtype=torch.float64)


@given(kind=KINDS, seed=st.integers(0, 10**6))
def test_judged_as_by_pytorch_gradients_too(kind: Actions, seed: int) -> None:
    parameters = random_parameters(kind, seed, 2, 3).requires_grad_()
    actions = kind.sample(parameters.detach(), torch.Generator().manual_seed(seed))
    assert actions.shape == (2, 3, *kind.shape)
    found, expected = kind.judge(parameters, actions), naive_judgement(kind, parameters, actions)
    for mine, other in zip(found, expected, strict=True):
        assert mine.shape == (2, 3)
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)
        gradients = [
            torch.autograd.grad(one.sum(), parameters, retain_graph=True, materialize_grads=True, allow_unused=True)[0]
            for one in (mine, other)
        ]
        torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


@given(kind=KINDS, seed=st.integers(0, 10**6), rows=st.integers(1, 5))
def test_rows_are_chosen_each_by_its_own_random_numbers(kind: Actions, seed: int, rows: int) -> None:
    """So halves of the rows, with their parts of the random numbers, are given what they are given together."""
    parameters, generator = random_parameters(kind, seed, 2 * rows).float(), torch.Generator().manual_seed(seed)
    noise = kind.draw(torch.zeros(2 * rows, kind.num_outputs), generator)
    together = kind.choose(parameters, noise)
    halves = [kind.choose(parameters[part], noise[part]) for part in (slice(0, rows), slice(rows, None))]
    assert torch.equal(together, torch.cat(halves))
    assert torch.equal(together, kind.sample(parameters, torch.Generator().manual_seed(seed)))
    assert together.dtype == kind.dtype


def test_numbered_actions_are_drawn_as_they_always_were() -> None:
    """Results that are kept were made with these draws."""
    logits = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    exponential = torch.empty_like(logits).exponential_(generator=torch.Generator().manual_seed(1))
    expected = (logits - exponential.log()).argmax(dim=-1)
    assert torch.equal(Categorical(6).sample(logits, torch.Generator().manual_seed(1)), expected)


@pytest.mark.statistical
@OF_EVERY_KIND
def test_drawn_as_often_as_they_are_likely(kind: Actions) -> None:
    """One test of 50,000 draws for each place of an action, of which any fails by chance once in 10,000 times."""
    parameters = random_parameters(kind, 1, 1)
    drawn = kind.sample(parameters.repeat(50_000, 1), torch.Generator().manual_seed(2)).reshape(50_000, -1).numpy()
    if isinstance(kind, DiagonalGaussian):
        means, log_stds = parameters[0].chunk(2)
        tests = [
            stats.kstest(values, "norm", args=(float(mean), float(log_std.exp()))).pvalue
            for values, mean, log_std in zip(drawn.T, means, log_stds, strict=True)
        ]
        assert abs(stats.pearsonr(*drawn.T).statistic) < 4 / 50_000**0.5
    else:
        if isinstance(kind, Bernoulli):
            on = parameters[0].sigmoid()
            expected = [torch.stack([1 - p, p]) for p in on]
        else:
            sizes = kind.sizes if isinstance(kind, MultiCategorical) else (kind.num_outputs,)
            expected = [logits.softmax(-1) for logits in parameters[0].split(sizes)]
        tests = [
            stats.chisquare(np.bincount(values, minlength=len(p)), 50_000 * p.numpy()).pvalue
            for values, p in zip(drawn.T, expected, strict=True)
        ]
    assert min(tests) > 1e-4


@OF_EVERY_KIND
def test_a_run_that_has_diverged_still_acts(kind: Actions) -> None:
    parameters = torch.full((3, kind.num_parameters), torch.nan)
    actions = kind.sample(parameters, torch.Generator().manual_seed(0))
    if not isinstance(kind, DiagonalGaussian):
        assert (actions >= 0).all()
        assert (actions < max(kind.num_outputs, 2)).all()


@pytest.mark.parametrize(
    ("space", "kind"),
    [
        (7, Categorical(7)),
        (np.int64(7), Categorical(7)),
        (Discrete(7), Categorical(7)),
        (MultiDiscrete([3, 2]), MultiCategorical((3, 2))),
        (MultiBinary(4), Bernoulli(4)),
        (Box(-1, 1, (2,)), DiagonalGaussian(2)),
        (Box(-np.inf, np.inf, (2,), np.float64), DiagonalGaussian(2)),
    ],
)
def test_the_kind_of_a_space(space: Any, kind: Actions) -> None:
    assert actions_of(space) == kind


@pytest.mark.parametrize(
    "space",
    [
        Discrete(3, start=1),
        MultiDiscrete(np.array([[2, 2]])),
        MultiDiscrete([2, 2], start=[0, 1]),
        MultiBinary([2, 2]),
        Box(-1, 1, (2, 2)),
        Box(0, 255, (2,), np.uint8),
        Dict({"a": Discrete(2)}),
    ],
    ids=str,
)
def test_other_spaces_are_refused_by_name(space: Space[Any]) -> None:
    with pytest.raises(ConfigError, match="actions are") as refused:
        actions_of(space)
    assert str(space) in str(refused.value)
    assert "\n" not in str(refused.value)
