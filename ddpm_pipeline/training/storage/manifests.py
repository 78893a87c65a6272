"""The manifest of a checkpoint: the size and the SHA-256 of every other file in it.

    {"model.safetensors": {"size": 1234, "sha256": "9f86d0..."}, "state.json": ...}

A folder without such a manifest, with all that every checkpoint has, is no checkpoint. It may come
from the Hub: names in it are plain ones, so that nothing outside its folder is meant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from ddpm_pipeline.common import file_hash, is_integer, is_plain_name

__all__ = [
    "MANIFEST_NAME",
    "STATE_NAME",
    "damage_named",
    "parse_manifest",
    "read_manifest",
    "size_and_hash",
]


MANIFEST_NAME, STATE_NAME = "manifest.json", "state.json"
_NEEDED = {STATE_NAME, "model.safetensors"}
_SHA256 = re.compile("[0-9a-f]{64}")


def size_and_hash(path: Path) -> dict[str, Any]:
    """Give what a manifest says of a file."""
    return {"size": path.stat().st_size, "sha256": file_hash(path)}


def read_manifest(path: Path) -> dict[str, dict[str, Any]]:
    """Read the manifest of a checkpoint.

    Raises:
        ValueError: If it is not there, or is none; names the checkpoint and what is wrong.
    """
    with damage_named(path, MANIFEST_NAME):
        return parse_manifest((path / MANIFEST_NAME).read_bytes())


def parse_manifest(content: bytes) -> dict[str, dict[str, Any]]:
    """Read a manifest.

    Raises:
        ValueError: If it is not JSON, lacks a file, or says anything else than a size and a hash
            of a plain name.
    """
    manifest = json.loads(content)
    if not isinstance(manifest, dict):
        raise ValueError(f"it must be an object of JSON, got a {type(manifest).__name__}")
    if missing := _NEEDED - manifest.keys():
        raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    for name, entry in manifest.items():
        if not is_plain_name(name) or name == MANIFEST_NAME:
            raise ValueError(f"it names {name!r}, which is no file of a checkpoint")
        if not _is_entry(entry):
            raise ValueError(f"of {name} it must say size and sha256, got {entry!r:.100}")
    return manifest


@contextmanager
def damage_named(path: Path, name: str) -> Iterator[None]:
    """Turn whatever a damaged file of a checkpoint makes fail into an error that names it.

    Arguments:
        path: The checkpoint.
        name: Of the file.
    Raises:
        ValueError: If the block fails at what is in the file, or at its absence.
    """
    said = f"the checkpoint {str(path)!r} is damaged: "
    try:
        yield
    except FileNotFoundError as error:
        raise ValueError(f"{said}no {name}") from error
    except torch.OutOfMemoryError:  # a RuntimeError that is no fault of the file
        raise
    except _AT_CONTENT as error:
        if isinstance(error, ValueError) and str(error).startswith(said):
            raise
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{said}{name}: {reason}") from error


# What wrong content makes of reading it, also where it is read as if it were right.
_AT_CONTENT = (
    OSError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    RuntimeError,
    SafetensorError,
)


def _is_entry(entry: object) -> bool:
    if not isinstance(entry, dict) or entry.keys() != {"size", "sha256"}:
        return False
    size, sha256 = entry["size"], entry["sha256"]
    is_hash = isinstance(sha256, str) and _SHA256.fullmatch(sha256) is not None
    return is_integer(size) and size >= 0 and is_hash
