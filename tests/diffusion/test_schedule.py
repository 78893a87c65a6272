"""NoiseSchedule against mpmath, diffusers' tables and the definitions of its terms."""

import inspect
import math
import re

import diffusers
import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from ddpm_pipeline import NoiseSchedule
from ddpm_pipeline.diffusion.schedule import SCHEDULES, log_snr_shift

EXACT = {"rtol": 1e-12, "atol": 0}


def exact_one_minus_alpha_bar(betas: list[float]) -> list[float]:
    with mpmath.workdps(60):
        product, result = mpmath.mpf(1), []
        for beta in betas:
            product *= 1 - mpmath.mpf(beta)
            result.append(float(1 - product))
    return result


@pytest.mark.parametrize("name", SCHEDULES)
def test_tables_agree_with_mpmath_to_the_last_digits(name: str) -> None:
    # The betas go in as they are, so that only the accumulation is judged.
    betas = NoiseSchedule.named(name).betas.tolist()
    schedule = NoiseSchedule.from_betas(betas)
    exact = torch.tensor(exact_one_minus_alpha_bar(betas), dtype=torch.float64)
    assert_close(schedule.one_minus_alpha_bar(torch.arange(1000)), exact, rtol=1e-13, atol=0)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("T", [1, 2, 100, 1000])
def test_schedules_are_those_of_diffusers(name: str, T: int) -> None:
    stock = diffusers.DDPMScheduler(num_train_timesteps=T, beta_schedule=name)
    # Stock's linspace and ratios are rounded to float32.
    assert_close(NoiseSchedule.named(name, T).betas.float(), stock.betas, rtol=2e-5, atol=1e-7)


def test_every_schedule_of_diffusers_is_known() -> None:
    source = inspect.getsource(diffusers.DDPMScheduler.__init__)
    assert set(re.findall(r'beta_schedule == "(\w+)"', source)) == set(SCHEDULES)


def test_linear_has_the_papers_betas() -> None:
    betas = NoiseSchedule.linear().betas
    assert_close(betas[[0, 999]], torch.tensor([1e-4, 0.02], dtype=torch.float64), **EXACT)
    assert_close(
        betas.diff(), torch.full((999,), 0.0199 / 999, dtype=torch.float64), rtol=1e-9, atol=0
    )


schedules = st.builds(NoiseSchedule.named, st.sampled_from(sorted(SCHEDULES)), st.integers(2, 300))


@given(schedules, st.booleans(), st.data())
def test_alpha_bar_composes_over_any_pair(
    schedule: NoiseSchedule, zero_snr: bool, data: st.DataObject
) -> None:
    schedule = schedule.zero_terminal_snr() if zero_snr else schedule
    s = data.draw(st.integers(-1, len(schedule) - 2))
    t = data.draw(st.integers(s + 1, len(schedule) - 1))
    assert_close(
        schedule.alpha_bar(s) * schedule.alpha(t, s), schedule.alpha_bar(t), rtol=1e-12, atol=0
    )
    assert_close(schedule.alpha(t, s) + schedule.beta(t, s), torch.ones(()).double(), **EXACT)
    assert 0 < schedule.beta(t, s) <= 1


@given(schedules)
def test_signal_falls_from_one(schedule: NoiseSchedule) -> None:
    alpha_bar = schedule.alpha_bar(torch.arange(-1, len(schedule)))
    assert alpha_bar[0] == 1
    assert (alpha_bar.diff() < 0).all()
    assert (schedule.snr(torch.arange(len(schedule))).diff() < 0).all()


