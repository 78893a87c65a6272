"""What a push sends: the files of a model, and how they differ from what a repository holds.

A push writes down in ``.ddpm_pipeline.json`` what it pushed, with hashes, so that the next one
knows which files it may delete: a file that was changed on the Hub since is not taken for ours.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub.hf_api import RepoFile

from ddpm_pipeline.common import MODEL_INDEX, check_inside, check_saved_model, is_plain_name

__all__ = [
    "PICKLE_SUFFIXES",
    "RECORD_NAME",
    "Hashes",
    "PushPlan",
    "checked_contents",
    "model_files",
    "plan_push",
    "read_record",
]


RECORD_NAME = ".ddpm_pipeline.json"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
WEIGHTS = "diffusion_pytorch_model*"
_BESIDE_THE_MODEL = (
    MODEL_INDEX,
    "README.md",
    "training_config.json",
    "training_record.json",
    "average.json",
    "training_images.safetensors",
    "samples.png",
    "evaluation.json",
    "bound.json",
    "bound.png",
    "calibration.json",
    "calibration_*.png",
)


@dataclass(frozen=True)
class Hashes:
    """The hashes the Hub may know a file by: git's own, or its SHA-256 if it is kept as LFS."""

    git: str
    sha256: str

    def are_of(self, entry: RepoFile) -> bool:
        """Tell whether a file of a repository has this content."""
        return entry.lfs.sha256 == self.sha256 if entry.lfs else entry.blob_id == self.git


@dataclass(frozen=True)
class PushPlan:
    """A commit on top of a head.

    Arguments:
        head: The commit that it is planned for.
        files: Hashes of all files of the model, with the record.
        additions: Those that differ.
        deletions: Paths to delete.
    """

    head: str
    files: dict[str, Hashes]
    additions: dict[str, Path | bytes]
    deletions: list[str]


def model_files(folder: str | Path) -> list[str]:
    """List the files of a model folder that belong on the Hub, as paths in it.

    The components that model_index.json names, the card, the configuration of the training run,
    reports of what was measured and their pictures, and ``samples.png``. Checkpoints, logs and
    whatever else lies there do not belong to the model.

    Raises:
        FileNotFoundError: If there is no such folder, or no saved model in it.
        NotADirectoryError: If it is a file.
        ValueError: If model_index.json names a part that is no folder's name, or a link leads out
            of the folder.
    """
    folder = Path(folder)
    check_saved_model(folder)
    values = json.loads((folder / MODEL_INDEX).read_text(encoding="utf-8"))
    parts = {name for name, value in values.items() if isinstance(value, list) and any(value)}
    for name in parts:
        if not is_plain_name(name):
            raise ValueError(
                f"{MODEL_INDEX} in {str(folder)!r} names a part {name!r}; parts are folders, "
                "named without separators and without a dot in front"
            )
    beside = [p.name for p in folder.iterdir() if _matches(p.name, _BESIDE_THE_MODEL)]
    inside = [path for part in parts for path in (folder / part).rglob("*") if path.is_file()]
    inside = [path.relative_to(folder) for path in inside]
    is_hidden = [any(name.startswith(".") for name in path.parts) for path in inside]
    shown = [path.as_posix() for path, hidden in zip(inside, is_hidden, strict=True) if not hidden]
    for file in beside + shown:
        check_inside(folder, file)
    return sorted(beside + shown)


def checked_contents(folder: Path, files: Iterable[str]) -> dict[str, Path | bytes]:
    """Find the contents of files of a folder, and refuse what must not be pushed.

    Raises:
        ValueError: If there are none, one is a pickle, or one leads out of the folder.
        FileNotFoundError: If one is missing.
    """
    paths = {file: folder / file for file in files}
    if not paths:
        raise ValueError(f"files must name at least one file in {str(folder)!r}, got none")
    for file, path in paths.items():
        if path.suffix.lower() in PICKLE_SUFFIXES:
            raise ValueError(
                f"{file!r} is a pickle, which can run code when it is loaded; only safetensors "
                "are pushed: load the model with use_safetensors=False and save it again"
            )
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {file!r} in {str(folder)!r}")
        check_inside(folder, file)
    return dict(paths)


def plan_push(
    contents: dict[str, Path | bytes],
    tree: dict[str, RepoFile],
    head: str,
    record: dict[str, Hashes],
    *,
    is_whole: bool,
    theirs: Collection[str] = (),
) -> PushPlan:
    """Find what to add to a tree, and to delete from it, so that it holds these contents.

    Arguments:
        contents: Files by their paths in the repository.
        tree: What is there.
        head: The commit whose tree it is.
        record: What earlier pushes wrote down.
        is_whole: Whether files of earlier pushes that are not among the contents go even if the
            weights stay.
        theirs: Those of the contents that hold other people's words: they are not written down.
    """
    files = {name: _hashes(path) for name, path in contents.items()}
    additions: dict[str, Path | bytes] = {
        name: path
        for name, path in contents.items()
        if name not in tree or not files[name].are_of(tree[name])
    }
    are_weights_new = any(_is_weights(name, contents) for name in additions)
    gone = {name for name in tree.keys() - contents.keys() if _is_weights(name, contents)}
    ours = {name for name, old in record.items() if name in tree and old.are_of(tree[name])}
    if is_whole or are_weights_new or gone:
        gone |= ours - contents.keys()
    if additions or gone:
        known = {name: record[name] for name in ours - gone} | files
        text = _record_text({name: h for name, h in known.items() if name not in theirs})
        files[RECORD_NAME] = _hashes(text)
        if RECORD_NAME not in tree or not files[RECORD_NAME].are_of(tree[RECORD_NAME]):
            additions[RECORD_NAME] = text
    return PushPlan(head, files, additions, sorted(gone - {RECORD_NAME}))


def _is_weights(path: str, contents: Iterable[str]) -> bool:
    """Tell whether a path is of weights in a folder to which the contents bring weights."""
    folder, _, name = path.rpartition("/")
    return fnmatch(name, WEIGHTS) and any(fnmatch(p, f"{folder}/{WEIGHTS}") for p in contents)


def _hashes(content: Path | bytes) -> Hashes:
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    git, sha256 = hashlib.sha1(b"blob %d\0" % size), hashlib.sha256()  # noqa: S324 (git's own)
    for part in [content] if isinstance(content, bytes) else _parts(content):
        git.update(part)
        sha256.update(part)
    return Hashes(git.hexdigest(), sha256.hexdigest())


def _parts(path: Path) -> Iterable[bytes]:
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            yield part


def read_record(text: str) -> dict[str, Hashes]:
    """Read what earlier pushes wrote down; nothing if none of ours wrote this text."""
    try:
        files = json.loads(text)["files"]
        return {name: Hashes(**hashes) for name, hashes in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _record_text(files: dict[str, Hashes]) -> bytes:
    values = {name: {"git": h.git, "sha256": h.sha256} for name, h in sorted(files.items())}
    return (json.dumps({"files": values}, indent=1) + "\n").encode()


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
