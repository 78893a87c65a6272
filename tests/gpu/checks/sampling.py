"""Images on the device: those of the CPU from the same noise, whatever is drawn beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from gpu.place import CPU
from gpu.runs import a_model

from ddpm_pipeline import DDPMPipeline

if TYPE_CHECKING:
    from gpu.found import Found
    from gpu.place import Place


def a_pipeline(place: Place, device: torch.device) -> DDPMPipeline:
    pipe = DDPMPipeline.from_pretrained(a_model(place)).to(device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: DDPMPipeline, seeds: range, steps: int, **options: object) -> np.ndarray:
    """An image for each seed, whose noise is drawn on the CPU; grey levels."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    options = {"num_inference_steps": steps, "output_type": "np", **options}
    return 255 * pipe(len(seeds), generators, **options).images.astype(np.float64)


def sampling_agrees(place: Place, found: Found) -> None:
    steps, seeds = place.pick(25, 3), range(place.pick(8, 2))
    limits = {"float32": 0.05, "bfloat16": 1.0}
    for eta in (None, 0.0):
        reference = draw(a_pipeline(place, CPU), seeds, steps, eta=eta)
        for precision, limit in limits.items():
            pipe = a_pipeline(place, place.device).optimize(precision)
            gaps = np.abs(draw(pipe, seeds, steps, eta=eta) - reference)
            what = f"grey levels from the CPU's, {precision}, eta {eta}"
            found.at_most(what, float(gaps.mean()), limit)
            found.note(**{f"largest, {precision}, eta {eta}": float(gaps.max())})


def image_in_any_batch(place: Place, found: Found) -> None:
    """With a generator for each, plain and by what ``optimize`` chooses."""
    steps, many = place.pick(10, 2), place.pick(40, 5)
    for name in ("plain", "optimized"):
        pipe = a_pipeline(place, place.device)
        if name == "optimized":
            pipe.optimize()
        together = draw(pipe, range(many), steps)
        for first, last in ((0, 1), (many // 2, many)):
            apart = draw(pipe, range(first, last), steps)
            differing = int((apart != together[first:last]).sum())
            found.at_most(f"differing values, {name}, images {first} to {last}", differing, 0)
