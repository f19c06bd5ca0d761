"""Parquet files as the hub keeps them, written by Hugging Face `datasets` from real digits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from rl_scaling.domains.supervised.data import read_digits

NAMES = [str(digit) for digit in range(10)]


def digit_pictures(rows: Sequence[int], *, side: int = 32, mode: str = "RGB") -> tuple[list[Image.Image], list[int]]:
    """Pictures of digits, enlarged to `side` pixels, and their classes."""
    digits = read_digits()
    grey = [Image.fromarray((digits.images[row, 0] * 15).astype(np.uint8)) for row in rows]
    pictures = [picture.resize((side, side), Image.Resampling.BILINEAR).convert(mode) for picture in grey]
    return pictures, digits.targets[list(rows)].tolist()


def write(path: Path, pictures: Sequence[Any], labels: Sequence[Any] | None, **names: Any) -> None:
    """One file with an image column and, unless `labels` is None, a label column.

    Args:
        path: of the file; its folder is made.
        pictures: of the image column.
        labels: of the label column.
        names: `image` and `label`, of the columns; `kind`, the feature that labels are.
    """
    image, label = names.get("image", "image"), names.get("label", "label")
    features, columns = {image: datasets.Image()}, {image: list(pictures)}
    if labels is not None:
        features[label] = names.get("kind", datasets.ClassLabel(names=NAMES))
        columns[label] = list(labels)
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(columns, features=datasets.Features(features)).to_parquet(path)
