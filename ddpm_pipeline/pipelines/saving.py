"""What makes a saved pipeline one that stock diffusers opens, with no trace of where it was made.

    forget_origin(component)               no local path in the config that will be saved
    drop_stale_weights(folder, written)    one file, or shards and an index, and never both
    stock_index(index)                     model_index.json names only classes of diffusers

The first comes before diffusers saves, the second after it, the third while it does.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from diffusers.configuration_utils import FrozenDict

from ddpm_pipeline.schedulers import DDPMScheduler

__all__ = ["drop_stale_weights", "forget_origin", "stock_index"]


_ORIGIN = "_name_or_path"
# STEM[.VARIANT][-00001-of-00002].safetensors, and STEM.safetensors.index[.VARIANT].json.
_WEIGHTS = re.compile(
    r"([^.]+?)(?:\.([^.]+?))?(?:-\d{5}-of-\d{5})?\.safetensors(?:\.index(?:\.([^.]+))?\.json)?"
)


def forget_origin(component: object) -> None:
    """Drop the path that a component was loaded from out of the config that will be saved."""
    config = getattr(component, "_internal_dict", {})
    if _ORIGIN in config:
        kept = {key: value for key, value in config.items() if key != _ORIGIN}
        # register_to_config can add keys and change them, and cannot delete them.
        component._internal_dict = FrozenDict(kept)  # noqa: SLF001


def drop_stale_weights(folder: Path, written: Collection[str]) -> None:
    """Delete older weights of a folder in whose place new ones were written.

    Those are a single file beside new shards, shards and their index beside a new single file, and
    other shards beside new ones. Weights of another variant stay.

    Arguments:
        folder: Of a component.
        written: The names of the new files in it.
    """
    replaced = {_weights_of(name) for name in written} - {None}
    for path in list(folder.iterdir()) if replaced else ():
        if path.name not in written and _weights_of(path.name) in replaced:
            path.unlink()


def _weights_of(name: str) -> tuple[str, str | None] | None:
    """Tell the weights that a file is one of, by stem and variant; None if it is of none."""
    found = _WEIGHTS.fullmatch(name)
    return None if found is None else (found[1], found[2] or found[3])


def stock_index(index: dict[str, Any]) -> dict[str, Any]:
    """Name diffusers' classes in a model_index.json, which tells them by library and class."""
    index = {key: value for key, value in index.items() if key != _ORIGIN}
    if index["scheduler"] == [DDPMScheduler.__module__, DDPMScheduler.__name__]:
        index["scheduler"] = ["diffusers", "DDPMScheduler"]
    return index
