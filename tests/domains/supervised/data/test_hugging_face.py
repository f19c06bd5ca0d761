from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.data import load_dataset
from rl_scaling.domains.supervised.data.hugging_face import SOURCES
from tests.domains.supervised.data.parquet import digit_pictures, write

pytestmark = pytest.mark.usefixtures("offline")


def pixels_of(pictures: list[Image.Image]) -> torch.Tensor:
    arrays = np.stack([np.asarray(picture) for picture in pictures])
    return torch.from_numpy(arrays[:, None] if arrays.ndim == 3 else arrays.transpose(0, 3, 1, 2)).float() / 255


@pytest.mark.parametrize(
    ("name", "below", "image", "mode", "side"),
    [
        ("mnist", "mnist", "image", "L", 28),
        ("fashion-mnist", "fashion_mnist", "image", "L", 28),
        ("cifar10", "plain_text", "img", "RGB", 32),
        ("svhn", "cropped_digits", "image", "RGB", 32),
    ],
)
def test_the_hubs_layouts_are_read(tmp_path: Path, name: str, below: str, image: str, mode: str, side: int) -> None:
    pictures, labels = digit_pictures(range(120), side=side, mode=mode)
    for split, rows in (("train", slice(0, 100)), ("test", slice(100, 120))):
        write(tmp_path / below / f"{split}-00000-of-00001.parquet", pictures[rows], labels[rows], image=image)
    data = load_dataset(name, folder=tmp_path, scale="unit")
    assert (data.num_classes, data.image_shape) == (10, (len(mode), side, side))
    assert data.held_out == ("validation",)
    assert [len(data.train), len(data.validation), len(data.test)] == [90, 10, 20]
    inputs, targets = data.test.batch(slice(None))
    torch.testing.assert_close(inputs, pixels_of(pictures[100:]))
    assert targets.tolist() == labels[100:]


def test_extra_images_of_svhn_join_those_for_training_and_several_files_are_one_split(tmp_path: Path) -> None:
    pictures, labels = digit_pictures(range(90))
    parts = {"train-00000-of-00002": (0, 30), "train-00001-of-00002": (30, 60), "extra": (60, 80), "test": (80, 90)}
    for stem, (first, last) in parts.items():
        write(tmp_path / f"{stem}.parquet", pictures[first:last], labels[first:last])
    plain, extra = (load_dataset(name, folder=tmp_path) for name in ("svhn", "svhn-extra"))
    assert len(plain.train) + len(plain.validation) == 60
    assert len(extra.train) + len(extra.validation) == 80


def test_splits_that_are_there_are_used_and_others_held_out(tmp_path: Path) -> None:
    pictures, labels = digit_pictures(range(100))
    write(tmp_path / "train.parquet", pictures[:80], labels[:80])
    write(tmp_path / "valid.parquet", pictures[80:], labels[80:])
    data = load_dataset("mine", folder=tmp_path)
    assert data.held_out == ("test",)
    assert [len(data.train), len(data.validation), len(data.test)] == [70, 20, 10]


def test_images_without_the_librarys_notes_are_recognised(tmp_path: Path) -> None:
    """A file that another program wrote: bytes and path, and plain numbers as labels."""
    pictures, labels = digit_pictures(range(60))
    write(tmp_path / "whole.parquet", pictures, labels)
    table = pq.read_table(tmp_path / "whole.parquet").replace_schema_metadata(None)
    pq.write_table(table, tmp_path / "train.parquet")
    data = load_dataset("mine", folder=tmp_path)
    assert (len(data.train), data.num_classes, data.image_shape) == (40, 10, (3, 32, 32))


def test_pictures_of_several_kinds_become_colours(tmp_path: Path) -> None:
    pictures, labels = digit_pictures(range(60))
    pictures[7], pictures[8] = pictures[7].convert("P"), pictures[8].convert("L")
    write(tmp_path / "train.parquet", pictures, labels)
    write(tmp_path / "test.parquet", pictures[7:9], labels[7:9])
    inputs, _ = load_dataset("mine", folder=tmp_path, scale="unit").test.batch(slice(None))
    torch.testing.assert_close(inputs, pixels_of([p.convert("RGB") for p in pictures[7:9]]), rtol=0, atol=0.02)


