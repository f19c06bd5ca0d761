"""What models ask of their images and options."""

from __future__ import annotations

from collections.abc import Sequence

from rl_scaling.config import ConfigError

ImageShape = tuple[int, int, int]


def require_size(model: str, image_shape: ImageShape, smallest: int) -> None:
    """Refuse images with fewer pixels on a side than the model halves away.

    Raises:
        ConfigError: they are too small.
    """
    _, height, width = image_shape
    if min(height, width) < smallest:
        raise ConfigError(
            f"model {model!r} needs images of {smallest} x {smallest} pixels or more, not {height} x {width}; use mlp"
        )


def require_positive(**sizes: Sequence[int]) -> None:
    """Refuse layers without units.

    Raises:
        ConfigError: a size below 1.
    """
    for name, values in sizes.items():
        if not all(value >= 1 for value in values):
            raise ConfigError(f"{name} is {list(values)}: give sizes of 1 or more")
