"""Checkpoints: whole or absent, whatever happens."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from helpers.manifests import sealed

from ddpm_pipeline.training.storage.checkpoints import (
    Checkpoint,
    adopt_checkpoint,
    check_whole,
    newest_checkpoint,
    read_checkpoint,
    write_checkpoint,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def checkpoint(step: int) -> Checkpoint:
    tensors = {"model": {"w": torch.arange(12.0).reshape(3, 4).T, "step": torch.tensor(1.5)}}
    return Checkpoint(step, {**tensors, "empty": {}}, {"note": "Σ"}, {"log.txt": b"one\n"})


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, checkpoint(7))
    read = read_checkpoint(path)
    assert (read.step, read.state, read.files) == (7, {"note": "Σ"}, {"log.txt": b"one\n"})
    assert read.tensors.keys() == {"model", "empty"}
    torch.testing.assert_close(
        dict(read.tensors["model"]), dict(checkpoint(7).tensors["model"]), rtol=0, atol=0
    )


def test_old_checkpoints_go_only_after_the_new_one_is_there(tmp_path: Path) -> None:
    for step in (9, 10, 1000):
        write_checkpoint(tmp_path, checkpoint(step), limit=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-0000010", "step-0001000"]


def test_of_old_checkpoints_the_files_of_others_stay(tmp_path: Path) -> None:
    older = write_checkpoint(tmp_path, checkpoint(4), limit=1)
    (older / "notes.txt").write_text("mine")
    (older / "figures").mkdir()
    (older / "figures" / "a.png").write_text("mine")
    shutil.copytree(older, copy := tmp_path / "step-0000004 copy")
    (tmp_path / "step-mine").mkdir()
    for step in (5, 6):
        newest = write_checkpoint(tmp_path, checkpoint(step), limit=1)
    kept = sorted(path.relative_to(older).as_posix() for path in older.rglob("*"))
    assert kept == ["figures", "figures/a.png", "notes.txt"]
    check_whole(copy)
    names = {"step-0000004", copy.name, "step-mine", newest.name}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert newest_checkpoint(tmp_path) == newest


@pytest.mark.parametrize("content", [None, "", "{}", '{"mine.safetensors": {}}'])
def test_weights_of_others_stay_in_a_checkpoint_whose_manifest_is_damaged(
    tmp_path: Path, content: str | None
) -> None:
    names = ("model", "optimizer", "timesteps", "average-0.999", "post-hoc-0.05", "best")
    tensors = {name: {"x": torch.zeros(1)} for name in names}
    older = write_checkpoint(tmp_path, Checkpoint(4, tensors, {}, {"metrics.jsonl": b""}))
    others = {"mine.safetensors", "average-mine.safetensors", "model.safetensors.old"}
    for name in others:
        (older / name).write_text("mine")
    (older / "manifest.json").unlink()
    if content is not None:
        (older / "manifest.json").write_text(content)
    write_checkpoint(tmp_path, checkpoint(5), limit=1)
    assert {path.name for path in older.iterdir()} == others


def test_a_checkpoint_that_is_written_again_leaves_the_files_of_others(tmp_path: Path) -> None:
    older = write_checkpoint(tmp_path, checkpoint(4))
    (older / "notes.txt").write_text("mine")
    fetched = write_checkpoint(tmp_path / "fetched", checkpoint(4))
    (older / "manifest.json").write_text("damaged")
    assert adopt_checkpoint(fetched, tmp_path) == older
    assert write_checkpoint(tmp_path, checkpoint(4)) == older
    check_whole(older)
    assert (older / "notes.txt").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {older.name, "fetched"}


def test_a_link_in_the_place_of_an_old_checkpoint_goes_and_its_target_stays(
    tmp_path: Path,
) -> None:
    older = write_checkpoint(tmp_path / "here", checkpoint(4))
    older.rename(moved := tmp_path / "moved")
    older.symlink_to(moved)
    write_checkpoint(tmp_path / "here", checkpoint(5), limit=1)
    check_whole(moved)
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["step-0000005"]


def test_the_newest_is_that_of_the_largest_step(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, checkpoint(9_999_999))
    newest = write_checkpoint(tmp_path, checkpoint(10_000_000), limit=1)
    assert newest_checkpoint(tmp_path) == newest
    assert [path.name for path in tmp_path.iterdir()] == [newest.name]


def damage_cut(path: Path) -> None:
    os.truncate(path / "model.safetensors", 20)


def damage_bit(path: Path) -> None:
    content = bytearray((path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "model.safetensors").write_bytes(content)


def damage_missing(path: Path) -> None:
    (path / "state.json").unlink()


def resealed(state: object, path: Path) -> None:
    """Put another state into a checkpoint, with a manifest that fits it."""
    (path / "state.json").write_text(json.dumps(state))
    sealed(path)


def damage_manifest(path: Path) -> None:
    (path / "manifest.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (damage_cut, "model.safetensors has changed"),
        (damage_bit, "model.safetensors has changed"),
        (damage_missing, "no state.json"),
        (damage_manifest, "manifest.json"),
        (lambda path: (path / "manifest.json").write_text("{}"), "it lacks model.safetensors"),
        (partial(resealed, {"step": -5}), "its step must be an integer of at least 0, got -5"),
        (partial(resealed, {"step": True}), "its step must be an integer of at least 0, got True"),
        (partial(resealed, {}), "state.json: no 'step'"),
        (partial(resealed, ["step"]), "state.json"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
    named: str,
) -> None:
    older = write_checkpoint(tmp_path, checkpoint(4))
    newer = write_checkpoint(tmp_path, checkpoint(8))
    damage(newer)
    assert newest_checkpoint(tmp_path) == older
    assert "step-0000008" in caplog.text
    assert named in caplog.text


def test_stock_takes_a_partial_checkpoint_for_the_latest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever the process may die, every folder with a checkpoint's name is a whole one."""
    fsync, seen = os.fsync, []

    def look(descriptor: int) -> None:
        found = sorted(tmp_path.glob("step-*"))
        for path in found:
            check_whole(path)
        seen.append(len(found))
        fsync(descriptor)

    write_checkpoint(tmp_path, checkpoint(4), limit=1)
    monkeypatch.setattr(os, "fsync", look)
    write_checkpoint(tmp_path, checkpoint(8), limit=1)
    assert seen[:-1] == [1] * (len(seen) - 1)
    assert seen[-1] == 2  # the old one goes last
    assert len(seen) == 7  # four files, the manifest, their folder and the folder of checkpoints


