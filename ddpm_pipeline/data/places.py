"""Where decoded images and what belongs to them are kept on this machine."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["default_cache_dir"]


def default_cache_dir() -> Path:
    """Give `$DDPM_PIPELINE_CACHE`, or else `$HF_HOME/ddpm_pipeline/images`."""
    if given := os.environ.get("DDPM_PIPELINE_CACHE"):
        return Path(given).expanduser()
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME, "ddpm_pipeline", "images")
