"""The device that a name stands for, in every domain that learns with torch."""

from __future__ import annotations

import torch

from rl_scaling.config import ConfigError


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" takes a GPU where there is one.

    Raises:
        ConfigError: the device asked for is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"there is no device {name!r}: give cpu, cuda or auto") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"no GPU is to be seen for device {name!r}: use --device cpu, or install torch for CUDA")
    return device
