"""Opening images of every kind, and taking batches of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from helpers.image_samples import encoded, flat, noise, write_folder, write_idx
from scipy.stats import chisquare

from ddpm_pipeline.common.randomness import seeded_generator
from ddpm_pipeline.data.held_out import split_validation
from ddpm_pipeline.data.images import ImageData, open_images
from ddpm_pipeline.data.streams import open_stream

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_PIPELINE_CACHE", str(tmp_path / "cache"))


def opened(source: object, resolution: int = 8, **options: object) -> ImageData:
    return open_images(source, resolution=resolution, progress=False, **options)


VALUES = noise(20, 8, 8, 3)
LABELS = np.arange(20) % 4


def write(kind: str, folder: Path) -> object:
    """The same 20 images as one kind of source."""
    folder.mkdir()
    if kind == "folder":
        files = {f"c{n}/{i:02d}.png": encoded(VALUES[i]) for i, n in enumerate(LABELS)}
        return write_folder(folder, files)
    if kind == "npz":
        np.savez(folder / "x.npz", images=VALUES, labels=LABELS)
        return str(folder / "x.npz")
    if kind == "idx":
        write_idx(folder / "train-images-idx4-ubyte.gz", VALUES)
        write_idx(folder / "train-labels-idx1-ubyte.gz", LABELS.astype(np.uint8))
        return folder
    if kind == "npy":
        np.save(folder / "x.npy", VALUES)
        return folder / "x.npy"
    return {"array": VALUES, "tensor": torch.from_numpy(VALUES)}[kind]


@pytest.mark.parametrize("kind", ["folder", "npz", "idx", "npy", "array", "tensor"])
def test_every_kind_of_source(kind: str, tmp_path: Path) -> None:
    own = kind in {"npy", "array", "tensor"}
    data = opened(write(kind, tmp_path / "data"), labels=LABELS if own else True)
    assert data.shape == (20, 3, 8, 8)
    assert data.num_classes == 4
    # A folder orders images by their names, class by class; the others as they were given.
    order = np.argsort(LABELS, kind="stable") if kind == "folder" else np.arange(20)
    indices = torch.tensor([7, 0, 19, 7])
    images, labels = data.batch(indices)
    assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
    np.testing.assert_array_equal(images, VALUES[order[indices]].transpose(0, 3, 1, 2))
    assert labels.tolist() == LABELS[order[indices]].tolist()


def test_one_fingerprint_for_equal_arrays(tmp_path: Path) -> None:
    kinds = ["npz", "idx", "npy", "array"]
    prints = {opened(write(kind, tmp_path / kind)).fingerprint for kind in kinds}
    assert len(prints) == 1
    labelled = {opened(VALUES, labels=labels).fingerprint for labels in (LABELS, LABELS[::-1])}
    assert len(prints | labelled) == 3


def test_what_was_done_is_stated(tmp_path: Path) -> None:
    plain = opened(VALUES)
    flags = ("was_resized", "was_cropped", "was_padded")
    assert [getattr(plain, flag) for flag in flags] == [False] * 3
    assert opened(VALUES, 4).was_resized
    assert opened(noise(2, 8, 9)).was_cropped
    assert opened(VALUES, 9, fit="pad").was_padded
    assert "requantized" in opened(np.full((2, 8, 8), 0.3), value_range=(0, 1)).changes
    write_folder(tmp_path / "data", {"a.png": flat(1), "b.png": encoded(noise(8, 8, 4))})
    assert opened(tmp_path / "data").changes == {"L to RGB": 1, "RGBA to RGB": 1}


def test_skipped_images_take_their_labels_along(tmp_path: Path) -> None:
    files = {"a/1.png": flat(1), "b/2.png": b"junk", "b/3.png": flat(3), "c/4.png": flat(4)}
    data = opened(write_folder(tmp_path / "data", files), labels=True)
    assert (len(data), data.skipped, data.class_names) == (3, 1, ("a", "b", "c"))
    images, labels = data.batch([0, 1, 2])
    assert images[:, 0, 0, 0].tolist() == [1, 3, 4]
    assert labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("labels", "num_classes", "expected"),
    [([0, 2], None, 3), ([0, 2], 5, 5), (["b", "a"], None, 2), (["b", "a"], 2, 2)],
)
def test_num_classes(labels: list, num_classes: int | None, expected: int) -> None:
    data = opened(VALUES[:2], labels=labels, num_classes=num_classes)
    assert data.num_classes == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": [0, 2], "num_classes": 2}, "num_classes=2, but the labels have 3 classes"),
        ({"labels": ["a", "b"], "num_classes": 3}, "num_classes=3, but the labels have 2 classes"),
        ({"num_classes": 3}, "num_classes=3 needs labels=True"),
        ({"labels": [0]}, "labels missing: 1 labels for 2 images"),
        ({"labels": [0, None]}, "labels missing for 1 of 2 images"),
        (
            {"labels": np.zeros((2, 1), int)},
            r"shape \(N,\), one per .* \(2, 1\); give labels\[:, 0",
        ),
        ({"labels": torch.eye(2)}, r"got \(2, 2\); if they are one-hot, give labels.argmax\(1\)"),
        ({"labels": np.int64(3)}, r"labels must have shape \(N,\), one per image, got \(\)$"),
        ({"labels": True}, "labels=True has no meaning for an array"),
        ({"split": "train"}, "split='train' has no meaning for an array"),
        ({"image_column": "image"}, "image_column='image' has no meaning for an array"),
        ({"channels": 0}, "channels must be an integer of at least 1, or None, got 0"),
        (
            {"resolution": 0},
            "resolution must be an integer of at least 1, got 0",
        ),
    ],
)
def test_options_that_do_not_fit(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        opened(VALUES[:2], **options)


def test_sources_that_are_none() -> None:
    with pytest.raises(TypeError, match=r"source must be a path, .* got int"):
        opened(3)
    message = "source='~no-user/x': there is no user 'no-user' on this machine; a folder here"
    with pytest.raises(FileNotFoundError, match=message):
        opened("~no-user/x")
    with pytest.raises(FileNotFoundError, match=message):
        open_stream("~no-user/x", resolution=8, batch_size=1)
    with pytest.raises(FileNotFoundError, match="'/no/such/folder' does not exist"):
        opened("/no/such/folder")
    with pytest.raises(
        FileNotFoundError, match="'no/such' is no path here, and the Hub could not"
    ):
        opened("no/such")


def test_many_orders_of_a_large_batch() -> None:
    values = noise(500, 8, 8)
    data = opened(values)
    for seed in range(20):
        indices = np.random.default_rng(seed).integers(0, 500, 300)
        np.testing.assert_array_equal(data.batch(indices).images[:, 0], values[indices])


def test_a_batch_is_the_callers_to_change() -> None:
    data = opened(VALUES)
    data.batch(range(20)).images.zero_()
    assert data.batch(range(20)).images.any()


def test_indices_that_are_none() -> None:
    data = opened(VALUES)
    with pytest.raises(ValueError, match="indices must hold at least one index"):
        data.batch([])
    for bad in (-1, 20):
        with pytest.raises(IndexError, match=r"indices must be in 0 \.\.\. 19"):
            data.batch([0, bad])


# Random crops.


def coordinates(height: int, width: int) -> np.ndarray:
    """An image whose pixels say where they are."""
    y, x = np.indices((height, width))
    return np.stack([y, x, y * 0 + height], axis=2).astype(np.uint8)


@pytest.fixture
def oblong(tmp_path: Path) -> Path:
    sizes = [(8, 12), (11, 8), (8, 8)]
    files = {f"{i}.png": encoded(coordinates(*size)) for i, size in enumerate(sizes)}
    return write_folder(tmp_path / "oblong", files)


def test_random_crops_are_uniform_windows(oblong: Path) -> None:
    data = opened(oblong, crop="random")
    assert data.shape == (3, 3, 8, 8)
    assert data.was_cropped
    batch = data.batch([0, 1, 2] * 500, seeded_generator(0)).images
    top, left = batch[:, 0, :1, :1], batch[:, 1, :1, :1]
    steps = torch.arange(8, dtype=torch.uint8)
    assert torch.equal(batch[:, 0], (top + steps.view(1, 8, 1)).expand(1500, 8, 8))
    assert torch.equal(batch[:, 1], (left + steps).expand(1500, 8, 8))
    assert not top[0::3].any()
    assert not left[1::3].any()
    assert not batch[2::3, :2, 0, 0].any()
    assert chisquare(left[0::3].flatten().bincount()).pvalue > 1e-3
    assert chisquare(top[1::3].flatten().bincount()).pvalue > 1e-3
    assert len(left[0::3].unique()) == 5
    assert len(top[1::3].unique()) == 4


def test_random_crops_follow_from_the_generator(oblong: Path) -> None:
    data = opened(oblong, crop="random")
    one, again, other = (data.batch([0, 1] * 20, seeded_generator(s)).images for s in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_without_a_generator_crops_are_central(oblong: Path) -> None:
    flexible, central = opened(oblong, crop="random"), opened(oblong)
    indices = [2, 0, 1, 0]
    assert torch.equal(flexible.batch(indices).images, central.batch(indices).images)


# The held-out split.


@pytest.mark.parametrize(("held_out", "count"), [(5, 5), (0.25, 5), (0.01, 1), (99, 99)])
def test_split_is_disjoint_and_complete(held_out: float, count: int) -> None:
    values = np.arange(20 if count == 5 else 100, dtype=np.uint8)
    data = opened(np.tile(values[:, None, None], (1, 4, 4)), 4, labels=values)
    train, held = split_validation(data, held_out, seed=3)
    parts = [part.batch(range(len(part))) for part in (train, held)]
    assert len(held) == count
    for images, labels in parts:
        assert images[:, 0, 0, 0].tolist() == labels.tolist()
    assert sorted(torch.cat([labels for _, labels in parts]).tolist()) == list(range(len(data)))


def test_split_follows_from_the_seed() -> None:
    data = opened(VALUES)
    first, again, other = (split_validation(data, 5, seed) for seed in (0, 0, 1))
    assert [p.fingerprint for p in first] == [p.fingerprint for p in again]
    assert len({p.fingerprint for p in (*first, *other, data)}) == 5
    assert torch.equal(first[1].batch([0]).images, again[1].batch([0]).images)


@pytest.mark.parametrize("held_out", [0, 20, 21, 0.01, 0.99])
def test_split_of_no_images_is_refused(held_out: float) -> None:
    with pytest.raises(ValueError, match=f"held_out={held_out} of 20 images leaves"):
        split_validation(opened(VALUES), held_out)


@pytest.mark.parametrize("held_out", [0.0, 1.0, 1.5, -0.1, float("nan")])
def test_split_fractions_are_between_0_and_1(held_out: float) -> None:
    with pytest.raises(ValueError, match=r"a fraction in \(0, 1\)"):
        split_validation(opened(VALUES), held_out)


def test_a_split_of_a_split() -> None:
    data = opened(VALUES)
    train, _ = split_validation(data, 5)
    inner, _ = split_validation(train, 5)
    outer = {tuple(row) for row in train.batch(range(15)).images.flatten(1).tolist()}
    kept = {tuple(row) for row in inner.batch(range(10)).images.flatten(1).tolist()}
    assert len(kept) == 10
    assert kept < outer


def test_opening_twice_shares_the_cache(tmp_path: Path) -> None:
    source = write("folder", tmp_path / "data")
    opened(source)
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.u8")}
    opened(source, labels=True)
    assert stamps == {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.u8")}
    assert len(stamps) == 1
