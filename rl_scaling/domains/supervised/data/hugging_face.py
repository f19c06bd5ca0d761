"""Images and labels by way of Hugging Face `datasets`: from the hub, or from Parquet files in the hub's layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.data.dataset import Pixels, SplitName

if TYPE_CHECKING:
    import datasets

_VALIDATION_NAMES = ("validation", "valid", "val", "dev")
_LABEL_NAMES = ("label", "labels", "target", "class")
_IMAGES_AT_ONCE = 10_000  # decoded as one list before they become one array
_BYTES = {"bytes", "path"}  # the fields of an encoded image


@dataclass(frozen=True)
class Source:
    """Where the hub keeps a data set.

    Attributes:
        hub: "owner/name" there.
        configuration: which of its variants, if it has several; a folder of that name is looked into first.
        train: splits that together are the training images.
        validation: images to hold out for validation; None: a tenth, and no fewer than there are classes.
    """

    hub: str
    configuration: str | None = None
    train: tuple[str, ...] = ("train",)
    validation: int | None = None


# Validation images as in Zhang et al. 2019: 55,000 training images of (Fashion-)MNIST are left, 45,000 of CIFAR-10.
SOURCES = {
    "mnist": Source("ylecun/mnist", "mnist", validation=5_000),
    "fashion-mnist": Source("zalando-datasets/fashion_mnist", "fashion_mnist", validation=5_000),
    "cifar10": Source("uoft-cs/cifar10", "plain_text", validation=5_000),
    "svhn": Source("ufldl-stanford/svhn", "cropped_digits", validation=5_000),
    "svhn-extra": Source("ufldl-stanford/svhn", "cropped_digits", train=("train", "extra"), validation=5_000),
}


@dataclass(frozen=True)
class Found:
    """What was read.

    Attributes:
        parts: the splits that there are.
        hold_out: images to hold out for those that there are not.
        num_classes: classes that the labels can have.
    """

    parts: Mapping[SplitName, Pixels]
    hold_out: Mapping[SplitName, int]
    num_classes: int


def read_images(name: str, folder: Path | None, image_column: str | None, label_column: str | None) -> Found:
    """Read a data set; see `load_dataset`.

    Raises:
        ConfigError: it is not there, or it is no data set of images of one size, each with one class.
    """
    source = _source(name)
    tables = _from_hub(name, source) if folder is None else _from_folder(name, source, folder)
    if not set(source.train) <= set(tables):
        raise ConfigError(f"{name} has no split {' or '.join(map(repr, source.train))}, only {', '.join(tables)}")
    first = tables[source.train[0]]
    image = _image_column(name, first, image_column)
    label, num_classes = _label_column(name, first, label_column)
    mode = _mode(name, first, image)

    def read(*splits: str) -> Pixels:
        parts = [_decode(f"{name}, split {s}", tables[s], image, label, mode) for s in splits]
        return Pixels(*(np.concatenate(arrays) for arrays in zip(*((p.images, p.targets) for p in parts), strict=True)))

    parts: dict[SplitName, Pixels] = {"train": read(*source.train)}
    if "test" in tables:
        parts["test"] = read("test")
    validation = next((split for split in _VALIDATION_NAMES if split in tables), None)
    if validation is not None:
        parts["validation"] = read(validation)
    for split, part in parts.items():
        if part.images.shape[1:] != parts["train"].images.shape[1:]:
            raise ConfigError(f"{name}: images of split {split} are not of the size of those for training")
        _check_labels(f"{name}, split {split}", part.targets, num_classes)
    num_classes = num_classes or int(parts["train"].targets.max()) + 1
    tenth = max(num_classes, len(parts["train"]) // 10)
    hold_out: dict[SplitName, int] = {} if "test" in parts else {"test": tenth}
    if "validation" not in parts:
        hold_out["validation"] = tenth if source.validation is None else min(source.validation, tenth)
    return Found(parts, hold_out, num_classes)


def _source(name: str) -> Source:
    if name in SOURCES:
        return SOURCES[name]
    hub, _, configuration = name.partition(":")
    return Source(hub, configuration or None)


def _two_ways(name: str, source: Source) -> str:
    owner = f"datasets/{source.hub}"
    return (
        f"with a network it comes from the Hugging Face hub ({owner}); without, put its Parquet files into a folder as "
        f"train*.parquet and test*.parquet and name that folder"
        + ("" if name in SOURCES or "/" in name else f" (known by name: digits, {', '.join(SOURCES)})")
    )


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(
            "data sets other than the digits are read with Hugging Face datasets: pip install 'rl-scaling[data]'"
        ) from error
    return datasets


def _from_hub(name: str, source: Source) -> Mapping[str, datasets.Dataset]:
    library = _library()
    try:
        return library.load_dataset(source.hub, source.configuration)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"no data set {name!r} here: {_two_ways(name, source)} ({reason})") from error


def _from_folder(name: str, source: Source, folder: Path) -> Mapping[str, datasets.Dataset]:
    files = {split: _files(folder, source, split) for split in (*source.train, *_VALIDATION_NAMES, "test")}
    files = {split: paths for split, paths in files.items() if paths}
    missing = [split for split in source.train if split not in files]
    if missing:
        raise ConfigError(f"no {missing[0]}*.parquet in {folder}: {_two_ways(name, source)}")
    library = _library()
    try:
        return library.load_dataset("parquet", data_files=files)
    except (OSError, ValueError, library.exceptions.DatasetGenerationError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise ConfigError(f"{name}: the Parquet files in {folder} cannot be read: {reason}") from error


def _files(folder: Path, source: Source, split: str) -> list[str]:
    """The split's files: in the folder, in that of the configuration, or in any one below."""
    places = ["", *([f"{source.configuration}/"] if source.configuration else []), "*/"]
    for place in places:
        found = sorted(folder.glob(f"{place}{split}.parquet")) + sorted(folder.glob(f"{place}{split}[-_0-9]*.parquet"))
        if found:
            return [str(path) for path in found]
    return []


