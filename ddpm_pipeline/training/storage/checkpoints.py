"""Checkpoints that are whole or absent.

    checkpoints/step-0000500/   model.safetensors, optimizer.safetensors, ..., state.json
                                manifest.json: size and SHA-256 of every other file

A checkpoint is written into a folder aside, every file and the folder are synced to the disk, and
the folder is renamed; only then are old ones deleted. So a process killed or a disk full at any
moment leaves the earlier checkpoints as they were. A checkpoint whose files do not match their
manifest is named in a warning and passed over, and only what the manifest names is read.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from ddpm_pipeline.common import check_integer, load_tensors, sync_path, write_bytes, write_text
from ddpm_pipeline.training.storage.manifests import (
    MANIFEST_NAME,
    STATE_NAME,
    damage_named,
    read_manifest,
    size_and_hash,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "MANIFEST_NAME",
    "STATE_NAME",
    "Checkpoint",
    "adopt_checkpoint",
    "check_whole",
    "checkpoint_files",
    "checkpoint_path",
    "newest_checkpoint",
    "read_checkpoint",
    "read_state",
    "write_checkpoint",
]

logger = logging.getLogger(__name__)


_PREFIX, _ASIDE = "step-", ".aside"
_NAME = re.compile(rf"{_PREFIX}[0-9]{{7,}}")
_GROUPS = ("model", "optimizer", "timesteps", "average-[0-9]*", "post-hoc-[0-9]*", "best")
_FILES = (*(f"{n}.safetensors" for n in _GROUPS), "metrics.jsonl", STATE_NAME, MANIFEST_NAME)


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to continue.

    Arguments:
        step: Updates made.
        tensors: Named groups of tensors; each becomes one safetensors file.
        state: Everything else, as JSON values.
        files: Small files of the run as they were at this step, by name.
    """

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, Any]
    files: Mapping[str, bytes]


