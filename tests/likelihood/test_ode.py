"""The likelihood of the flow against closed forms, and beside the bound of the same model."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from helpers.gaussian_images import GaussianImages
from helpers.oracles import Mixture, alpha_bars, gaussian, linear_betas, mixture
from helpers.unets import make_tiny_unet

from ddpm_pipeline import DDPMScheduler, NoiseSchedule, variational_bound
from ddpm_pipeline.likelihood import ode_likelihood
from ddpm_pipeline.likelihood.ode import Angles

if TYPE_CHECKING:
    from torch import Tensor

BETAS = linear_betas()


class FractionalDenoiser:
    """The exact v of a mixture at any t, log SNR being a straight line between timesteps."""

    def __init__(self, data: Mixture, betas: np.ndarray, prediction_type: str) -> None:
        self.data, self.prediction_type = data, prediction_type
        alpha_bar, one_minus = (a.astype(float) for a in alpha_bars(betas))
        with np.errstate(divide="ignore"):
            self.log_snr = np.log(alpha_bar) - np.log(one_minus)
        self.angle = np.arctan2(np.sqrt(one_minus), np.sqrt(alpha_bar))
        self.calls = 0

    def levels(self, t: float) -> tuple[float, float]:
        places = np.arange(len(self.log_snr))
        if np.isinf(self.log_snr[-1]) and t > len(self.log_snr) - 2:
            angle = np.interp(t, places, self.angle)
            return math.cos(angle) ** 2, math.sin(angle) ** 2
        finite = np.isfinite(self.log_snr)
        log_snr = np.interp(t, places[finite], self.log_snr[finite])
        return 1 / (1 + math.exp(-log_snr)), 1 / (1 + math.exp(log_snr))

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        self.calls += len(x_t)
        a, b = (torch.tensor(v, dtype=torch.float64) for v in self.levels(float(t[0])))
        x_0 = self.data.posterior_moments(x_t, a, b)[0]
        if self.prediction_type == "sample":
            return x_0
        if self.prediction_type == "epsilon":
            return (x_t - a.sqrt() * x_0) / b.sqrt()
        return (a.sqrt() * x_t - x_0) / b.sqrt()


def nats_of(data: Mixture, x_0: Tensor) -> float:
    """The true negative log-likelihood, bits per dimension."""
    return -data.log_density(x_0.numpy()).mean() / math.log(2)


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("data", [gaussian(0.1, 0.5), mixture()], ids=["gaussian", "mixture"])
def test_closed_forms(data: Mixture, prediction_type: str) -> None:
    x_0 = data.sample((300, 1, 2, 2), torch.Generator().manual_seed(0))
    scheduler = DDPMScheduler(prediction_type=prediction_type)
    model = FractionalDenoiser(data, BETAS, prediction_type)
    report = ode_likelihood(
        model, scheduler, x_0, decoder="continuous", rtol=1e-6, atol=1e-6, batch_size=300
    )
    # The denoiser works on each pixel alone, so that Hutchinson's signs give the trace itself.
    assert report.standard_error_trace < 1e-9
    assert report.bits_per_dim == pytest.approx(nats_of(data, x_0), abs=1e-3)
    assert report.forwards == model.calls
    assert report.products == 2 * (model.calls - 300)


def test_zero_terminal_snr_and_the_cosine_schedule() -> None:
    data = gaussian(0.0, 0.4)
    schedule = NoiseSchedule.cosine().zero_terminal_snr()
    scheduler = DDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        rescale_betas_zero_snr=True,
        prediction_type="v_prediction",
    )
    x_0 = data.sample((300, 1, 2, 2), torch.Generator().manual_seed(0))
    model = FractionalDenoiser(data, schedule.betas.numpy(), "v_prediction")
    report = ode_likelihood(model, scheduler, x_0, decoder="continuous", rtol=1e-6, atol=1e-6)
    assert report.bits_per_dim == pytest.approx(nats_of(data, x_0), abs=1e-3)


def test_hutchinsons_trace_has_the_error_that_it_states() -> None:
    images = GaussianImages.smooth((1, 3, 3), std=0.8)
    unet = images.denoiser(BETAS)
    x_0 = images.sample(200)
    truth = torch.distributions.MultivariateNormal(images.mean, images.covariance)
    expected = -truth.log_prob(x_0.flatten(1)).mean().item() / 9 / math.log(2)
    how = {"decoder": "continuous", "rtol": 1e-5, "atol": 1e-5, "batch_size": 200}
    exact = ode_likelihood(unet, DDPMScheduler(), x_0, num_probes=None, **how)
    assert exact.bits_per_dim == pytest.approx(expected, abs=1e-3)
    assert exact.standard_error_trace == 0
    estimates = [
        ode_likelihood(
            unet,
            DDPMScheduler(),
            x_0,
            num_probes=2,
            generator=torch.Generator().manual_seed(i),
            **{**how, "rtol": 1e-3, "atol": 1e-3},
        )
        for i in range(2)
    ]
    for report in estimates:
        assert 0 < report.standard_error_trace < report.standard_error
        # The noise at t = 0 is another too, but of Gaussian data it cancels.
        assert abs(report.bits_per_dim - expected) < 4 * report.standard_error_trace + 0.005
    hidden = str(replace(estimates[0], standard_error_images=0.0))
    assert "hidden by that from the trace; --ode_probes draws more" in hidden
    assert "hidden" not in str(estimates[0])
    one = ode_likelihood(unet, DDPMScheduler(), x_0[:2], num_probes=1, **how)
    assert math.isnan(one.standard_error_trace)
    assert one.to_dict()["standard_error_trace"] is None
    assert "not known from one probe" in str(one)


@pytest.mark.parametrize("dequantize", [False, True])
def test_levels_of_bytes_are_nearly_what_their_probability_is(dequantize: bool) -> None:
    data = gaussian(0.0, 0.3)
    x = data.sample((200, 1, 3, 3), torch.Generator().manual_seed(0)).clamp(-1, 1)
    x_0 = ((x + 1) * 127.5).round() / 127.5 - 1
    model = FractionalDenoiser(data, BETAS, "epsilon")
    scheduler = DDPMScheduler(variance_type="fixed_large")
    report = ode_likelihood(model, scheduler, x_0, dequantize=dequantize)
    # Bins are a 38th of the standard deviation: their probability is density times width.
    expected = nats_of(data, x_0) + math.log2(127.5)
    assert report.bits_per_dim == pytest.approx(expected, abs=0.01 if dequantize else 0.1)
    assert report.bits_per_dim > expected - 0.01


def test_a_real_network_is_near_its_bound() -> None:
    unet = make_tiny_unet()
    x_0 = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    x_0 = ((x_0 + 1) * 127.5).round() / 127.5 - 1
    scheduler = DDPMScheduler(100, prediction_type="sample")
    report = ode_likelihood(unet, scheduler, x_0, rtol=1e-2, atol=1e-2)
    bound = variational_bound(unet, scheduler, x_0)
    assert math.isfinite(report.bits_per_dim)
    # The same noise and the same decoder at t = 0, unless the seeds differ.
    assert report.decoder == pytest.approx(bound.decoder, rel=0.2)


def test_angles_and_timesteps_agree() -> None:
    for schedule in (NoiseSchedule.linear(), NoiseSchedule.cosine().zero_terminal_snr()):
        angles = Angles(schedule)
        found = [angles.timestep(angle) for angle in angles.table]
        np.testing.assert_allclose(found, np.arange(1000), atol=1e-6)
        middle = (angles.table[1:] + angles.table[:-1]) / 2
        between = np.array([angles.timestep(angle) for angle in middle])
        assert ((between > np.arange(999)) & (between < np.arange(1, 1000))).all()
    log_snr = np.log(NoiseSchedule.linear().snr(torch.arange(1000)).numpy())
    half = math.atan(math.exp(-(log_snr[10] + log_snr[11]) / 4))
    assert Angles(NoiseSchedule.linear()).timestep(half) == pytest.approx(10.5, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_probes": 0}, "num_probes must be an integer of at least 1, got 0"),
        ({"decoder": "tanh"}, "decoder must be one of discretized, continuous, got 'tanh'"),
        ({"solver": "Euler"}, "solver must be one of RK45, DOP853, RK23, got 'Euler'"),
        ({"rtol": 0.0}, "rtol must be above 0"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1"),
    ],
)
def test_mistakes_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ode_likelihood(make_tiny_unet(), DDPMScheduler(10), torch.zeros(1, 1, 8, 8), **arguments)


def test_without_scipy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.integrate", None)
    with pytest.raises(ImportError, match=r'needs SciPy: pip install "ddpm_pipeline\[eval\]"'):
        ode_likelihood(make_tiny_unet(), DDPMScheduler(10), torch.zeros(1, 1, 8, 8))
