"""As a user without rights, and on a full disk: one line each, and nothing half written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from compatibility.saved_recipes import SAVED
from helpers.image_samples import encoded, flat, noise, write_folder
from helpers.unprivileged import as_nobody, command, open_place, small_disk

from ddpm_pipeline.data import open_images
from ddpm_pipeline.training.storage.checkpoints import (
    Checkpoint,
    check_whole,
    newest_checkpoint,
    write_checkpoint,
)
from ddpm_pipeline.training.storage.push import BackgroundPush

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with images and a model of somebody else, and a cache of one's own."""
    with open_place() as folder:
        write_folder(folder / "data", {f"{n}/{i}.png": flat(i) for n in "ab" for i in range(3)})
        shutil.copytree(SAVED / "plain", folder / "model")
        (folder / "cache").mkdir()
        (folder / "cache").chmod(0o777)
        for path in (folder / "data", folder / "model", *folder.rglob("*/")):
            path.chmod(0o777 if path.name == "cache" else 0o755)
        yield folder


def opened(place: Path, cache: str = "own", **options: object) -> Callable[[], str]:
    """Give what opens the images, and tells of them."""

    def work() -> str:
        (place / "cache" / "own").mkdir(mode=0o700, exist_ok=True)
        data = open_images(
            place / "data",
            resolution=8,
            cache_dir=place / ("cache/own" if cache == "own" else cache),
            progress=False,
            num_threads=1,
            **options,
        )
        return f"{len(data)} images\n{data.describe()}"

    return work


def test_a_file_that_may_not_be_read_is_named(place: Path) -> None:
    (place / "data/a/1.png").chmod(0)
    said = as_nobody(opened(place, labels=True))
    assert said.startswith("5 images\n")
    assert "skipped: 1 Permission denied (a/1.png)" in said
    assert "a 2, b 3" in said
    strict = as_nobody(opened(place, strict=True))
    assert strict == (
        "ValueError: a/1.png (Permission denied) cannot be read; strict refuses that"
    )
    (place / "data/a/1.png").chmod(0o644)
    assert as_nobody(opened(place)).startswith("6 images\n")


def test_a_folder_that_may_not_be_read_is_an_error_that_names_it(place: Path) -> None:
    (place / "data/b").chmod(0)
    said = as_nobody(opened(place))
    assert said.startswith("PermissionError: ")
    assert said.endswith(f"Permission denied: '{place}/data/b'")
    assert not any((place / "cache/own").iterdir())


@pytest.mark.parametrize(
    ("mode", "reason"),
    [(0o700, "Permission denied"), (0o755, "Permission denied"), (0o777, "anybody may write")],
)
def test_a_cache_of_somebody_else_is_refused(place: Path, mode: int, reason: str) -> None:
    (place / "theirs").mkdir()
    (place / "theirs").chmod(mode)
    if os.getuid() and mode != 0o777:
        (place / "theirs").chmod(0o555)  # that of nobody else can be made
    said = as_nobody(opened(place, "theirs"))
    assert f"the image cache '{place}/theirs' failed: {reason}" in said
    assert "\n" not in said
    assert not any((place / "theirs").iterdir())


def test_a_cache_of_somebody_else_that_may_be_read_is_no_use_to_write(place: Path) -> None:
    assert opened(place, "theirs")().startswith("6 images")
    before = sorted(path.name for path in (place / "theirs").rglob("*"))
    for path in (place / "theirs", *(place / "theirs").rglob("*/")):
        path.chmod(0o755 if os.getuid() == 0 else 0o555)
    said = as_nobody(opened(place, "theirs"))
    assert "Permission denied" in said
    assert sorted(path.name for path in (place / "theirs").rglob("*")) == before
    for path in (place / "theirs", *(place / "theirs").rglob("*/")):
        path.chmod(0o755)


COMMANDS = {
    "train": "--train_data_dir {place}/data --resolution 8 --output_dir {place}/read_only/run",
    "sample": "{place}/model --num_images 1 --output {place}/read_only/samples",
    "sample a picture": "{place}/model --num_images 1 --output {place}/read_only/samples.png",
    "bound": "{place}/model --data {place}/data",
    "score": "{place}/model --data {place}/data --output_dir {place}/read_only",
    "calibrate": "{place}/model --data {place}/data",
    "evaluate": "{place}/model --data {place}/data",
    "export": "{place}/run --output {place}/read_only/model",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_an_output_that_is_read_only_is_refused_before_the_work(place: Path, name: str) -> None:
    read_only = place / "read_only"
    read_only.mkdir()
    shutil.copytree(SAVED / "run_adamw", place / "run")
    for path in (read_only, place / "model"):
        path.chmod(0o755 if os.getuid() == 0 else 0o555)
    before = sorted(place.rglob("*"))
    words = [name.split(maxsplit=1)[0], *COMMANDS[name].format(place=place).split()]
    said = as_nobody(lambda: command(*words))
    assert said.startswith(f"1 ddpm {words[0]}: error: --output")
    assert said.endswith("is read-only\n")
    assert said.count("\n") == 1
    assert sorted(place.rglob("*")) == before


# A disk that is full.


def test_a_full_disk_leaves_no_images_behind_and_works_when_there_is_room(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path / "data", {f"{i}.png": encoded(noise(32, 32, 3, seed=i)) for i in range(40)}
    )
    with small_disk(tmp_path / "disk", 2**16) as disk:
        cache = disk / "cache"
        for _ in range(2):
            with pytest.raises(OSError, match=r"the image cache .* failed: No space left"):
                open_images(folder, resolution=32, cache_dir=cache, progress=False)
            assert {path.suffix for path in cache.iterdir()} <= {".lock"}
        fewer = open_images(
            write_folder(tmp_path / "few", {"0.png": encoded(noise(32, 32, 3))}),
            resolution=32,
            cache_dir=cache,
            progress=False,
        )
        assert len(fewer) == 1


def test_a_full_disk_leaves_the_checkpoints_of_before(tmp_path: Path) -> None:
    tensors = {"model": {"w": torch.from_numpy(np.arange(30_000.0))}}
    with small_disk(tmp_path / "disk", 400_000) as disk:
        older = write_checkpoint(disk, Checkpoint(1, tensors, {}, {}), limit=1)
        with pytest.raises(OSError, match=r"step 2 cannot be written .*No space left on device"):
            write_checkpoint(disk, Checkpoint(2, tensors, {}, {}), limit=1)
        check_whole(older)
        assert newest_checkpoint(disk) == older
        assert [path.name for path in disk.iterdir()] == [older.name]


def test_a_full_disk_keeps_a_state_from_being_pushed_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(BackgroundPush, "_try_token", lambda _: None)
    monkeypatch.setattr(BackgroundPush, "_push", lambda *_: pytest.fail("there is nothing whole"))
    with small_disk(tmp_path / "disk", 100_000) as disk:
        shutil.copytree(SAVED / "plain", disk, dirs_exist_ok=True)
        (disk / "filled").write_bytes(bytes(100_000 - _used(disk)))
        before = sorted(path for path in disk.rglob("*") if path.is_file())
        push = BackgroundPush(disk, "alice/digits")
        push.submit(7)
        assert "No space left on device" in push.finish(5)
        assert "step 7 was not pushed, the next save will be" in caplog.text
        assert sorted(path for path in disk.rglob("*") if path.is_file()) == before


def _used(disk: Path) -> int:
    status = os.statvfs(disk)
    return (status.f_blocks - status.f_bfree) * status.f_frsize
