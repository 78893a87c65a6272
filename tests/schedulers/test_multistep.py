"""Solver "multistep" of DDPMScheduler: stock's solvers, and a history that is nobody else's."""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING

import diffusers
import pytest
import torch
from diffusers import DDPMPipeline as StockPipeline
from helpers.device_counts import DEVICE, DeviceCounts
from torch.testing import assert_close

from ddpm_pipeline import DDPMScheduler
from ddpm_pipeline.schedulers.choices import Solver
from tests.schedulers.test_scheduler import HostReads

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from torch import Tensor

    from tests.conftest import MakeUNet

CONFIG = {"timestep_spacing": "trailing", "beta_schedule": "squaredcos_cap_v2"}


def multistep(K: int | None = 10, config: dict | None = None, **options: object) -> DDPMScheduler:
    """Make a scheduler whose network predicts x_0, unless the config says otherwise."""
    base = {**CONFIG, "clip_sample": False, "prediction_type": "sample"}
    scheduler = DDPMScheduler(**base | (config or {}))
    if K is not None:
        scheduler.set_timesteps(K)
    scheduler.set_solver("multistep", **options)
    return scheduler


def network(x: Tensor, t: Tensor | int) -> Tensor:
    return torch.tanh(1.3 * x + 0.002 * float(t))


def walk(
    scheduler: diffusers.SchedulerMixin, x: Tensor, timesteps: Sequence[Tensor] | None = None
) -> Tensor:
    for t in scheduler.timesteps if timesteps is None else timesteps:
        x = scheduler.step(network(x, t), t, x).prev_sample
    return x


