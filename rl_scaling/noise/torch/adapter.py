"""What the adapters for training loops share: when they measure, where the norms go, what they hand out."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rl_scaling.noise.estimate import NoiseScaleEstimate, example_trace, moments_from_groups
from rl_scaling.noise.loss_terms import PartMeters
from rl_scaling.noise.torch.layer_gradients import sq_norm, sq_norms

TOTAL = "total"
Parts = Literal["layers"] | Mapping[str, nn.Module | Iterable[nn.Parameter]] | Optimizer | None
_PRECONDITIONERS = (torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RMSprop)


class Adapter:
    """Hands squared norms of groups' gradients, parameter by parameter, to a meter for each part of the model.

    Args:
        model: its trained parameters are measured.
        parts: what is measured apart besides the whole, "total": see `members`.
        every: one in this many steps is measured.
        window: time constant, in measurements, of a moving average; None: all measurements count alike.
        optimizer: its learning rate (of the first parameter group) is kept beside each measurement.
        preconditioner: an Adam, AdamW, NAdam or RMSprop; norms are then of D^-1/2 g (`inverse_diagonal`).
        scaler: of automatic mixed precision, by whose scale the gradients are multiplied.

    Attributes:
        meter: the measurements, one meter for each part.

    Raises:
        ValueError: a number out of range, a model without trained parameters or with sharded ones, parts that are
            not the model's, or a preconditioner of another kind.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        parts: Parts = None,
        every: int = 20,
        window: float | None = None,
        optimizer: Optimizer | None = None,
        preconditioner: Optimizer | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ):
        if every < 1:
            raise ValueError(f"every is {every}: give a number of steps, 1 or more")
        _refuse_sharded(model)
        self.parameters = {plain_name(name): p for name, p in model.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise ValueError("the model has no parameters that are trained: there is no gradient to measure")
        if preconditioner is not None and not isinstance(preconditioner, _PRECONDITIONERS):
            raise ValueError(
                f"preconditioner is a {type(preconditioner).__name__}: give torch's Adam, AdamW, NAdam or RMSprop, or"
                " None"
            )
        self._members = {TOTAL: list(range(len(self.parameters))), **members(model, self.parameters, parts)}
        self._model, self._every, self._steps = model, every, 0
        self._optimizer, self._preconditioner, self._scaler = optimizer, preconditioner, scaler
        self.meter = PartMeters(1, window=window)

    def estimate(self, confidence: float = 0.95) -> NoiseScaleEstimate:
        """The noise scale of the whole gradient as measured so far, in examples.

        Raises:
            ValueError: no measurements yet.
        """
        if TOTAL not in self.meter:
            raise ValueError("no measurements yet: train at least one step with the adapter's calls around it")
        return self.meter[TOTAL].estimate(confidence)

    def estimates(self, confidence: float = 0.95) -> dict[str, NoiseScaleEstimate]:
        """The noise scale of each part, "total" first.

        Raises:
            ValueError: no measurements yet.
        """
        return self.meter.estimate(confidence)

    def state_dict(self) -> dict[str, Any]:
        """Settings and measurements as numbers, strings and lists; take it between steps."""
        return {"configuration": self._configuration(), "steps": self._steps, "meter": self.meter.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resumes exactly where the adapter that gave the state was.

        Raises:
            ValueError: not a state of an adapter, or one that measured something else; this one is left as it was.
        """
        try:
            configuration, steps, measurements = state["configuration"], int(state["steps"]), state["meter"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not the state of a {type(self).__name__}: {error!r}") from error
        for name, value in self._configuration().items():
            if configuration.get(name) != value:
                raise ValueError(
                    f"the state is of another configuration: its {name} is {configuration.get(name)!r}, here it is"
                    f" {value!r}; measurements of both must not be mixed"
                )
        self.meter.load_state_dict(measurements)
        self._steps = steps

    def _configuration(self) -> dict[str, Any]:
        preconditioner = self._preconditioner and type(self._preconditioner).__name__
        return {
            "adapter": type(self).__name__,
            "model": fingerprint(self.parameters),
            "parts": list(self._members),
            "preconditioner": preconditioner,
        }

    def _require_same_parameters(self) -> None:
        """A part of the gradient must not silently drop out of what is measured.

        Raises:
            ValueError: parameters were frozen or unfrozen since the adapter was made.
        """
        trained = {plain_name(name) for name, p in self._model.named_parameters() if p.requires_grad}
        changed = sorted(trained ^ self.parameters.keys())
        if changed:
            now = "trained" if changed[0] in trained else "frozen"
            raise ValueError(f"{changed[0]} is {now} since this was made: make a new {type(self).__name__} after that")

    @property
    def _measuring(self) -> bool:
        """Whether the step that is under way is one to measure."""
        return self._steps % self._every == 0

    def _scale(self) -> float:
        """By what the gradients of this step are multiplied; to be asked for before the scaler is updated."""
        return 1.0 if self._scaler is None else float(self._scaler.get_scale())

    def _record(
        self,
        group_sq_norms: Tensor,
        batch_sq_norms: Tensor,
        sizes: Sequence[float],
        *,
        example_sq_norms: Tensor | None = None,
    ) -> None:
        """Hand one batch to the meter.

        One group is an error at the first step; later it is skipped and counted: an epoch's last batch may be short.

        Args:
            group_sq_norms: (parameters, k) squared norms of the groups' mean gradients.
            batch_sq_norms: (parameters,) those of the overall mean gradient.
            sizes: (k,) examples in each group.
            example_sq_norms: (parameters, m) those of the gradients of m examples, for the design effect.

        Raises:
            ValueError: one group at the first step.
        """
        if len(sizes) < 2:
            if self._steps == 0:
                raise ValueError("one group of examples: the noise scale compares groups, give each step two or more")
            group_sq_norms, sizes = group_sq_norms.expand(-1, 2), [*sizes, 0]
        groups, batch = self._by_part(group_sq_norms), self._by_part(batch_sq_norms)
        traces = {}
        if example_sq_norms is not None and 0 not in sizes:
            for name, norms in self._by_part(example_sq_norms).items():
                grad_sq_norm, _ = moments_from_groups(groups[name], float(batch[name]), sizes)
                traces[name] = example_trace(norms, grad_sq_norm)
        rate = None if self._optimizer is None else float(self._optimizer.param_groups[0]["lr"])
        self.meter.update(groups, batch, group_sizes=sizes, example_traces=traces, learning_rate=rate)

    def _by_parameter(self, norm: Callable[[nn.Parameter], Tensor | None]) -> Tensor:
        """(parameters, ...) norms, 0 where there is no gradient."""
        norms = [norm(parameter) for parameter in self.parameters.values()]
        none = torch.zeros_like(next(value for value in norms if value is not None))
        return torch.stack([none if value is None else value for value in norms])

    def _by_part(self, sq_norms: Tensor) -> dict[str, np.ndarray]:
        """Norms of parameters, (parameters, ...), added up over those of each part."""
        norms = sq_norms.cpu().numpy()
        return {name: norms[indices].sum(0) for name, indices in self._members.items()}


def fingerprint(parameters: Mapping[str, Tensor]) -> str:
    """Tells models apart by the names and shapes of their parameters.

    >>> fingerprint({"weight": torch.zeros(2, 3)})
    '1 parameters ...'
    """
    text = repr([(name, tuple(parameter.shape)) for name, parameter in parameters.items()])
    return f"{len(parameters)} parameters {hashlib.sha256(text.encode()).hexdigest()[:12]}"


class SquaredNorms:
    """Squared norms of gradients, plain or preconditioned, during one step.

    Args:
        preconditioner: its state at the first gradient is used for the whole step; None: plain norms.
    """

    def __init__(self, preconditioner: Optimizer | None):
        self._preconditioner = preconditioner

    def __call__(self, parameter: Tensor, gradient: Tensor) -> Tensor:
        """g^T D^-1 g, a float64 scalar; NaN for a parameter without state in the preconditioner, unless g is 0."""
        return sq_norm(gradient) if self._preconditioner is None else self.each(parameter, gradient[None])[0]

    def each(self, parameter: Tensor, gradients: Tensor) -> Tensor:
        """The same for (m, *shape) gradients: (m,)."""
        inverse = self._inverse.get(parameter)
        if inverse is None:
            plain = sq_norms(gradients)
            return plain if self._preconditioner is None else torch.where(plain == 0, 0.0, torch.nan)
        return sq_norms(gradients.to(inverse.dtype) * inverse.sqrt())

    @cached_property
    def _inverse(self) -> dict[Tensor, Tensor]:
        return {} if self._preconditioner is None else inverse_diagonal(self._preconditioner)


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


@torch.no_grad()
def inverse_diagonal(optimizer: Optimizer) -> dict[Tensor, Tensor]:
    """1 / (sqrt(v) + eps) of each parameter that has been stepped, with Adam's bias correction of v.

    With D = diag(sqrt(v) + eps) a step is -lr D^-1 m. In the coordinates D^1/2 theta it is plain gradient descent along
    D^-1/2 g, and the simple noise scale of those gradients is

        B_simple(D) = tr(D^-1 Sigma) / (G^T D^-1 G),

    eq. 2.9 of McCandlish et al. 2018 with every direction weighed by the rate at which the optimiser moves along it. v
    is that of the last step: it does not depend on the batch that is measured, so the estimates stay unbiased.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    >>> optimizer = torch.optim.Adam([weight], eps=0.5)
    >>> weight.grad = torch.tensor([3.0, 0.0])
    >>> optimizer.step()
    >>> inverse_diagonal(optimizer)[weight]
    tensor([0.2857, 2.0000])
    """
    return {
        parameter: 1 / (_second_moment(optimizer.state[parameter], group).sqrt() + group["eps"])
        for group in optimizer.param_groups
        for parameter in group["params"]
        if optimizer.state.get(parameter)
    }


def _second_moment(state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    if "square_avg" in state:  # RMSprop
        centre = state["grad_avg"] ** 2 if group["centered"] else 0.0
        return (state["square_avg"] - centre).clamp(min=0)
    moment = state["max_exp_avg_sq"] if group.get("amsgrad") else state["exp_avg_sq"]
    return moment / (1 - group["betas"][1] ** float(state["step"]))


def as_list(keys: Sequence[Any]) -> list[Any]:
    """Keys that are compared by their values; elements of arrays and tensors are read out."""
    read: Any = getattr(keys, "tolist", None)
    return list(keys) if read is None else read()


def _refuse_sharded(model: nn.Module) -> None:
    # A model cannot be sharded by what was never imported; importing it here would take longer than a measurement.
    fsdp = sys.modules.get("torch.distributed.fsdp")
    tensor = sys.modules.get("torch.distributed.tensor")
    wrapped = fsdp is not None and any(
        isinstance(module, fsdp.FullyShardedDataParallel | fsdp.FSDPModule) for module in model.modules()
    )
    if wrapped or (tensor is not None and any(isinstance(p, tensor.DTensor) for p in model.parameters())):
        raise ValueError(
            "the model is sharded (FSDP, fully_shard or DTensor): no rank ever holds the gradient of its own"
            " examples, so groups cannot be told apart; measure the same model under DistributedDataParallel"
        )
