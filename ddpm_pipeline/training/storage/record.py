"""What is written down of a run for its model's card, in ``training_record.json``.

On what, for how long and with which options a model was trained: kinds and numbers of devices,
and no names of machines.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

import torch

from ddpm_pipeline.common import __version__, library_versions
from ddpm_pipeline.training.config import SOURCES, TrainingConfig
from ddpm_pipeline.training.few_images import is_chosen
from ddpm_pipeline.training.resolving import resolve
from ddpm_pipeline.training.storage.identity import FREE_OPTIONS

if TYPE_CHECKING:
    from accelerate import Accelerator

    from ddpm_pipeline.networks import ModelFacts

__all__ = ["training_record"]

# Options that leave the weights alone, or say where data lie, and yet belong on a card.
_SHOWN = {*SOURCES, "num_epochs", "ddpm_num_inference_steps"} - {"validate_fid_features"}
# Options that tell which weights are the model, where any but the last may be.
_CHOOSING = {
    "keep",
    "best_by",
    "early_stop",
    "validation_steps",
    "validate_bound_steps",
    "validate_bound_images",
    "validate_fid_steps",
    "validate_fid_images",
    "validate_fid_features",
}
# Options that are on or off by the kind of device, and change digits alone.
_BY_DEVICE = ("compile", "channels_last", "deterministic")


def training_record(
    config: TrainingConfig,
    accelerator: Accelerator,
    *,
    steps: int,
    seconds: float,
    num_images: int | None,
    facts: ModelFacts,
    measured: dict[str, Any] | None = None,
    base: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Describe a run, as JSON values.

    Arguments:
        config: Resolved.
        accelerator: The processes.
        steps: Updates made.
        seconds: Time they took, in all parts of a run that was interrupted.
        num_images: Training images; None for a stream.
        facts: The classes, by name, and the training images of each.
        measured: Of its samples, and which of its weights were kept.
        base: The model that it started from, if there was one.
    """
    device = accelerator.device
    record = {
        "steps": steps,
        "seconds": round(seconds, 3),
        "num_images": num_images,
        "num_processes": accelerator.num_processes,
        "device": _device_name(device),
        "options": _changed_options(config, accelerator),
        "versions": {
            "python": platform.python_version(),
            "ddpm_pipeline": __version__,
            **library_versions(),
        },
    }
    classes = {
        "class_names": facts.class_names,
        "class_counts": facts.class_counts,
    }
    record |= (measured or {}) | ({} if base is None else {"base": base})
    record |= {name: list(known) for name, known in classes.items() if known is not None}
    return record | ({"num_threads": torch.get_num_threads()} if device.type == "cpu" else {})


def _changed_options(config: TrainingConfig, accelerator: Accelerator) -> dict[str, Any]:
    """Give the options that are not the defaults and concern the model, of a resolved config.

    They are a config by themselves: those that must fit one another come together. What the kind
    of device settles, unless it is told otherwise, is no choice of the model's.
    """
    free = config.replace(**dict.fromkeys(_BY_DEVICE))
    processes = accelerator.num_processes
    on_device = resolve(free, length=None, world_size=processes, device=accelerator.device)
    shown = _SHOWN | _CHOOSING if is_chosen(config) else _SHOWN
    defaults, settled = TrainingConfig().to_dict(), on_device.to_dict()
    defaults |= {name: settled[name] for name in _BY_DEVICE}
    return {
        name: value
        for name, value in config.to_dict().items()
        if value != defaults[name] and (name not in FREE_OPTIONS or name in shown)
    }


def _device_name(device: torch.device) -> str:
    """Name a kind of device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()})" if device.type == "cpu" else device.type
