"""Splits by names: which part of a folder is read, so that no test image is trained on unasked.

    photos/train/..., photos/test/...               "train" is read
    photos/train/..., photos/cats/...               refused until a split is named
    named_split("data/val-00.tar")                  "val"

A folder counts if it holds images, at any depth; hidden ones never do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ddpm_pipeline.data.findings import printable
from ddpm_pipeline.data.sources.kinds import is_image_name, walk

__all__ = ["check_nested_splits", "check_one_split", "choose_split_folder", "named_split"]

_TRAIN = "train|training"
_OTHER = "test|testing|val|valid|validation|dev|eval|evaluation"
_MORE = r"(?:[-_. ]?(?:\d+|images?|imgs?|set|data|split))?"
_TRAIN_NAME = re.compile(rf"(?:images?[-_. ])?(?:{_TRAIN}){_MORE}", re.IGNORECASE)
_SPLIT_NAME = re.compile(rf"(?:images?[-_. ])?(?:{_TRAIN}|{_OTHER}){_MORE}", re.IGNORECASE)
_SPLIT_WORD = re.compile(rf"(?<![^-_. \d/])({_TRAIN}|{_OTHER})(?![^-_. \d/])", re.IGNORECASE)


def choose_split_folder(root: Path, split: str | None) -> tuple[Path, str | None]:
    """Give the folder that is read, and the split that it is.

    Arguments:
        root: The folder that the caller named.
        split: A folder in it, "." for all of it, or None: that for training, or the only one, if
            all folders that hold images are splits; else all of it.
    Raises:
        ValueError: If there is no such split, or splits stand beside other images.
    """
    if split is not None:
        return _folder_of(root, split)
    folders, loose = _visible(root)
    if not any(_SPLIT_NAME.fullmatch(name) for name in folders):
        return root, None
    holding = [name for name in folders if _holds_image(root / name)]
    splits = [name for name in holding if _SPLIT_NAME.fullmatch(name)]
    if not splits:
        return root, None
    others = [f"{name}/" for name in holding if name not in splits] + ([loose] if loose else [])
    if others:
        raise ValueError(_mixture(root, splits, others))
    train = [name for name in splits if _TRAIN_NAME.fullmatch(name)]
    chosen = train if len(train) == 1 else splits
    if len(chosen) > 1:
        raise ValueError(
            f"{printable(str(root))!r} holds the splits {', '.join(map(printable, splits))}: name "
            f"one, as split={splits[0]!r}, or split='.' to read all as classes"
        )
    return root / chosen[0], chosen[0]


def named_split(name: str) -> str | None:
    """Give the split that a file's name says, as a word of its own in it or its folders' names.

    "training" is "train"; None if it says none.
    """
    found = _SPLIT_WORD.search(name)
    word = None if found is None else found[1].lower()
    return "train" if word == "training" else word


def check_one_split(root: Path, names: Sequence[str]) -> str | None:
    """Find the split that is read of files whose names say theirs; None if none does.

    Arguments:
        root: Where they are, for the message.
        names: Relative names of files.
    Raises:
        ValueError: If some say a split and others none, or it is not clear which one to read.
    """
    splits = {name: named_split(name) for name in names}
    said = sorted({split for split in splits.values() if split is not None})
    if not said:
        return None
    if unsaid := [name for name, split in splits.items() if split is None]:
        raise ValueError(
            f"{printable(str(root))!r} holds files of split {', '.join(said)} and others, as "
            f"{printable(unsaid[0])}, so it is not clear what to read: name a split, as "
            f"split={said[0]!r}, or the files by a pattern"
        )
    if len(said) > 1 and "train" not in said:
        raise ValueError(
            f"{printable(str(root))!r} holds the splits {', '.join(said)}: name one, as "
            f"split={said[0]!r}"
        )
    return "train" if "train" in said else said[0]


def _folder_of(root: Path, split: str) -> tuple[Path, str | None]:
    if not (root / split).is_dir():
        folders = sorted(
            p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")
        )
        found = [printable(name) for name in folders] or "none at all"
        raise ValueError(
            f"split={split!r}: {printable(str(root))!r} has no such folder, but {found}"
        )
    return root / split, None if Path(split) == Path() else split


def _mixture(root: Path, splits: list[str], others: list[str]) -> str:
    """Say that splits stand beside images that are in none."""
    named = ", ".join(printable(name) for name in others[:3]) + (", ..." if others[3:] else "")
    return (
        f"{printable(str(root))!r} holds images in {', '.join(map(printable, splits))} and in "
        f"{named}, so it is not clear what to read: name a split, as split={splits[0]!r}, or "
        "split='.' to read all of it"
    )


def _visible(folder: Path) -> tuple[list[str], str | None]:
    """List the folders in one, sorted, and the first image that is in it directly, or None."""
    with os.scandir(folder) as listing:
        visible = [entry for entry in listing if not entry.name.startswith(".")]
    folders = sorted(entry.name for entry in visible if entry.is_dir())
    images = (entry.name for entry in visible if is_image_name(entry.name) and not entry.is_dir())
    return folders, min(images, default=None)


def _holds_image(folder: Path) -> bool:
    """Tell whether there is an image anywhere below a folder."""
    return any(is_image_name(entry.name) for _, _, files in walk(folder) for entry in files)


def check_nested_splits(root: Path, folders: Iterable[str]) -> None:
    """Refuse splits that are further down, as in "images/train" beside "images/test".

    Arguments:
        root: The folder that is read.
        folders: Names below it of all folders that hold images, each ending in "/".
    Raises:
        ValueError: If a folder in it holds images both for training and for testing.
    """
    inside: dict[str, set[str]] = {}
    for folder in folders:
        parts = folder.split("/")[:-1]
        for depth in range(1, len(parts)):
            inside.setdefault("/".join(parts[:depth]), set()).add(parts[depth])
    for parent, names in sorted(inside.items()):
        splits = sorted(name for name in names if _SPLIT_NAME.fullmatch(name))
        train = [name for name in splits if _TRAIN_NAME.fullmatch(name)]
        if train and len(splits) > len(train):
            named = printable(f"{parent}/{train[0]}")
            every = ", ".join(map(printable, splits))
            raise ValueError(
                f"{printable(str(root))!r} holds splits {every} in {printable(parent)!r}: name "
                f"one, as split={named!r}, or split='.' to read all"
            )
