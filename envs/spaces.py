"""What an environment's observations and actions are to a learner: arrays of one plain form each, whatever the spaces.

Images become (channels, height, width), and what is made of parts becomes one vector; actions are a number from 0 on,
several of them, or a vector of floating-point numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple
from gymnasium.spaces.utils import flatdim, flatten, flatten_space
from gymnasium.vector.utils import iterate

from rl_scaling.config import ConfigError

# A vector of more numbers than this is a mistake: a network's first layer alone would take gigabytes.
_MOST_NUMBERS = 10_000_000


class Observations:
    """Turns the observations of a vector environment into arrays that a network takes.

    Arrays (`Box`) keep their numbers. Those with three dimensions are images: their channels come first afterwards,
    wherever they were (the two sides of a square belong together, otherwise the shorter of the outer dimensions is the
    channels). Those with four are stacks of images, whose channels are put together. uint8 with two are images of
    one channel. `Discrete` becomes one of n (1 in one place), as do the parts of `MultiDiscrete`; `Dict` and `Tuple`
    become one vector, as `gymnasium.spaces.flatten` has it, in which pixels (uint8) are from 0 to 1.

    Args:
        single, batch: the space of one environment's observation, and of all.

    Attributes:
        shape, dtype: of the result for one environment: uint8 where all numbers are, otherwise float32.

    Raises:
        ConfigError: a space that no array can be made of.
    """

    def __init__(self, single: Space[Any], batch: Space[Any]):
        _require_numbers(single, single)
        self._single, self._batch = single, batch
        self._flatten = not isinstance(single, Box) or not single.shape
        if self._flatten:
            flat = flatten_space(single)
            assert isinstance(flat, Box)
            self._divisors = _divisors(single)
            self.shape, dtype = flat.shape, flat.dtype
        else:
            assert isinstance(single, Box)
            dtype = single.dtype
            self.shape = self._channels_first(np.empty((1, *single.shape), bool)).shape[1:]
        self.dtype = np.dtype(np.uint8 if dtype == np.uint8 else np.float32)

    def __call__(self, observations: Any) -> np.ndarray:
        """(n, *shape) of the observations of n environments; a copy."""
        if not self._flatten:
            return np.array(self._channels_first(np.asarray(observations)), self.dtype, order="C")
        flat = np.stack([np.asarray(flatten(self._single, one)) for one in iterate(self._batch, observations)])
        return flat if self.dtype == np.uint8 else (flat / self._divisors).astype(self.dtype)

    def _channels_first(self, images: np.ndarray) -> np.ndarray:
        """(n, ...) arrays; those that are images with their channels first."""
        if images.ndim == 3 and self._single.dtype == np.uint8:
            return images[:, None]
        if images.ndim not in (4, 5):
            return images
        if _channels_are_last(images.shape[-3:]):
            images = np.moveaxis(images, -1, -3)
        return images.reshape(len(images), -1, *images.shape[-2:])


def _channels_are_last(shape: tuple[int, ...]) -> bool:
    first, middle, last = shape
    if (first == middle) != (middle == last):
        return first == middle
    return last <= first  # in a cube, too, they are where Gymnasium's images have them


def _require_numbers(space: Any, whole: Any) -> None:
    """Refuse what is no fixed number of numbers, by name."""
    if isinstance(space, Dict | Tuple):
        parts = space.spaces.values() if isinstance(space, Dict) else space.spaces
        for part in parts:
            _require_numbers(part, whole)
    elif not isinstance(space, Box | Discrete | MultiDiscrete | MultiBinary) or space.dtype.kind not in "biuf":
        held = "" if space is whole else f" with {space}"
        raise ConfigError(
            f"observations are {_named(whole)}{held}, which is no fixed number of numbers: leave that out or encode it,"
            " for instance with gymnasium.wrappers.FilterObservation or TransformObservation"
        )
    if space is whole and not 0 < flatdim(space) <= _MOST_NUMBERS:
        raise ConfigError(
            f"observations are {_named(whole)}, {flatdim(space):,} numbers: 1 to {_MOST_NUMBERS:,} can be learned from"
        )


def _divisors(space: Space[Any]) -> np.ndarray:
    """What brings each number of a flattened observation to the range that a network is given: pixels from 0 to 1."""
    if isinstance(space, Dict | Tuple):
        parts = space.spaces.values() if isinstance(space, Dict) else space.spaces
        return np.concatenate([np.zeros(0), *map(_divisors, parts)])
    pixels = isinstance(space, Box) and space.dtype == np.uint8
    return np.full(flatdim(space), 255.0 if pixels else 1.0)


class Actions:
    """What a learner chooses from, and what an environment is given for it.

    Args:
        native: the environment's own space of one action.

    Attributes:
        space: `Discrete`, or `MultiDiscrete`, `MultiBinary` or `Box` in one dimension; numbers begin at 0.

    Raises:
        ConfigError: a space of another kind.
    """

    def __init__(self, native: Space[Any]):
        self._native = native
        self.space: Space[Any]
        if isinstance(native, Discrete):
            self.space = Discrete(native.n)
        elif isinstance(native, MultiDiscrete):
            self.space = MultiDiscrete(native.nvec.ravel())
        elif isinstance(native, MultiBinary):
            self.space = MultiBinary(int(np.prod(native.shape)))
        elif isinstance(native, Box) and native.dtype.kind == "f" and np.prod(native.shape) > 0:
            self.space = Box(native.low.ravel(), native.high.ravel(), dtype=native.dtype.type)
        else:
            raise ConfigError(
                f"actions are {_named(native)}: Discrete, MultiDiscrete, MultiBinary and a Box of floating-point"
                " numbers can be learned"
            )

    def __call__(self, actions: np.ndarray) -> np.ndarray:
        """(n, ...) what n environments are given for a learner's (n,) or (n, d) actions.

        Numbers are clipped to the box. Those of a run that has diverged to NaN become the nearest to 0, so that
        it ends as diverged and not in the environment.
        """
        native = self._native
        if isinstance(native, Discrete):
            return actions + native.start
        actions = actions.reshape(len(actions), *(native.shape or ()))
        if isinstance(native, MultiDiscrete):
            actions = actions + native.start
        elif isinstance(native, Box):
            actions = np.clip(np.where(np.isnan(actions), 0, actions), native.low, native.high)
        return actions.astype(native.dtype)


def _named(space: Any) -> str:
    """A space in one line, and not a long one."""
    text = " ".join(str(space).split())
    return text if len(text) <= 120 else f"{text[:117]}..."
