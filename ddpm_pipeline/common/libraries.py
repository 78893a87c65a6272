"""Where a library that this package stands on differs between its versions.

    httpx = http_library()        httpx or httpx2: what huggingface_hub sends with
    library_versions()            {"torch": "2.13.0", "diffusers": "0.42.1"}
    saving_options(path, size)    what Pillow must be told to write a picture

The versions are those that the modules tell. A library or this package may lie in a folder on the
path, without the metadata of an installation.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["http_library", "library_versions", "saving_options"]


def http_library() -> ModuleType:
    """Import what huggingface_hub's clients, responses and errors are of, though both be there.

    From version 2 on it is httpx2, the continuation of httpx under another name.
    """
    import huggingface_hub

    if int(huggingface_hub.__version__.split(".", maxsplit=1)[0]) < 2:
        import httpx as library
    else:
        import httpx2 as library
    return library


def library_versions() -> dict[str, str]:
    """Give the versions of the libraries that numbers and images depend on, as JSON values."""
    import diffusers
    import torch

    return {"torch": str(torch.__version__), "diffusers": diffusers.__version__}


def saving_options(path: Path, size: tuple[int, int]) -> dict[str, Any]:
    """Give the options of Pillow's ``save`` for a picture, by its file and (width, height).

    Before its version 13 Pillow writes an icon without a picture of what is below 16 pixels.
    """
    if path.suffix.lower() != ".ico" or min(size) >= 16:
        return {}
    return {"sizes": [tuple(min(length, 256) for length in size)]}
