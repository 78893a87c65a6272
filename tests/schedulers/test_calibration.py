"""The record of a calibration: every bit of it in JSON, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
from helpers.calibrations import calibration_from_errors
from helpers.exact_errors import denoising_errors
from helpers.oracles import linear_betas, mixture
from torch import Tensor
from torch.testing import assert_close

from ddpm_pipeline import Calibration, DDPMScheduler, NoiseSchedule, calibrate

DATA = mixture()
LINEAR = NoiseSchedule.linear(1000)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batches(count: int, size: int = 500, shape: tuple[int, ...] = (1, 4, 4)) -> list[Tensor]:
    return list(DATA.sample((count, *shape), seeded(1)).split(size))


def full(**changes: object) -> Calibration:
    x_0 = [((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1 for x in batches(200, 50)]
    found = calibrate(
        DATA.denoiser(linear_betas(200)),
        DDPMScheduler(200),
        x_0,
        num_forwards=200,
        generator=seeded(),
    )
    return replace(found, weights={"float32": "abc"}, **changes)


def test_json_gives_back_every_bit() -> None:
    before = full()
    text = json.dumps(before.to_dict(), allow_nan=False)
    after = Calibration.from_dict(json.loads(text))
    for field in fields(Calibration):
        first, second = getattr(before, field.name), getattr(after, field.name)
        assert first is not None
        if field.name == "spectrum":
            first, second = first.to_dict(), second.to_dict()
        assert torch.equal(first, second) if isinstance(first, Tensor) else first == second
    assert json.dumps(after.to_dict()) == text
    assert len(text) < 20 * 14 * 200  # 14 tables


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(version=4), "version must be 2 or 3, got 4"),
        (lambda d: d.pop("decoder_variance"), "lacks decoder_variance"),
        (lambda d: d.pop("spectrum"), "lacks spectrum"),
        (lambda d: d["spectrum"].pop("channels"), "spectrum lacks channels"),
        (lambda d: d.pop("second_moment"), "lacks second_moment"),
        (lambda d: d.update(m="1.0 2.0"), r"m must be float64 of shape \(200,\), got"),
        (lambda d: d["decoder"].pop(), "decoder must have 7 or no rows, got 6"),
        (lambda d: d.update(decoder_cost=None), "decoder_cost must be a table unless .* no rows"),
    ],
)
def test_what_is_not_a_calibration_is_refused(
    change: Callable[[dict], object], message: str
) -> None:
    values = full().to_dict()
    change(values)
    with pytest.raises(ValueError, match=message):
        Calibration.from_dict(values)


def test_without_a_spectrum_it_is_written_as_before_there_was_one() -> None:
    values = replace(full(), spectrum=None).to_dict()
    assert values["version"] == 2
    assert "spectrum" not in values
    assert Calibration.from_dict(values).spectrum is None
    assert full().to_dict()["version"] == 3


def test_it_is_shown_in_a_line() -> None:
    assert repr(full()).startswith("Calibration(T=200, num_images=")
    scheduler = DDPMScheduler(200).with_calibration(full())
    shown = repr(scheduler)
    assert len(shown) < 2000
    assert '"beta_schedule": "linear"' in shown
    assert (
        "variance_type='analytic', timestep_spacing='leading', solver=Solver(name='ddpm', "
        in shown
    )
    assert "num_inference_steps=None), calibration=Calib" in shown


def test_known_errors_make_a_calibration() -> None:
    exact = denoising_errors(DATA)
    made = calibration_from_errors(LINEAR, exact, second_moment=0.37)
    assert torch.equal(made.x_0_variance, exact)
    assert torch.equal(made.decoder_variance, exact)
    assert made.wiener_error is None
    assert_close(made.m, 1 - LINEAR.snr(torch.arange(1000)) * exact)
