"""Names of sources that may be published: no path, no user's name, no host."""

from __future__ import annotations

import os
import re
from pathlib import Path

__all__ = ["source_name"]

_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def source_name(source: str | os.PathLike) -> str:
    """Give a source's name for reports: a name of the Hub whole, of a path its last part."""
    name, path = os.fspath(source), Path(source).expanduser()
    if path.exists():
        return Path(os.path.abspath(path)).name or name  # noqa: PTH100 (a link keeps its name)
    return name if _HUB_NAME.fullmatch(name) else path.name or name
