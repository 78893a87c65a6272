"""Solver "spectral" of DDPMScheduler: exact where stock's best is not, and refused where it is."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path

import diffusers
import pytest
import torch
from helpers.calibrations import known
from helpers.coloured_noise import SHAPE, ColouredNoise, coloured_scheduler
from torch import Tensor
from torch.testing import assert_close

from ddpm_pipeline import DDPMScheduler
from ddpm_pipeline.diffusion import FrequencyBasis
from ddpm_pipeline.schedulers.choices import Solver
from ddpm_pipeline.schedulers.multistep import Landing

MEAN = 0.3


def spectral(K: int, order: int | None = None, **options: object) -> tuple[DDPMScheduler, object]:
    options = {"mean": MEAN, "variance_type": "fixed_small"} | options
    scheduler, data = coloured_scheduler(**options)
    scheduler.set_timesteps(K)
    scheduler.set_solver("spectral", order=order)
    return scheduler, data


def walk(scheduler: diffusers.SchedulerMixin, data: ColouredNoise, x: Tensor) -> Tensor:
    for t in scheduler.timesteps:
        x = scheduler.step(data(x, t.expand(len(x))), t, x).prev_sample
    return x


def deviations(data: ColouredNoise, t: int) -> Tensor:
    """Every component one standard deviation from the mean of x_t, (162, 3, 6, 9)."""
    std = data.marginal_variance(t).sqrt().flatten()
    signal = data.schedule.alpha_bar(t).sqrt()
    return data.basis.to_pixels(torch.diag(std).reshape(-1, *SHAPE)) + data.mean * signal


@pytest.mark.parametrize("config", [{}, {"rescale_betas_zero_snr": True}])
@pytest.mark.parametrize("steepness", [0.1, 0.4, 1.0])
@pytest.mark.parametrize("K", [1, 2, 3, 5, 25])
def test_gaussian_images_of_any_spectrum_are_drawn_exactly_where_unipc_is_not(
    config: dict, steepness: float, K: int
) -> None:
    """The map of each solver is linear here, so that one image for each component says it all."""
    for order in (1, 2) if K > 1 else (1,):
        scheduler, data = spectral(K, order, steepness=steepness, **config)
        found = walk(scheduler, data, deviations(data, 999))
        exact = deviations(data, -1)
        assert_close(found, exact, rtol=0, atol=1e-6)
    stock = diffusers.UniPCMultistepScheduler.from_config(
        scheduler.config, timestep_spacing="trailing", predict_x0=True
    )
    stock.set_timesteps(K)
    drawn = walk(stock, data, deviations(data, 999))
    assert (drawn - exact).abs().max() > 1e-3


def test_a_walk_goes_on_and_another_begins_anew() -> None:
    scheduler, data = spectral(4)
    x, other = data.sample(2), data.sample(2, seed=7)
    whole = walk(scheduler, data, x)
    # Steps of a copy in between, and of half of another walk before, change nothing.
    half = scheduler.timesteps[:2]
    for t in half:
        other = scheduler.step(data(other, t.expand(2)), t, other).prev_sample
    for t in scheduler.timesteps:
        copy.copy(scheduler).step(other, t, other)
        x = scheduler.step(data(x, t.expand(2)), t, x).prev_sample
    assert torch.equal(x, whole)


def test_order_1_remembers_nothing_and_order_2_does() -> None:
    """A network that is not perfect, whose answers change from step to step."""
    ends = []
    for order in (1, 2):
        scheduler, data = spectral(5, order)
        x = data.sample(2)
        for t in scheduler.timesteps:
            output = 0.9 * data(x, t.expand(2)) + 0.1 * torch.tanh(x)
            x = scheduler.step(output, t, x).prev_sample
        ends.append(x)
    assert (ends[0] - ends[1]).abs().max() > 1e-4


def paint(x: Tensor) -> None:
    x[:, :, 2:4] = 0.5


def paint_unseen(x: Tensor) -> None:
    x.data[:, :, 2:4] = 0.5


def paint_by_numpy(x: Tensor) -> None:
    x.numpy()[:, :, 2:4] = 0.5


@pytest.mark.parametrize("change", [None, paint, paint_unseen, paint_by_numpy])
@pytest.mark.parametrize("inference", [False, True])
def test_a_state_is_transformed_anew_where_it_is_not_as_the_step_gave_it(
    change: Callable | None, inference: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A walk that remembers no state is the oracle."""
    scheduler, data = spectral(5)
    ends = []
    for remembers in (True, False):
        if not remembers:
            monkeypatch.setattr(Landing, "of", lambda *_: None)
        x = data.sample(2)
        with torch.inference_mode(inference):
            for t in scheduler.timesteps:
                output = 0.9 * data(x, t.expand(2)) + 0.1 * torch.tanh(x)
                x = scheduler.step(output, t, x).prev_sample
                if change is not None:
                    change(x)
        ends.append(x)
    assert_close(*ends, rtol=1e-12, atol=1e-12)


