"""Calibration on the device: the CPU's tables, and the same digits twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from gpu.place import CPU
from gpu.runs import a_model, some_images

from ddpm_pipeline import Calibration, DDPMPipeline, calibrate

if TYPE_CHECKING:
    from gpu.found import Found
    from gpu.place import Place


def calibration_of(place: Place, device: torch.device) -> Calibration:
    pipe = DDPMPipeline.from_pretrained(a_model(place)).to(device)
    batches = some_images(place, 64).to(device).split(32)
    generator = torch.Generator().manual_seed(0)
    options = {"generator": generator, "num_forwards": place.T}
    return calibrate(pipe.unet, pipe.scheduler, batches, **options)


def calibration_agrees(place: Place, found: Found) -> None:
    ours, again = calibration_of(place, place.device), calibration_of(place, place.device)
    reference = calibration_of(place, CPU)
    for name in ("m", "x_0_error", "x_0_variance"):
        table, other = getattr(ours, name), getattr(reference, name)
        gap = ((table - other).abs() / other.abs().clamp(min=1e-12)).max()
        found.at_most(f"{name} from the CPU's, relative", float(gap), 1e-4)
        differing = int((table != getattr(again, name)).sum())
        found.at_most(f"entries of {name} with other digits the second time", differing, 0)