def test_what_the_manifest_does_not_name_is_not_read(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, checkpoint(7))
    (path / "optimizer.safetensors").write_bytes(b"not safetensors")
    check_whole(path)
    read = read_checkpoint(path)
    assert read.tensors.keys() == {"model", "empty"}
    assert read.files.keys() == {"log.txt"}


def test_damaged_checkpoints_alone_are_refused(tmp_path: Path) -> None:
    damage_cut(write_checkpoint(tmp_path, checkpoint(4)))
    with pytest.raises(ValueError, match=r"no checkpoint in .* is whole"):
        newest_checkpoint(tmp_path)


def test_the_rest_of_a_killed_writing_is_never_chosen(tmp_path: Path) -> None:
    older = write_checkpoint(tmp_path, checkpoint(4))
    aside = write_checkpoint(tmp_path / "other", checkpoint(8)).rename(tmp_path / ".aside")
    assert newest_checkpoint(tmp_path) == older
    write_checkpoint(tmp_path, checkpoint(8))
    assert not aside.exists()


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_stock_deletes_old_checkpoints_before_the_new_one_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    older = write_checkpoint(tmp_path, checkpoint(4), limit=1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match=r"checkpoint of step 8 cannot be written.*No space left"):
        write_checkpoint(tmp_path, checkpoint(8), limit=1)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == [older.name]
    assert newest_checkpoint(tmp_path) == older


def test_a_checkpoint_does_not_take_the_place_of_another(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "fetched"
    write_checkpoint(here, checkpoint(2))
    other = Checkpoint(2, checkpoint(2).tensors, {"note": "other"}, {})
    fetched = write_checkpoint(there, other)
    with pytest.raises(ValueError, match="holds another checkpoint of the same step"):
        adopt_checkpoint(fetched, here)
    (here / "step-0000002" / "manifest.json").write_text("damaged")
    assert read_checkpoint(adopt_checkpoint(fetched, here)).state == {"note": "other"}
