"""The domains by name; each is loaded when it is needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from rl_scaling.config import ConfigError

# A domain of one's own is one line here: where its `Domain` is, and its `TaskPlan`.
DOMAINS = {
    "rl": ("rl_scaling.domains.rl.domain:ReinforcementLearning", "rl_scaling.domains.rl.task:RLTask"),
    "supervised": (
        "rl_scaling.domains.supervised.domain:Supervised",
        "rl_scaling.domains.supervised.problems:SupervisedTask",
    ),
    "nqm": ("rl_scaling.domains.nqm.domain:NoisyQuadraticModel", "rl_scaling.domains.nqm.domain:NQMTask"),
}


def find_domain(name: str) -> Any:
    """The `Domain` of a name.

    Raises:
        ConfigError: there is none.
    """
    return _load(name, 0)()


def find_task_plan(name: str) -> Any:
    """The class of a domain's `TaskPlan`.

    Raises:
        ConfigError: there is no such domain.
    """
    return _load(name, 1)


def _load(name: str, which: int) -> Any:
    if name not in DOMAINS:
        raise ConfigError(f"no domain {name!r}: {', '.join(DOMAINS)}, or a newer rl-scaling is needed")
    module, found = DOMAINS[name][which].split(":")
    return getattr(import_module(module), found)
