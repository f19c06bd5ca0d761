"""What older versions wrote, in today's form: the one place where an old label is taken apart."""

from __future__ import annotations

import math
import re
from typing import Any

from rl_scaling.config import parse, variant_of
from rl_scaling.records import Identity

# What schema 1 left out: all its runs count frames, have goals of the score and tune the rate alone.
_SINCE_SCHEMA_2 = {"setting": "", "unit": "frames", "quantity": "score"}


def identity_of_document(document: dict[str, Any]) -> Identity:
    """The identity in a run's `config.json` or sealed file, of any schema up to today's.

    Raises:
        ConfigError: it is none.
    """
    plain = {name: value for name, value in document["identity"].items() if name != "task"}
    if document["schema"] < 3:
        plain = _columns_of(document["identity"], document["config"]) | _SINCE_SCHEMA_2 | plain
    identity = parse(Identity, plain, "run's identity")
    _ = identity.measure  # refuses what this version cannot count
    return identity


def _columns_of(old: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """The columns that schema 3 has beyond schema 2, from the config; the label alone tells the variant."""
    domain, problem, algorithm = _names_in(config, old["task"])
    words = old["task"].removeprefix(problem).removeprefix(f" {algorithm}").split()
    columns: dict[str, Any] = {"domain": domain, "problem": problem, "algorithm": algorithm}
    if (config.get("schedule") or {}).get("name") == "halving":
        amount, unit = (config["budget"] or f"{config['updates']} updates").split()
        columns |= {"budget_amount": float(amount), "budget_unit": unit}
        words = words[: words.index(f"budget={amount}")]  # it came last
    if adaptive := config.get("adaptive"):
        columns["exchange_rate"] = adaptive["exchange_rate"]
    if algorithm.startswith("adam"):  # its customary coefficient was taken for a variant
        words = [word for word in words if word != "second_moment=0.999"]
    return columns | {"variant": variant_of(words)}


def label_of_plan(label: str) -> str:
    """A task's label in the `sweep.json` of an older version, as it is today."""
    return re.sub(r" (adam\S*) second_moment=0\.999", r" \1", label)


def _names_in(config: dict[str, Any], task: str) -> tuple[str, str, str]:
    """Domain, problem and algorithm."""
    if "environment" in config and "agent" in config:
        environment = config["environment"]
        return "rl", environment.get("game") or environment["env_id"], config["agent"]["kind"]
    match config.get("kind"):
        case "supervised":
            optimizer = config["optimizer"]
            plain = optimizer["name"] == "adam" and not optimizer["momentum"]
            label = optimizer["name"] + "-without-momentum" * plain + "+ema" * bool(optimizer["ema"])
            return "supervised", f"{config['dataset']}-{config['model']}", label
        case "nqm":
            return "nqm", "NQM", config["optimizer"]
        case kind:
            return str(kind or ""), task, ""


def identity_to_plain(identity: Identity) -> dict[str, Any]:
    """An identity as strict JSON takes it, its label beside it for people; what is NaN is left out."""
    plain = {name: value for name, value in vars(identity).items() if not _is_nan(value)}
    return plain | {"task": identity.task}


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
