"""What a scheduler step costs beside stock diffusers', in one run, as ratios of medians."""

import statistics
import time
from collections.abc import Callable

import diffusers
import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor

from ddpm_pipeline import DDPMScheduler

ROUNDS = 400


def median_seconds(*calls: Callable[[], object]) -> list[float]:
    """Median time of each call, the calls taking turns so that noise hits them alike."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(ROUNDS):
        for call, seconds in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds) for seconds in times]


@pytest.mark.parametrize("K", [None, 50])
@pytest.mark.parametrize("batch", [1, 16])
def test_step_costs_at_most_a_third_of_stocks(batch: int, K: int | None) -> None:
    shape = (batch, 3, 32, 32)
    output, x_t, generator = torch.randn(shape), torch.randn(shape), torch.Generator()
    ours, stock = DDPMScheduler(), diffusers.DDPMScheduler()
    if K is not None:
        ours.set_timesteps(K)
        stock.set_timesteps(K)
    t = stock.timesteps[len(stock.timesteps) // 2]
    mine, theirs, noise = median_seconds(
        lambda: ours.step(output, t, x_t, generator),
        lambda: stock.step(output, t, x_t, generator),
        lambda: randn_tensor(shape, generator=generator),
    )
    drawing = noise if batch == 16 else 0.0
    ratio = (mine - drawing) / (theirs - drawing)
    print(
        f"\nstep on {shape}, K = {K}: {mine * 1e6:.0f} µs, stock {theirs * 1e6:.0f} µs, noise "
        f"{noise * 1e6:.0f} µs, ratio {ratio:.3f}{' without the noise' if batch == 16 else ''}"
    )
    assert ratio <= 1 / 3


def test_set_timesteps_takes_under_50_ms() -> None:
    scheduler = DDPMScheduler()
    (seconds,) = median_seconds(lambda: scheduler.set_timesteps(1000))
    print(f"\nset_timesteps(1000): {seconds * 1e3:.1f} ms")
    assert seconds < 0.05