def test_gradients_go_through_a_state_that_is_known() -> None:
    """A difference of two walks is the oracle."""
    scheduler, data = spectral(5)
    start, direction = data.sample(2), data.sample(2)
    t, s = scheduler.timesteps[:2]

    def walked(x_s: Tensor) -> Tensor:
        return scheduler.step(torch.tanh(x_s).detach(), s, x_s).prev_sample.sum()

    def middle() -> Tensor:
        return scheduler.step(torch.tanh(start), t, start).prev_sample

    x_s = middle().detach().requires_grad_()
    (found,) = torch.autograd.grad(walked(x_s), x_s)
    step, there = 1e-4, middle().detach()
    scheduler_output = torch.tanh(there)
    ends = []
    for sign in (1, -1):
        middle()
        x = there + sign * step * direction
        ends.append(scheduler.step(scheduler_output, s, x).prev_sample.sum())
    assert_close((found * direction).sum(), (ends[0] - ends[1]) / (2 * step), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("order", "per_step"), [(1, 2.0), (2, 2.25)])
def test_a_step_takes_two_transforms(
    order: int, per_step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them back; order 2 takes a third where a walk begins."""
    scheduler, _ = spectral(4, order)
    taken = []
    for name in ("to_frequencies", "to_pixels"):
        original = getattr(FrequencyBasis, name)

        def counted(*given: object, _of: Callable = original) -> Tensor:
            taken.append(1)
            return _of(*given)

        monkeypatch.setattr(FrequencyBasis, name, counted)
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    for t in scheduler.timesteps:
        x = scheduler.step(0.5 * x, t, x).prev_sample
    assert len(taken) == 4 * per_step


def test_it_is_saved_and_stock_opens_it(tmp_path: Path) -> None:
    scheduler, data = spectral(5)
    scheduler.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stock = diffusers.DDPMScheduler.from_pretrained(tmp_path)
        again = diffusers.UniPCMultistepScheduler.from_config(stock.config)
    assert again.config.prediction_type == "sample"
    loaded = DDPMScheduler.from_pretrained(tmp_path)
    assert loaded.solver == Solver("spectral")
    loaded.set_timesteps(5)
    x = data.sample(2)
    assert_close(walk(loaded, data, x), walk(scheduler, data, x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_dtypes_stay_what_they_are(dtype: torch.dtype) -> None:
    scheduler, data = spectral(3)
    x = data.sample(2)
    exact = walk(scheduler, data, x)
    found = walk(scheduler, data, x.to(dtype))
    assert found.dtype == dtype
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 0.1}[dtype]
    assert_close(found.double(), exact, rtol=0, atol=tolerance)


def test_mistakes_are_named() -> None:
    scheduler, data = spectral(3)
    x = data.sample(2)
    with pytest.raises(ValueError, match=r"spectrum is that of images of shape \(3, 6, 9\)"):
        scheduler.step(x[..., :8], scheduler.timesteps[0], x[..., :8])
    with pytest.raises(ValueError, match="timesteps with solver 'spectral', got 998"):
        scheduler.step(x, 998, x)
    with pytest.raises(ValueError, match=r"order of solver must be .* 2, got 3"):
        scheduler.set_solver("spectral", order=3)
    with pytest.raises(ValueError, match="kind and eta of solver are for 'multistep' alone"):
        scheduler.set_solver("spectral", kind="bh1")
    with pytest.raises(ValueError, match=r"'ddpm' or 'ddim' for reverse.., got 'spectral'"):
        scheduler.reverse(x, scheduler.timesteps[0], x)
    with pytest.raises(ValueError, match="order of solver must be at most K = 1, got 2"):
        spectral(1, 2)


def test_a_calibration_with_a_spectrum_is_needed() -> None:
    scheduler, x = DDPMScheduler(), torch.zeros(2, *SHAPE)
    scheduler.set_solver("spectral")
    with pytest.raises(ValueError, match="solver 'spectral' needs a calibration, got None"):
        scheduler.step(x, 999, x)
    message = "solver 'spectral' needs a calibration with a spectrum"
    with pytest.raises(ValueError, match=message):
        scheduler.set_calibration(known())
    scheduler.set_solver("ddpm")
    scheduler.set_calibration(known())
    with pytest.raises(ValueError, match=message):
        scheduler.set_solver("spectral")
    assert scheduler.solver == Solver()


def test_weights_of_a_chain_are_made_once() -> None:
    scheduler, _ = spectral(5)
    chain = scheduler._walked
    scheduler.set_timesteps(4)
    scheduler.set_timesteps(5)
    assert scheduler._walked is chain
    scheduler.set_calibration(coloured_scheduler(mean=MEAN, steepness=1.0)[0].calibration)
    assert scheduler._walked is not chain
