"""Weights in a folder: one file, or shards and an index, and never both."""

from __future__ import annotations

import json
from pathlib import Path

from diffusers.configuration_utils import FrozenDict

__all__ = ["drop_stale_weights"]


def forget_origin(component: object) -> None:
    """Drop the path that a component was loaded from out of the config that will be saved."""
    config = getattr(component, "_internal_dict", {})
    if "_name_or_path" in config:
        kept = {key: value for key, value in config.items() if key != "_name_or_path"}
        component._internal_dict = FrozenDict(kept)  # noqa: SLF001 (register_to_config cannot delete)


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
