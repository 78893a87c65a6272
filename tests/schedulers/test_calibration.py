"""The record of a calibration: every bit of it in JSON, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache

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
        if field.name == "value_decoder":
            assert torch.equal(first.gain, second.gain)
            first, second = first.variance, second.variance
        assert torch.equal(first, second) if isinstance(first, Tensor) else first == second
    assert json.dumps(after.to_dict()) == text
    assert len(text) < 20 * 14 * 200 + 20_000  # 14 tables, and the variances by value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(version=5), "version must be from 2 to 4, got 5"),
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


@cache
def full_text() -> str:
    return json.dumps(full().to_dict())


def with_number(table: str, word: str) -> Callable[[dict], None]:
    """Put a number into a table's text."""

    def change(values: dict) -> None:
        words = values[table].split()
        values[table] = " ".join([words[0], word, *words[2:]])

    return change


@pytest.mark.parametrize("word", ["nan", "inf", "-inf", "1e400"])
@pytest.mark.parametrize(
    "table", ["m", "m_standard_error", "x_0_error", "x_0_variance", "decoder_cost"]
)
def test_tables_are_finite(table: str, word: str) -> None:
    values = json.loads(full_text())
    with_number(table, word)(values)
    with pytest.raises(ValueError, match=f"{table} must be finite"):
        Calibration.from_dict(values)


@pytest.mark.parametrize(
    "table",
    [
        "m",
        "m_standard_error",
        "x_0_error",
        "x_0_error_standard_error",
        "x_0_variance",
        "decoder_variance",
        "wiener_error",
    ],
)
def test_means_of_squares_are_not_below_zero(table: str) -> None:
    values = json.loads(full_text())
    with_number(table, "-1e-9")(values)
    with pytest.raises(ValueError, match=f"{table} must be finite and at least 0, got -1e-09"):
        Calibration.from_dict(values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"m": None}, "m must be a text"),
        ({"m": 5}, "m must be a text"),
        ({"m": ""}, "m must be a text"),
        ({"m": "a b"}, "m must be a text of numbers"),
        ({"m": "1 " * 100_001}, "m must be a text of 1 to 100,000 numbers"),
        ({"decoder": 5}, "decoder must be a list"),
        ({"decoder": [None] * 7}, "decoder must be a text"),
        ({"alpha_bar": [0.5]}, "alpha_bar must be 16 numbers"),
        ({"alpha_bar": [2.0] * 16}, "alpha_bar must be 16 numbers"),
        ({"alpha_bar": None}, "alpha_bar must be a list"),
        ({"second_moment": "x"}, "second_moment must be a finite number"),
        ({"second_moment": -1.0}, "second_moment must be a finite number"),
        ({"standard_error": None}, "standard_error must be a finite number"),
        ({"standard_error": float("nan")}, "standard_error must be a finite number"),
        ({"standard_error": 10**400}, "standard_error must be a finite number"),
        ({"second_moment": 10**400}, "second_moment must be a finite number"),
        ({"num_images": 2**63}, "num_images must be an integer from 0 to"),
        ({"num_images": "evil"}, "num_images must be an integer"),
        ({"num_forwards": -1}, "num_forwards must be an integer"),
        ({"num_forwards": True}, "num_forwards must be an integer"),
        ({"image_shape": [10**9]}, "image_shape must be an integer"),
        ({"image_shape": 8}, "image_shape must be a list"),
        ({"estimate": []}, "estimate must be one of"),
        ({"weights": [1]}, "weights must be an object"),
        ({"weights": {"float32": 1}}, "weights must be hashes"),
        ({"more": 1}, "the calibration has no more"),
        ({"spectrum": 5}, "spectrum must be an object"),
        ({"x_0_error": True}, "x_0_error must be a text"),
    ],
)
def test_every_field_is_what_it_says(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Calibration.from_dict({**json.loads(full_text()), **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": 5}, "sizes must be a list"),
        ({"sizes": [10**9, 8]}, "spectrum's sizes must be an integer"),
        ({"sizes": [1, 1]}, "bands"),
        ({"channels": {"shape": [1, 1], "numbers": "nan"}}, "channels must be finite"),
        ({"channels": {"shape": [10**9], "numbers": "1"}}, "channels is damaged"),
        ({"channels": "x"}, "channels is damaged"),
        ({"log_ratio": {"shape": [1], "numbers": "x"}}, "log_ratio is damaged"),
        ({"standard_error": {"shape": [1], "numbers": "0"}}, "log_ratio must be finite"),
    ],
)
def test_a_spectrum_is_what_it_says(changes: dict[str, object], message: str) -> None:
    values = json.loads(full_text())
    values["spectrum"].update(changes)
    with pytest.raises(ValueError, match=message):
        Calibration.from_dict(values)


@pytest.mark.parametrize("values", [None, 5, [], "x"])
def test_what_is_no_object_is_no_calibration(values: object) -> None:
    with pytest.raises(ValueError, match="a calibration must be an object"):
        Calibration.from_dict(values)


def test_without_a_spectrum_it_is_written_as_before_there_was_one() -> None:
    values = replace(full(), spectrum=None, value_decoder=None).to_dict()
    assert values["version"] == 2
    assert "spectrum" not in values
    assert Calibration.from_dict(values).spectrum is None
    assert replace(full(), value_decoder=None).to_dict()["version"] == 3
    assert full().to_dict()["version"] == 4


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
    assert "num_inference_steps=None, eta=0.0), calibration=Calib" in shown


def test_known_errors_make_a_calibration() -> None:
    exact = denoising_errors(DATA)
    made = calibration_from_errors(LINEAR, exact, second_moment=0.37)
    assert torch.equal(made.x_0_variance, exact)
    assert torch.equal(made.decoder_variance, exact)
    assert made.wiener_error is None
    assert_close(made.m, 1 - LINEAR.snr(torch.arange(1000)) * exact)
