"""Parts of a model whose noise scales are wanted apart: layers, parameter groups, or any others by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from torch import nn
from torch.optim import Optimizer

Parts = Literal["layers"] | Mapping[str, nn.Module | Iterable[nn.Parameter]] | Optimizer | None


def members(model: nn.Module, parameters: Mapping[str, nn.Parameter], parts: Parts) -> dict[str, list[int]]:
    """Which of the parameters belong to each part, by their numbers.

    Args:
        model: whose layers may be asked for.
        parameters: those that are measured, by name.
        parts: None for none; "layers" for each module that has parameters of its own; an optimiser for its
            parameter groups ("group 0", or the group's "name"); or modules or parameters by name, which may overlap.

    Raises:
        ValueError: a part without measured parameters, or one that is called "total".

    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> members(model, dict(model.named_parameters()), "layers")
    {'0': [0, 1], '2': [2, 3]}
    >>> members(model, dict(model.named_parameters()), {"head": model[2], "biases": [model[0].bias, model[2].bias]})
    {'head': [2, 3], 'biases': [1, 3]}
    """
    numbers = {id(parameter): i for i, parameter in enumerate(parameters.values())}
    found = {}
    for name, chosen in _chosen(model, parts).items():
        found[name] = sorted({numbers[id(parameter)] for parameter in chosen if id(parameter) in numbers})
        if name == "total":
            raise ValueError('a part cannot be called "total": that is the whole gradient')
        if not found[name] and parts != "layers":
            raise ValueError(f"part {name!r} has no trained parameter of the model")
    return {name: indices for name, indices in found.items() if indices}


def plain_name(name: str) -> str:
    """A module's or parameter's name without what `torch.compile` puts into it."""
    return ".".join(word for word in name.split(".") if word != "_orig_mod")


def _chosen(model: nn.Module, parts: Parts) -> dict[str, list[nn.Parameter]]:
    if parts is None:
        return {}
    if isinstance(parts, Optimizer):
        return {group.get("name", f"group {i}"): group["params"] for i, group in enumerate(parts.param_groups)}
    if isinstance(parts, Mapping):
        return {name: list(part.parameters() if isinstance(part, nn.Module) else part) for name, part in parts.items()}
    if parts != "layers":
        raise ValueError(f'parts is {parts!r}: give "layers", an optimizer, or modules or parameters by name')
    return {
        plain_name(name) or "model": list(module.parameters(recurse=False)) for name, module in model.named_modules()
    }
