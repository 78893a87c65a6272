"""The report: its parts add up, its errors are those of statistics, its text says everything."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from helpers.bound_settings import SETTINGS

from ddpm_pipeline.likelihood.report import shown_error, summarize
from ddpm_pipeline.likelihood.totals import BoundTotals

if TYPE_CHECKING:
    from pathlib import Path

# Every term of three images, in nats, and the errors of x_0 at the four steps.
TERMS = torch.tensor([[1.0, 2.0, 3.0], [1.5, 2.5, 0.5], [0.5, 1.0, 4.0]], dtype=torch.float64)
PRIOR, DECODER = torch.tensor([[0.1, 0.2, 0.3], [4.0, 5.0, 6.0]], dtype=torch.float64)
ERRORS = torch.tensor([[8.0, 4.0, 2.0, 1.0]] * 3, dtype=torch.float64)


def totals(rows: slice = slice(None)) -> BoundTotals:
    """The exact sums of some of the images."""
    terms, errors = TERMS[rows], ERRORS[rows]
    return BoundTotals(
        prior=PRIOR[rows],
        transitions=terms.sum(1),
        decoder=DECODER[rows],
        last_error=errors[:, -1],
        off_grid=torch.zeros(len(terms), dtype=torch.float64),
        step_nats=terms.sum(0),
        step_errors=errors.sum(0),
        step_counts=torch.full((4,), float(len(terms)), dtype=torch.float64),
        stratum_nats=terms.sum(0),
        squares=terms.square().sum(),
    )


def test_the_parts_add_up_in_bits_per_dim() -> None:
    report = summarize(totals(), SETTINGS)
    whole = (PRIOR + TERMS.sum(1) + DECODER).numpy() / (4 * math.log(2))
    np.testing.assert_allclose(report.per_example, whole)
    assert report.bits_per_dim == pytest.approx(whole.mean())
    assert report.nats == pytest.approx((PRIOR + TERMS.sum(1) + DECODER).mean().item())
    parts = report.prior + report.transitions.sum().item() + report.decoder
    assert report.bits_per_dim == pytest.approx(parts)
    single = report.prior_per_example + report.transitions_per_example
    torch.testing.assert_close(single + report.decoder_per_example, report.per_example)
    assert report.standard_error == pytest.approx(whole.std(ddof=1) / 3**0.5)
    assert report.standard_error_images == report.standard_error
    assert report.standard_error_timesteps == 0
    assert (report.num_images, report.forwards, report.chain) == (3, 12, (9, 5, 2, 0))


def test_rate_and_distortion_go_down_the_chain() -> None:
    report = summarize(totals(), SETTINGS)
    assert report.rate[0] == report.prior
    assert report.rate[-1].item() == pytest.approx(report.bits_per_dim - report.decoder)
    expected = 127.5 * np.sqrt(np.array([8.0, 4.0, 2.0, 1.0]) / 4)
    np.testing.assert_allclose(report.distortion, expected)


def test_sums_of_parts_are_the_sum_of_the_whole() -> None:
    together = totals(slice(0, 2)) + totals(slice(2, 3))
    assert len(together) == 3
    assert summarize(together, SETTINGS).to_dict() == summarize(totals(), SETTINGS).to_dict()
    assert torch.equal(totals().unflatten(totals().flatten()).flatten(), totals().flatten())


def test_the_error_over_timesteps_is_that_of_the_draws() -> None:
    """Draws of which stratum j of image i has mean a_i + b_j and standard deviation 1 + j."""
    generator = torch.Generator().manual_seed(0)
    N, n = 4000, 3
    own = 5 * torch.randn(N, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(N, n, generator=generator, dtype=torch.float64)
    draws = own + torch.tensor([10.0, 20.0, 40.0]) + noise * torch.tensor([1.0, 2.0, 3.0])
    some = replace(
        BoundTotals.zeros(N, 9, n),
        transitions=draws.sum(1),
        stratum_nats=draws.sum(0),
        squares=draws.square().sum(),
    )
    assert some.timestep_variance() == pytest.approx(1 + 4 + 9, rel=0.05)
    report = summarize(
        some, replace(SETTINGS, num_timestep_samples=3, chain=tuple(range(9))[::-1])
    )
    assert report.standard_error_timesteps == pytest.approx(
        14**0.5 / N**0.5 / (4 * math.log(2)), rel=0.03
    )
    # The images' own spread, which three draws add up three times.
    assert report.standard_error_images == pytest.approx(15 / N**0.5 / (4 * math.log(2)), rel=0.05)
    one = replace(some, stratum_nats=draws.sum(0)[:1])
    assert one.timestep_variance() == pytest.approx(draws.sum(1).var().item())


def test_an_error_that_another_hides_is_not_shown_as_none() -> None:
    # Images that are all alike: what spread there is comes from the timesteps that were drawn.
    alike = replace(totals(), prior=PRIOR[:1].repeat(3), decoder=DECODER[:1].repeat(3))
    alike = replace(alike, transitions=torch.tensor([5.9, 6.0, 6.1], dtype=torch.float64))
    report = summarize(
        alike, replace(SETTINGS, num_timestep_samples=3, chain=tuple(range(9))[::-1])
    )
    assert report.standard_error_images == 0 < report.standard_error_timesteps
    text = "error from images *hidden by that from timesteps; --num_timestep_samples draws more"
    assert re.search(text, str(report))
    assert shown_error(0.0, 0.0, "the trace") == "± 0.0000"
    assert re.search(r"error from images *± 0\.\d*[1-9]", str(summarize(totals(), SETTINGS)))


def test_one_image_has_no_error() -> None:
    report = summarize(totals(slice(0, 1)), SETTINGS)
    assert math.isnan(report.standard_error)
    assert report.to_dict()["standard_error"] is None


def test_the_best_variance_of_a_perfect_prediction_is_refused() -> None:
    settings = replace(SETTINGS, decoder="continuous", decoder_variance="best")
    perfect = replace(totals(), last_error=torch.zeros(3, dtype=torch.float64))
    with pytest.raises(ValueError, match="decoder_variance 'best' is 0"):
        summarize(perfect, settings)


def test_json_holds_everything_and_can_leave_the_images_out(tmp_path: Path) -> None:
    report = summarize(totals(), SETTINGS, ("note this",))
    text = report.to_json(tmp_path / "bound.json")
    values = json.loads((tmp_path / "bound.json").read_text())
    assert values == json.loads(text) == report.to_dict()
    assert values["per_example"] == report.per_example.tolist()
    assert values["chain"] == [9, 5, 2, 0]
    assert values["variance_type"] == "fixed_large"
    assert values["warnings"] == ["note this"]
    assert values["rate"] == report.rate.tolist()
    short = report.to_dict(per_example=False)
    assert not [key for key in short if "per_example" in key]
    assert len(values) - len(short) == 4


def test_the_table_says_what_was_measured_and_how_sure_it_is() -> None:
    report = summarize(totals(), SETTINGS, ("note this",))
    text = str(report)
    for part in (
        f"{report.bits_per_dim:.4f} ± {report.standard_error:.4f}",
        f"{report.decoder:.4f}",
        "4 of 10 steps, 9 to 0",
        "all",
        "discretized, variance: model",
        "fixed_large",
        "not clamped",
        "3 of 4 dimensions",
        "warning: note this",
    ):
        assert part in text
    some = replace(SETTINGS, num_timestep_samples=2, clip_x_0=1.0)
    assert "2 per image, sampler rate" in str(summarize(totals(), some))
    assert "clamped to ± 1" in str(summarize(totals(), some))
