import pytest
import torch
from torch import nn

from rl_scaling.domains.supervised.config import OptimizerConfig
from rl_scaling.domains.supervised.optimizers import make_average, make_optimizer


def _after(config: OptimizerConfig, gradients: list[float]) -> float:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = make_optimizer(config, model)
    for gradient in gradients:
        model.weight.grad = torch.tensor([[gradient]])
        optimizer.step()
    return model.weight.item()


@pytest.mark.parametrize(
    ("name", "momentum", "expected"),
    [("sgd", 0.0, -0.3), ("momentum", 0.9, -0.39), ("nesterov", 0.9, -0.651), ("adam", 0.9, None)],
)
def test_first_two_steps_by_hand(name: str, momentum: float, expected: float | None) -> None:
    config = OptimizerConfig(name=name, learning_rate=0.1, momentum=momentum)
    if expected is None:
        first, second = 0.1 * 1 / 0.1, 0.1 * 2 + 0.9 * 0.1
        root = ((0.99 * 0.01 + 0.01 * 4) / (1 - 0.99**2)) ** 0.5
        expected = -0.1 * first - 0.1 * second / (1 - 0.9**2) / root
    assert _after(config, [1.0, 2.0]) == pytest.approx(expected, rel=1e-5)


def test_the_average_follows_the_weights() -> None:
    model = nn.Linear(1, 1, bias=False)
    config = OptimizerConfig(learning_rate=0.1, ema=0.75)
    average = make_average(config, model)
    assert average is not None
    for value in (0.0, 4.0):
        nn.init.constant_(model.weight, value)
        average.update_parameters(model)
    assert [weight.item() for weight in average.module.parameters()] == pytest.approx([1.0])
    assert make_average(OptimizerConfig(learning_rate=0.1), model) is None
