"""Images per second of sampling with K = 50 steps, beside stock's pipeline."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import diffusers
import torch
from diffusers import UNet2DModel
from gpu.benchmarks.training import setting_of
from gpu.found import spread

from ddpm_pipeline import DDPMPipeline, DDPMScheduler

if TYPE_CHECKING:
    from gpu.found import Found
    from gpu.place import Place
    from stock_training import Setting

STOCK, FAST = "stock", "ours, optimize()"
ENOUGH = 12.0  # seconds for all pipelines and one number of images
WAYS: dict[str, dict[str, object] | None] = {
    "ours": None,
    FAST: {},
    "ours, optimize(channels_last, compile)": {"channels_last": True, "compile": True},
}


def sampling_small(place: Place, found: Found) -> None:
    requests = place.pick((256, 1024, 16), (2, 3))
    _compare(place, found, setting_of(place, "small", 28, 1, 64), requests)


def sampling_ddpm(place: Place, found: Found) -> None:
    setting = setting_of(place, "ddpm", 32, 3, 128)
    _compare(place, found, setting, place.pick((256,), (2,)))


def _compare(place: Place, found: Found, setting: Setting, requests: tuple[int, ...]) -> None:
    steps = place.pick(50, 2)
    found.table("pipeline", "images", "images/s", "seconds", "× stock")
    with place.compiling():
        pipes = _pipelines(setting)
        for count in requests:
            if found.left < ENOUGH:
                found.note(**{f"left out for want of time: {count} images": True})
                continue
            seconds = {
                name: _times(place, lambda pipe=pipe: _draw(pipe, count, steps))  # noqa: B023
                for name, pipe in pipes.items()
            }
            medians = {name: statistics.median(values) for name, values in seconds.items()}
            for name, median in medians.items():
                found.row(name, count, count / median, median, medians[STOCK] / median)
            spreads = {name: spread(values) for name, values in seconds.items()}
            found.note(**{f"seconds of {count} images": spreads})
            ratio = medians[STOCK] / medians[FAST]
            found.speed_at_least(f"optimize() by stock, {count} images", ratio, 4.0)
    found.note(K=steps, dtype="stock float32, ours as optimize() says")


def _pipelines(setting: Setting) -> dict[str, diffusers.DiffusionPipeline]:
    pipes: dict[str, diffusers.DiffusionPipeline] = {}
    pipes[STOCK] = diffusers.DDPMPipeline(_unet(setting), diffusers.DDPMScheduler())
    for name, options in WAYS.items():
        pipes[name] = DDPMPipeline(_unet(setting), DDPMScheduler())
        if options is not None:
            pipes[name].optimize(**options)
    for pipe in pipes.values():
        pipe.set_progress_bar_config(disable=True)
    return pipes


def _unet(setting: Setting) -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(**setting.config).eval().to(setting.device)


def _draw(pipe: diffusers.DiffusionPipeline, count: int, steps: int) -> None:
    pipe(batch_size=count, num_inference_steps=steps, output_type="np")


def _times(place: Place, call: Callable[[], object]) -> list[float]:
    """Seconds of a call, three times after one that warms up; once where it is slow."""
    found: list[float] = []
    for _ in range(4):
        place.wait()
        began = time.perf_counter()
        call()
        place.wait()
        found.append(time.perf_counter() - began)
        if sum(found) > place.pick(8.0, 0.5) and len(found) > 1:
            break
    return found[1:]
