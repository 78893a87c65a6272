"""How costs grow with T, K, batch, resolution and data-set size: fitted exponents.

    make bench ARGS="-k cost_curves"

Each cost is that of one thread in seconds of processor time, the least of a few runs, so that what
else the machine does counts little. The exponent p of cost = c * size^p is the slope of a straight
line through the logarithms, by least squares.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from helpers.image_samples import flat, write_folder
from results import record

from ddpm_pipeline import DDPMPipeline, DDPMScheduler, NoiseSchedule
from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.data.order import _epoch_order, epoch_order
from ddpm_pipeline.diffusion.costs import linear_error, step_costs
from ddpm_pipeline.diffusion.decoder_costs import continuous_decoder_costs
from ddpm_pipeline.diffusion.spacing import shortest_paths
from ddpm_pipeline.networks.cpu_layers import keep_freed_memory
from ddpm_pipeline.networks.unets import unet_config

CHAIN = 25


@dataclass(frozen=True)
class Curve:
    """What a size costs.

    Arguments:
        what: The cost, and the size that it is over.
        sizes: Increasing.
        prepare: From a size and a folder, the call that is timed.
        expected: Exponent of the work that is done.
        slack: How far the fitted one may be above it.
        repeats: Runs, of which the cheapest counts.
    """

    what: str
    sizes: tuple[int, ...]
    prepare: Callable[[int, Path], Callable[[], object]]
    expected: float
    slack: float = 0.3
    repeats: int = 5


def network(side: int) -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(**unet_config("small", resolution=side, channels=1)).eval()


def forward(rows: int, side: int) -> Callable[[], object]:
    unet, x_t = network(side), torch.randn(rows, 1, side, side)

    def call() -> object:
        with torch.inference_mode():
            return unet(x_t, 500)

    return call


def sampling(steps: int, _: Path) -> Callable[[], object]:
    pipe = DDPMPipeline(network(28), DDPMScheduler(timestep_spacing="trailing"))
    pipe.set_progress_bar_config(disable=True)
    return lambda: pipe(4, num_inference_steps=steps, output_type="np")


def chain_of_all(T: int, _: Path) -> Callable[[], object]:
    scheduler = DDPMScheduler(T)
    return lambda: scheduler.set_timesteps(T)


def optimal_chain(T: int, _: Path) -> Callable[[], object]:
    schedule = NoiseSchedule.cosine(T)
    errors = linear_error(schedule, 0.25) * 0.9

    def call() -> object:
        costs = step_costs(schedule, errors, continuous_decoder_costs(errors))
        return shortest_paths(costs, CHAIN).chain(CHAIN)

    return call


def cached_folder(count: int, folder: Path) -> Callable[[], object]:
    image, data = flat(100), folder / f"images-{count}"
    write_folder(data, {f"{i:06d}.png": image for i in range(count)})

    def call() -> object:
        return open_images(data, resolution=8, cache_dir=folder / "cache", progress=False)

    call()
    return call


def order(count: int, _: Path) -> Callable[[], object]:
    def call() -> object:
        _epoch_order.cache_clear()
        return epoch_order(count, seed=0, epoch=1)

    return call


CURVES = (
    Curve(
        "making a cosine schedule, over T",
        (4_000, 16_000, 64_000, 256_000),
        lambda T, _: lambda: NoiseSchedule.cosine(T),
        expected=1,
    ),
    Curve("`set_timesteps(T)`, over T", (1_000, 2_000, 4_000, 8_000), chain_of_all, expected=1),
    Curve(
        f"the best {CHAIN} of T timesteps, over T",
        (250, 500, 1_000, 2_000),
        optimal_chain,
        expected=2,
        slack=0.4,
        repeats=3,
    ),
    Curve("sampling 4 images, over K", (3, 6, 12, 24), sampling, expected=1, repeats=3),
    Curve(
        "a forward of the small UNet, over the batch",
        (8, 16, 32, 64),
        lambda rows, _: forward(rows, 28),
        expected=1,
        repeats=3,
    ),
    Curve(
        "a forward of 4 images, over the side",
        (16, 32, 64, 128),
        lambda side, _: forward(4, side),
        expected=2,
        slack=0.4,
        repeats=3,
    ),
    Curve(
        "opening a folder that is cached, over the images",
        (1_000, 4_000, 16_000),
        cached_folder,
        expected=1,
        repeats=3,
    ),
    Curve(
        "the order of an epoch, over the images",
        (10_000, 100_000, 1_000_000, 10_000_000),
        order,
        expected=1,
        repeats=3,
        slack=0.4,  # the largest leave the caches
    ),
)


Rows = list[list[str | float]]


@pytest.fixture(scope="module")
def rows() -> Iterator[Rows]:
    """What the tests find, recorded if all of them ran."""
    keep_freed_memory()
    found: Rows = []
    yield found
    if len(found) == len(CURVES):
        write_table(found)


def write_table(rows: Rows) -> None:
    record(
        "cost_curves",
        title="How costs grow",
        command='make bench ARGS="-k cost_curves"',
        text="Processor time of one thread, the least of a few runs, and the exponent of the "
        "power law that fits it best. The small UNet has more levels at larger sides, and costs "
        "that do not grow with the size make an exponent smaller.",
        columns=("cost, over", "sizes", "milliseconds", "fitted exponent", "of the work"),
        rows=rows,
    )


def exponent(sizes: tuple[int, ...], seconds: list[float]) -> float:
    """The slope of log(seconds) over log(sizes)."""
    return statistics.linear_regression(np.log(sizes), np.log(seconds)).slope


def processor_seconds(call: Callable[[], object], repeats: int) -> float:
    call()
    found = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return min(found)


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.what)
def test_costs_grow_with_the_work(curve: Curve, tmp_path: Path, rows: Rows) -> None:
    calls = [curve.prepare(size, tmp_path) for size in curve.sizes]
    seconds = [processor_seconds(call, curve.repeats) for call in calls]
    fitted = exponent(curve.sizes, seconds)
    sizes = ", ".join(f"{size:,}" for size in curve.sizes)
    times = ", ".join(f"{1000 * value:,.3g}" for value in seconds)
    print(f"\n{curve.what}: {times} ms at {sizes}; exponent {fitted:.2f} ({curve.expected})")
    rows.append([curve.what, sizes, times, fitted, curve.expected])
    assert fitted < curve.expected + curve.slack


def test_the_fit_finds_the_exponent_of_a_power() -> None:
    sizes = (1, 10, 100)
    assert exponent(sizes, [3.0 * size**1.5 for size in sizes]) == pytest.approx(1.5)
