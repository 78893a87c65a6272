"""Images per second of sampling, beside stock's pipeline at equal K, and what bfloat16 changes.

    SAMPLING_MODEL=model make bench ARGS="-k sampling_speed"

draws from a trained model of 28 x 28 images, or from one of random weights, on all processors. The
pipelines run in turns, so that whatever else the machine does falls on all alike; what is compared
are medians.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator

import diffusers
import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from results import record

from ddpm_pipeline import DDPMPipeline, DDPMScheduler
from ddpm_pipeline.networks.unets import unet_config

ROUNDS, K, IMAGES = int(os.environ.get("SAMPLING_ROUNDS", "5")), 5, 128
BATCH = 64  # may suit the caches better
SIDE = 2048


@pytest.fixture(autouse=True)
def _all_processors() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count())
    yield
    torch.set_num_threads(before)


def model() -> DDPMPipeline:
    folder = os.environ.get("SAMPLING_MODEL")
    if folder is not None:
        return DDPMPipeline.from_pretrained(folder)
    torch.manual_seed(0)
    unet = UNet2DModel(**unet_config("small", resolution=28, channels=1))
    return DDPMPipeline(unet, DDPMScheduler())


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def medians(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    for call in calls.values():
        call()
    times = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            times[name].append(seconds(call))
    return {name: statistics.median(found) for name, found in times.items()}


def drawing(
    pipe: diffusers.DiffusionPipeline, steps: int = K, count: int = IMAGES, **options: object
) -> Callable[[], np.ndarray]:
    pipe.set_progress_bar_config(disable=True)
    pipe.unet.eval()

    def draw() -> np.ndarray:
        generator = torch.Generator().manual_seed(0)
        options_now = {"num_inference_steps": steps, "output_type": "np", **options}
        return pipe(batch_size=count, generator=generator, **options_now).images

    return draw


def flops_per_second(dtype: torch.dtype) -> float:
    """The best of a few large matrix products."""
    a = torch.ones(SIDE, SIDE, dtype=dtype)
    return 2 * (SIDE) ** 3 / min(seconds(lambda: a @ a) for _ in range(5))


@torch.no_grad()
def flops_per_forward(unet: UNet2DModel) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        unet(torch.zeros(1, 1, 28, 28), 0)
    return counter.get_total_flops()


@pytest.mark.timeout(900)
def test_sampling_is_at_least_half_as_fast_again_as_stocks() -> None:
    pipe = model()
    stock = diffusers.DDPMPipeline(
        pipe.unet, diffusers.DDPMScheduler.from_config(pipe.scheduler.config)
    )
    fast = DDPMPipeline(pipe.unet, pipe.scheduler).optimize()
    found = medians(
        {
            "stock DDPMPipeline": drawing(stock),
            "ours": drawing(pipe),
            "ours, optimize()": drawing(fast),
            f"ours, optimize(), max_batch_size={BATCH}": drawing(fast, max_batch_size=BATCH),
        }
    )
    peaks = {"float32": flops_per_second(torch.float32), "bf16": flops_per_second(torch.bfloat16)}
    operations = flops_per_forward(pipe.unet) * K * IMAGES
    rows = []
    for name, time_taken in found.items():
        speed = operations / time_taken
        peak = peaks["bf16" if "optimize" in name else "float32"]
        ratio = found["stock DDPMPipeline"] / time_taken
        rows.append([name, IMAGES * K / 25 / time_taken, ratio, speed / 1e9, speed / peak])
        print(f"\n{name}: {rows[-1]}", end="")
    plain, rounded = drawing(pipe, 25, 32)(), drawing(fast, 25, 32)()
    levels = 255 * np.abs(plain - rounded)
    record(
        "sampling_speed",
        title="Sampling: images per second",
        command='SAMPLING_MODEL=runs/time/ours-1590 make bench ARGS="-k sampling_speed"',
        text=f"{IMAGES} images of 28 × 28 from the small UNet, {K} steps each, scaled to K = 25; "
        "all cores, the pipelines in turns. `optimize()` is bfloat16 under autocast here.",
        columns=("pipeline", "images/s at K = 25", "× stock", "GFLOP/s", "of the peak"),
        rows=rows,
        notes=[
            (
                f"Peak of a matrix product of side {SIDE}: {peaks['float32'] / 1e9:,.0f} GFLOP/s "
                f"in float32, {peaks['bf16'] / 1e9:,.0f} in bfloat16."
            ),
            (
                "Images of 25 DDPM steps, `optimize()` against plain, same noise: mean difference "
                f"{levels.mean():.2f} grey levels of 255, largest {levels.max():.0f}."
            ),
        ],
    )
    assert levels.mean() < 2
    assert all(row[2] >= 1.5 for row in rows if "optimize" in row[0])
