"""``training_record.json``: on what, and for how long, a model was trained.

It lies beside the model and is for its card: kinds and numbers of devices, no names of machines.
"""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from ddpm_pipeline.common import __version__
from ddpm_pipeline.training.config import SOURCES, TrainingConfig
from ddpm_pipeline.training.storage.identity import FREE_OPTIONS

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["changed_options", "training_record"]


def changed_options(config: dict[str, Any]) -> dict[str, Any]:
    """Of a resolved config's fields those that are not the defaults and touch the weights.

    With them comes what has to fit them, so that they are a config by themselves.
    """
    defaults = TrainingConfig().to_dict()
    shown = {*SOURCES, "num_epochs", "ddpm_num_inference_steps"}
    return {
        name: config[name]
        for name, default in defaults.items()
        if name in config
        and config[name] != default
        and (name not in FREE_OPTIONS or name in shown)
    }


def training_record(
    config: TrainingConfig,
    accelerator: Accelerator,
    *,
    steps: int,
    seconds: float,
    num_images: int | None,
) -> dict[str, Any]:
    """Describe a run, as JSON values.

    Arguments:
        config: Resolved.
        accelerator: The processes.
        steps: Updates made.
        seconds: Time they took, in all parts of a run that was interrupted.
        num_images: Training images; None for a stream.
    """
    device = accelerator.device
    record = {
        "steps": steps,
        "seconds": round(seconds, 3),
        "num_images": num_images,
        "num_processes": accelerator.num_processes,
        "device": _device_name(device),
        "options": changed_options(config.to_dict()),
        "versions": {
            "python": platform.python_version(),
            "ddpm_pipeline": __version__,
            **{name: version(name) for name in ("torch", "diffusers")},
        },
    }
    return record | ({"num_threads": torch.get_num_threads()} if device.type == "cpu" else {})


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()})" if device.type == "cpu" else device.type
