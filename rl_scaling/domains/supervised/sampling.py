"""Which examples are in a batch: a pure function of the seed and the place in the stream of examples."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.config import SupervisedConfig

_BLOCK = 8_192
_REPLACEMENT, _EPOCH = 0, 1


class ExampleStream:
    """An endless stream of rows of the training data, cut into batches one after the other.

    By epoch it is one permutation after another, so that a batch may reach from one epoch into the next and no example
    is left out.

    Args:
        config: its sampling, batch size and seed are used.
        examples: rows there are.

    Raises:
        ConfigError: no examples, or by epoch a batch that is larger than the data.
    """

    def __init__(self, config: SupervisedConfig, examples: int):
        if examples < 1:
            raise ConfigError("there are no examples to train on")
        self._by_epoch = config.sampling == "epoch"
        if self._by_epoch and config.largest_batch > examples:
            raise ConfigError(
                f"a batch of {config.largest_batch:,} is larger than the {examples:,} training examples: give at most "
                "that, or sample with replacement"
            )
        self._examples, self._batch_size, self._seed = examples, config.batch_size, config.seed
        self._length = examples if self._by_epoch else _BLOCK
        # Batches come in order: the block of the last one is nearly always that of the next.
        self._block = functools.lru_cache(maxsize=2)(self._draw)

    def rows(self, update: int) -> Tensor:
        """(batch,) int64 rows of the batch of an update, counted from 0."""
        return self.take(update * self._batch_size, self._batch_size)

    def take(self, start: int, count: int) -> Tensor:
        """(count,) int64 rows from a place in the stream."""
        first, last = start // self._length, (start + count - 1) // self._length
        blocks = [self._block(number) for number in range(first, last + 1)]
        offset = start - first * self._length
        return torch.cat(blocks)[offset : offset + count] if len(blocks) > 1 else blocks[0][offset : offset + count]

    def _draw(self, number: int) -> Tensor:
        kind = _EPOCH if self._by_epoch else _REPLACEMENT
        random = np.random.default_rng([self._seed, kind, number])
        drawn = random.permutation(self._examples) if self._by_epoch else random.integers(self._examples, size=_BLOCK)
        return torch.from_numpy(drawn.astype(np.int64))
