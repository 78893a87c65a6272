"""Tables of a calibration."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helpers.calibrations import calibration_from_errors
from helpers.exact_errors import denoising_errors
from helpers.oracles import mixture

from ddpm_pipeline import NoiseSchedule
from ddpm_pipeline.calibration.config import check_rows
from ddpm_pipeline.calibration.report import (
    CalibrationReport,
    bits_per_dim_table,
    distance_table,
    measured_samplers,
)
from ddpm_pipeline.diffusion.spacing import spaced_timesteps
from ddpm_pipeline.schedulers.optimal import chain_bits_per_dim, timesteps_of

LINEAR = NoiseSchedule.linear(1000)
KNOWN = calibration_from_errors(LINEAR, denoising_errors(mixture()), second_moment=0.37)


def test_bits_are_those_of_each_row_and_k() -> None:
    table = bits_per_dim_table(
        KNOWN, LINEAR, ["fixed_large", "ddim", "analytic"], ["linspace", "optimal"], [10, 50]
    )
    assert list(table) == [
        "fixed_large linspace", "fixed_large optimal", "analytic linspace", "analytic optimal",
    ]  # fmt: skip
    chain = spaced_timesteps(1000, 50, "linspace")
    expected = chain_bits_per_dim(KNOWN, LINEAR, chain, variance_type="fixed_large")
    assert table["fixed_large linspace"] == {10: pytest.approx(expected, abs=1), 50: expected}
    entropy = mixture().entropy / np.log(2)
    assert table["analytic optimal"][10] - entropy == pytest.approx(0.1203, abs=1e-4)
    assert torch.equal(timesteps_of(KNOWN, LINEAR, 50, "linspace", "analytic"), chain)


def test_distances_of_the_full_chain_are_measured_once_per_sampler() -> None:
    calls = []

    def distance(sampler: str, spacing: str, K: int) -> float:
        calls.append((sampler, spacing, K))
        return float(len(calls))

    table = distance_table(distance, ["ddim", "analytic"], ["trailing", "optimal"], [5, 9], T=9)
    assert len(calls) == len(set(calls)) == 6
    assert [call for call in calls if call[2] == 9] == [
        ("ddim", "trailing", 9), ("analytic", "trailing", 9),
    ]  # fmt: skip
    assert table["ddim trailing"][9] == table["ddim optimal"][9]
    solvers = distance_table(
        distance, ["multistep_3", "spectral_steps"], ["trailing", "optimal_samples"], [2, 5, 9], 9
    )
    assert {name: list(row) for name, row in solvers.items()} == {
        "multistep_3 optimal_samples": [5],
        "spectral_steps optimal_samples": [2, 5],
    }
    assert list(table["analytic optimal"]) == [5, 9]


def test_a_report_is_text_and_json() -> None:
    report = CalibrationReport(
        bits_per_dim={"analytic optimal": {10: 3.5, 1000: 3.25}},
        standard_error=0.0123,
        frechet_distance={"ddim trailing": {10: 123.456}},
        num_frechet_images=500,
        num_images=900,
        num_forwards=10_000,
        features="features/",
        variance_type="analytic",
        timestep_spacing="trailing",
        data="abc",
    )
    lines = report.table().splitlines()
    assert lines[0] == "bits/dim (± 0.012 at K = T; 10,000 forwards over 900 images)"
    assert lines[1].split() == ["K", "=", "10", "K", "=", "1000"]
    assert lines[2].split() == ["analytic", "optimal", "3.500", "3.250"]
    assert lines[4] == "Fréchet distance (500 images; features/)"
    assert lines[6].split() == ["ddim", "trailing", "123.5"]
    assert json.loads(json.dumps(report.to_dict()))["num_images"] == 900


def test_unknown_rows_are_named() -> None:
    with pytest.raises(ValueError, match=r"samplers must be among .*, got 'euler'"):
        check_rows(["analytic", "euler"], [])
    with pytest.raises(ValueError, match=r"spacings must be among .*, got 'log'"):
        check_rows([], ["trailing", "log"])


def test_without_a_spectrum_there_are_no_spectral_rows() -> None:
    assert measured_samplers(["analytic", "spectral", "spectral_ddim", "ddim"], KNOWN) == [
        "analytic",
        "ddim",
    ]
