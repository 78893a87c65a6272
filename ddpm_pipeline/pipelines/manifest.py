"""What determines drawn images, written beside them, so that nothing is mixed with anything else.

    samples/sampling.json       of a folder
    samples.npz/sampling.json   of a .npz file, which is an archive

They are read before torch is imported, so that a command refuses an output at once.
"""

from __future__ import annotations

import json
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ddpm_pipeline.common import TEMPORARY_PATTERN

__all__ = ["SAMPLES_MANIFEST", "check_manifest", "check_not_foreign", "npz_manifest"]


SAMPLES_MANIFEST = "sampling.json"


def check_not_foreign(folder: Path) -> None:
    """Refuse a folder with anything in it that ``sample_images`` did not put there.

    Raises:
        ValueError: If it is not empty, and has no manifest.
    """
    if not folder.exists() or (folder / SAMPLES_MANIFEST).exists():
        return
    # The manifest may be being written, by the main process of several.
    if any(not fnmatch(path.name, TEMPORARY_PATTERN) for path in folder.iterdir()):
        raise ValueError(f"output {str(folder)!r} is not empty and was not made by sample_images")


def npz_manifest(path: Path) -> dict[str, Any]:
    """Read the manifest of a .npz file that ``sample_images`` made.

    Raises:
        ValueError: If the file is another one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read(SAMPLES_MANIFEST))
    except (KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"output {str(path)!r} exists and was not made by sample_images"
        ) from error


def check_manifest(wanted: dict[str, Any], found: dict[str, Any], output: Path) -> None:
    """Refuse an output whose images other options made.

    Arguments:
        wanted: What determines the images to come.
        found: What determined those that are there.
        output: Where they are, for the message.
    Raises:
        ValueError: If the two differ; names all that does.
    """
    differing = [
        f"{key} {found.get(key)!r}, now {wanted.get(key)!r}"
        for key in sorted(wanted.keys() | found.keys())
        if wanted.get(key) != found.get(key)
    ]
    if differing:
        raise ValueError(
            f"output {str(output)!r} holds images made with other options: {'; '.join(differing)}"
        )
