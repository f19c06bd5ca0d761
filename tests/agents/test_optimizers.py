"""RMSProp in one pass against its formula, torch and Stable-Baselines3; clipping; checkpoints of earlier versions."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rl_scaling.agents import A2C, PPO
from rl_scaling.agents import optimizers as module
from rl_scaling.agents.config import A2CConfig, PPOConfig
from rl_scaling.agents.optimizers import Adam, RMSprop, clipped_step

SHAPES = [(3, 4), (5,), (2, 3, 2, 2), (40, 41)]
LR, DECAY, EPSILON = 7e-4, 0.99, 1e-5


def weights_of(seed: int = 0) -> list[nn.Parameter]:
    random = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=random)) for shape in SHAPES]


def gradients(steps: int, size: float = 1.0) -> list[list[Tensor]]:
    random = torch.Generator().manual_seed(1)
    return [[size * torch.randn(shape, generator=random) for shape in SHAPES] for _ in range(steps)]


def give(weights: list[nn.Parameter], gradient: list[Tensor]) -> None:
    for weight, part in zip(weights, gradient, strict=True):
        weight.grad = part.clone()


def assert_close(ours: list[nn.Parameter], theirs: list[nn.Parameter]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [1e-3, 1.0])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("inside", [True, False])
def test_steps_equal_the_plain_formula(inside: bool, fused: bool, size: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clipping included, in float64, for gradients that are clipped and that are not."""
    if not fused:
        monkeypatch.setattr(module, "_fuses", lambda *_: False)
    weights = weights_of()
    naive = [w.detach().double() for w in weights]
    means = [torch.ones_like(w) if inside else torch.zeros_like(w) for w in naive]
    optimizer = RMSprop(weights, LR, DECAY, EPSILON, inside_root=inside)
    for gradient in gradients(50, size):
        give(weights, gradient)
        norm = clipped_step(optimizer, [w.grad for w in weights if w.grad is not None], 0.5)
        whole = torch.cat([part.flatten() for part in gradient]).double()
        assert float(norm) == pytest.approx(float(whole.norm()), rel=1e-5)
        factor = min(1.0, 0.5 / (float(whole.norm()) + 1e-6))
        for w, v, part in zip(naive, means, gradient, strict=True):
            g = factor * part.double()
            v.mul_(DECAY).add_((1 - DECAY) * g**2)
            w.sub_(LR * g / ((v + EPSILON).sqrt() if inside else v.sqrt() + EPSILON))
    for found, expected in zip(weights, naive, strict=True):
        torch.testing.assert_close(found.detach().double(), expected, rtol=1e-6, atol=1e-6)


def test_outside_the_root_equals_torch() -> None:
    ours, theirs = weights_of(), weights_of()
    mine = RMSprop(ours, LR, DECAY, EPSILON, inside_root=False)
    other = torch.optim.RMSprop(theirs, LR, alpha=DECAY, eps=EPSILON)
    for gradient in gradients(30):
        give(ours, gradient)
        give(theirs, gradient)
        clipped_step(mine, [w.grad for w in ours if w.grad is not None], 0.5)
        nn.utils.clip_grad_norm_(theirs, 0.5)
        other.step()
    assert_close(ours, theirs)


def test_inside_the_root_equals_stable_baselines3_step_by_step() -> None:
    from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike

    ours, theirs = weights_of(), weights_of()
    mine, other = RMSprop(ours, LR, DECAY, EPSILON), RMSpropTFLike(theirs, lr=LR, alpha=DECAY, eps=EPSILON)
    for gradient in gradients(20):
        give(ours, gradient)
        give(theirs, gradient)
        mine.step()
        other.step()
        assert_close(ours, theirs)


@pytest.mark.parametrize("decay", [0.9, 0.0])
def test_first_step_by_hand(decay: float) -> None:
    p = nn.Parameter(torch.tensor([1.0]))
    p.grad = torch.tensor([2.0])
    RMSprop([p], lr=0.1, decay=decay, epsilon=0.5).step()
    mean = decay + (1 - decay) * 4  # 1.3 with a decay of 0.9
    torch.testing.assert_close(p.detach(), torch.tensor([1.0 - 0.1 * 2.0 / (mean + 0.5) ** 0.5]))


def test_weights_without_gradient_stay() -> None:
    used, unused = weights_of()[:2]
    optimizer = RMSprop([used, unused], LR, DECAY, EPSILON)
    before = unused.detach().clone()
    used.grad = torch.ones_like(used)
    optimizer.step()
    assert torch.equal(unused, before)
    assert unused not in optimizer.state


