"""The model that a run starts from: a folder, a run, a checkpoint, or a name of the Hub.

    found = open_pretrained("runs/photos")          its weights, and its scheduler if it has one
    found.unet, found.scheduler, found.origin

Whatever is no whole ``UNet2DModel`` in safetensors is refused, with nothing of it loaded. Of a
model on the Hub, the list of its parts is looked at before its weights are fetched.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm_pipeline.common import MODEL_INDEX, is_repo_id
from ddpm_pipeline.training.unfinished import has_checkpoints_only

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusers import UNet2DModel

    from ddpm_pipeline.schedulers import DDPMScheduler

__all__ = ["OPTION", "Pretrained", "open_pretrained"]


OPTION = "pretrained_model_name_or_path"
_NETWORK = ["diffusers", "UNet2DModel"]


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A trained model.

    Arguments:
        unet: The network, in float32 on the CPU.
        scheduler: What it was trained for; None if that was not saved with it.
        origin: What it is, in words.
    """

    unet: UNet2DModel
    scheduler: DDPMScheduler | None
    origin: str


def open_pretrained(name: str, revision: str | None = None) -> Pretrained:
    """Open a trained model.

    Arguments:
        name: A folder with a pipeline or a U-Net, a run, a checkpoint, or a name of the Hub.
        revision: Branch, tag or commit, on the Hub.
    Raises:
        ValueError: If it is another kind of model, or revision is given for what is here.
        FileNotFoundError: If it is nowhere, or there is no model in it.
        OSError: If it is damaged, or cannot be loaded from the Hub.
    """
    path = Path(name).expanduser()
    if path.exists() or not is_repo_id(name):
        if revision is not None:
            raise ValueError(
                f"pretrained_revision={revision!r} is of models on the Hub, and {OPTION}={name!r} "
                f"{'is here' if path.exists() else 'is no name of one'}"
            )
        return _open_here(path, name)
    load, index = _of_hub(name, revision)
    return _loaded(load, index, name, f"{name} of the Hub{_at(revision)}")


def _at(revision: str | None) -> str:
    return "" if revision is None else f" at {revision}"


def _open_here(path: Path, name: str) -> Pretrained:
    """Open a model of this disk, in any layout."""
    if not path.exists():
        raise FileNotFoundError(
            f"{OPTION}: there is no folder {name!r}, and models on the Hub are called OWNER/NAME"
        )
    if not path.is_dir():
        raise NotADirectoryError(
            f"{OPTION}={name!r} is a file, not the folder of a model; a config alone goes into "
            "model_config_name_or_path"
        )
    if (path / MODEL_INDEX).is_file():
        return _loaded(partial(_load_pipeline, str(path)), _index_of(path, name), name, name)
    if has_checkpoints_only(path):
        from ddpm_pipeline.training.storage.export import open_checkpoint

        found = open_checkpoint(path)
        return Pretrained(found.pipeline.unet, found.pipeline.scheduler, str(found))
    for folder in (path, path / "unet"):
        if (folder / "config.json").is_file():
            scheduler = _scheduler_beside(path)
            without = "" if scheduler else ", without a scheduler"
            return Pretrained(_load_unet(folder), scheduler, f"the U-Net of {name}{without}")
    raise FileNotFoundError(
        f"{OPTION}: there is no model in {name!r}: neither {MODEL_INDEX} nor the config.json of a "
        "U-Net nor a checkpoint"
    )


def _loaded(load: Callable[[], Any], index: dict[str, Any], name: str, origin: str) -> Pretrained:
    """Load a pipeline whose list of parts names a UNet2DModel."""
    from diffusers import UNet2DModel

    from ddpm_pipeline.schedulers import DDPMScheduler

    _check_parts(index, name)
    pipe = load()
    if not isinstance(pipe.unet, UNet2DModel):
        raise ValueError(f"{OPTION}={name!r} must hold a UNet2DModel, has a {_kind(pipe.unet)}")
    scheduler = pipe.scheduler
    if not isinstance(scheduler, DDPMScheduler):
        origin += f", whose {_kind(scheduler)} is saved as a DDPMScheduler"
        scheduler = DDPMScheduler.from_config(scheduler.config)
    return Pretrained(pipe.unet.float(), scheduler, origin)


def _check_parts(index: dict[str, Any], name: str) -> None:
    """Refuse a pipeline of another kind by the list of its parts.

    Raises:
        ValueError: If it names no U-Net, or another of diffusers' networks; says what it names.
    """
    part = index.get("unet")
    parts = {k: v for k, v in index.items() if not k.startswith("_") and isinstance(v, list)}
    if not isinstance(part, list) or len(part) != 2:
        named = ", ".join(f"{k} ({v[-1]})" for k, v in parts.items() if any(v)) or "nothing"
        raise ValueError(
            f"{OPTION}={name!r} has no unet, a UNet2DModel, to start from; it is a "
            f"{index.get('_class_name')} of {named}"
        )
    if part[0] == _NETWORK[0] and part != _NETWORK:
        raise ValueError(
            f"{OPTION}={name!r} must hold a UNet2DModel, its unet is a {part[1]}: training knows "
            "networks in pixel space alone, without text or latents"
        )
    coder = parts.get("vae") or parts.get("vqvae")
    if coder:
        raise ValueError(
            f"{OPTION}={name!r} draws in the latent space of its {coder[-1]}, and training is in "
            "pixel space"
        )


def _kind(part: object) -> str:
    return type(part).__name__


def _scheduler_beside(path: Path) -> DDPMScheduler | None:
    """Read the scheduler of a folder that is no whole pipeline; None if there is none."""
    for file in (path / "scheduler" / "scheduler_config.json", path / "scheduler_config.json"):
        if file.is_file():
            from ddpm_pipeline.schedulers import DDPMScheduler

            try:
                return DDPMScheduler.from_pretrained(file.parent)
            except (ValueError, TypeError, OSError) as error:
                raise ValueError(f"{OPTION}: {file.name} is damaged: {error}") from error
    return None


def _index_of(path: Path, name: str) -> dict[str, Any]:
    """Read the list of a saved pipeline's parts."""
    try:
        index = json.loads((path / MODEL_INDEX).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{OPTION}={name!r} is damaged: {MODEL_INDEX} is no JSON") from error
    if not isinstance(index, dict):
        raise ValueError(f"{OPTION}={name!r} is damaged: {MODEL_INDEX} holds no object")
    return index


def _of_hub(name: str, revision: str | None) -> tuple[Any, dict[str, Any]]:
    """Read the list of parts of a model of the Hub, and give what loads it."""
    from ddpm_pipeline.hub import load
    from ddpm_pipeline.pipelines import DDPMPipeline

    options = {} if revision is None else {"revision": revision}
    index = load(partial(DDPMPipeline.load_config, name, **options), name, options)
    return partial(_load_pipeline, name, **options), index


def _load_pipeline(name: str, **options: str) -> Any:  # noqa: ANN401 (a pipeline)
    from ddpm_pipeline.pipelines import DDPMPipeline

    return DDPMPipeline.from_pretrained(name, **options)


def _load_unet(folder: Path) -> UNet2DModel:
    from ddpm_pipeline.pipelines import load_checked_unet

    return load_checked_unet(folder).float()
