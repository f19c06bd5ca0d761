"""A bowl whose Hessian and gradient covariance are known, and B_noise of any small model the slow way."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

LossFunction = Callable[[Tensor, Tensor], Tensor]
Data = tuple[Tensor, Tensor]


class Bowl(nn.Module):
    """Examples c with the loss (theta - c)^T diag(h) (theta - c) / 2: the toy model of M18's appendix C."""

    def __init__(self, dimensions: int = 12) -> None:
        super().__init__()
        self.curvatures = torch.linspace(1, 5, dimensions, dtype=torch.float64)
        self.place = nn.Parameter(torch.full((dimensions,), 0.3, dtype=torch.float64))

    def forward(self, centres: Tensor) -> Tensor:
        return self.place - centres

    def loss(self, offsets: Tensor, _: Tensor) -> Tensor:
        return (offsets**2 * self.curvatures).sum(-1).mean() / 2

    def data(self, examples: int = 1_500) -> Data:
        generator = torch.Generator().manual_seed(4)
        spread = torch.linspace(2, 0.5, len(self.curvatures), dtype=torch.float64)
        centres = torch.randn(examples, len(self.curvatures), generator=generator, dtype=torch.float64) * spread
        return centres, torch.zeros(examples)

    def closed_form(self, data: Data) -> tuple[float, float, float]:
        """B_noise, eps_max and DeltaL_max (eqs. 2.8, 2.6, 2.7): G = H (theta - mean c), Sigma = H Cov(c) H."""
        h, gradient = self.curvatures, self.curvatures * (self.place.detach() - data[0].mean(0))
        grad_curvature, square = float((gradient**2 * h).sum()), float((gradient**2).sum())
        noise = float((h**3 * data[0].var(0, correction=0)).sum())
        return noise / grad_curvature, square / grad_curvature, square**2 / (2 * grad_curvature)


def exact_noise_scale(model: nn.Module, loss_fn: LossFunction, data: Data) -> tuple[float, float]:
    """B_noise and eps_max with the whole Hessian matrix and every example's gradient, from torch alone."""
    names = [name for name, _ in model.named_parameters()]
    weights = [weight.detach() for weight in model.parameters()]

    def loss(vector: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        parts = [part.view_as(w) for part, w in zip(vector.split([w.numel() for w in weights]), weights, strict=True)]
        outputs = torch.func.functional_call(model, dict(zip(names, parts, strict=True)), (inputs,))
        return loss_fn(outputs, targets)

    place = torch.cat([weight.flatten() for weight in weights])
    hessian = torch.autograd.functional.hessian(lambda vector: loss(vector, *data), place)
    assert isinstance(hessian, Tensor)
    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(place, data[0][:, None], data[1][:, None])
    gradient = each.mean(0)
    scatter = each - gradient
    along = float(gradient @ hessian @ gradient)
    noise = float(((scatter @ hessian) * scatter).sum(1).mean())
    return noise / along, float(gradient @ gradient) / along
