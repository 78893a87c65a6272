"""Only files are read: pipes and devices are named and passed over, within a second."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from helpers.broken_files import at_most
from helpers.image_samples import flat, write_folder

from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.data.sources import regular_files
from ddpm_pipeline.data.sources.finding import find_source
from ddpm_pipeline.data.sources.regular_files import (
    check_regular,
    is_pipe_or_device,
    open_regular,
    read_regular,
)

ODD = {
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to a pipe": lambda path: (os.mkfifo(path.with_suffix(".x")), path.symlink_to("z.x")),
}


@pytest.fixture(params=ODD)
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Something that is no file, in a folder with an image."""
    folder = write_folder(tmp_path / "data", {"a.png": flat(7)})
    ODD[request.param](folder / "z.png")
    return folder / "z.png"


def test_pipes_and_devices_are_not_opened(odd: Path) -> None:
    assert is_pipe_or_device(odd)
    for read in (open_regular, read_regular):
        with at_most(5), pytest.raises(OSError, match="not a regular file"):
            read(odd)
    with pytest.raises(ValueError, match=r"z\.png' is a pipe or a device"):
        check_regular([odd.parent, odd.with_name("a.png"), odd])


def test_a_folder_with_one_is_read_without_it(
    odd: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with at_most(5):
        data = open_images(odd.parent, resolution=8, cache_dir=tmp_path / "c", progress=False)
    assert len(data) == 1
    assert "1 of 2 images cannot be read: z.png (not a regular file); skipped" in caplog.text


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "train-images-idx3-ubyte"])
def test_one_in_the_place_of_an_array_is_refused(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with at_most(5), pytest.raises((ValueError, OSError), match=rf"not a regular file.*{name}"):
        find_source(tmp_path / name, None, False, None, None)


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet", "notes"])
def test_one_beside_images_stops_nothing(name: str, tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat/a.png": flat(7)})
    os.mkfifo(tmp_path / name)
    with at_most(5):
        if name == "notes":
            assert find_source(tmp_path, None, True, None, None).length == 1
            return
        with pytest.raises(ValueError, match=rf"{name} cannot be read: .*(regular|pipe)"):
            find_source(tmp_path, None, True, None, None)


def test_files_are_read_whole_up_to_a_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"four")
    monkeypatch.setattr(regular_files, "MAX_FILE_BYTES", 4)
    assert read_regular(path) == b"four"
    path.write_bytes(b"fives")
    with pytest.raises(OSError, match="5 bytes, where at most 4 are read"):
        read_regular(path)
