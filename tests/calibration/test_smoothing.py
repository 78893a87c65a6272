"""Smoothing splines against what they must reproduce, and their errors against simulation."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from ddpm_pipeline.calibration.smoothing import smooth_fit
from ddpm_pipeline.diffusion.schedule import NoiseSchedule

X = NoiseSchedule.linear(1000).snr(torch.arange(0, 1000, 5)).log()
ONES = torch.ones_like(X)


def test_a_straight_line_passes_unchanged() -> None:
    assert_close(smooth_fit(X, 3 - 2 * X, ONES).values, 3 - 2 * X, rtol=1e-6, atol=1e-6)


def test_a_smooth_curve_without_noise_passes_nearly_unchanged() -> None:
    y = torch.sigmoid(X / 2) + 0.2 * torch.sin(X / 2)
    assert_close(smooth_fit(X, y, ONES).values, y, rtol=0, atol=1e-4)


def test_noise_is_averaged_out_and_its_error_known() -> None:
    y = torch.sigmoid(X / 2)
    fits = [smooth_fit(X, y + 0.1 * torch.randn_like(y), ONES) for _ in range(100)]
    errors = torch.stack([fit.values - y for fit in fits])
    assert errors.square().mean().sqrt() < 0.03
    variances = 0.01 * ONES
    claimed = torch.stack([fit.standard_errors(variances) for fit in fits])
    assert 0.7 < (claimed.square().mean() / errors.square().mean()).sqrt() < 1.2
    weights = torch.linspace(0, 1, len(X), dtype=torch.float64)
    spread = torch.stack([(error * weights).sum() for error in errors]).square().mean().sqrt()
    claimed = fits[0].standard_error_of_sum(weights, variances)
    assert 0.7 < claimed / spread < 1.4


def test_places_without_weight_do_not_matter() -> None:
    y, weights = torch.sigmoid(X / 2), ONES.clone()
    weights[1::3] = 0
    spoilt = torch.where(weights > 0, y, torch.nan)
    assert_close(smooth_fit(X, spoilt, weights).values, y, rtol=0, atol=1e-3)


def test_weights_say_whom_to_believe() -> None:
    y = torch.zeros_like(X)
    y[100:] += torch.randn(len(X) - 100, dtype=torch.float64)
    weights = torch.where(torch.arange(len(X)) < 100, 1.0, 1e-6).double()
    assert smooth_fit(X, y, weights).values[:100].abs().max() < 1e-3


def test_one_place_is_enough() -> None:
    one = torch.ones(1, dtype=torch.float64)
    assert_close(smooth_fit(one, 3 * one, one).values, 3 * one, rtol=1e-6, atol=0)
