"""The cache is its user's own, is written through no link, and notices what was changed in it."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from helpers.broken_files import at_most
from helpers.image_samples import flat, noise, write_folder

from ddpm_pipeline.data import cache as caching
from ddpm_pipeline.data import checksums
from ddpm_pipeline.data.images import ImageData, open_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data", {f"{i}.png": flat(i) for i in range(3)})


def opened(folder: Path, **options: object) -> ImageData:
    cache = folder.parent / "c"
    return open_images(folder, resolution=8, cache_dir=cache, progress=False, **options)


def levels(data: ImageData) -> list[int]:
    return data.values[:, 0, 0, 0].tolist()


def test_a_changed_byte_is_noticed_and_mended(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    opened(folder)
    pixels = next((folder.parent / "c").glob("*/pixels.u8"))
    pixels.write_bytes(bytes([255]) + pixels.read_bytes()[1:])
    assert levels(opened(folder)) == [0, 1, 2]
    message = "is damaged (bytes 0 and on are not what was written); building it again"
    assert caplog.text.count(message) == 1


def test_a_process_samples_once_and_verifies_all_when_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []
    check = checksums.check_blocks

    def counted(values: np.ndarray, checksums: bytes, *, every: bool) -> None:
        calls.append(every)
        check(values, checksums, every=every)

    monkeypatch.setattr(caching, "check_blocks", counted)
    for verify in (False, False, True, True, False):
        opened(folder, verify_cache=verify)
    assert calls == [False, True, True]


def test_what_a_sample_leaves_out_is_found_by_verifying(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(folder)
    monkeypatch.setattr(caching, "check_blocks", lambda *_, **__: None)
    pixels = next((folder.parent / "c").glob("*/pixels.u8"))
    pixels.write_bytes(bytes([255]) * 64 + pixels.read_bytes()[64:])
    assert levels(opened(folder)) == [255, 1, 2]
    monkeypatch.undo()
    assert levels(opened(folder, verify_cache=True)) == [0, 1, 2]


def test_changed_checksums_are_noticed_too(folder: Path) -> None:
    opened(folder)
    entry = next((folder.parent / "c").glob("*/blocks.crc32"))
    entry.write_bytes(bytes(16))
    caching._checked.clear()
    assert levels(opened(folder)) == [0, 1, 2]
    assert entry.read_bytes() != bytes(16)


def test_an_entry_of_before_is_used_and_verifying_builds_it_again(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(folder)
    header = next((folder.parent / "c").glob("*/header.json"))
    record = json.loads(header.read_text())
    del record["checksums"]
    header.write_text(json.dumps(record))
    header.with_name("blocks.crc32").unlink()
    opened(folder)
    assert not header.with_name("blocks.crc32").exists()
    caplog.clear()
    opened(folder, verify_cache=True)
    assert header.with_name("blocks.crc32").exists()
    assert "has no checksums; building it again" in caplog.text
    assert "damaged" not in caplog.text


def test_nothing_is_written_through_a_planted_link(folder: Path) -> None:
    opened(folder)
    cache, precious = folder.parent / "c", folder.parent / "precious"
    precious.mkdir()
    (precious / "file").write_text("mine")
    entry = next(cache.glob("*/header.json")).parent
    for place in (*cache.glob("*.json"), entry):
        place.with_suffix(".tmp").symlink_to(precious if place == entry else precious / "file")
    for record in cache.glob("*.json"):
        record.unlink()
        record.symlink_to(precious / "file")
    for path in list(entry.iterdir()):
        path.unlink()
    assert levels(opened(folder)) == [0, 1, 2]
    assert [path.name for path in precious.iterdir()] == ["file"]
    assert (precious / "file").read_text() == "mine"
    assert not any(path.is_symlink() for path in cache.glob("*.json"))
    assert levels(opened(folder)) == [0, 1, 2]


@pytest.mark.parametrize("name", ["*.json", "*/header.json", "*/pixels.u8", "*/blocks.crc32"])
def test_a_pipe_in_the_cache_is_not_waited_for(name: str, folder: Path) -> None:
    opened(folder)
    path = next((folder.parent / "c").glob(name))
    path.unlink()
    os.mkfifo(path)
    caching._checked.clear()
    with at_most(5):
        assert levels(opened(folder)) == [0, 1, 2]


def test_a_new_cache_is_private(folder: Path) -> None:
    opened(folder)
    assert (folder.parent / "c").stat().st_mode & 0o777 == 0o700


def test_a_cache_of_anybodys_is_refused_in_one_line(folder: Path) -> None:
    cache = folder.parent / "c"
    cache.mkdir()
    cache.chmod(0o1777)
    with pytest.raises(PermissionError, match=r"image cache '.*' failed: anybody may write"):
        opened(folder)
    assert list(cache.iterdir()) == []
    cache.chmod(0o770)  # as of a group that shares it
    opened(folder)
    assert cache.stat().st_mode & 0o777 == 0o770


def test_the_file_holds_what_was_decoded(tmp_path: Path) -> None:
    values = noise(400, 64, 64)
    np.save(tmp_path / "x.npy", values)
    data = open_images(tmp_path / "x.npy", resolution=64, cache_dir=tmp_path / "c", progress=False)
    assert np.array_equal(data.values[:, 0], values)
    open_images(
        tmp_path / "x.npy",
        resolution=64,
        cache_dir=tmp_path / "c",
        progress=False,
        verify_cache=True,
    )
