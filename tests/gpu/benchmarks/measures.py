"""Forward passes per second of the bound and of calibration."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import torch
from gpu.benchmarks.ceilings import seconds_of
from gpu.found import spread
from gpu.runs import a_model, some_images

from ddpm_pipeline import DDPMPipeline, calibrate, variational_bound

if TYPE_CHECKING:
    from gpu.found import Found
    from gpu.place import Place


def bound_speed(place: Place, found: Found) -> None:
    """By elements of one call of the network, beside the network alone in float32."""
    pipe = DDPMPipeline.from_pretrained(a_model(place)).to(place.device)
    chain = place.chain(place.pick(20, 200))
    found.table("elements a call", "forwards/s", "of the network's alone", "seconds")
    for elements in (None, *place.pick((2**18, 2**22), (2**9,))):
        rows = None if elements is None else elements // place.side**2
        count = max(16, 4 * (rows or 2**14 // place.pick(1, 512)) // len(chain))
        x_0 = some_images(place, count).to(place.device)
        times = []
        for _ in range(3):
            place.wait()
            began = time.perf_counter()
            variational_bound(pipe.unet, pipe.scheduler, x_0, timesteps=chain, batch_size=rows)
            times.append(time.perf_counter() - began)
        median = statistics.median(times[1:])
        speed = count * len(chain) / median
        alone = _network_alone(place, pipe, rows or place.pick(4096, 8))
        found.row(str(elements or "by default"), speed, speed / alone, median)
        found.note(**{f"seconds, {elements}": spread(times[1:])})
    found.note(dtype="float32, IEEE")
    found.say(f"{found.rows[0][1]:,.0f} forwards/s by default")


@torch.no_grad()
def _network_alone(place: Place, pipe: DDPMPipeline, rows: int) -> float:
    x = torch.randn(rows, 1, place.side, place.side, device=place.device)
    t = torch.zeros(rows, dtype=torch.int64, device=place.device)
    return rows / statistics.median(seconds_of(lambda: pipe.unet(x, t), place, repeats=3, calls=2))


def calibration_speed(place: Place, found: Found) -> None:
    pipe = DDPMPipeline.from_pretrained(a_model(place)).to(place.device)
    batches = some_images(place, place.pick(1024, 64)).to(place.device).split(64)
    forwards, times = place.pick(10_000, place.T), []
    for _ in range(3):
        place.wait()
        began = time.perf_counter()
        calibrate(pipe.unet, pipe.scheduler, batches, num_forwards=forwards)
        times.append(time.perf_counter() - began)
    median = statistics.median(times[1:])
    found.table("forwards", "seconds", "forwards/s")
    found.row(forwards, median, forwards / median)
    found.note(seconds=spread(times[1:]), dtype="float32, IEEE")
    found.say(f"{forwards:,} forwards in {median:.3g} s")
