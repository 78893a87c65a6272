"""What makes a saved pipeline one that stock diffusers opens, with no trace of where it was made.

    forget_origin(component)               no local path in the config that will be saved
    drop_stale_weights(folder / "unet")    one file, or shards and an index, and never both
    stock_index(index)                     model_index.json names only classes of diffusers

The first comes before diffusers saves, the second after it, the third while it does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffusers.configuration_utils import FrozenDict

from ddpm_pipeline.schedulers import DDPMScheduler

__all__ = ["drop_stale_weights", "forget_origin", "stock_index"]


_ORIGIN = "_name_or_path"


def forget_origin(component: object) -> None:
    """Drop the path that a component was loaded from out of the config that will be saved."""
    config = getattr(component, "_internal_dict", {})
    if _ORIGIN in config:
        kept = {key: value for key, value in config.items() if key != _ORIGIN}
        # register_to_config can add keys and change them, and cannot delete them.
        component._internal_dict = FrozenDict(kept)  # noqa: SLF001


def drop_stale_weights(folder: Path) -> None:
    """Delete what diffusers leaves of older weights beside new ones in another layout.

    That is the index of shards that are gone, or a single file beside shards.
    """
    for index in folder.glob("*.safetensors.index*.json"):
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        if all((folder / shard).is_file() for shard in shards):
            stem, variant = index.name.removesuffix(".json").split(".safetensors.index")
            (folder / f"{stem}{variant}.safetensors").unlink(missing_ok=True)
        else:
            index.unlink()


def stock_index(index: dict[str, Any]) -> dict[str, Any]:
    """Name diffusers' classes in a model_index.json, which tells them by library and class."""
    index = {key: value for key, value in index.items() if key != _ORIGIN}
    if index["scheduler"] == [DDPMScheduler.__module__, DDPMScheduler.__name__]:
        index["scheduler"] = ["diffusers", "DDPMScheduler"]
    return index
