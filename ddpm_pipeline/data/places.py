"""Where decoded images and what belongs to them are kept on this machine."""

from __future__ import annotations

import errno
import os
from pathlib import Path

__all__ = ["default_cache_dir", "private_folder"]

_BY_ANYBODY = 0o002


def default_cache_dir() -> Path:
    """Give `$DDPM_PIPELINE_CACHE`, or else `$HF_HOME/ddpm_pipeline/images`."""
    if given := os.environ.get("DDPM_PIPELINE_CACHE"):
        return Path(given).expanduser()
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME, "ddpm_pipeline", "images")


def private_folder(folder: Path) -> Path:
    """Make a folder that only its user can enter, unless there is one.

    One that is there keeps its mode, since a group may share it on purpose.

    Raises:
        PermissionError: If anybody may write into it: what is read from it, and what is in the
            place of a file that is written, could then be anybody's.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.name == "posix" and folder.stat().st_mode & _BY_ANYBODY:
        reason = "anybody may write into it; take that right away (chmod o-w) or name another"
        raise PermissionError(errno.EPERM, reason, str(folder))
    return folder
