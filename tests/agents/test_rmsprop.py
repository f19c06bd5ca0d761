import copy

import numpy as np
import torch

from rl_scaling.agents.rmsprop import RMSpropInsideRoot


def test_equals_stable_baselines3_step_by_step() -> None:
    from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike

    ours, theirs = (torch.nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4)) for _ in range(2))
    mine = RMSpropInsideRoot([ours], lr=7e-4, decay=0.99, epsilon=1e-5)
    other = RMSpropTFLike([theirs], lr=7e-4, alpha=0.99, eps=1e-5)
    random = np.random.default_rng(0)
    for _ in range(20):
        gradient = torch.from_numpy(random.normal(size=(3, 4)).astype(np.float32))
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        other.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)


def test_first_step_by_hand() -> None:
    p = torch.nn.Parameter(torch.tensor([1.0]))
    p.grad = torch.tensor([2.0])
    RMSpropInsideRoot([p], lr=0.1, decay=0.9, epsilon=0.5).step()
    # v = 0.9 * 1 + 0.1 * 4 = 1.3
    torch.testing.assert_close(p.detach(), torch.tensor([1.0 - 0.1 * 2.0 / (1.3 + 0.5) ** 0.5]))


def test_state_goes_through_a_checkpoint() -> None:
    p, q = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    first = RMSpropInsideRoot([p], lr=0.1, decay=0.9, epsilon=1e-5)
    p.grad = torch.tensor([1.0, -2.0, 3.0])
    first.step()
    second = RMSpropInsideRoot([q], lr=0.1, decay=0.9, epsilon=1e-5)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    with torch.no_grad():
        q.copy_(p)
    q.grad = p.grad.clone()
    first.step()
    second.step()
    torch.testing.assert_close(p, q, rtol=0, atol=0)