def write_checkpoint(folder: Path, checkpoint: Checkpoint, *, limit: int | None = None) -> Path:
    """Add a checkpoint to a folder of checkpoints, then delete all but the newest.

    Arguments:
        folder: Of checkpoints; it is made if it is missing.
        checkpoint: What to write.
        limit: How many to keep; None keeps all.
    Returns:
        Where it is.
    Raises:
        OSError: If it cannot be written; the earlier checkpoints are as they were.
    """
    target = checkpoint_path(folder, checkpoint.step)
    aside = folder / _ASIDE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        _write_files(aside, checkpoint)
        _put(aside, target)
        sync_path(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise OSError(
            f"the checkpoint of step {checkpoint.step} cannot be written in {str(folder)!r}: "
            f"{reason}; earlier checkpoints are as they were"
        ) from error
    _prune(folder, limit)
    return target


def checkpoint_path(folder: Path, step: int) -> Path:
    """Name the place of a step's checkpoint in a folder of checkpoints."""
    return folder / f"{_PREFIX}{step:07d}"


def adopt_checkpoint(path: Path, folder: Path) -> Path:
    """Move a whole checkpoint into a folder of checkpoints on the same disk.

    Returns:
        Where it is then.
    Raises:
        ValueError: If the folder holds another whole checkpoint of the same step.
    """
    target = checkpoint_path(folder, read_state(path)["step"])
    if target.exists() and _is_whole(target):
        if (target / MANIFEST_NAME).read_bytes() != (path / MANIFEST_NAME).read_bytes():
            raise ValueError(
                f"{str(folder)!r} holds another checkpoint of the same step, {target.name}; "
                "choose another output_dir"
            )
        return target
    for file in path.iterdir():
        sync_path(file)
    _put(path, target)
    sync_path(folder)
    return target


def _put(path: Path, target: Path) -> None:
    """Rename a checkpoint to its place; of one that is there, the files of others stay in it."""
    for left in target.parent.glob(f"{_ASIDE}.replaced*"):  # by a kill at this place
        _discard(left)
    replaced = _free_name(target.with_name(f"{_ASIDE}.replaced"))
    if target.exists():
        target.rename(replaced)
    path.rename(target)
    _discard(replaced)
    for other in replaced.iterdir() if replaced.is_dir() else ():
        if not (target / other.name).exists():
            other.rename(target / other.name)
        elif not other.is_dir():  # of the damaged checkpoint that was there
            other.unlink()
    _remove_if_empty(replaced)


def _free_name(path: Path) -> Path:
    """Give a path at which nothing is: this one, or it with a number."""
    names = (path, *(path.with_name(f"{path.name}-{i}") for i in range(1000)))
    return next(name for name in names if not name.exists())


def _discard(path: Path) -> None:
    """Delete the files of a checkpoint, and its folder unless somebody else put files there."""
    if path.is_symlink():
        path.unlink()
    elif path.is_dir():
        for file in checkpoint_files(path):
            if not file.is_dir():
                file.unlink(missing_ok=True)
        _remove_if_empty(path)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _is_whole(path: Path) -> bool:
    """Tell whether ``check_whole`` accepts a checkpoint."""
    try:
        check_whole(path)
    except ValueError:
        return False
    return True


def _write_files(aside: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint into a new folder; all of it is on the disk when this returns."""
    for name, tensors in checkpoint.tensors.items():
        plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        save_file(plain, aside / f"{name}.safetensors")
    for name, content in checkpoint.files.items():
        write_bytes(aside / name, content, sync=False)
    state = {"step": checkpoint.step, **checkpoint.state}
    write_text(aside / STATE_NAME, json.dumps(state, indent=2), sync=False)
    manifest = {path.name: size_and_hash(path) for path in sorted(aside.iterdir())}
    write_text(aside / MANIFEST_NAME, json.dumps(manifest, indent=2), sync=False)
    for path in aside.iterdir():
        sync_path(path)
    sync_path(aside)


def _prune(folder: Path, limit: int | None) -> None:
    """Delete all checkpoints but the newest."""
    for path in _newest_first(folder)[limit:] if limit is not None else []:
        _discard(path)


def _newest_first(folder: Path) -> list[Path]:
    """List the checkpoints in a folder, whole or not.

    Left out are what others put there, such as a copy under another name, and folders of
    checkpoints that were deleted, which may hold files of others.
    """
    found = [
        path
        for path in folder.glob(f"{_PREFIX}*")
        if _NAME.fullmatch(path.name)
        and path.is_dir()
        and (not any(path.iterdir()) or any(file.exists() for file in checkpoint_files(path)))
    ]
    return sorted(found, key=lambda path: int(path.name.removeprefix(_PREFIX)), reverse=True)


def newest_checkpoint(folder: Path) -> Path | None:
    """Find the newest whole checkpoint in a folder; give None if there are none at all.

    Raises:
        ValueError: If there are checkpoints and none is whole.
    """
    found = _newest_first(folder)
    for path in found:
        try:
            check_whole(path)
        except ValueError as error:
            logger.warning("%s; looking for an earlier one", error)
        else:
            return path
    if found:
        raise ValueError(f"no checkpoint in {str(folder)!r} is whole; delete them to start afresh")
    return None


def check_whole(path: Path) -> None:
    """Compare every file of a checkpoint with its manifest.

    Raises:
        ValueError: If the manifest is not one, or a file is missing, cut short or changed; names
            it.
    """
    for name, expected in read_manifest(path).items():
        with damage_named(path, name):
            # Its size first: a wrong file of gigabytes need not be read.
            size = (path / name).stat().st_size
            if size != expected["size"] or size_and_hash(path / name) != expected:
                raise ValueError(f"the checkpoint {str(path)!r} is damaged: {name} has changed")
    read_state(path)


def checkpoint_files(path: Path) -> list[Path]:
    """List the files that belong to a checkpoint, whole or not; other files in it do not."""
    try:
        return [path / name for name in (*read_manifest(path), MANIFEST_NAME)]
    except ValueError:  # without one, what runs call the files of a checkpoint
        return sorted(file for name in _FILES for file in path.glob(name))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint that ``check_whole`` accepts, its tensors onto the CPU.

    Raises:
        ValueError: If it is damaged; names the file.
    """
    state = read_state(path)
    files = [path / name for name in sorted(read_manifest(path)) if name != STATE_NAME]
    tensors = {}
    for file in (f for f in files if f.suffix == ".safetensors"):
        with damage_named(path, file.name):
            tensors[file.stem] = load_tensors(file)
    others = [file for file in files if file.suffix != ".safetensors"]
    return Checkpoint(
        step=state.pop("step"),
        tensors=tensors,
        state=state,
        files={file.name: file.read_bytes() for file in others},
    )


def read_state(path: Path) -> dict[str, Any]:
    """Read what a checkpoint holds beside tensors and files, with its step.

    Raises:
        ValueError: If it is no object, or its step no count of updates.
    """
    with damage_named(path, STATE_NAME):
        state = json.loads((path / STATE_NAME).read_bytes())
        check_integer("its step", state["step"], least=0)
    return state
