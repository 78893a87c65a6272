"""DDPMScheduler beside stock diffusers: the same where stock is right, and its defects gone."""

import inspect
import json
import logging
import math
import re
import subprocess
import sys
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from helpers.calibrations import calibrated
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from ddpm_pipeline import DDPMScheduler, marginal, posterior, reverse
from ddpm_pipeline.schedulers.config import STOCK_OPTIONS

STOCK = diffusers.DDPMScheduler
# Stock's float32 tables are off by up to 9e-4 relative in the posterior variance.
STOCK_ERROR = {"rtol": 1e-3, "atol": 1e-3}


def batch(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    shape = shape or (4, 3, 8, 8)
    return torch.randn(shape, dtype=dtype), torch.randn(shape, dtype=dtype)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def default_arguments(cls: type) -> dict[str, object]:
    parameters = inspect.signature(cls.__init__).parameters
    return {name: p.default for name, p in parameters.items() if name != "self"}


def test_signature_is_exactly_stocks() -> None:
    assert default_arguments(DDPMScheduler) == default_arguments(STOCK)
    assert set(DDPMScheduler().config) == set(STOCK().config)
    assert isinstance(DDPMScheduler(), STOCK)


configs = st.fixed_dictionaries(
    {
        "beta_schedule": st.sampled_from(["linear", "scaled_linear", "squaredcos_cap_v2"]),
        "prediction_type": st.sampled_from(["epsilon", "sample", "v_prediction"]),
        "variance_type": st.sampled_from(["fixed_small", "fixed_large"]),
        "clip_sample": st.booleans(),
        "clip_sample_range": st.sampled_from([1.0, 2.0]),
        "thresholding": st.booleans(),
        "timestep_spacing": st.sampled_from(["leading", "linspace", "trailing"]),
    }
)


@given(configs, st.sampled_from([None, 2, 10, 50, 1000]), st.data())
def test_step_agrees_with_stock(config: dict, K: int | None, data: st.DataObject) -> None:
    ours, stock = DDPMScheduler(**config), STOCK(**config)
    if K is not None:
        ours.set_timesteps(K)
        stock.set_timesteps(K)
    assert ours.timesteps.tolist() == stock.timesteps.tolist()
    position = data.draw(st.integers(0, len(stock.timesteps) - 1))
    t = stock.timesteps[position]
    if stock.previous_timestep(t) < 0 < t:
        return  # stock adds noise to finished images there; see the test of that name
    output, x_t = batch()
    mine = ours.step(output, t, x_t, seeded())
    theirs = stock.step(output, t, x_t, seeded())
    # x_0 and thus the tolerance scales with 1/sqrt(alpha_bar), unless it is clipped.
    scale = max(1.0, theirs.pred_original_sample.abs().max().item())
    assert_close(
        mine.pred_original_sample, theirs.pred_original_sample, rtol=1e-3, atol=1e-3 * scale
    )
    assert_close(mine.prev_sample, theirs.prev_sample, rtol=1e-3, atol=1e-3 * scale)


@pytest.mark.parametrize("K", [50, 1000])
def test_a_whole_chain_agrees_with_stock(K: int) -> None:
    ours, stock = DDPMScheduler(), STOCK()
    model = lambda x, t: x * t / (t + 1)  # noqa: E731
    results = []
    for scheduler in (ours, stock):
        scheduler.set_timesteps(K)
        x, generator = batch()[0].new_ones(4, 3, 8, 8), seeded()
        for t in scheduler.timesteps:
            x = scheduler.step(model(x, t), t, x, generator).prev_sample
        results.append(x)
    assert_close(*results, rtol=0, atol=2e-4)  # measured 3e-5


@given(configs, st.integers(0, 999))
def test_step_samples_from_reverse(config: dict, t: int) -> None:
    scheduler = DDPMScheduler(**config)
    scheduler.set_timesteps(25)
    output, x_t = batch(dtype=torch.float64)
    p = scheduler.reverse(output, t, x_t)
    result = scheduler.step(output, t, x_t, seeded()).prev_sample
    if scheduler.previous_timestep(t) < 0:
        assert torch.equal(result, p.mean)
    else:
        assert_close(result, p.sample(seeded()), rtol=1e-12, atol=1e-12)


def test_step_is_the_public_reverse_function() -> None:
    scheduler = DDPMScheduler(clip_sample=False)
    scheduler.set_timesteps(10)
    output, x_t = batch(dtype=torch.float64)
    p = reverse(scheduler.schedule, output, x_t, 500, 400, above=600)
    assert_close(scheduler.reverse(output, 500, x_t).mean, p.mean, rtol=1e-12, atol=1e-12)
    assert_close(scheduler.reverse(output, 500, x_t).log_var, p.log_var)


@given(configs, st.lists(st.integers(0, 999), min_size=4, max_size=4))
def test_a_tensor_of_timesteps_is_a_batch_of_steps(config: dict, timesteps: list[int]) -> None:
    scheduler = DDPMScheduler(**config)
    scheduler.set_timesteps(40)
    output, x_t = batch(dtype=torch.float64)
    generators = [seeded(i) for i in range(4)]
    together = scheduler.step(output, torch.tensor(timesteps), x_t, generators).prev_sample
    for i, t in enumerate(timesteps):
        alone = scheduler.step(output[i : i + 1], t, x_t[i : i + 1], seeded(i)).prev_sample
        assert_close(together[i : i + 1], alone, rtol=1e-12, atol=1e-12)


class HostReads(TorchDispatchMode):
    """Counts the operations that make the host wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        name = func.overloadpacket.__name__
        if name in {"_local_scalar_dense", "nonzero", "item", "equal", "masked_select"}:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "variance_type", ["fixed_small", "fixed_large", "learned", "learned_range"]
)
@pytest.mark.parametrize("as_batch", [False, True])
def test_step_never_waits_for_the_device(variance_type: str, as_batch: bool) -> None:
    scheduler = DDPMScheduler(variance_type=variance_type)
    scheduler.set_timesteps(10)
    _, x_t = batch()
    output = torch.randn(4, 6 if "learned" in variance_type else 3, 8, 8)
    with HostReads() as reads:
        for t in scheduler.timesteps:
            scheduler.step(output, t.expand(4) if as_batch else t, x_t)
    assert reads.names == []
    with HostReads() as stock_reads:  # the counter does see what stock does
        stock = STOCK()
        stock.set_timesteps(10)
        stock.step(output[:, :3], stock.timesteps[3], x_t)
    assert stock_reads.names


def test_nothing_is_drawn_on_clean_data() -> None:
    scheduler = DDPMScheduler(variance_type="fixed_large")
    output, x_t = batch()
    generator = seeded()
    before = generator.get_state()
    scheduler.step(output, 0, x_t, generator)
    scheduler.step(output, torch.tensor(0), x_t, generator)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("as_batch", [False, True])
def test_any_precision_is_computed_in_float32_or_more(dtype: torch.dtype, as_batch: bool) -> None:
    scheduler = DDPMScheduler(prediction_type="v_prediction")
    output, x_t = (a.to(dtype) for a in batch())
    t = torch.full((4,), 3) if as_batch else 3
    result = scheduler.step(output, t, x_t, seeded(), return_dict=False)
    # The noise is drawn in float32 for half precision, and so in the exact result.
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    exact = scheduler.step(output.to(wide), t, x_t.to(wide), seeded(), return_dict=False)
    for mine, expected in zip(result, exact, strict=True):
        assert mine.dtype == dtype
        assert torch.equal(mine, expected.to(dtype))


@pytest.mark.parametrize("variance_type", ["learned", "learned_range"])
def test_a_learned_variance_adds_no_noise_to_clean_data(variance_type: str) -> None:
    scheduler = DDPMScheduler(variance_type=variance_type)
    output, x_t = torch.randn(2, 6, 4, 4), torch.randn(2, 3, 4, 4)
    result = scheduler.step(output, torch.tensor([0, 500]), x_t, seeded())
    moved = (
        result.prev_sample - scheduler.reverse(output, torch.tensor([0, 500]), x_t).mean
    ).abs()
    assert moved[0].max() == 0
    assert moved[1].max() > 0


@pytest.mark.parametrize(
    "t",
    [
        10.5,
        "5",
        True,
        torch.tensor(5.7),
        torch.ones(4),
        torch.ones(3).long(),
        torch.ones(2, 2).long(),
    ],
)
def test_what_is_no_timestep_is_refused(t: object) -> None:
    output, x_t = batch()
    scheduler = DDPMScheduler()
    for call in (scheduler.step, scheduler.reverse):
        with pytest.raises(ValueError, match="timestep must be"):
            call(output, t, x_t)
    if isinstance(t, torch.Tensor):
        with pytest.raises(ValueError, match="timestep must be"):
            scheduler.add_noise(x_t, output, t)


@pytest.mark.parametrize("t", [np.int64(5), np.int32(5), torch.tensor(5, dtype=torch.int32)])
def test_integers_of_any_kind_are_timesteps(t: object) -> None:
    output, x_t = batch()
    expected = DDPMScheduler().step(output, 5, x_t, seeded()).prev_sample
    assert torch.equal(DDPMScheduler().step(output, t, x_t, seeded()).prev_sample, expected)


def test_timesteps_are_checked_outside_of_step_too() -> None:
    scheduler, (x_0, eps) = DDPMScheduler(), batch()
    for call in (
        lambda: scheduler.previous_timestep(torch.tensor(1000)),
        lambda: scheduler.add_noise(x_0, eps, torch.tensor(-1)),
        lambda: scheduler.get_velocity(x_0, eps, torch.full((4,), 1000)),
        lambda: scheduler._get_variance(1000),
    ):
        with pytest.raises(ValueError, match=r"timestep must lie in \[0, 999\]"):
            call()


def test_as_many_generators_as_examples() -> None:
    output, x_t = batch()
    with pytest.raises(ValueError, match="a list of 4, got 3"):
        DDPMScheduler().step(output, 5, x_t, [seeded()] * 3)


def test_results_come_as_a_tuple_on_request() -> None:
    output, x_t = batch()
    result = DDPMScheduler().step(output, 5, x_t, seeded())
    values = DDPMScheduler().step(output, 5, x_t, seeded(), return_dict=False)
    assert torch.equal(values[0], result.prev_sample)
    assert torch.equal(values[1], result.pred_original_sample)


def test_gradients_flow_through_a_step() -> None:
    output, x_t = (a.requires_grad_() for a in batch(1, 1, 2, 2, dtype=torch.float64))
    scheduler = DDPMScheduler(clip_sample=False)

    def step(o: Tensor, x: Tensor) -> Tensor:
        return scheduler.step(o, 500, x, seeded()).prev_sample

    assert torch.autograd.gradcheck(step, (output, x_t))


# The defects of stock diffusers 0.42.1, one test each.


def test_defect_float32_tables() -> None:
    import mpmath

    scheduler, stock = DDPMScheduler(), STOCK()
    with mpmath.workdps(50):
        product, worst_ours, worst_stock = mpmath.mpf(1), 0.0, 0.0
        for t in range(1000):
            beta = mpmath.mpf("0.0001") + (mpmath.mpf("0.02") - mpmath.mpf("0.0001")) * t / 999
            product *= 1 - beta
            for is_ours, table in (
                (True, scheduler.alphas_cumprod),
                (False, stock.alphas_cumprod),
            ):
                error = abs(float((1 - mpmath.mpf(table[t].item())) / (1 - product) - 1))
                worst_ours = max(worst_ours, error) if is_ours else worst_ours
                worst_stock = worst_stock if is_ours else max(worst_stock, error)
    assert worst_stock > 1e-4
    assert worst_ours < 1e-11  # 1 - alphas_cumprod cancels; the schedule itself is exact to 1e-13


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_defect_no_noise_in_half_precision(dtype: torch.dtype) -> None:
    t = torch.arange(1000)
    zeros, ones = torch.zeros(1000, 1, dtype=dtype), torch.ones(1000, 1, dtype=dtype)
    noisy = DDPMScheduler().add_noise(zeros, ones, t)
    sigma = DDPMScheduler().schedule.one_minus_alpha_bar(t).sqrt()
    assert noisy.dtype == dtype
    assert_close(noisy.flatten().double(), sigma, rtol=0.01, atol=0)
    if dtype == torch.bfloat16:
        assert (STOCK().add_noise(zeros, ones, t)[:10] == 0).all()


def test_defect_learned_variances_give_nan() -> None:
    _, x_t = batch()
    log_var = torch.linspace(-8, -2, 4).reshape(4, 1, 1, 1).expand(4, 3, 8, 8)
    output = torch.cat([torch.randn(4, 3, 8, 8), log_var], dim=1)
    p = DDPMScheduler(variance_type="learned").reverse(output, 500, x_t)
    assert_close(p.log_var, log_var)
    result = DDPMScheduler(variance_type="learned").step(output, 500, x_t, seeded()).prev_sample
    assert result.isfinite().all()
    large = DDPMScheduler(variance_type="fixed_large").step(output[:, :3], 500, x_t, seeded())
    large_log = DDPMScheduler(variance_type="fixed_large_log").step(
        output[:, :3], 500, x_t, seeded()
    )
    assert torch.equal(large.prev_sample, large_log.prev_sample)
    assert STOCK(variance_type="learned").step(output, 500, x_t).prev_sample.isnan().any()


def test_defect_trailing_steps_below_zero() -> None:
    scheduler, stock = (cls(timestep_spacing="trailing") for cls in (DDPMScheduler, STOCK))
    for K in (61, 103, 121):
        scheduler.set_timesteps(K)
        stock.set_timesteps(K)
        assert len(scheduler.timesteps) == K
        assert scheduler.timesteps.min() >= 0
        assert len(stock.timesteps) == K + 1


def test_defect_linspace_of_one_step() -> None:
    scheduler = DDPMScheduler(timestep_spacing="linspace")
    scheduler.set_timesteps(1)
    assert scheduler.timesteps.tolist() == [999]


def test_defect_offset_beyond_the_chain() -> None:
    scheduler = DDPMScheduler(steps_offset=1)
    with pytest.raises(ValueError, match="steps_offset must be at most 0 for 1000 leading steps"):
        scheduler.set_timesteps(1000)


def test_defect_step_off_the_chain() -> None:
    scheduler = DDPMScheduler()
    scheduler.set_timesteps(timesteps=[900, 500, 100])
    landings = [scheduler.previous_timestep(t) for t in (999, 900, 501, 500, 100, 99, 0)]
    assert landings == [900, 500, 500, 100, -1, -1, -1]
    output, x_t = batch(dtype=torch.float64)
    p = reverse(scheduler.schedule, output, x_t, 700, 500, x_0_map=lambda x: x.clamp(-1, 1))
    assert_close(scheduler.step(output, 700, x_t, seeded()).prev_sample, p.sample(seeded()))


@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear", "sigmoid"])
def test_defect_zero_terminal_snr_with_epsilon(beta_schedule: str) -> None:
    with pytest.raises(ValueError, match="'epsilon' is impossible with zero terminal SNR"):
        DDPMScheduler(beta_schedule=beta_schedule, rescale_betas_zero_snr=True)
    scheduler = DDPMScheduler(
        beta_schedule=beta_schedule, rescale_betas_zero_snr=True, prediction_type="v_prediction"
    )
    output, x_t = batch()
    assert scheduler.step(output, 999, x_t).prev_sample.isfinite().all()


def test_defect_noise_on_finished_images() -> None:
    config = {"variance_type": "fixed_large", "timestep_spacing": "trailing", "clip_sample": False}
    scheduler, stock = DDPMScheduler(**config), STOCK(**config)
    output, x_t = batch()
    for s in (scheduler, stock):
        s.set_timesteps(10)
    last = scheduler.timesteps[-1]
    assert last > 0
    result = scheduler.step(output, last, x_t)
    assert torch.equal(result.prev_sample, result.pred_original_sample)
    noisy = stock.step(output, last, x_t)
    assert (noisy.prev_sample - noisy.pred_original_sample).std() > 0.1


@pytest.mark.parametrize("beta_schedule", ["sigmoid", "laplace"])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_uncommon_schedules_swap_in_too(
    beta_schedule: str, zero_snr: bool, tmp_path: Path
) -> None:
    config = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": zero_snr}
    ours = DDPMScheduler(beta_schedule=beta_schedule, **config)
    for scheduler_class in (diffusers.DDIMScheduler, diffusers.UniPCMultistepScheduler):
        other = scheduler_class.from_config(ours.config)
        expected = STOCK(beta_schedule=beta_schedule, **config).alphas_cumprod
        # UniPC replaces the last alpha_bar of zero by a small number.
        assert_close(other.alphas_cumprod[:-1], expected[:-1], rtol=1e-2, atol=1e-6)
    ours.save_pretrained(tmp_path)
    again = DDPMScheduler.from_pretrained(tmp_path)
    assert_close(again.alphas_cumprod, ours.alphas_cumprod, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("zero_snr", [False, True])
def test_a_schedule_shifted_by_the_side_is_saved_for_all(zero_snr: bool, tmp_path: Path) -> None:
    ours = DDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=zero_snr,
        timestep_spacing="quadratic",
    ).for_resolution((48, 80), 32)
    ours.save_pretrained(tmp_path)
    again = DDPMScheduler.from_pretrained(tmp_path)
    assert_close(again.schedule.log_alpha_bar, ours.schedule.log_alpha_bar, rtol=1e-9, atol=0)
    assert again.timestep_spacing == "quadratic"
    x_0, noise = torch.ones(50, 1, 2, 2), torch.randn(50, 1, 2, 2, generator=seeded())
    t = torch.arange(0, 1000, 20)
    for name in ("DDPMScheduler", "DDIMScheduler", "UniPCMultistepScheduler"):
        stock = getattr(diffusers, name).from_pretrained(tmp_path)
        # UniPC replaces the last alpha_bar of zero by a small number, and has other add_noise.
        expected = ours.alphas_cumprod.float()
        assert_close(stock.alphas_cumprod[:-1], expected[:-1], rtol=2e-3, atol=0)
        if name != "UniPCMultistepScheduler":
            noisy = stock.add_noise(x_0, noise, t)
            assert_close(noisy, ours.add_noise(x_0, noise, t), rtol=2e-3, atol=2e-3)
        stock.set_timesteps(10)
        assert stock.step(noise[:1], stock.timesteps[0], x_0[:1]).prev_sample.isfinite().all()


@pytest.mark.parametrize("beta_schedule", ["linear", "squaredcos_cap_v2", "laplace"])
@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("end", [0, 1], ids=["noise", "data"])
def test_a_side_is_allowed_as_far_as_stock_samples_by_it(
    beta_schedule: str, zero_snr: bool, end: int
) -> None:
    """The limits that the message tells are allowed, and stock's float32 can do no more."""
    options = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": zero_snr}
    ours = DDPMScheduler(beta_schedule=beta_schedule, **options)
    with pytest.raises(ValueError, match=r"^reference_side must be from .*got 1e.+300") as caught:
        ours.for_resolution((8, 8), 10.0 ** (600 * end - 300))
    limit = float(re.search(r"from (\S+) to (\S+) for images of 8×8", str(caught.value))[end + 1])
    stock = STOCK.from_config(ours.for_resolution((8, 8), limit).config)
    assert 0 < stock.alphas_cumprod[0] < 1
    beyond = limit * (4 if end else 0.25)
    with pytest.raises(ValueError, match="reference_side must be from"):
        ours.for_resolution((8, 8), beyond)
    shift = 2 * math.log(beyond / 8)
    betas = ours.schedule.shifted(shift).betas.tolist()
    lost = STOCK(trained_betas=betas, **options).alphas_cumprod[0]
    assert lost == 1 if end else not lost > 0  # NaN too


def test_means_of_large_images_are_as_noisy_as_small_images() -> None:
    # Noise is drawn by stock; its mean over 2 × 2 places has a quarter of its variance.
    plain = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    stock = STOCK.from_config(plain.for_resolution(64, 32).config)
    x_0 = torch.full((64, 1, 64, 64), 0.7)
    for t in (50, 300, 700):
        noise = torch.randn(x_0.shape, generator=seeded(t))
        x_t = stock.add_noise(x_0, noise, torch.tensor([t]))
        small = torch.nn.functional.avg_pool2d(x_t, 2).double()
        measured = (small.mean() / 0.7) ** 2 / small.var()
        # 65,536 places: a standard error of 0.6 % of their variance, and less of their mean.
        assert measured == pytest.approx(plain.schedule.snr(t).item(), rel=0.03)


def test_a_shift_by_the_side_keeps_no_calibration_of_other_levels() -> None:
    with pytest.raises(ValueError, match="noise schedule"):
        calibrated().for_resolution(64, 32)
    for side in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"^reference_side must be above 0 and finite, got"):
            DDPMScheduler().for_resolution(64, side)
    with pytest.raises(ValueError, match="resolution must be an integer of at least 1, got 0"):
        DDPMScheduler().for_resolution(0, 32)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"beta_start": None}, "beta_start must be a number .*got None"),
        ({"clip_sample_range": None}, "clip_sample_range must be above 0, got None"),
        ({"num_train_timesteps": True}, "must be an integer from 1 to 100000, got True"),
        ({"trained_betas": 0.1}, "trained_betas must be a list of numbers, got 0.1"),
        ({"steps_offset": True}, "steps_offset must be .*got True"),
        ({"variance_type": "other"}, "variance_type must be one of .*got 'other'"),
        ({"prediction_type": "noise"}, "prediction_type must be one of .*got 'noise'"),
        ({"timestep_spacing": "log"}, "timestep_spacing must be one of .*got 'log'"),
        ({"beta_schedule": "quartic"}, "beta_schedule must be one of .*got 'quartic'"),
        ({"beta_end": 2.0}, r"betas must lie in \(0, 1\]"),
        ({"beta_start": 0.0}, r"betas must lie in \(0, 1\], got 0.0"),
        ({"trained_betas": [0.1, 0.3]}, "trained_betas must have .* 1000 entries, got 2"),
        ({"trained_betas": [0.1, -0.3], "num_train_timesteps": 2}, "got -0.3"),
        ({"num_train_timesteps": 0}, "must be an integer from 1 to 100000, got 0"),
        ({"clip_sample_range": 0.0}, "clip_sample_range must be above 0, got 0.0"),
        ({"dynamic_thresholding_ratio": 2.0}, "between 0 and 1, got 2.0"),
        ({"sample_max_value": -1.0}, "sample_max_value must be above 0, got -1.0"),
        ({"steps_offset": -1}, "steps_offset must be an integer of at least 0, got -1"),
    ],
)
def test_defect_impossible_options_are_accepted(config: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DDPMScheduler(**config)


def test_defect_opaque_channel_errors() -> None:
    output, x_t = batch()
    with pytest.raises(ValueError, match="must have 6 channels for variance_type 'learned_range'"):
        DDPMScheduler(variance_type="learned_range").step(output, 5, x_t)
    with pytest.raises(ValueError, match="must have 3 channels for variance_type 'fixed_small'"):
        DDPMScheduler().step(torch.cat([output, output], 1), 5, x_t)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of num_inference_steps and timesteps"),
        ({"num_inference_steps": 5, "timesteps": [3, 1]}, "exactly one of"),
        ({"num_inference_steps": 1001}, "from 1 to 1000 .* got 1001"),
        ({"num_inference_steps": 0}, "from 1 to 1000 .* got 0"),
        ({"timesteps": [1, 5]}, "descending order"),
        ({"timesteps": [5, 5]}, "without repeats"),
        ({"timesteps": [1000, 5]}, r"lie in \[0, 999\]"),
        ({"timesteps": []}, "at least one timestep"),
    ],
)
def test_impossible_chains_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DDPMScheduler().set_timesteps(**arguments)