@pytest.mark.parametrize("make", [lambda w: RMSprop(w, LR, DECAY, EPSILON), lambda w: Adam(w, LR, EPSILON)])
def test_a_gradient_may_lie_in_memory_as_it_likes(make: Callable[[list[Tensor]], torch.optim.Optimizer]) -> None:
    """A convolution's with its channels last, say."""
    start, gradient = torch.randn(2, 6, 4, 3, 3, generator=torch.Generator().manual_seed(0)).unbind()
    stepped = []
    for layout in (torch.contiguous_format, torch.channels_last):
        weight = torch.nn.Parameter(start.clone())
        weight.grad = gradient.clone(memory_format=layout)
        make([weight]).step()
        stepped.append(weight.detach())
    assert torch.equal(*stepped)


def test_gradients_that_are_not_clipped_stay_as_they_are() -> None:
    for optimizer_of in (lambda w: RMSprop(w, LR, DECAY, EPSILON), lambda w: torch.optim.SGD(w, LR)):
        weights = weights_of()
        (gradient,) = gradients(1, 1e-4)
        give(weights, gradient)
        clipped_step(optimizer_of(weights), [w.grad for w in weights if w.grad is not None], 0.5)
        assert all(torch.equal(w.grad, g) for w, g in zip(weights, gradient, strict=True) if w.grad is not None)


def test_a_gradient_that_is_not_finite_shows() -> None:
    weights = weights_of()
    (gradient,) = gradients(1)
    gradient[1][0] = float("nan")
    give(weights, gradient)
    norm = clipped_step(RMSprop(weights, LR, DECAY, EPSILON), [w.grad for w in weights if w.grad is not None], 0.5)
    assert norm.isnan()
    assert all(w.isnan().all() for w in weights)


def continued(
    optimizer: torch.optim.Optimizer, weights: list[nn.Parameter], state: dict[str, Any]
) -> list[nn.Parameter]:
    optimizer.load_state_dict(state)
    for gradient in gradients(12)[6:]:
        give(weights, gradient)
        optimizer.step()
    return weights


@pytest.mark.parametrize("inside", [True, False])
def test_a_checkpoint_continues_as_if_nothing_had_been(inside: bool) -> None:
    straight = weights_of()
    optimizer = RMSprop(straight, LR, DECAY, EPSILON, inside_root=inside)
    steps = gradients(12)
    for gradient in steps[:6]:
        give(straight, gradient)
        optimizer.step()
    state, halfway = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(straight)
    for gradient in steps[6:]:
        give(straight, gradient)
        optimizer.step()
    resumed = continued(RMSprop(halfway, LR, DECAY, EPSILON, inside_root=inside), halfway, state)
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))


def old_inside_root(weights: list[nn.Parameter], steps: list[list[Tensor]]) -> dict[str, Any]:
    """What versions up to 0.1 saved, after the steps by their formula."""
    means = [torch.ones_like(w) for w in weights]
    with torch.no_grad():
        for gradient in steps:
            for w, v, g in zip(weights, means, gradient, strict=True):
                v.mul_(DECAY).addcmul_(g, g, value=1 - DECAY)
                w.addcdiv_(g, (v + EPSILON).sqrt_(), value=-LR)
    group = {"lr": LR, "decay": DECAY, "epsilon": EPSILON, "params": list(range(len(weights)))}
    return {"state": {i: {"square_mean": v} for i, v in enumerate(means)}, "param_groups": [group]}


def old_outside_root(weights: list[nn.Parameter], steps: list[list[Tensor]]) -> dict[str, Any]:
    optimizer = torch.optim.RMSprop(weights, LR, alpha=DECAY, eps=EPSILON)
    for gradient in steps:
        give(weights, gradient)
        optimizer.step()
    return copy.deepcopy(optimizer.state_dict())


@pytest.mark.parametrize("old", [old_inside_root, old_outside_root])
def test_checkpoints_of_earlier_versions_continue(old: Callable[..., dict[str, Any]]) -> None:
    steps, inside = gradients(12), old is old_inside_root
    straight, halfway = weights_of(), weights_of()
    old(straight, steps)
    state = old(halfway, steps[:6])
    assert_close(continued(RMSprop(halfway, LR, DECAY, EPSILON, inside_root=inside), halfway, state), straight)


def test_adam_in_one_pass_equals_torchs_and_goes_on_from_its_checkpoints() -> None:
    straight, halfway = weights_of(), weights_of()
    plain = [torch.optim.Adam(w, LR, eps=EPSILON) for w in (straight, halfway)]
    for weights, optimizer, steps in zip((straight, halfway), plain, (12, 6), strict=True):
        for gradient in gradients(12)[:steps]:
            give(weights, gradient)
            optimizer.step()
    ours = Adam(halfway, LR, EPSILON)
    assert_close(continued(ours, halfway, copy.deepcopy(plain[1].state_dict())), straight)
    assert ours.param_groups[0]["fused"]


def test_agents_take_these() -> None:
    a2c = A2C(A2CConfig(network="mlp"), (3,), 2, total_updates=10)
    ppo = PPO(PPOConfig(network="mlp"), (3,), 2, total_updates=10)
    assert isinstance(a2c._optimizer, RMSprop)
    assert isinstance(ppo._optimizer, Adam)