def noise(*shape: int) -> Tensor:
    return torch.randn(shape or (2, 3, 4, 4), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("corrector", [False, True])
def test_images_are_those_of_stock(
    prediction_type: str, spacing: str, order: int, *, corrector: bool
) -> None:
    config = {"prediction_type": prediction_type, "timestep_spacing": spacing}
    for K in (3, 5, 12):
        stock = diffusers.UniPCMultistepScheduler(
            solver_order=order, disable_corrector=[] if corrector else list(range(K)), **config
        )
        stock.set_timesteps(K)
        others = [stock]
        if order == 2 and not corrector:
            solver = diffusers.DPMSolverMultistepScheduler(solver_order=2, **config)
            solver.set_timesteps(K)
            others.append(solver)
        ours = DDPMScheduler(clip_sample=False, **config)
        ours.set_timesteps(timesteps=stock.timesteps)
        ours.set_solver("multistep", order=order, corrector=corrector)
        mine = walk(ours, noise().double())
        for other in others:
            theirs = walk(other, noise().double())
            scale = float(theirs.abs().max())  # epsilon takes x_0 far beyond 1 at high noise
            assert_close(mine / scale, theirs / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_with_noise_images_are_those_of_stocks_sde(prediction_type: str, spacing: str) -> None:
    config = {"prediction_type": prediction_type, "timestep_spacing": spacing}
    for K in (3, 12):
        stock = diffusers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", **config)
        stock.set_timesteps(K)
        ours = DDPMScheduler(clip_sample=False, **config)
        ours.set_timesteps(timesteps=stock.timesteps)
        ours.set_solver("multistep", corrector=False, eta=1)
        images = []
        for scheduler in (ours, stock):
            generator, x = torch.Generator().manual_seed(3), noise()
            for t in scheduler.timesteps:
                x = scheduler.step(network(x, t), t, x, generator=generator).prev_sample
            images.append(x)
        scale = float(images[1].abs().max())
        assert_close(images[0] / scale, images[1] / scale, rtol=0, atol=1e-5)


def test_noise_is_drawn_from_the_generators_of_a_batch() -> None:
    scheduler = multistep(8, eta=0.5)

    def images(x: Tensor, seeds: Sequence[int]) -> Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        for t in scheduler.timesteps:
            x = scheduler.step(network(x, t), t, x, generator=generators).prev_sample
        return x

    x = noise(2, 3, 4, 4)
    both = images(x, (1, 2))
    assert_close(images(x[1:], (2,)), both[1:])
    assert not torch.allclose(images(x[1:], (1,)), both[1:])


def test_zero_terminal_snr_is_the_limit_of_stocks_little_snr() -> None:
    config = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, **CONFIG}
    stock = diffusers.UniPCMultistepScheduler(**config)
    stock.set_timesteps(8)
    ours = multistep(8, config, order=2)
    # Stock has a signal of 2^-12 where there should be none.
    assert_close(walk(ours, noise()), walk(stock, noise()), rtol=0, atol=2e-3)


def test_thresholding_and_clipping_are_applied_to_every_prediction() -> None:
    config = {"thresholding": True, "sample_max_value": 1.5, "prediction_type": "epsilon"}
    stock = diffusers.UniPCMultistepScheduler(solver_order=2, **config, **CONFIG)
    stock.set_timesteps(6)
    assert_close(walk(multistep(6, config), noise()), walk(stock, noise()), rtol=0, atol=1e-4)
    clipped = walk(multistep(6, {"clip_sample": True, "prediction_type": "epsilon"}), noise())
    assert clipped.abs().max() <= 1


def test_a_walk_can_begin_anywhere_and_is_then_a_chain_of_its_own() -> None:
    scheduler = multistep(10, order=3)
    rest = scheduler.timesteps[4:]
    alone = multistep(None)
    alone.set_timesteps(timesteps=rest)
    alone.set_solver("multistep", order=3)
    assert_close(walk(scheduler, noise(), rest), walk(alone, noise()), rtol=0, atol=0)
    # Less is left of the chain than the order.
    assert walk(scheduler, noise(), scheduler.timesteps[8:]).isfinite().all()


def test_a_walk_that_was_left_does_not_touch_the_next() -> None:
    scheduler, expected = multistep(order=3), walk(multistep(order=3), noise())
    walk(scheduler, 2 * noise(), scheduler.timesteps[:5])
    assert torch.equal(walk(scheduler, noise()), expected)
    walk(scheduler, 2 * noise(), scheduler.timesteps[:5])
    scheduler.set_timesteps(10)
    assert torch.equal(walk(scheduler, noise()), expected)
    walk(scheduler, noise(1, 3, 4, 4), scheduler.timesteps[:1])
    assert torch.equal(walk(scheduler, noise(), scheduler.timesteps[:1]), expected_first())


def expected_first() -> Tensor:
    scheduler = multistep(order=3)
    return walk(scheduler, noise(), scheduler.timesteps[:1])


def test_another_shape_begins_a_walk_of_its_own() -> None:
    scheduler = multistep()
    walk(scheduler, noise(4, 3, 4, 4), scheduler.timesteps[:3])
    fresh = multistep()
    rest = scheduler.timesteps[3:]
    assert torch.equal(walk(scheduler, noise(), rest), walk(fresh, noise(), rest))


def test_copies_go_their_own_ways() -> None:
    scheduler, expected = multistep(order=3), walk(multistep(order=3), noise())
    x = walk(scheduler, noise(), scheduler.timesteps[:4])
    other = copy.copy(scheduler)
    walk(other, 2 * x, other.timesteps[4:])
    assert torch.equal(walk(scheduler, x, scheduler.timesteps[4:]), expected)


def test_what_a_callback_makes_of_an_image_is_kept() -> None:
    scheduler = multistep(order=3)
    x = walk(scheduler, noise(), scheduler.timesteps[:4])
    t = scheduler.timesteps[4]
    output, history = network(x, t), copy.copy(scheduler)
    shift = scheduler.schedule.one_minus_alpha_bar(scheduler.previous_timestep(t)).sqrt()
    shift = float(shift / scheduler.schedule.one_minus_alpha_bar(t).sqrt())
    plain = scheduler.step(output, t, x).prev_sample
    edited = history.step(output, t, x + 0.5).prev_sample
    # The prediction being the same, all that was added remains, with the noise that it came with.
    assert_close(edited - plain, torch.full_like(x, 0.5 * shift), rtol=1e-5, atol=1e-5)


def test_stocks_pipeline_draws_with_it(tiny_unet: MakeUNet) -> None:
    unet = tiny_unet()
    scheduler = multistep(None, {"prediction_type": "epsilon", "clip_sample": True})
    pipe = StockPipeline(unet, scheduler)
    pipe.scheduler = scheduler  # its constructor makes a stock one of it
    pipe.set_progress_bar_config(disable=True)

    def draw() -> np.ndarray:
        generator = torch.Generator().manual_seed(0)
        return pipe(generator=generator, num_inference_steps=4, output_type="np").images

    first = draw()
    assert (first == draw()).all()


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_step_never_waits_for_the_device(order: int) -> None:
    scheduler, x = multistep(order=order), noise()
    outputs = torch.randn(10, *x.shape)
    with HostReads() as reads:
        for output, t in zip(outputs, scheduler.timesteps, strict=True):
            x = scheduler.step(output, t, x).prev_sample
    assert reads.names == []


def walk_by(
    scheduler: DDPMScheduler, x: Tensor, given: Sequence[Tensor], read: Sequence[Tensor]
) -> Tensor:
    """Step by timesteps whose values a network would read on their device."""
    for t, value in zip(given, read, strict=True):
        x = scheduler.step(network(x, value), t, x).prev_sample
    return x


def test_own_timesteps_on_a_device_are_known_without_being_read() -> None:
    host, scheduler = multistep(order=3), multistep(order=3)
    scheduler.set_timesteps(10, device=DEVICE)
    own, x = scheduler.timesteps, noise()
    whole, rest = walk(host, x), walk(host, x, host.timesteps[4:])
    # There are no values on this device: reading one raises.
    assert torch.equal(walk_by(scheduler, x, own[4:], host.timesteps[4:]), rest)
    walk_by(scheduler, 2 * x, own[:5], host.timesteps[:5])  # a walk that is left
    assert torch.equal(walk_by(scheduler, x, own, host.timesteps), whole)


def test_other_timesteps_on_a_device_are_read_where_a_walk_begins() -> None:
    host, scheduler = multistep(), multistep()
    chain = [900, 500, 1, 0]
    for each in (host, scheduler):
        each.set_timesteps(timesteps=chain)
    x, rest = noise(), host.timesteps[2:]
    expected = walk(host, x, rest)
    with DeviceCounts() as counts:  # which reads 1 everywhere
        for _ in range(2):
            found = walk_by(scheduler, x, torch.zeros(2, dtype=int, device=DEVICE), rest)
            assert torch.equal(found, expected)
        assert len(counts.waits) == 2
        walk_by(scheduler, x, torch.zeros(1, dtype=int, device=DEVICE), rest[:1])
    scheduler.set_timesteps(timesteps=chain)
    assert torch.equal(walk(scheduler, x), walk(host, x))


def test_a_prediction_that_a_caller_changes_stays_what_it_was_for_the_walk() -> None:
    scheduler, x = multistep(order=3), noise()
    for t in scheduler.timesteps:
        step = scheduler.step(network(x, t), t, x)
        x = step.prev_sample
        step.pred_original_sample.add_(1).div_(2)
    assert torch.equal(x, walk(multistep(order=3), noise()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    half, full = multistep(order=3), multistep(order=3)
    x = noise().to(dtype)
    for t in half.timesteps:
        output = network(x, t)
        mine = half.step(output, t, x)
        exact = full.step(output.float(), t, x.float())
        assert torch.equal(mine.prev_sample, exact.prev_sample.to(dtype))
        assert torch.equal(mine.pred_original_sample, exact.pred_original_sample.to(dtype))
        x = mine.prev_sample


def test_the_half_of_an_output_that_says_a_variance_is_left_out() -> None:
    plain, learned = multistep(), multistep(config={"variance_type": "learned_range"})
    x, t = noise(), plain.timesteps[0]
    output = torch.randn(2, 6, 4, 4)
    expected = plain.step(output[:, :3], t, x).prev_sample
    assert torch.equal(learned.step(output, t, x).prev_sample, expected)


def test_order_1_without_corrector_is_solver_ddim_and_eta_0() -> None:
    first = multistep(order=1, corrector=False)
    ddim = DDPMScheduler.from_config(first.config, solver="ddim")
    ddim.set_timesteps(10)
    plain = DDPMScheduler.from_config(first.config, solver="ddpm")
    plain.set_timesteps(10)
    x = noise()
    assert_close(walk(first, x), walk(ddim, x), rtol=0, atol=1e-5)
    t = plain.timesteps[3]
    output = network(x, t)
    by_eta = plain.step(output, t, x, eta=0.0).prev_sample
    assert torch.equal(ddim.step(output, t, x).prev_sample, by_eta)
    assert torch.equal(first.step(output, t, x, eta=0.0).prev_sample, by_eta)
    assert torch.equal(ddim.reverse(output, t, x).mean, plain.reverse(output, t, x, eta=0.0).mean)


def test_a_solver_is_saved_where_stock_neither_warns_nor_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours = multistep(order=3, corrector=False, kind="bh1")
    ours.save_pretrained(tmp_path / "ours")
    logger = logging.getLogger("diffusers")
    logger.addHandler(caplog.handler)
    try:
        stock = diffusers.DDPMScheduler.from_pretrained(tmp_path / "ours")
        stock.set_timesteps(10)
        assert walk(stock, noise()).isfinite().all()
        stock.save_pretrained(tmp_path / "stock")
        other = diffusers.UniPCMultistepScheduler.from_config(stock.config)
    finally:
        logger.removeHandler(caplog.handler)
    assert not caplog.records
    assert other.config.solver_type == "bh2"
    back = DDPMScheduler.from_pretrained(tmp_path / "stock")
    assert back.solver == ours.solver == Solver("multistep", 3, corrector=False, kind="bh1")
    assert back.to_json_string() == ours.to_json_string()
    assert DDPMScheduler.from_config(back.config, solver="multistep").solver == ours.solver
    assert DDPMScheduler.from_config(back.config, solver="ddpm").solver == Solver()
    assert DDPMScheduler.from_pretrained(tmp_path / "ours", solver="ddim").solver.name == "ddim"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("euler", {}, "solver must be one of ddpm, ddim, multistep, spectral, got 'euler'"),
        ("multistep", {"order": 4}, "order of solver must be an integer from 1 to 3, got 4"),
        ("multistep", {"order": 3}, "order of solver must be at most K = 2, got 3"),
        ("multistep", {"kind": "bh"}, "kind of solver must be one of bh1, bh2, got 'bh'"),
        ("multistep", {"corrector": 2}, "corrector of solver must be one of True, False, got 2"),
        ("ddim", {"order": 2}, "are for 'multistep' alone, got order=2 for 'ddim'"),
    ],
)
def test_solvers_that_cannot_be_are_refused(name: str, options: dict, message: str) -> None:
    scheduler = DDPMScheduler()
    scheduler.set_timesteps(2)
    with pytest.raises(ValueError, match=message):
        scheduler.set_solver(name, **options)
    assert scheduler.solver == Solver()
    assert scheduler.step(noise(), scheduler.timesteps[0], noise()).prev_sample.isfinite().all()


def test_what_is_refused_changes_nothing() -> None:
    ddim = DDPMScheduler(clip_sample=False)
    ddim.set_solver("ddim")
    ddim.set_timesteps(2)
    expected = walk(ddim, noise())
    with pytest.raises(ValueError, match="order of solver must be at most K = 2, got 3"):
        ddim.set_solver("multistep", order=3)
    assert torch.equal(walk(ddim, noise()), expected)
    third, config = multistep(10, order=3), multistep(10, order=3).config
    expected = walk(third, noise())
    for chain in ({"num_inference_steps": 2}, {"timesteps": [9, 5]}):
        with pytest.raises(ValueError, match="order of solver must be at most K = 2, got 3"):
            third.set_timesteps(**chain)
        assert (len(third.timesteps), third.num_inference_steps) == (10, 10)
        assert not third.custom_timesteps
        assert torch.equal(walk(third, noise()), expected)
    assert third.config == config


def test_bh1_is_refused_where_it_has_no_limit() -> None:
    config = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    with pytest.raises(ValueError, match="kind must be 'bh2' for a chain that starts at zero"):
        multistep(config=config, kind="bh1")


def test_an_order_above_k_is_refused_and_the_default_is_not() -> None:
    scheduler = multistep(order=3)
    with pytest.raises(ValueError, match="order of solver must be at most K = 2, got 3"):
        scheduler.set_timesteps(2)
    scheduler = multistep()
    scheduler.set_timesteps(1)
    x_0 = scheduler.step(noise(), 999, noise()).prev_sample
    assert_close(x_0, noise(), rtol=0, atol=1e-6)


def test_what_is_no_step_of_the_walk_is_refused() -> None:
    scheduler, x = multistep(), noise()
    with pytest.raises(ValueError, match=r"must be one of scheduler.timesteps .*, got 998"):
        scheduler.step(x, 998, x)
    with pytest.raises(ValueError, match="timestep must lie in"):
        scheduler.step(x, 1000, x)
    with pytest.raises(ValueError, match=r"must be one for all examples .*, got 2 of them"):
        scheduler.step(x, torch.tensor([999, 999]), x)
    with pytest.raises(ValueError, match="solver must be 'ddpm' or 'ddim' for reverse"):
        scheduler.reverse(x, 999, x)
    scheduler.reverse(x, 999, x, eta=0.5)
