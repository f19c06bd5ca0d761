from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from rl_scaling.domains.supervised.models import make_model, project_channels
from rl_scaling.domains.supervised.models.channel_norm import NormedConv2d

INPUTS = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(8)


def norms(model: torch.nn.Module) -> torch.Tensor:
    layers = [module for module in model.modules() if isinstance(module, NormedConv2d)]
    return torch.cat([layer.weight.flatten(1).norm(dim=1) for layer in layers])


@pytest.mark.parametrize(("name", "channels"), [("resnet32", 1136), ("vgg11", 2752)])
def test_channels_have_norm_1_at_the_start_and_after_every_update(name: str, channels: int) -> None:
    model = make_model(name, (3, 32, 32), 10, seed=0)
    assert norms(model).shape == (channels,)
    torch.testing.assert_close(norms(model), torch.ones(channels))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    cross_entropy(model(INPUTS), TARGETS).backward()
    optimizer.step()
    assert float((norms(model) - 1).abs().max().detach()) > 1e-3
    project_channels(model)
    torch.testing.assert_close(norms(model), torch.ones(channels))


def test_projection_does_not_change_what_the_network_says() -> None:
    """Batch normalisation takes the length of the weights out, up to its epsilon."""
    model = make_model("resnet32", (3, 32, 32), 10, seed=0)
    before = model(INPUTS).detach()
    for module in model.modules():
        if isinstance(module, NormedConv2d):
            module.weight.data.mul_(7)
    project_channels(model)
    torch.testing.assert_close(model(INPUTS).detach(), before, rtol=1e-4, atol=1e-5)


def test_models_without_such_layers_are_left_alone() -> None:
    model = make_model("mlp", (1, 8, 8), 10, seed=0)
    before = [parameter.clone() for parameter in model.parameters()]
    project_channels(model)
    assert all(torch.equal(left, right) for left, right in zip(before, model.parameters(), strict=True))
