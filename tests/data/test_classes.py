"""Classes of two sets are the same where they have the same name, however each is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import datasets
import numpy as np
import pytest
import torch
from helpers.broken_files import at_most
from helpers.image_samples import flat, write_folder

from ddpm_pipeline.data.classes import class_counts, with_classes, without_gaps
from ddpm_pipeline.data.images import ImageData, open_images

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("quiet_datasets")

MODEL = ("cat", "dog", "eel")
LEVEL = {"cat": 10, "dog": 20, "eel": 30, "fox": 40, "Cat": 50, "3": 3, "7": 7, "10": 100}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_PIPELINE_CACHE", str(tmp_path / "cache"))


def as_folder(root: Path, names: list[str]) -> object:
    files = {f"{name}/{i}.png": flat(LEVEL[name]) for name in names for i in range(2)}
    return write_folder(root / "folder", files)


def as_split(root: Path, names: list[str]) -> object:
    files = {f"train/{name}/{i}.png": flat(LEVEL[name]) for name in names for i in range(2)}
    return write_folder(root / "split", files | {"test/cat/0.png": flat(0)})


def as_dataset(root: Path, names: list[str]) -> object:
    """A data set whose ClassLabel has the names in the order of the list."""
    rows = [name for name in names for _ in range(2)]
    columns = {
        "image": [{"bytes": flat(LEVEL[name]), "path": None} for name in rows],
        "label": [names.index(name) for name in rows],
    }
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))


def as_parquet_strings(root: Path, names: list[str]) -> object:
    rows = [name for name in names for _ in range(2)]
    columns = {
        "image": [{"bytes": flat(LEVEL[name]), "path": None} for name in rows],
        "label": rows,
    }
    kinds = {"image": datasets.Image(), "label": datasets.Value("string")}
    path = root / "rows.parquet"
    datasets.Dataset.from_dict(columns, features=datasets.Features(kinds)).to_parquet(path)
    return path


LAYOUTS = [as_folder, as_split, as_dataset, as_parquet_strings]


def opened(source: object) -> ImageData:
    return open_images(source, resolution=8, labels=True, progress=False)


def found(data: ImageData) -> dict[int, int]:
    """Which class the images of each level have."""
    images, labels = data.batch(range(len(data)))
    return dict(zip(images[:, 0, 0, 0].tolist(), labels.tolist(), strict=True))


@pytest.mark.parametrize(
    "names",
    [
        ["cat", "dog", "eel"],
        ["dog", "eel"],
        ["eel"],
        ["eel", "cat"],
        ["dog", "cat", "eel"],
    ],
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_classes_have_the_models_numbers(
    tmp_path: Path, layout: Callable, names: list[str]
) -> None:
    data = with_classes(opened(layout(tmp_path, names)), MODEL, 3, "data='x'")
    assert found(data) == {LEVEL[name]: MODEL.index(name) for name in names}
    assert data.class_names == MODEL
    assert data.num_classes == 3


@pytest.mark.parametrize(
    ("names", "unknown"),
    [
        (["cat", "dog", "eel", "fox"], "class 'fox'"),
        (["dog", "eel", "fox"], "class 'fox'"),
        (["Cat", "dog", "eel"], "class 'Cat'"),
        (["fox", "Cat"], "classes 'Cat', 'fox'"),
    ],
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_unknown_class_is_named_with_those_that_are_known(
    tmp_path: Path, layout: Callable, names: list[str], unknown: str
) -> None:
    data = opened(layout(tmp_path, sorted(names)))
    message = rf"^data='x' has images of {unknown}, which .* its classes are cat, dog, eel$"
    with pytest.raises(ValueError, match=message):
        with_classes(data, MODEL, 3, "data='x'")


def test_names_without_images_are_no_mistake(tmp_path: Path) -> None:
    data = opened(as_dataset(tmp_path, ["fox", "dog", "cat"])).subset([2, 3, 4])
    assert with_classes(data, MODEL, 3, "x").labels.tolist() == [1, 1, 0]


def numbered(labels: list[int], num_classes: int | None = None) -> ImageData:
    images = np.zeros((len(labels), 8, 8), np.uint8)
    images += np.array(labels, np.int64).astype(np.uint8)[:, None, None]
    return open_images(
        images, resolution=8, labels=labels, num_classes=num_classes, progress=False
    )


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        ([2, 0, 2], MODEL, [2, 0, 2]),  # names that are no numbers: the number is all there is
        ([7, 3], ("3", "7"), [1, 0]),
        ([10, 2], ("0", "1", "10", "2"), [2, 3]),
        ([2, 1], None, [2, 1]),
    ],
)
def test_numbers_stand_for_names_that_are_numbers(
    labels: list[int], names: tuple[str, ...] | None, expected: list[int]
) -> None:
    data = with_classes(numbered(labels), names, 3 if names is None else len(names), "x")
    assert data.labels.tolist() == expected
    assert data.batch([0]).images[0, 0, 0, 0] == labels[0]


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, 3], MODEL, "class '3', which the model does not know; its classes are cat, dog, eel"),
        ([3, 4], ("3", "7"), "class '4', which .* its classes are 3, 7"),
        ([0, 5], None, "class '5', which .* its classes are 0 to 2"),
    ],
)
def test_numbers_outside_are_refused(
    labels: list[int], names: tuple[str, ...] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        with_classes(numbered(labels), names, 3 if names is None else len(names), "x")


def test_folders_of_numbers_meet_a_model_of_numbers(tmp_path: Path) -> None:
    data = opened(as_folder(tmp_path, ["3", "7", "10"]))
    assert found(with_classes(data, None, 11, "x")) == {3: 3, 7: 7, 100: 10}
    # An older model may have been trained on such folders, which it counted.
    older = with_classes(data, None, 4, "x", are_numbers=False)
    assert found(older) == {100: 0, 3: 1, 7: 2}


def test_a_match_changes_the_fingerprint_only_with_the_labels(tmp_path: Path) -> None:
    same = opened(as_folder(tmp_path, ["cat", "dog", "eel"]))
    assert with_classes(same, MODEL, 3, "x").fingerprint == same.fingerprint
    fewer = opened(as_dataset(tmp_path, ["dog"]))
    assert with_classes(fewer, MODEL, 3, "x").fingerprint != fewer.fingerprint


def test_images_without_labels_stay_as_they_are() -> None:
    data = open_images(np.zeros((2, 8, 8), np.uint8), resolution=8, progress=False)
    assert with_classes(data, MODEL, 3, "x") is data
    assert without_gaps(data) is data
    assert class_counts(data) is None


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([3, 70000, 3], ("3", "70000")),
        ([1, 2, 4], ("1", "2", "4")),
        ([2**40, 0], ("0", "1099511627776")),
    ],
)
def test_gaps_are_closed_and_the_labels_are_names(labels: list[int], names: tuple) -> None:
    closed = without_gaps(numbered(labels))
    assert closed.class_names == names
    assert closed.num_classes == len(names)
    assert [int(names[n]) for n in closed.labels.tolist()] == labels
    assert class_counts(closed) == tuple(labels.count(int(name)) for name in names)
    again = with_classes(numbered(labels), names, len(names), "x")
    assert torch.equal(again.labels, closed.labels)


def test_a_label_takes_no_memory_for_the_numbers_below_it() -> None:
    data = numbered([2**40, 0, 0])
    with at_most(5):
        assert data.class_counts == {"0": 2, "1099511627776": 1}
        assert "1,099,511,627,777 classes" in repr(data)
        assert "classes: 2: 0 2, 1099511627776 1" in data.describe()
    with pytest.raises(ValueError, match=r"1,099,511,627,777 classes .* at most 999,999 are"):
        class_counts(data)


def test_classes_without_images_count_as_none() -> None:
    assert numbered([0, 2], num_classes=4).class_counts == {"0": 1, "1": 0, "2": 1, "3": 0}


def test_numbers_without_gaps_or_that_somebody_counted_stay(tmp_path: Path) -> None:
    for data in (numbered([0, 2, 1]), numbered([0, 2], num_classes=5)):
        assert without_gaps(data) is data
    named = opened(as_folder(tmp_path, ["cat", "dog"]))
    assert without_gaps(named) is named
    assert class_counts(numbered([0, 2], num_classes=5)) == (1, 0, 1, 0, 0)


def test_a_name_is_known_however_its_letters_are_composed(tmp_path: Path) -> None:
    parts, whole = "cafe\u0301", "caf\u00e9"
    root = write_folder(tmp_path, {f"{parts}/0.png": flat(1), "dog/0.png": flat(2)})
    data = open_images(root, resolution=8, labels=True, progress=False)
    found = with_classes(data, ("dog", whole), 2, "data='x'")
    assert found.class_names == ("dog", whole)
    assert found.class_counts == {"dog": 1, whole: 1}
    levels = found.batch([0, 1]).images[:, 0, 0, 0]
    assert dict(zip(levels.tolist(), found.labels.tolist(), strict=True)) == {2: 0, 1: 1}
