"""What a scheduler step costs beside stock diffusers', in one run, as ratios of medians.

Run by ``make bench ARGS="-k scheduler_speed"``.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import diffusers
import pytest
import torch
from diffusers import UNet2DModel
from diffusers.utils.torch_utils import randn_tensor
from helpers.calibrations import calibration_from_errors
from results import record

from ddpm_pipeline import Calibration, DDPMScheduler
from ddpm_pipeline.diffusion.spectral import NUM_KNOTS
from ddpm_pipeline.networks.unets import unet_config
from ddpm_pipeline.schedulers.spectrum import MeasuredSpectrum

ROUNDS, STEPS = 400, 4
Rows = list[list[str | int | float]]


@pytest.fixture(scope="module")
def rows() -> Rows:
    """What the steps cost, by shape and chain."""
    return []


@pytest.fixture(scope="module", autouse=True)
def notes(rows: Rows) -> Iterator[list[str]]:
    """What else was found; all of it is recorded if all tests ran."""
    found: list[str] = []
    yield found
    if (len(rows), len(found)) == (STEPS, 4):
        record(
            "scheduler_step",
            title="A step of the scheduler",
            command='make bench ARGS="-k scheduler_speed"',
            text="Median microseconds of `DDPMScheduler.step` beside stock's, the two in turns on "
            "one thread. Both draw the same noise; the ratio leaves it out where it dominates.",
            columns=("images", "K", "ours, µs", "stock, µs", "noise alone, µs", "ours / stock"),
            rows=rows,
            notes=found,
        )


def median_seconds(*calls: Callable[[], object], rounds: int = ROUNDS) -> list[float]:
    """Median processor time of each call, which take turns so that noise hits them alike.

    On the clock of the wall a busy machine may keep a call waiting, where another is not.
    """
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, seconds in zip(calls, times, strict=True):
            start = time.process_time()
            call()
            seconds.append(time.process_time() - start)
    return [statistics.median(seconds) for seconds in times]


@pytest.mark.parametrize("K", [None, 50])
@pytest.mark.parametrize("batch", [1, 16])
def test_step_costs_at_most_a_third_of_stocks(batch: int, K: int | None, rows: Rows) -> None:
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
    images = " × ".join(map(str, shape))
    rows.append([images, K or 1000, 1e6 * mine, 1e6 * theirs, 1e6 * noise, ratio])
    assert ratio <= 1 / 3


def test_the_scheduler_takes_under_a_hundredth_of_a_forward(notes: list[str]) -> None:
    unet = UNet2DModel(**unet_config("small", resolution=28, channels=1)).eval()
    scheduler, generator = DDPMScheduler(), torch.Generator()
    scheduler.set_timesteps(25)
    x_t, t = torch.randn(64, 1, 28, 28), scheduler.timesteps[10]
    with torch.no_grad():
        output = unet(x_t, t).sample
        forward, step, noise = median_seconds(
            lambda: unet(x_t, t),
            lambda: scheduler.step(output, t, x_t, generator),
            lambda: randn_tensor(x_t.shape, generator=generator),
            rounds=9,
        )
    notes.append(
        f"64 images of 28 × 28: a step takes {step / forward:.2%} of a forward of the small UNet, "
        f"of which the noise {noise / forward:.2%}."
    )
    print(f"\n{notes[-1]}")
    assert step < forward / 100


def spectral_calibration(shape: tuple[int, ...]) -> Calibration:
    """One of images of a shape (C, H, W), for the default schedule."""
    schedule, every_t, J = DDPMScheduler().schedule, torch.arange(1000), NUM_KNOTS
    spectrum = MeasuredSpectrum(
        channels=torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q,
        sizes=shape[1:],
        data_variance=torch.rand(shape, dtype=torch.float64) + 0.1,
        log_ratio=torch.zeros(J, 3, 2, 2, dtype=torch.float64),
        standard_error=torch.zeros(J, dtype=torch.float64),
    )
    error = 0.3 * schedule.one_minus_alpha_bar(every_t)
    return calibration_from_errors(schedule, error, spectrum=spectrum)


def test_a_spectral_step_costs_at_most_1_3_of_a_plain_one_of_stocks(notes: list[str]) -> None:
    shape = (16, 3, 32, 32)
    output, x_t, generator = torch.randn(shape), torch.randn(shape), torch.Generator()
    plain, stock = DDPMScheduler(), diffusers.DDPMScheduler()
    found = spectral_calibration(shape[1:])
    spectral = plain.with_calibration(found, variance_type="spectral")
    mine, usual, theirs = median_seconds(
        lambda: spectral.step(output, 500, x_t, generator),
        lambda: plain.step(output, 500, x_t, generator),
        lambda: stock.step(output, 500, x_t, generator),
    )
    notes.append(
        f"A spectral step on {' × '.join(map(str, shape))} takes {mine / usual:.2f} of a plain "
        f"one, and {mine / theirs:.2f} of stock's."
    )
    print(f"\n{notes[-1]}")
    assert mine <= 1.3 * theirs


def test_steps_without_noise_cost_about_half_of_unipcs_or_less(notes: list[str]) -> None:
    shape = (16, 3, 32, 32)
    output, x_t = torch.randn(shape), torch.randn(shape)
    found, stock = spectral_calibration(shape[1:]), diffusers.UniPCMultistepScheduler()
    own = [DDPMScheduler().with_calibration(found, variance_type="fixed_small") for _ in range(2)]
    for scheduler, solver in zip(own, ("multistep", "spectral"), strict=True):
        scheduler.set_solver(solver)

    def walk(scheduler: diffusers.SchedulerMixin) -> Iterator[None]:
        while True:
            scheduler.set_timesteps(25)
            x = x_t
            for t in scheduler.timesteps:
                x = scheduler.step(output, t, x).prev_sample
                yield

    walks = [walk(scheduler) for scheduler in (*own, stock)]
    *mine, theirs = median_seconds(*(partial(next, steps) for steps in walks))
    multistep, spectral = (seconds / theirs for seconds in mine)
    notes.append(
        f"A step of solver multistep on {' × '.join(map(str, shape))} takes {multistep:.2f} of "
        f"one of stock's UniPC, of spectral {spectral:.2f}; weights are made at the first walk."
    )
    print(f"\n{notes[-1]}")
    assert multistep <= 0.5
    assert spectral <= 0.6


def test_set_timesteps_takes_under_50_ms(notes: list[str]) -> None:
    scheduler = DDPMScheduler()
    (seconds,) = median_seconds(lambda: scheduler.set_timesteps(1000))
    notes.append(f"`set_timesteps(1000)` takes {seconds * 1e3:.1f} ms.")
    print(f"\n{notes[-1]}")
    assert seconds < 0.05
