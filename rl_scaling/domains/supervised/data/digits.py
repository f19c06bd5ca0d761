"""The data set that is always there: the 1,797 handwritten digits of 8 x 8 pixels inside scikit-learn."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from rl_scaling.domains.supervised.data.dataset import Pixels

LEVELS = 16
NUM_CLASSES = 10


def read_digits() -> Pixels:
    """All of them, pixels from 0 to `LEVELS`.

    >>> read_digits().images.shape
    (1797, 1, 8, 8)
    """
    pixels, classes = load_digits(return_X_y=True)
    return Pixels(np.asarray(pixels, dtype=np.uint8).reshape(-1, 1, 8, 8), np.asarray(classes, dtype=np.int64))