@given(schedules)
def test_zero_terminal_snr_keeps_the_first_step_and_removes_the_last_signal(
    schedule: NoiseSchedule,
) -> None:
    rescaled = schedule.zero_terminal_snr()
    assert_close(rescaled.alpha_bar(0), schedule.alpha_bar(0), **EXACT)
    assert rescaled.alpha_bar(len(schedule) - 1) == 0
    assert rescaled.beta(len(schedule) - 1) == 1
    assert rescaled.has_zero_terminal_snr
    assert not schedule.has_zero_terminal_snr


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "sigmoid"])
def test_zero_terminal_snr_is_diffusers_rescaling(name: str) -> None:
    stock = diffusers.DDPMScheduler(beta_schedule=name, rescale_betas_zero_snr=True)
    rescaled = NoiseSchedule.named(name).zero_terminal_snr().alpha_bar(torch.arange(1000))
    assert_close(rescaled.float(), stock.alphas_cumprod, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("shift", [-11.0, -math.log(4), 0.0, 3.0])
def test_a_shift_is_added_to_log_snr(name: str, shift: float) -> None:
    schedule = NoiseSchedule.named(name)
    betas, every_t = schedule.betas.tolist(), torch.arange(1000)
    with mpmath.workdps(60):
        signal = [1 - mpmath.mpf(noise) for noise in exact_one_minus_alpha_bar(betas)]
        # Signal and noise that are e^shift times further apart, and add up to 1 again.
        noise = [(1 - a) / (1 - a + a * mpmath.exp(shift)) for a in signal]
        exact = torch.tensor([float(n) for n in noise], dtype=torch.float64)
    shifted = schedule.shifted(shift)
    assert_close(shifted.one_minus_alpha_bar(every_t), exact, rtol=1e-11, atol=0)
    assert_close(
        shifted.snr(every_t).log() - schedule.snr(every_t).log(),
        torch.full((1000,), shift, dtype=torch.float64),
        rtol=0,
        atol=1e-9,
    )


@given(schedules, st.booleans(), st.floats(-10, 10), st.floats(-10, 10))
def test_shifts_add_up(schedule: NoiseSchedule, zero_snr: bool, a: float, b: float) -> None:
    schedule = schedule.zero_terminal_snr() if zero_snr else schedule
    twice, once = schedule.shifted(a).shifted(b), schedule.shifted(a + b)
    assert_close(twice.log_alpha_bar, once.log_alpha_bar, rtol=1e-9, atol=0)
    assert once.has_zero_terminal_snr == zero_snr
    # A schedule that ends without signal already is not changed by asking for that once more.
    if zero_snr and len(schedule) > 1:
        again = once.zero_terminal_snr()
        assert_close(again.log_alpha_bar, once.log_alpha_bar, rtol=1e-9, atol=0)


def test_a_shift_is_that_of_stocks_video_schedulers() -> None:
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    stock = diffusers.CogVideoXDDIMScheduler(
        **betas, snr_shift_scale=4.0, rescale_betas_zero_snr=False
    )
    ours = NoiseSchedule.scaled_linear(1000, 0.00085, 0.012).shifted(log_snr_shift(64, 32))
    assert_close(ours.alpha_bar(torch.arange(1000)), stock.alphas_cumprod, rtol=1e-12, atol=0)


def test_the_shifted_cosine_of_simple_diffusion() -> None:
    # Its logsnr_schedule_cosine_shifted, for images of 128 × 128 and noise of 64 × 64.
    cosine = NoiseSchedule.from_alpha_bar(lambda u: math.cos(u * math.pi / 2) ** 2, 50)
    published = [-2 * math.log(math.tan(math.pi * u / 100)) + 2 * math.log(64 / 128)
                 for u in range(1, 50)]  # fmt: skip
    ours = cosine.shifted(log_snr_shift(128, 64)).snr(torch.arange(49)).log()
    assert_close(ours, torch.tensor(published, dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_sides_count_by_their_product() -> None:
    assert log_snr_shift(32, 32) == pytest.approx(0, abs=1e-12)
    assert log_snr_shift((16, 64), 32) == pytest.approx(0, abs=1e-12)
    assert log_snr_shift((48, 80), 64) == pytest.approx(-log_snr_shift(64, math.sqrt(48 * 80)))


def test_from_alpha_bar_follows_the_function() -> None:
    schedule = NoiseSchedule.from_alpha_bar(lambda u: 0.1**u, 10)
    expected = 0.1 ** (torch.arange(1, 11).double() / 10)
    assert_close(schedule.alpha_bar(torch.arange(10)), expected, **EXACT)


def test_no_time_passes_from_t_to_t() -> None:
    schedule = NoiseSchedule.linear(10).zero_terminal_snr()
    assert schedule.beta(9, 9) == 0
    assert schedule.alpha(9, 9) == 1


def test_the_snr_of_the_data_is_infinite() -> None:
    assert NoiseSchedule.linear(10).snr(-1) == float("inf")


def test_shapes_follow_the_timesteps() -> None:
    schedule = NoiseSchedule.linear(10)
    assert schedule.alpha_bar(3).shape == ()
    assert schedule.alpha_bar(torch.tensor([[1, 2], [3, -1]])).shape == (2, 2)
    assert schedule.alpha_bar(3).dtype == torch.float64
    assert len(schedule) == 10


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NoiseSchedule.from_betas([]), "betas must be non-empty and 1-D"),
        (lambda: NoiseSchedule.from_betas([[0.1]]), "betas must be non-empty and 1-D"),
        (lambda: NoiseSchedule.from_betas([0.1, 0.0]), r"betas must lie in \(0, 1\], got 0.0"),
        (lambda: NoiseSchedule.from_betas([0.1, 2.0]), r"betas must lie in \(0, 1\], got 2.0"),
        (lambda: NoiseSchedule.from_betas([float("nan")]), r"betas must lie in \(0, 1\], got nan"),
        (lambda: NoiseSchedule.from_betas([1.0, 0.1]), "below 1 except for the last"),
        (lambda: NoiseSchedule.linear(0), "at least 1, got 0"),
        (lambda: NoiseSchedule.linear(10, beta_end=2), r"betas must lie in \(0, 1\], got 1"),
        (lambda: NoiseSchedule.scaled_linear(10, -1, 1), r"betas must lie in \(0, 1\], got -1"),
        (lambda: NoiseSchedule.named("quartic"), "beta_schedule must be one of .*got 'quartic'"),
        (lambda: NoiseSchedule.linear(1).zero_terminal_snr(), "at least 2 timesteps, got 1"),
        (lambda: NoiseSchedule.linear(10).beta(5, 9), "s must be at most t, got t = 5 and s = 9"),
        (lambda: NoiseSchedule.linear(10).shifted(math.nan), "log_snr must be finite, got nan"),
        (lambda: NoiseSchedule.linear(10).shifted(-math.inf), "log_snr must be finite, got -inf"),
        (lambda: NoiseSchedule.linear(10).shifted(800), "a noise level of its own, got 800"),
        (lambda: NoiseSchedule.linear(True), "at least 1, got True"),
        (lambda: NoiseSchedule.linear(10).alpha_bar(10), r"lie in \[-1, 9\], got 10"),
        (lambda: NoiseSchedule.linear(10).alpha_bar(-2), r"lie in \[-1, 9\], got -2"),
        (lambda: NoiseSchedule.linear(10).snr(torch.tensor([3, 11])), r"lie in \[-1, 9\]"),
    ],
)
def test_caller_mistakes_are_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_fractional_timesteps_are_refused() -> None:
    with pytest.raises(TypeError, match="must be integers, got dtype"):
        NoiseSchedule.linear(10).alpha_bar(torch.tensor(0.5))
