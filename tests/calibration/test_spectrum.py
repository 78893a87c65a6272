"""The spectrum of a network's error: of data whose spectrum is known, and of odd data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.coloured_noise import ColouredNoise
from torch import Tensor
from torch.testing import assert_close

from ddpm_pipeline import Calibration, DDPMScheduler, calibrate
from ddpm_pipeline.calibration.moments import MomentSums
from ddpm_pipeline.calibration.spectrum import SpectrumSums, has_spectrum, measured_spectrum
from ddpm_pipeline.common.state_file import StateFile
from ddpm_pipeline.diffusion import dct
from ddpm_pipeline.diffusion.schedule import NoiseSchedule

CPU = torch.device("cpu")


def coloured(num_forwards: int = 10_000, **options: object) -> tuple[Calibration, ColouredNoise]:
    scheduler = DDPMScheduler(prediction_type="sample")
    data = ColouredNoise(scheduler.schedule)
    found = calibrate(
        data,
        scheduler,
        data.sample(4000).split(50),
        decoder="continuous",
        generator=torch.Generator().manual_seed(0),
        num_forwards=num_forwards,
        **options,
    )
    return found, data


def test_the_best_network_for_coloured_noise_has_the_spectrum_of_a_filter() -> None:
    found, data = coloured()
    spectrum = found.spectrum
    assert_close((spectrum.channels @ data.basis.channels.T).abs(), torch.eye(3).double(),
                 rtol=0, atol=0.02)  # fmt: skip
    # The variance of 4,000 images is known to 2.2 %, that of all 162 components to 10 %.
    assert_close(spectrum.data_variance, data.variance, rtol=0.1, atol=0)
    assert spectrum.log_ratio.abs().mean() < 0.05
    assert spectrum.log_ratio.std() < 0.07
    assert (spectrum.standard_error > 0).all()
    t = torch.tensor([0, 20, 200, 500, 999])
    snr = data.schedule.snr(t)[:, None, None, None]
    expected = data.variance / (1 + data.variance * snr)
    errors = spectrum.tabulate(data.schedule, found.x_0_error).at(t)
    assert_close(errors.mean((1, 2, 3)), found.x_0_error[t])
    assert (errors / expected).log().square().mean().sqrt() < 0.07


def test_the_standard_error_is_about_the_spread_over_repetitions() -> None:
    curves, claimed = [], []
    data = ColouredNoise(NoiseSchedule.linear(100))
    for seed in range(8):
        found = calibrate(
            data,
            DDPMScheduler(100, prediction_type="sample"),
            data.sample(2000)[seed * 200 : (seed + 1) * 200].split(50),
            decoder="continuous",
            generator=torch.Generator().manual_seed(seed),
            num_forwards=200,
        ).spectrum
        curves.append(found.log_ratio)
        claimed.append(found.standard_error)
    inner = slice(4, 20)  # the knots of the schedule
    spread = torch.stack(curves)[:, inner].std(0).square().mean().sqrt()
    assert 0.4 < spread / torch.stack(claimed)[:, inner].square().mean().sqrt() < 2.5


def sums_of(x_0: Tensor, residual: Tensor, t: Tensor, schedule: NoiseSchedule) -> SpectrumSums:
    sums = SpectrumSums.zeros(x_0.shape[1:], CPU)
    sums.add(schedule, x_0, residual, t)
    return sums


def test_only_the_first_forward_makes_the_transforms_matrices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []
    make = dct.dct_matrix
    monkeypatch.setattr(dct, "dct_matrix", lambda n: made.append(n) or make(n))
    schedule, x_0 = NoiseSchedule.linear(10), torch.randn(4, 1, 11, 13)
    sums = SpectrumSums.zeros((1, 11, 13), CPU)
    for _ in range(3):
        sums.add(schedule, x_0, x_0 / 2, torch.arange(4))
    assert made == [11, 13]


def test_sums_of_parts_add_up_to_that_of_the_whole() -> None:
    schedule, t = NoiseSchedule.linear(10), torch.arange(10)
    x_0, residual = torch.randn(2, 10, 2, 5, 4, dtype=torch.float64)
    whole = sums_of(x_0, residual, t, schedule).tensors()
    first = sums_of(x_0[:3], residual[:3], t[:3], schedule)
    first.add(schedule, x_0[3:], residual[3:], t[3:])
    for name, value in first.tensors().items():
        assert_close(value, whole[name])


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (4, 64, 48), (3, 200, 200), (16, 9),
                                   (1, 12, 13, 14)])  # fmt: skip
def test_a_spectrum_is_small_finite_and_positive(shape: tuple[int, ...]) -> None:
    schedule = NoiseSchedule.cosine(40).zero_terminal_snr()
    t = torch.arange(40)
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.randn(40, *shape, generator=generator)
    moments = MomentSums.zeros(40, shape, CPU, histogram=False)
    moments.count += 1
    moments.image += x_0.sum(0)
    found = measured_spectrum(schedule, moments, sums_of(x_0, 0.5 * x_0, t, schedule))
    assert len(json.dumps(found.to_dict())) < 200_000
    errors = found.tabulate(schedule, torch.full((40,), 0.1).double()).at(t)
    assert errors.shape == (40, *shape)
    assert errors.isfinite().all()
    assert (errors > 0).all()


@pytest.mark.parametrize("level", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("error", [0.0, 1e-3])
def test_images_of_one_level_have_a_spectrum(level: float, error: float) -> None:
    schedule, x_0 = NoiseSchedule.linear(20), torch.full((20, 1, 8, 8), level)
    moments = MomentSums.zeros(20, (1, 8, 8), CPU, histogram=False)
    moments.count += 1
    moments.image += x_0.sum(0)
    sums = sums_of(x_0, torch.full_like(x_0, error), torch.arange(20), schedule)
    found = measured_spectrum(schedule, moments, sums)
    errors = found.tabulate(schedule, torch.full((20,), 1e-6).double()).at(torch.arange(20))
    assert errors.isfinite().all()
    assert (errors > 0).all()


def test_a_spectrum_needs_axes_and_few_channels() -> None:
    assert has_spectrum((3, 8, 8))
    assert not has_spectrum((3,))
    assert not has_spectrum((17, 8, 8))
    assert has_spectrum((16, 8))


def test_a_run_that_an_earlier_version_began_ends_without_a_spectrum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StopError(Exception):
        pass

    file, calls = tmp_path / "state.pt", []
    data = ColouredNoise(NoiseSchedule.linear(1000))

    def dying(x_t: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x_t))
        if len(calls) == 55:
            raise StopError
        return data(x_t, t)

    options = {"decoder": "continuous", "num_forwards": 3000, "state_file": file}
    scheduler, images = DDPMScheduler(prediction_type="sample"), data.sample(3000).split(50)
    with pytest.raises(StopError):
        calibrate(dying, scheduler, images, **options, generator=torch.Generator().manual_seed(0))
    saved = StateFile(file).load()
    del saved["spectrum"]
    StateFile(file).save(saved)
    resumed = calibrate(data, scheduler, images, **options)
    whole = calibrate(
        data, scheduler, images, **options, generator=torch.Generator().manual_seed(0)
    )
    assert resumed.spectrum is None
    assert torch.equal(resumed.x_0_error, whole.x_0_error)