def _image_column(name: str, table: datasets.Dataset, wanted: str | None) -> str:
    library = _library()

    def holds_images(feature: Any) -> bool:
        return isinstance(feature, library.Image) or (isinstance(feature, dict) and set(feature) == _BYTES)

    return _one_of(name, "image", [c for c, f in table.features.items() if holds_images(f)], table, wanted)


def _label_column(name: str, table: datasets.Dataset, wanted: str | None) -> tuple[str, int | None]:
    """The column, and how many classes it says there are."""
    library = _library()
    classes: dict[str, int] = {c: f.num_classes for c, f in table.features.items() if isinstance(f, library.ClassLabel)}
    names = _LABEL_NAMES if wanted is None else (wanted,)
    numbers: list[str] = [
        column
        for column, feature in table.features.items()
        if isinstance(feature, library.Value) and "int" in feature.dtype and column in names
    ]
    column = _one_of(name, "label", list(classes) or numbers, table, wanted)
    return column, classes.get(column)


def _one_of(name: str, kind: str, candidates: list[str], table: datasets.Dataset, wanted: str | None) -> str:
    columns = ", ".join(table.column_names)
    if wanted is not None:
        if wanted not in table.column_names:
            raise ConfigError(f"{name} has no column {wanted!r}, only {columns}")
        return wanted
    if not candidates:
        raise ConfigError(f"{name} has no column of {kind}s, only {columns}: name one as {kind}_column")
    if len(candidates) > 1:
        raise ConfigError(f"{name} has several columns of {kind}s: name {' or '.join(candidates)} as {kind}_column")
    return candidates[0]


def _mode(name: str, table: datasets.Dataset, column: str) -> str:
    """Grey where the first image is, else colours; palettes and transparency become colours."""
    if len(table) == 0:
        raise ConfigError(f"{name} has no training images")
    try:
        first = table.cast_column(column, _library().Image())[0][column]
    except (OSError, ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise ConfigError(f"{name}: column {column!r} holds no images ({' '.join(str(error).split())})") from error
    if first is None:
        raise ConfigError(f"{name}: the first row has no image")
    return "L" if first.mode in ("1", "L") else "RGB"


def _decode(where: str, table: datasets.Dataset, image: str, label: str, mode: str) -> Pixels:
    """(n, C, H, W) pixels and (n,) labels of a split."""
    table = table.cast_column(image, _library().Image(mode=mode)).select_columns([image, label])
    labels = table[label][:]
    if any(value is None for value in labels):
        raise ConfigError(f"{where}: an image has no label")
    whole = []
    for first in range(0, len(table), _IMAGES_AT_ONCE):
        images = table.with_format("numpy")[first : first + _IMAGES_AT_ONCE][image]
        if images.dtype != np.uint8:
            raise ConfigError(f"{where}: images are not all there and of one size")
        whole.append(images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2))
    if len({part.shape[1:] for part in whole}) != 1:
        raise ConfigError(f"{where}: images are not all there and of one size")
    return Pixels(np.concatenate(whole), _as_classes(where, labels))


def _as_classes(where: str, labels: list[Any]) -> NDArray[np.int64]:
    values = np.asarray(labels)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise ConfigError(f"{where}: labels are not one whole number per image")
    return values.astype(np.int64)


def _check_labels(where: str, targets: NDArray[np.int64], num_classes: int | None) -> None:
    """Labels of -1 are the custom of the hub where a test set's are kept secret."""
    if targets.min() < 0:
        raise ConfigError(f"{where}: {int((targets < 0).sum())} images have no label (a class below 0)")
    if num_classes is not None and targets.max() >= num_classes:
        raise ConfigError(f"{where}: class {targets.max()}, but there are {num_classes} classes, numbered from 0")
