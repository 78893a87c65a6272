"""Images of one file for each band, read as the same values in one array are."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from ddpm_pipeline.data.decoding import Preparation, decode
from ddpm_pipeline.data.images import ImageData, open_images
from ddpm_pipeline.data.inspection import reason_of
from ddpm_pipeline.data.sources.kinds import MeaninglessOptionError
from ddpm_pipeline.data.sources.stacks import FileStack

PATTERN = r"(?P<name>.*)_b(?P<band>\d+)"
RNG = np.random.default_rng(0)


def write(folder: Path, values: np.ndarray, suffix: str = "tif") -> None:
    """Write (N, H, W, C) as a file for each band."""
    folder.mkdir(exist_ok=True, parents=True)
    for i, image in enumerate(values):
        for band in range(image.shape[-1]):
            Image.fromarray(image[..., band]).save(folder / f"s{i}_b{band + 1}.{suffix}")


def opened(source: object, **options: object) -> ImageData:
    return open_images(source, progress=False, **{"resolution": 8} | options)


@pytest.mark.parametrize(
    ("dtype", "suffix"), [("uint8", "png"), ("uint16", "png"), ("uint16", "tif"), ("f4", "tif")]
)
def test_exact_values_are_those_of_the_array(tmp_path: Path, dtype: str, suffix: str) -> None:
    values = RNG.integers(0, 256 if dtype == "uint8" else 4096, (5, 8, 8, 12)).astype(dtype)
    write(tmp_path / "scenes", values, suffix)
    exact = {"depth": "exact", "cache_dir": tmp_path / "cache"}
    found = opened(tmp_path / "scenes", stack_pattern=PATTERN, **exact)
    expected = opened(values, channels=12, **exact)
    assert found.values.dtype == expected.values.dtype
    assert np.array_equal(found.values.numpy(), values.transpose(0, 3, 1, 2))
    assert found.scale == expected.scale
    again = opened(tmp_path / "scenes", stack_pattern=PATTERN, **exact)  # of the cache
    assert again.fingerprint == found.fingerprint
    other = opened(tmp_path / "scenes", stack_pattern=r"(?P<name>s.)_(?P<band>.*)", **exact)
    assert not np.array_equal(other.values.numpy(), found.values.numpy())  # b10 before b2
    assert other.fingerprint != found.fingerprint


def test_bytes_of_sixteen_bits_are_by_the_files_range_or_by_the_one_that_is_given(
    tmp_path: Path,
) -> None:
    values = (257 * RNG.integers(0, 256, (3, 8, 8, 2))).astype(np.uint16)
    write(tmp_path / "scenes", values)
    where = {"cache_dir": tmp_path / "cache", "stack_pattern": PATTERN}
    found = opened(tmp_path / "scenes", **where)
    assert np.array_equal(found.values.numpy(), (values // 257).transpose(0, 3, 1, 2))
    found = opened(tmp_path / "scenes", value_range=(0, 2 * 65535), **where)
    assert found.values.max() <= 128


def test_labels_are_folders_and_sizes_are_fitted(tmp_path: Path) -> None:
    for name, grey in (("sea", 10), ("town", 200)):
        write(tmp_path / "scenes" / name, np.full((2, 10, 16, 5), grey, np.uint8), "png")
    found = opened(
        tmp_path / "scenes", labels=True, stack_pattern=PATTERN, cache_dir=tmp_path / "cache"
    )
    assert (len(found), found.channels, found.class_names) == (4, 5, ("sea", "town"))
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert found.names == ["sea/s0.png", "sea/s1.png", "town/s0.png", "town/s1.png"]
    assert (found.values[:2] == 10).all()
    assert found.was_cropped


def test_conditions_go_by_the_names_of_stacks(tmp_path: Path) -> None:
    values = RNG.integers(0, 256, (3, 8, 8, 2), np.uint8)
    write(tmp_path / "scenes", values, "png")
    (tmp_path / "low").mkdir()
    for i in range(3):
        Image.fromarray(np.full((4, 4), 50 * i, np.uint8)).save(tmp_path / f"low/s{i}.png")
    (tmp_path / "scenes/metadata.csv").write_text(
        "file_name,sun\n" + "".join(f"s{i}.png,{i / 4}\n" for i in range(3))
    )
    found = opened(
        tmp_path / "scenes",
        stack_pattern=PATTERN,
        condition_on=tmp_path / "low",
        condition_vector=["sun"],
        cache_dir=tmp_path / "cache",
    )
    told = found.batch([2, 1]).labels
    assert told.vector.flatten().tolist() == [0.5, 0.25]
    assert told.picture.flatten(1)[:, 0].tolist() == [100, 50]


def test_bands_that_are_none_or_not_alike_are_refused(tmp_path: Path) -> None:
    values = RNG.integers(0, 256, (2, 8, 8, 2), np.uint8)
    where = {"cache_dir": tmp_path / "cache", "stack_pattern": PATTERN}
    for name, odd, said in (
        ("size", np.zeros((8, 9), np.uint8), r"s1_b1\.png is 8×8 of L, s1_b2\.png 9×8 of L"),
        ("depth", np.zeros((8, 8), np.uint16), r"s1_b2\.png 8×8 of I;16"),
        ("colour", np.zeros((8, 8, 3), np.uint8), r"s1_b2\.png is of mode RGB; a band is grey"),
    ):
        write(tmp_path / name, values, "png")
        Image.fromarray(odd).save(tmp_path / name / "s1_b2.png")
        with pytest.raises(ValueError, match=said):
            opened(tmp_path / name, **where)
    write(tmp_path / "gone", values, "png")
    (tmp_path / "gone/s1_b2.png").write_bytes(b"no image")
    assert opened(tmp_path / "gone", **where).skipped == 1
    (tmp_path / "gone/s1_b2.png").unlink()
    with pytest.raises(ValueError, match="1 of 2 images lack bands of 1, 2: s1 lacks 2"):
        opened(tmp_path / "gone", **where)
    with pytest.raises(MeaninglessOptionError, match="has no meaning for an array"):
        opened(values, **where)


def damaged(file: Path) -> None:
    file.write_bytes(b"no image")


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


def unreadable(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.with_name("nowhere.png"))


@pytest.mark.parametrize("spoil", [damaged, truncated, unreadable])
def test_a_band_that_cannot_be_read_is_named(
    tmp_path: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "scenes", RNG.integers(0, 256, (2, 8, 8, 2), np.uint8), "png")
    where = {"cache_dir": tmp_path / "cache", "stack_pattern": PATTERN}
    spoil(tmp_path / "scenes/s1_b2.png")
    found = opened(tmp_path / "scenes", **where)
    assert found.skipped == 1
    assert re.search(r"1 of 2 images .* s1\.png \(.*, band file s1_b2\.png\)", caplog.text)
    ((reason, named),) = found.found.skipped.items()
    assert (named, "band file" in reason) == ((1, ("s1_b2.png",)), False)
    with pytest.raises(ValueError, match=r"s1_b2\.png\).*; strict refuses that"):
        opened(tmp_path / "scenes", strict=True, **where)


def test_the_error_of_a_band_keeps_its_type(tmp_path: Path) -> None:
    files = FileStack((b"no image", b"nor this"), ("s1_b1.png", "s1_b2.png"))
    with pytest.raises(UnidentifiedImageError) as caught:
        decode(files, Preparation(8))
    assert reason_of(caught.value) == "not an image, band file s1_b1.png"


def test_what_is_no_folder_is_named_and_what_is_nowhere_is_said_to_be(tmp_path: Path) -> None:
    where = {"cache_dir": tmp_path / "cache", "stack_pattern": PATTERN}
    with pytest.raises(FileNotFoundError, match="missing/' does not exist"):
        opened(f"{tmp_path}/missing/", **where)
    np.save(tmp_path / "x.npy", np.zeros((2, 8, 8), np.uint8))
    with pytest.raises(MeaninglessOptionError, match=r"x\.npy', which is no folder of images"):
        opened(tmp_path / "x.npy", **where)
    with pytest.raises(TypeError, match="source must be a path"):
        opened(3, **where)


def test_none_makes_each_file_an_image(tmp_path: Path) -> None:
    write(tmp_path / "scenes", RNG.integers(0, 256, (2, 8, 8, 2), np.uint8), "png")
    where = {"cache_dir": tmp_path / "cache"}
    found = opened(tmp_path / "scenes", stack_pattern="none", **where)
    assert (len(found), found.channels) == (4, 1)
    assert found.fingerprint == opened(tmp_path / "scenes", **where).fingerprint
    assert len(opened(np.zeros((2, 8, 8), np.uint8), stack_pattern="none")) == 2
