"""``training_record.json``: on what, and for how long, a model was trained.

It lies beside the model and is for its card: kinds and numbers of devices, no names of machines.
"""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["training_record"]


def training_record(
    accelerator: Accelerator, *, steps: int, seconds: float, num_images: int | None
) -> dict[str, Any]:
    """What training knows of itself, as JSON values.

    Arguments:
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
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("ddpm_pipeline", "torch", "diffusers")},
        },
    }
    return record | ({"num_threads": torch.get_num_threads()} if device.type == "cpu" else {})


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()})" if device.type == "cpu" else device.type
