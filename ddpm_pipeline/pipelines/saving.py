"""What makes a saved pipeline one that stock diffusers opens, with no trace of where it was made.

save_whole(components, folder, save)   no local path; one file, or shards and an index
stock_index(index)                     model_index.json names only classes of diffusers
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from diffusers.configuration_utils import FrozenDict

from ddpm_pipeline.common import written_aside
from ddpm_pipeline.schedulers import DDPMScheduler

__all__ = ["drop_stale_weights", "forget_origin", "save_whole", "stock_index"]


_ORIGIN = "_name_or_path"
# STEM[.VARIANT][-00001-of-00002].safetensors, and STEM.safetensors.index[.VARIANT].json.
_WEIGHTS = re.compile(
    r"([^.]+?)(?:\.([^.]+?))?(?:-\d{5}-of-\d{5})?\.safetensors(?:\.index(?:\.([^.]+))?\.json)?"
)


def save_whole(
    components: Mapping[str, object], folder: Path, save: Callable[[str], None]
) -> None:
    """Have diffusers save a pipeline aside, and put it in its place when all of it is written.

    Arguments:
        components: Of the pipeline, by name.
        folder: Where it appears; older weights in whose place new ones came are deleted.
        save: Saves the pipeline into a folder.
    """
    with written_aside(folder) as aside:
        save(os.fspath(aside))
        written = {n: [f.name for f in (aside / n).iterdir()] for n in components}
    for name, files in written.items():
        drop_stale_weights(folder / name, files)


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
