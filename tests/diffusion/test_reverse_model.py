"""``ReverseProcess``: the same move whether it is made at once or from its coefficients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ddpm_pipeline.diffusion.bound_terms import transition_nats
from ddpm_pipeline.diffusion.choices import VARIANCE_TYPES
from ddpm_pipeline.diffusion.dct import FrequencyBasis
from ddpm_pipeline.diffusion.reverse_model import ReverseProcess
from ddpm_pipeline.diffusion.reverse_process import (
    ReverseMove,
    reverse_log_var,
    reverse_mean,
    reverse_x_0,
    split_output,
)
from ddpm_pipeline.diffusion.schedule import NoiseSchedule
from ddpm_pipeline.diffusion.spectral import BasisGaussian, ErrorSpectrum

SCHEDULE = NoiseSchedule.linear(1000)


def test_the_analytic_variance_of_a_move_to_the_data_is_the_decoders() -> None:
    v, decoder = torch.rand(2, 1000, dtype=torch.float64)
    process = ReverseProcess(
        SCHEDULE, variance_type="analytic", x_0_variance=v, decoder_variance=decoder
    )
    t, s = torch.tensor([999, 10, 10, 0]), torch.tensor([10, 9, -1, -1])
    assert process.x_0_variance_of_moves(t, s).tolist() == [v[999], v[10], decoder[10], decoder[0]]
    alone = replace(process, decoder_variance=None)
    assert torch.equal(alone.x_0_variance_of_moves(t, s), v[t])
    small = replace(process, variance_type="fixed_small")
    assert small.x_0_variance_of_moves(t, s) is None


@pytest.mark.parametrize("variance_type", VARIANCE_TYPES)
def test_the_coefficients_are_those_that_a_move_is_made_with(variance_type: str) -> None:
    v = torch.rand(1000, dtype=torch.float64)
    process = ReverseProcess(SCHEDULE, "v_prediction", variance_type, x_0_variance=v)
    x_t = torch.randn(3, 1, dtype=torch.float64)
    output = torch.randn(3, 2 if "learned" in variance_type else 1, dtype=torch.float64)
    t, s, above = torch.tensor([999, 500, 3]), torch.tensor([500, 3, -1]), torch.tensor(7)
    p = process.move(output, x_t, t, s, above)
    move = process.coefficients(t, s, above)
    prediction, log_var = split_output(output, x_t, variance_type)
    columns = ReverseMove(*(column[:, None] for column in move))
    x_0_hat = reverse_x_0(columns, prediction, x_t)
    torch.testing.assert_close(p.mean, reverse_mean(columns, x_0_hat, x_t), rtol=0, atol=0)
    expected = reverse_log_var(columns, log_var, variance_type)
    torch.testing.assert_close(p.log_var, expected, rtol=0, atol=0)


def test_a_clamped_prediction_changes_the_mean_and_the_error() -> None:
    x_0, t = torch.full((1, 1), 0.9, dtype=torch.float64), torch.tensor([5])
    x_t, output, s = 2 * x_0, torch.full_like(x_0, -3.0), t - 1
    clamped = ReverseProcess(SCHEDULE, "sample", clip_x_0=1.0)
    inside = ReverseProcess(SCHEDULE, "sample")
    by_hand = torch.full_like(output, -1.0)
    found = transition_nats(clamped, output, x_0, x_t, t, s)
    assert found == transition_nats(inside, by_hand, x_0, x_t, t, s)
    assert clamped.squared_error(output, x_0, x_t, t, s).item() == pytest.approx(1.9**2)


def spectral(**options: object) -> ReverseProcess:
    """A process for images of 2 × 3 values whose components have different errors."""
    errors = torch.rand(1000, 1, 2, 3, dtype=torch.float64) + 0.1
    spectrum = ErrorSpectrum(
        basis=FrequencyBasis(torch.ones(1, 1, dtype=torch.float64), (2, 3)),
        data_variance=torch.ones(1, 2, 3, dtype=torch.float64),
        ratios=errors,
        bands=(torch.arange(2), torch.arange(3)),
        snr=SCHEDULE.snr(torch.arange(1000)),
    )
    v = torch.cat([spectrum.at(t).mean((1, 2, 3)) for t in spectrum.parts()])
    types = {"prediction_type": "sample", "variance_type": "spectral"}
    return ReverseProcess(SCHEDULE, **types, x_0_variance=v, spectrum=spectrum, **options)


def test_spectral_moves_are_the_analytic_ones_on_average() -> None:
    process = spectral()
    analytic = replace(process, variance_type="analytic")
    x_t, output = torch.rand(2, 2, 1, 2, 3, dtype=torch.float64)
    t, s = torch.tensor([900, 20]), torch.tensor([500, -1])
    p, q = process.move(output, x_t, t, s), analytic.move(output, x_t, t, s)
    assert torch.equal(p.mean, q.mean)
    torch.testing.assert_close(p.log_var.exp().mean((1, 2, 3)), q.var.flatten())
    # To the data the variance is the error itself, in every component.
    torch.testing.assert_close(p.log_var[1].exp(), process.spectrum.at(t)[1])
    pairs = zip(process.coefficients(t, s), analytic.coefficients(t, s), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


def test_the_decoder_of_levels_is_the_analytic_one() -> None:
    x_t, output = torch.rand(2, 2, 1, 2, 3, dtype=torch.float64)
    t = torch.tensor([7, 7])
    v = torch.full((1000,), 0.3, dtype=torch.float64)
    process = spectral(decoder_variance=v)
    p = process.decoder(output, x_t, t)
    assert torch.equal(p.mean, output)
    assert p.var.flatten().tolist() == pytest.approx([0.3, 0.3])
    assert isinstance(spectral().decoder(output, x_t, t), BasisGaussian)


def test_a_spectral_process_needs_a_spectrum() -> None:
    with pytest.raises(ValueError, match="variance_type 'spectral' needs a spectrum, got None"):
        ReverseProcess(SCHEDULE, variance_type="spectral")
