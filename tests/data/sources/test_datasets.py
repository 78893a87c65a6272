"""Data sets of the `datasets` library: in memory, saved to disk, in parquet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import datasets
import numpy as np
import pytest
from helpers.image_samples import encoded, flat, noise, write_folder

from ddpm_pipeline.data.images import ImageData, open_images
from ddpm_pipeline.data.sources.datasets import dataset_source

if TYPE_CHECKING:
    from pathlib import Path

VALUES = noise(6, 8, 8, 3)
LABELS = [2, 0, 1, 1, 0, 2]
FEATURES = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["x", "y", "z"])}


pytestmark = pytest.mark.usefixtures("quiet_datasets")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_PIPELINE_CACHE", str(tmp_path / "cache"))


def make(names: tuple[str, str] = ("image", "label")) -> datasets.Dataset:
    columns = {
        names[0]: [{"bytes": encoded(v), "path": None} for v in VALUES],
        names[1]: LABELS,
    }
    features = dict(zip(names, FEATURES.values(), strict=True))
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def opened(source: object, **options: object) -> ImageData:
    return open_images(source, resolution=8, progress=False, **options)


def check(data: ImageData) -> None:
    images, labels = data.batch(range(6))
    np.testing.assert_array_equal(images, VALUES.transpose(0, 3, 1, 2))
    assert labels.tolist() == LABELS
    assert data.class_names == ("x", "y", "z")


def test_in_memory() -> None:
    check(opened(make(), labels=True))


def test_saved_to_disk(tmp_path: Path) -> None:
    make().save_to_disk(tmp_path / "saved")
    check(opened(tmp_path / "saved", labels=True))


@pytest.mark.parametrize("name", ["", "part-0.parquet", "data"])
def test_parquet(tmp_path: Path, name: str) -> None:
    (tmp_path / "p" / "data").mkdir(parents=True)
    make().to_parquet(tmp_path / "p" / ("data" if name == "data" else "") / "part-0.parquet")
    check(opened(tmp_path / "p" / ("" if name == "data" else name), labels=True))


def test_splits(tmp_path: Path) -> None:
    parts = datasets.DatasetDict({"train": make(), "test": make().select([3])})
    parts.save_to_disk(tmp_path / "saved")
    for source in (parts, tmp_path / "saved"):
        check(opened(source, labels=True))
        assert len(opened(source, split="test")) == 1
        with pytest.raises(ValueError, match=r"split='val' must be one of \['test', 'train'\]"):
            opened(source, split="val")
    with pytest.raises(ValueError, match="split='test' has no meaning for a data set without"):
        opened(make(), split="test")


def test_parquet_files_that_would_be_left_out_are_refused(tmp_path: Path) -> None:
    make().to_parquet(tmp_path / "train.parquet")
    make().to_parquet(tmp_path / "more.parquet")
    message = r"holds files of split train and others, as more\.parquet, so it is not clear"
    with pytest.raises(ValueError, match=message):
        opened(tmp_path)
    assert len(opened(tmp_path, split="train")) == 6
    (tmp_path / "more.parquet").rename(tmp_path / "test.parquet")
    check(opened(tmp_path, labels=True))


def test_the_same_fingerprint_from_memory_disk_and_parquet(tmp_path: Path) -> None:
    make().save_to_disk(tmp_path / "saved")
    make().to_parquet(tmp_path / "x.parquet")
    sources = (make(), tmp_path / "saved", tmp_path / "x.parquet")
    assert len({opened(source).fingerprint for source in sources}) == 1


def test_columns_of_other_names() -> None:
    data = make(("photo", "kind")).add_column("thumb", [b""] * 6)
    check(opened(data, labels=True))
    pair = data.cast_column("thumb", datasets.Image())
    with pytest.raises(ValueError, match=r"image_column must be given, one of \['photo', 'thumb"):
        opened(pair)
    check(opened(pair, labels=True, image_column="photo"))
    with pytest.raises(ValueError, match=r"image_column='foto' must be one of \['photo', "):
        opened(pair, image_column="foto")
    with pytest.raises(ValueError, match=r"label_column='class' must be one of \['photo', "):
        opened(data, labels=True, label_column="class")
    with pytest.raises(ValueError, match="label_column='kind' has no meaning"):
        opened(data, label_column="kind")
    with pytest.raises(ValueError, match="label_column must be given, one of"):
        opened(data.remove_columns("kind"), labels=True)


def test_bytes_without_a_type_and_labels_as_words() -> None:
    columns = {"img": [flat(1), flat(2)], "class": ["wolf", "bear"]}
    data = opened(datasets.Dataset.from_dict(columns), labels=True)
    assert data.class_names == ("bear", "wolf")
    assert data.labels.tolist() == [1, 0]
    assert data.batch([0, 1]).images[:, 0, 0, 0].tolist() == [1, 2]


def test_images_named_by_path_are_read_again_when_they_change(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.png": flat(1), "b.png": flat(2)})
    paths = [str(tmp_path / name) for name in ("a.png", "b.png")]
    data = datasets.Dataset.from_dict({"image": paths}).cast_column("image", datasets.Image())
    assert opened(data).batch([0, 1]).images[:, 0, 0, 0].tolist() == [1, 2]
    (tmp_path / "b.png").write_bytes(flat(7))
    assert opened(data).batch([0, 1]).images[:, 0, 0, 0].tolist() == [1, 7]


def test_missing_labels_and_wrong_class_counts() -> None:
    columns = {"image": [{"bytes": flat(1), "path": None}] * 3, "label": [0, None, -1]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    data = datasets.Dataset.from_dict(columns, features=features)
    with pytest.raises(ValueError, match="labels missing for 2 of 3 images"):
        opened(data, labels=True)
    with pytest.raises(ValueError, match="num_classes=4, but the labels have 3 classes"):
        opened(make(), labels=True, num_classes=4)


def test_rows_without_an_image(caplog: pytest.LogCaptureFixture) -> None:
    columns = {"image": [{"bytes": flat(1), "path": None}, None], "label": [0, 1]}
    data = datasets.Dataset.from_dict(columns, features=datasets.Features(FEATURES))
    assert len(opened(data)) == 1
    assert "1 of 2 images cannot be read: row 1 (no image in this row)" in caplog.text


def test_bad_data_sets(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the data set holds no images"):
        opened(make().select([]))
    with pytest.raises(TypeError, match="is a stream"):
        opened(make().to_iterable_dataset())
    (tmp_path / "x.parquet").write_bytes(b"PAR1 junk")
    with pytest.raises(ValueError, match=r"x\.parquet' is not a readable data set"):
        opened(tmp_path / "x.parquet")
    for name in (tmp_path / "nope.parquet", "nope.parquet", "nope.npz"):
        with pytest.raises(FileNotFoundError, match=r"nope\.(parquet|npz)' does not exist"):
            opened(name)


def test_the_key_follows_the_rows() -> None:
    keys = {dataset_source(make().select(rows)).quick_key for rows in ([0, 1], [1, 0], [0])}
    assert len(keys) == 3