def test_a_column_is_chosen_by_name_where_there_are_several(tmp_path: Path) -> None:
    pictures, labels = digit_pictures(range(60))
    coarse = datasets.ClassLabel(names=["even", "odd"])
    features = datasets.Features(img=datasets.Image(), fine=datasets.ClassLabel(num_classes=10), coarse=coarse)
    columns = {"img": pictures, "fine": labels, "coarse": [label % 2 for label in labels]}
    datasets.Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ConfigError, match="several columns of labels: name fine or coarse as label_column"):
        load_dataset("mine", folder=tmp_path)
    assert load_dataset("mine", folder=tmp_path, label_column="coarse").num_classes == 2
    with pytest.raises(ConfigError, match="no column 'shade', only img, fine, coarse"):
        load_dataset("mine", folder=tmp_path, label_column="shade")


@pytest.mark.parametrize("name", [*SOURCES, "someone/something"])
def test_a_missing_data_set_names_the_two_ways_to_it(name: str) -> None:
    with pytest.raises(ConfigError, match=r"Hugging Face hub .*put its Parquet files into a folder") as caught:
        load_dataset(name)
    assert "\n" not in str(caught.value)


def test_an_empty_folder_names_the_two_ways_as_well(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no train\*.parquet in .*uoft-cs/cifar10.*put its Parquet files"):
        load_dataset("cifar10", folder=tmp_path)
    with pytest.raises(ConfigError, match="known by name: digits, mnist"):
        load_dataset("mnits", folder=tmp_path)


def test_digits_have_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leave out the folder"):
        load_dataset("digits", folder=tmp_path)


def test_a_missing_library_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.parquet").touch()
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"pip install 'rl-scaling\[data\]'"):
        load_dataset("mnist", folder=tmp_path)


def _bad(what: str) -> dict[str, Any]:
    """Arguments of `write` for training images with one thing wrong."""
    pictures, labels = digit_pictures(range(60))
    number = datasets.Value("int64")
    if what == "one too large":
        pictures[3] = pictures[3].resize((33, 32))
    elif what == "an image missing":
        pictures[3] = None  # type: ignore[call-overload]
    changes: dict[str, dict[str, Any]] = {
        "no labels": {"labels": None},
        "a secret label": {"labels": [*labels[:-1], -1]},
        "a label missing": {"labels": [*labels[:-1], None]},
        "labels in words": {"labels": ["seven"] * 60, "kind": datasets.Value("string")},
        "fractions": {"labels": [0.5] * 60, "kind": datasets.Value("float32")},
        "a class missing": {"labels": [label if label != 4 else 5 for label in labels]},
        "a class skipped": {"labels": [label + (label > 3) for label in labels], "kind": number},
    }
    return {"pictures": pictures, "labels": labels, **changes.get(what, {})}


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no labels", "no column of labels, only image"),
        ("a secret label", "1 images have no label"),
        ("a label missing", "an image has no label"),
        ("labels in words", "no column of labels, only image, label"),
        ("fractions", "no column of labels, only image, label"),
        ("a class missing", "no training image is of class 4 of 10"),
        ("a class skipped", "no training image is of class 4 of 11"),
        ("one too large", "not all there and of one size"),
        ("an image missing", "not all there and of one size"),
    ],
)
def test_what_is_wrong_with_a_data_set_is_said_in_one_line(tmp_path: Path, what: str, message: str) -> None:
    write(tmp_path / "train.parquet", **_bad(what))
    with pytest.raises(ConfigError, match=message) as caught:
        load_dataset("mine", folder=tmp_path)
    assert "\n" not in str(caught.value)


def test_test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    pictures, labels = digit_pictures(range(60))
    write(tmp_path / "train.parquet", pictures, labels)
    write(tmp_path / "test.parquet", [p.resize((16, 16)) for p in pictures], labels)
    with pytest.raises(ConfigError, match="images of split test are not of the size"):
        load_dataset("mine", folder=tmp_path)


@pytest.mark.parametrize("content", [b"", b"no such thing"])
def test_damaged_files_are_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train.parquet").write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        load_dataset("mine", folder=tmp_path)
    assert "\n" not in str(caught.value)


def test_a_column_without_images_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [1, 2], "label": [0, 1]}), tmp_path / "train.parquet")
    with pytest.raises(ConfigError, match="no column of images, only image, label"):
        load_dataset("mine", folder=tmp_path)
    with pytest.raises(ConfigError, match="column 'image' holds no images"):
        load_dataset("mine", folder=tmp_path, image_column="image")
