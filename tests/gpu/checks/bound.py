"""The bound on the device: the CPU's number, the same digits twice, for any batch size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from gpu.runs import a_model, some_images

from ddpm_pipeline import DDPMPipeline, variational_bound
from ddpm_pipeline.common import float32_arithmetic

if TYPE_CHECKING:
    from gpu.found import Found
    from gpu.place import Place

    from ddpm_pipeline import BoundReport


def bound_of(place: Place, device: torch.device, batch_size: int | None = None) -> BoundReport:
    """Of some images, for a chain of 50 timesteps."""
    pipe = DDPMPipeline.from_pretrained(a_model(place)).to(device)
    return variational_bound(
        pipe.unet,
        pipe.scheduler,
        some_images(place, place.pick(16, 4)).to(device),
        timesteps=place.chain(place.pick(20, 200)),
        generator=torch.Generator().manual_seed(0),
        batch_size=batch_size,
    )


def bound_agrees(place: Place, found: Found) -> None:
    """Whatever training has switched on in the process, the bound is in IEEE arithmetic."""
    reference = bound_of(place, torch.device("cpu"))
    found.note(cpu=reference.bits_per_dim)
    for allows in (False, True):
        with float32_arithmetic(tf32=allows):
            ours = bound_of(place, place.device)
        name = "TF32 on" if allows else "TF32 off"
        gap = abs(ours.bits_per_dim - reference.bits_per_dim)
        found.at_most(f"bits/dim from the CPU's, {name}", gap, 1e-5)
        worst = (ours.per_example - reference.per_example).abs().max()
        found.note(**{f"worst image, {name}": float(worst)})
    again = bound_of(place, place.device)
    differing = int((again.per_example != ours.per_example).sum())
    found.at_most("images with other digits the second time", differing, 0)
    for rows in (place.pick(50, 3), place.pick(333, 7)):
        other = bound_of(place, place.device, rows)
        gap = abs(other.bits_per_dim - ours.bits_per_dim)
        limit = place.pick(1e-5, 1e-3)  # of hundreds of bits/dim of a model that is not trained
        found.at_most(f"bits/dim with {rows} rows a call", gap, limit)
