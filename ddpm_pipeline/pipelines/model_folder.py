"""A saved model's folder is data: what it may name and ask for, held against limits.

    load_checked(from_pretrained, "model", "alice/digits", options)
    load_checked_unet("model/unet")

diffusers imports the library that a part of model_index.json names, builds a network of any size
that a config asks for, reads whatever file an index names, and draws at random what a file of
weights lacks. All of that is looked at here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, ModelMixin, SchedulerMixin, UNet2DModel
from safetensors import SafetensorError, safe_open
from torch import nn

from ddpm_pipeline.common import MODEL_INDEX, is_plain_name
from ddpm_pipeline.diffusion import check_num_train_timesteps
from ddpm_pipeline.hub import load
from ddpm_pipeline.networks import check_network_config
from ddpm_pipeline.pipelines.fitting import check_whole

__all__ = ["CheckedDownloads", "check_model_folder", "load_checked", "load_checked_unet"]


_MOST_BYTES = 64 << 20  # of a JSON file; calibrations of a million timesteps take less
_WEIGHTS = "diffusion_pytorch_model"
# What diffusers before 0.13 called the parts of attention; it renames them when it loads them.
_FORMER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_FORMER_NAME = re.compile(rf"\.({'|'.join(_FORMER)})(?=\.(?:weight|bias)$)")
# Where a call of load_checked is told what was downloaded for it.
_downloads: ContextVar[list[Path] | None] = ContextVar("_downloads", default=None)


class CheckedDownloads(DiffusionPipeline):
    """The part of ``DDPMPipeline`` that looks at what was downloaded; it has no components."""

    @classmethod
    def download(cls, pretrained_model_name: str, **kwargs: object) -> str:
        """Download a model as diffusers does, and refuse one that may not be loaded."""
        folder = super().download(pretrained_model_name, **kwargs)
        check_model_folder(Path(folder), kwargs)
        if (told := _downloads.get()) is not None:
            told.append(Path(folder))
        return folder


def load_checked(
    from_pretrained: Callable[..., Any], found: str, name: str, options: Mapping[str, Any]
) -> Any:  # noqa: ANN401
    """Load a pipeline, whose folder is looked at before and whose weights are after.

    What is downloaded is for the pipeline's ``download`` to check.

    Arguments:
        from_pretrained: Loads it.
        found: The folder, or the repository.
        name: What the caller calls it.
        options: Of ``from_pretrained``.
    Raises:
        ValueError: As ``check_model_folder``.
        OSError: If weights are missing, or surplus.
    """
    folder = Path(found)
    if folder.is_dir():
        check_model_folder(folder, options)
    token = _downloads.set(folders := [folder] if folder.is_dir() else [])
    try:
        pipe = from_pretrained(found, **options)
    finally:
        _downloads.reset(token)
    if options.get("device_map") is None:  # one may leave weights on the disk
        check_whole(pipe.unet, name)
    if folders and "unet" not in options:
        _check_same_weights(pipe.unet, folders[-1] / "unet", name, options)
    return pipe


def load_checked_unet(folder: str | Path) -> UNet2DModel:
    """Load a U-Net that was saved by itself, from its folder here, checked as a pipeline's is.

    Raises:
        ValueError: If it is no UNet2DModel, or its config asks for more than any real one.
        OSError: If its weights are missing, surplus, damaged or pickled.
    """
    path, name = Path(folder), str(folder)
    config = _read_object(path / "config.json")
    kind = config.get("_class_name")
    if kind != UNet2DModel.__name__:
        raise ValueError(f"cannot load {name!r}: its config is of a {kind}, not of a UNet2DModel")
    _check_config(path / "config.json", check_network_config)
    for index in sorted(path.glob("*.index*.json")):
        _shards(index)

    def ask() -> UNet2DModel:
        unet = UNet2DModel.from_pretrained(name, use_safetensors=True)
        check_whole(unet, name)
        _check_same_weights(unet, path, name, {})
        return unet

    return load(ask, name, {"use_safetensors": True})


def check_model_folder(folder: Path, options: Mapping[str, Any]) -> None:
    """Refuse a saved model that names code or pickles, or asks for more than any real one.

    Arguments:
        folder: Of the model, here or in the Hub's cache.
        options: Of ``from_pretrained``; with use_safetensors=False pickled weights may be named.
    Raises:
        ValueError: If it does; names the file, the key and the value.
    """
    for name, part in _read_object(folder / MODEL_INDEX).items():
        if name == "_class_name" and isinstance(part, list):  # a file beside it, and a class
            raise ValueError(f"{MODEL_INDEX} asks to run code of its own, which is never done")
        if not name.startswith("_") and isinstance(part, list) and any(part):
            _check_part(folder, name, part)
    _check_config(folder / "unet" / "config.json", check_network_config)
    _check_config(folder / "scheduler" / "scheduler_config.json", _check_scheduler_config)
    for index in sorted(folder.glob("unet/*.index*.json")):
        if options.get("use_safetensors") is not False or ".safetensors." in index.name:
            _shards(index)


def _check_same_weights(
    network: nn.Module, folder: Path, name: str, options: Mapping[str, Any]
) -> None:
    """Refuse a network whose file lacks weights of it, or holds others too.

    Arguments:
        network: As it was loaded.
        folder: Of the network.
        name: Of the folder or repository.
        options: Of ``from_pretrained``.
    Raises:
        OSError: If they differ; names the first.
    """
    there = _names_in_files(folder, options)
    if there is None:
        return
    wanted = network.state_dict().keys()
    known = {_FORMER_NAME.sub(lambda found: f".{_FORMER[found[1]]}", key) for key in there}
    for said, keys in (("lacks", wanted - there - known), ("holds", known - wanted)):
        if keys:
            more = "of them" if said == "lacks" else "that the network has not"
            raise OSError(
                f"cannot load {name!r}: the file of its weights {said} {len(keys)} {more}, such "
                f"as {min(keys)}; save or download it again"
            )


def _check_part(folder: Path, name: str, part: list[Any]) -> None:
    """Refuse a part whose folder is none, or whose library would have to be imported.

    Importing a library runs its code, of which a model should have no say.
    """
    if not is_plain_name(name):
        raise ValueError(f"{MODEL_INDEX} names a part {name!r}, which is no name of a folder")
    if len(part) != 2 or not all(isinstance(word, str) for word in part):
        raise ValueError(f"{name} in {MODEL_INDEX} must be a library and a class, got {part!r}")
    library, kind = part
    if is_plain_name(library) and (folder / name / f"{library}.py").exists():
        raise ValueError(
            f"{name} in {MODEL_INDEX} asks to run code of its own, which is never done: "
            f"{library}.py"
        )
    if library.partition(".")[0] != "diffusers" and not _is_defined(library, kind):
        raise ValueError(
            f"{name} in {MODEL_INDEX} is of the library {library!r}, which is not imported for a "
            f"model's sake; if you trust it, import its {kind} first"
        )


def _is_defined(library: str, kind: str) -> bool:
    """Tell whether the program has a model or scheduler of that name from that library."""
    waiting = [ModelMixin, SchedulerMixin]
    while waiting:
        found = waiting.pop()
        if found.__name__ == kind and found.__module__.partition(".")[0] == library:
            return True
        waiting += found.__subclasses__()
    return False


def _check_config(path: Path, check: Any) -> None:  # noqa: ANN401
    """Check a config if it is there, and name its file in the error."""
    if not path.is_file():
        return
    try:
        check(_read_object(path))
    except ValueError as error:
        raise ValueError(f"{path.parent.name}/{path.name}: {error}") from error


def _check_scheduler_config(config: dict[str, Any]) -> None:
    if "num_train_timesteps" in config:
        check_num_train_timesteps(config["num_train_timesteps"])


def _read_object(path: Path) -> dict[str, Any]:
    """Read an object of JSON; an empty one if there is no such file.

    Raises:
        ValueError: If it is none, or larger than any of a model.
    """
    if not path.is_file():
        return {}
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{path.name} is larger than {_MOST_BYTES >> 20} MiB")
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path.name} must hold an object, got a {type(values).__name__}")
    return values


def _shards(index: Path) -> set[str]:
    """Give the files that an index of shards names.

    Raises:
        ValueError: If one is no safetensors file beside it.
    """
    weights = _read_object(index).get("weight_map")
    if not isinstance(weights, dict):
        raise ValueError(f"{index.name} has no weight_map")
    for shard in weights.values():
        if not is_plain_name(shard) or not shard.endswith(".safetensors"):
            raise ValueError(
                f"{index.name} names {shard!r}, which is no .safetensors file beside it; other "
                "files can run code when they are loaded"
            )
    return set(weights.values())


def _names_in_files(folder: Path, options: Mapping[str, Any]) -> set[str] | None:
    """Give the names of all weights in a network's files; None if the folder does not tell."""
    files = _weight_files(folder, options) if folder.is_dir() else []  # not so in oldest layouts
    names: set[str] = set()
    for file in files:
        if not file.is_file():
            return None
        try:
            names |= _names_in(file)
        except SafetensorError as error:
            raise OSError(f"{file.name} is damaged: {error}") from error
    return names or None


def _weight_files(folder: Path, options: Mapping[str, Any]) -> list[Path]:
    """Find the files that diffusers loads a network from: shards before one file, and those of
    the variant before those of none.
    """
    kind = "bin" if options.get("use_safetensors") is False else "safetensors"
    variants = [f".{options['variant']}"] if options.get("variant") else []
    for variant in (*variants, ""):
        for index in (f"{kind}.index{variant}.json", f"{kind}{variant}.index.json"):
            if (path := folder / f"{_WEIGHTS}.{index}").is_file():
                shards = _shards(path) if kind == "safetensors" else _read_weight_map(path)
                return [folder / name for name in sorted(shards)]
        if (whole := folder / f"{_WEIGHTS}{variant}.{kind}").is_file():
            return [whole]
    return []


def _read_weight_map(index: Path) -> set[str]:
    return set(map(str, _read_object(index).get("weight_map", {}).values()))


def _names_in(file: Path) -> set[str]:
    """Give the names of the weights in a file, of which the network was just loaded."""
    if file.suffix == ".safetensors":
        with safe_open(file, "pt") as tensors:
            return set(tensors.keys())
    return set(torch.load(file, map_location="meta", weights_only=True))