@pytest.mark.parametrize("t", [1000, -1, torch.tensor(1000), torch.tensor([3, 1000, 0, 1])])
def test_timesteps_out_of_range_are_refused(t: int | Tensor) -> None:
    output, x_t = batch()
    with pytest.raises(ValueError, match=r"must lie in \[0, 999\]"):
        DDPMScheduler().step(output, t, x_t)


# Interface and configuration.


def test_previous_timestep_answers_in_kind() -> None:
    scheduler = DDPMScheduler()
    scheduler.set_timesteps(timesteps=[100, 87, 50, 1, 0])
    assert scheduler.previous_timestep(87) == 50
    assert scheduler.previous_timestep(torch.tensor(87)).item() == 50
    assert scheduler.previous_timestep(torch.tensor([1, 0])).tolist() == [0, -1]


def test_variances_are_stocks() -> None:
    scheduler, stock = DDPMScheduler(), STOCK()
    for t in (1, 487, 999):
        assert_close(scheduler._get_variance(t).float(), stock._get_variance(t), **STOCK_ERROR)
    assert scheduler._get_variance(0) == 0


def test_add_noise_and_velocity_agree_with_stock() -> None:
    x_0, eps = batch()
    t = torch.tensor([0, 10, 500, 999])
    ours, stock = DDPMScheduler(), STOCK()
    assert_close(ours.add_noise(x_0, eps, t), stock.add_noise(x_0, eps, t), rtol=1e-4, atol=1e-5)
    velocity = ours.get_velocity(x_0, eps, t)
    assert_close(velocity, stock.get_velocity(x_0, eps, t), rtol=1e-4, atol=1e-5)


