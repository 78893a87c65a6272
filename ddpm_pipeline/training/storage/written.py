"""``WrittenFiles``: the list of what runs wrote into a folder; that alone is deleted.

    output_dir/.written.jsonl      a path in output_dir on each line, as a text of JSON
        "samples/step-0000500.png"
        "checkpoints/step-0000500/"        a checkpoint: the files that its manifest names

A run notes a path before it writes there, so that a kill leaves nothing of it unlisted. A folder
that a version without lists wrote has none: what then counts as written are the names that runs
give, with what lies beside them left alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from ddpm_pipeline.training.storage.checkpoints import checkpoint_files

__all__ = ["MODEL_FILES", "WrittenFiles"]


MODEL_FILES = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.safetensors.index.json",
    "unet/diffusion_pytorch_model-?????-of-?????.safetensors",
)
"""Patterns of the files of a saved model, as paths in its folder."""

_LIST_NAME = ".written.jsonl"
_IDENTITY = "training_config.json"
_STEP = "step-" + 7 * "[0-9]" + "*"
_RUN_FILES = (
    *MODEL_FILES,
    _IDENTITY,
    "metrics.jsonl",
    "training_record.json",
    "training_images.safetensors",
    "samples.png",
    f"samples/{_STEP}.png",
    f"shorter-run/{_STEP}.png",
)
_CHECKPOINTS = tuple(f"{n}/{_STEP}" for n in ("checkpoints", "before-cooldown", "shorter-run"))
_EVENTS = "events.out.tfevents.*"  # of tensorboard, the logger by default


class WrittenFiles:
    """What runs wrote into a folder.

    Arguments:
        folder: The output_dir.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._list = folder, folder / _LIST_NAME
        self._noted: set[str] | None = None

    def begin(self, logging_dir: str) -> None:
        """Make the list of a folder that has none, by the names that runs give.

        Arguments:
            logging_dir: The loggers' folder in it.
        """
        if not self._list.exists() and (self._folder / _IDENTITY).exists():
            self.note(*_matching(self._folder, _RUN_FILES))
            self.note(*(self._folder / logging_dir).rglob(_EVENTS))
            checkpoints = _matching(self._folder, _CHECKPOINTS)
            self.note_checkpoint(*filter(Path.is_dir, checkpoints))

    def note(self, *paths: Path) -> None:
        """Put files on the list."""
        self._add(path.relative_to(self._folder).as_posix() for path in paths)

    def note_checkpoint(self, *paths: Path) -> None:
        """Put the folders of checkpoints on the list."""
        self._add(f"{path.relative_to(self._folder).as_posix()}/" for path in paths)

    def _add(self, names: Iterable[str]) -> None:
        if self._noted is None:
            self._noted = set(self._listed())
        if fresh := [name for name in dict.fromkeys(names) if name not in self._noted]:
            with self._list.open("a", encoding="ascii") as file:
                file.writelines(f"{json.dumps(name)}\n" for name in fresh)
            self._noted.update(fresh)

    def note_model(self) -> None:
        """Put the files of the model that was just saved on the list."""
        self.note(*_matching(self._folder, MODEL_FILES))

    def delete(self, under: str = "") -> None:
        """Delete what is on the list, and the folders that are empty then.

        Arguments:
            under: Only what is in this folder of the output_dir; all, and the list too, by
                default.
        """
        names = [name for name in self._listed() if not under or name.startswith(f"{under}/")]
        for path in [file for name in names for file in self._files(name)]:
            path.unlink(missing_ok=True)
            _remove_empty(path.parent, self._folder)
        if not under:
            self._list.unlink(missing_ok=True)
            self._noted = None

    def _listed(self) -> list[str]:
        """Read the list. Lines that are no path in the folder are passed over: they name no work
        of a run, and a kill in the middle of a line leaves one.
        """
        if not self._list.is_file():
            return []
        lines = self._list.read_text(encoding="ascii", errors="replace").splitlines()
        return [name for name in map(_name_in, lines) if name is not None]

    def _files(self, name: str) -> Iterator[Path]:
        """Find the files that an entry stands for, none of them through a link to a folder."""
        path = self._folder / name
        if any(part.is_symlink() for part in _between(path, self._folder)):
            return
        if name.endswith("/") and path.is_dir() and not path.is_symlink():
            yield from (file for file in checkpoint_files(path) if not file.is_dir())
        elif not path.is_dir() or path.is_symlink():
            yield path


def _matching(folder: Path, patterns: Iterable[str]) -> list[Path]:
    return [path for pattern in patterns for path in sorted(folder.glob(pattern))]


def _name_in(line: str) -> str | None:
    """Read a line of the list; None if it is no path below the folder."""
    try:
        name = json.loads(line)
    except ValueError:
        return None
    if not isinstance(name, str) or not PurePosixPath(name).parts or "\0" in name:
        return None
    path = PurePosixPath(name)
    return None if path.is_absolute() or ".." in path.parts else name


def _between(path: Path, folder: Path) -> list[Path]:
    """List the folders that a path lies in, below the outer one."""
    return list(path.parents)[: len(path.relative_to(folder).parts) - 1]


def _remove_empty(folder: Path, outer: Path) -> None:
    """Remove a folder and those around it, up to the outer one, as far as they are empty."""
    while folder != outer and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
