"""What to run: frozen, checked descriptions, from which every size and the run's identity follow."""

from rl_scaling.config.base import (
    Config,
    ConfigError,
    RunDescription,
    StorableConfig,
    added_later,
    as_declared,
    differing,
    neighbours,
    one_of_kinds,
    parse,
    require,
    require_fraction,
    require_one_of,
    require_positive,
    run_id_of,
    to_dict,
    variant_of,
)
from rl_scaling.config.scaling import AdaptiveConfig, LearningRates, rate_ratio

__all__ = [
    "SCHEMA_VERSION",
    "AdaptiveConfig",
    "Config",
    "ConfigError",
    "LearningRates",
    "RunDescription",
    "StorableConfig",
    "added_later",
    "as_declared",
    "differing",
    "neighbours",
    "one_of_kinds",
    "parse",
    "rate_ratio",
    "require",
    "require_fraction",
    "require_one_of",
    "require_positive",
    "run_id_of",
    "to_dict",
    "variant_of",
]

# 2: identities say how a run counts; runs of losses. 3: identities in columns; stopped runs keep their checkpoint.
SCHEMA_VERSION = 3

# Where names went that were imported from here; loaded when they are asked for, with a warning.
_MOVED = {
    **dict.fromkeys(("AtariConfig", "GymnasiumConfig", "EnvironmentConfig"), "rl_scaling.envs.config"),
    **dict.fromkeys(("A2CConfig", "PPOConfig"), "rl_scaling.agents.config"),
    **dict.fromkeys(("RunConfig", "NoiseScaleConfig", "AdaptiveBatchConfig"), "rl_scaling.domains.rl.config"),
}


def __getattr__(name: str) -> object:
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib
    import warnings

    warnings.warn(f"{name} is imported from {_MOVED[name]} now", DeprecationWarning, stacklevel=2)
    return getattr(importlib.import_module(_MOVED[name]), name)