def test_forward_and_reverse_share_the_schedule() -> None:
    scheduler, (x_0, eps) = (
        DDPMScheduler(prediction_type="v_prediction"),
        batch(dtype=torch.float64),
    )
    t = torch.full((4,), 300)
    x_t = scheduler.add_noise(x_0, eps, t)
    assert_close(x_t, marginal(scheduler.schedule, x_0, t).reparameterize(eps))
    p = DDPMScheduler(prediction_type="v_prediction", clip_sample=False).reverse(
        scheduler.get_velocity(x_0, eps, t), t, x_t
    )
    assert_close(p.mean, posterior(scheduler.schedule, x_0, x_t, t).mean)


def test_thresholding_is_stocks() -> None:
    config = {"thresholding": True, "sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.9}
    output, x_t = batch()
    ours, stock = (
        cls(**config).step(output, 800, x_t, seeded()) for cls in (DDPMScheduler, STOCK)
    )
    assert_close(ours.pred_original_sample, stock.pred_original_sample, **STOCK_ERROR)


@pytest.mark.parametrize(
    "name",
    ["DDIMScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "PNDMScheduler"],
)
@pytest.mark.parametrize("spacing", ["trailing", "quadratic"])
def test_other_schedulers_swap_in(name: str, spacing: str) -> None:
    ours = DDPMScheduler(prediction_type="v_prediction", timestep_spacing=spacing)
    other = getattr(diffusers, name).from_config(ours.config)
    other.set_timesteps(10)
    assert other.config.prediction_type == "v_prediction"
    back = DDPMScheduler.from_config(other.config)
    assert back.timestep_spacing == spacing


def test_every_compatible_scheduler_takes_the_config() -> None:
    scheduler = DDPMScheduler(variance_type="fixed_large", beta_schedule="scaled_linear")
    for other in scheduler.compatibles:
        if other.__name__ == "DPMSolverSDEScheduler":
            continue  # needs torchsde
        again = DDPMScheduler.from_config(other.from_config(scheduler.config).config)
        init = {
            k: v
            for k, v in again.config.items()
            if not k.startswith("_") and k in scheduler.config
        }
        assert init == {k: v for k, v in scheduler.config.items() if not k.startswith("_")}


def test_save_and_load_are_the_identity(tmp_path: Path) -> None:
    betas = np.linspace(1e-4, 0.1, 7)
    for config in (
        {},
        {"trained_betas": betas, "num_train_timesteps": 7},
        {"timestep_spacing": "quadratic", "variance_type": "fixed_large"},
    ):
        scheduler = DDPMScheduler(**config)
        scheduler.save_pretrained(tmp_path)
        loaded = DDPMScheduler.from_pretrained(tmp_path)
        assert loaded.to_json_string() == scheduler.to_json_string()
        assert torch.equal(loaded.betas, scheduler.betas)
        assert loaded.timestep_spacing == scheduler.timestep_spacing


def test_our_options_survive_stock_and_do_not_disturb_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    DDPMScheduler(timestep_spacing="quadratic").save_pretrained(tmp_path)
    logging.getLogger("diffusers").addHandler(caplog.handler)
    try:
        stock = STOCK.from_pretrained(tmp_path)
    finally:
        logging.getLogger("diffusers").removeHandler(caplog.handler)
    assert not caplog.records
    assert stock.config.timestep_spacing == "trailing"
    stock.set_timesteps(10)
    stock.save_pretrained(tmp_path / "again")
    assert DDPMScheduler.from_pretrained(tmp_path / "again").timestep_spacing == "quadratic"


def test_a_changed_option_stays_changed() -> None:
    ours = DDPMScheduler(timestep_spacing="quadratic")
    assert DDPMScheduler.from_config(ours.config).timestep_spacing == "quadratic"
    overridden = DDPMScheduler.from_config(ours.config, timestep_spacing="leading")
    assert overridden.timestep_spacing == "leading"
    assert DDPMScheduler.from_config(overridden.config).timestep_spacing == "leading"
    in_stock = STOCK.from_config(ours.config, timestep_spacing="linspace")
    assert DDPMScheduler.from_config(in_stock.config).timestep_spacing == "linspace"


def test_every_substitute_is_an_option_of_stock() -> None:
    for key, nearest in STOCK_OPTIONS.items():
        for value in nearest.values():
            stock = STOCK(**{key: value})
            stock.set_timesteps(10)
            output, x_t = batch()
            if "learned" in value:
                output = torch.cat([output, output], dim=1)
            assert stock.step(output, stock.timesteps[3], x_t).prev_sample.isfinite().all()


@pytest.mark.parametrize("through_stock", [False, True])
def test_keys_of_diffusers_0_1_mean_what_they_meant(tmp_path: Path, through_stock: bool) -> None:
    old = {
        "_class_name": "DDPMScheduler",
        "_diffusers_version": "0.1.1",
        "beta_schedule": "linear",
        "clip_predicted_image": False,
        "timesteps": 500,
        "trained_betas": None,
        "variance_type": "fixed_large",
    }
    (tmp_path / "scheduler_config.json").write_text(json.dumps(old))
    if through_stock:
        scheduler = DDPMScheduler.from_config(STOCK.from_pretrained(tmp_path).config)
    else:
        scheduler = DDPMScheduler.from_pretrained(tmp_path)
    assert len(scheduler) == 500
    assert scheduler.config.clip_sample is False
    assert scheduler.variance_type == "fixed_large"


def test_the_config_holds_no_path(tmp_path: Path) -> None:
    DDPMScheduler().save_pretrained(tmp_path)
    DDPMScheduler.from_pretrained(tmp_path).save_pretrained(tmp_path / "again")
    text = (tmp_path / "again" / "scheduler_config.json").read_text()
    assert str(tmp_path) not in text


def test_the_saved_file_opens_without_this_package(tmp_path: Path) -> None:
    DDPMScheduler(timestep_spacing="quadratic").save_pretrained(tmp_path)
    code = (
        "import sys; sys.modules['ddpm_pipeline'] = None\n"
        "import diffusers, sys\n"
        f"s = diffusers.DDPMScheduler.from_pretrained({str(tmp_path)!r})\n"
        "s.set_timesteps(10); print(s.timesteps[0].item())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["999"]
    assert "not expected" not in run.stderr
