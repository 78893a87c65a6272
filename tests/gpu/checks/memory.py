"""The memory of a run: no more than its parts, and no more at its end than at its beginning."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from gpu.runs import a_trainer, a_unet, run_options, updates
from torch.nn.functional import mse_loss

from ddpm_pipeline import TrainingConfig

if TYPE_CHECKING:
    from gpu.found import Found
    from gpu.place import Place

BYTES = 22  # of a parameter: weight, gradient, average 4 each, AdamW 8, its copy in bf16 2


def peak(place: Place) -> int:
    return torch.cuda.max_memory_allocated() if place.on_gpu else 0


def held(place: Place) -> int:
    return torch.cuda.memory_allocated() if place.on_gpu else 0


def activations(place: Place, batch: int) -> int:
    """Bytes at the peak of a bare forward and backward pass in bf16, beyond the weights."""
    unet = a_unet(place).train()
    before = held(place)
    x = torch.randn(batch, 1, place.side, place.side, device=place.device)
    t = torch.zeros(batch, dtype=torch.int64, device=place.device)
    with torch.autocast(place.device.type, torch.bfloat16):
        output = unet(x, t).sample
    mse_loss(output.float(), x).backward()
    place.wait()
    return peak(place) - before


def memory(place: Place, found: Found) -> None:
    batch, steps = place.pick(64, 4), place.pick(200, 4)
    bare = activations(place, batch)
    few = {"train_data_dir": place.images(place.side, 1, place.pick(1024, 96))}  # may be resident
    config = TrainingConfig(**run_options(place, "memory", max_train_steps=steps + 10, **few))
    if place.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    before = held(place)
    with a_trainer(config) as trainer:
        parameters = sum(p.numel() for p in trainer.learner.unet.parameters())
        updates(trainer, 10)
        place.wait()
        early, highest = held(place), peak(place) - before
        updates(trainer, steps, first=10)
        place.wait()
        grown = held(place) - early
        last = peak(place) - before
    allowed = BYTES * parameters + bare
    found.note(parameters=parameters, bare_MiB=bare / 2**20, peak_MiB=highest / 2**20)
    found.at_most("peak by 22 bytes a parameter and a bare pass", last / allowed, 1.15)
    found.at_most(f"bytes that {steps} updates leave", grown, 0)
    found.at_most("growth of the peak, bytes", last - highest, 0)
