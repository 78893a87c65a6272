"""Training objectives: equal to the equations of the papers, whatever the network predicts."""

from __future__ import annotations

import pytest
import torch

from ddpm_pipeline import NoiseSchedule, marginal
from ddpm_pipeline.losses import LOSS_WEIGHTINGS, loss_weights, training_loss
from ddpm_pipeline.process import convert

T = 200
SCHEDULE = NoiseSchedule.linear(T)
PREDICTIONS = ("epsilon", "sample", "v_prediction")


def snr() -> torch.Tensor:
    """SNR from a product of alphas, apart from the schedule's own tables."""
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, T, dtype=torch.float64), 0)
    return alpha_bar / (1 - alpha_bar)


def example(seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    x_0, eps, eps_hat = torch.randn(3, 6, 2, 4, 4, generator=generator, dtype=torch.float64)
    t = torch.tensor([0, 1, 20, 100, 150, T - 1])
    return x_0, eps, eps_hat, t


def losses_of(prediction: str, **weighting: object) -> torch.Tensor:
    """The loss of one and the same network, expressed in a prediction type."""
    x_0, eps, eps_hat, t = example()
    x_t = marginal(SCHEDULE, x_0, t).reparameterize(eps)
    output = convert(SCHEDULE, eps_hat, x_t, t, from_type="epsilon", to_type=prediction)
    weights = loss_weights(SCHEDULE, prediction_type=prediction, **weighting)
    return training_loss(
        SCHEDULE, output, x_0, eps, t, prediction_type=prediction, weights=weights
    )


def test_the_default_is_l_simple() -> None:
    x_0, eps, eps_hat, t = example()
    expected = torch.stack([((a - b) ** 2).mean() for a, b in zip(eps, eps_hat, strict=True)])
    torch.testing.assert_close(training_loss(SCHEDULE, eps_hat, x_0, eps, t), expected)
    torch.testing.assert_close(losses_of("epsilon"), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("weighting", ["snr", "min_snr", "p2"])
def test_a_weighting_means_the_same_whatever_the_network_predicts(weighting: str) -> None:
    first, *others = (losses_of(p, loss_weighting=weighting) for p in PREDICTIONS)
    for other in others:
        torch.testing.assert_close(other, first, rtol=1e-8, atol=0)


@pytest.mark.parametrize(
    ("weighting", "on_epsilon"),
    [
        ("snr", torch.ones_like),
        ("min_snr", lambda s: torch.minimum(s, torch.tensor(5.0)) / s),
        ("p2", lambda s: 1 / (1 + s)),
    ],
)
def test_weights_on_epsilon_are_those_of_the_papers(weighting: str, on_epsilon: object) -> None:
    weights = loss_weights(SCHEDULE, loss_weighting=weighting)
    torch.testing.assert_close(weights, on_epsilon(snr()), rtol=1e-9, atol=0)


def test_min_snr_weights_on_v_are_those_of_the_paper() -> None:
    weights = loss_weights(SCHEDULE, prediction_type="v_prediction", loss_weighting="min_snr")
    expected = torch.minimum(snr(), torch.tensor(5.0)) / (snr() + 1)
    torch.testing.assert_close(weights, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("weighting", LOSS_WEIGHTINGS)
@pytest.mark.parametrize("prediction", ["sample", "v_prediction"])
def test_zero_terminal_snr_gives_finite_weights(weighting: str, prediction: str) -> None:
    schedule = NoiseSchedule.cosine(50).zero_terminal_snr()
    weights = loss_weights(schedule, prediction_type=prediction, loss_weighting=weighting)
    assert weights.isfinite().all()
    assert (weights >= 0).all()


def test_sample_prediction_is_bounded_unlike_in_stock_training() -> None:
    assert snr().max() > 9000
    assert loss_weights(SCHEDULE, prediction_type="sample").max() == 1


def test_half_precision_outputs_are_compared_in_the_precision_of_the_data() -> None:
    x_0, eps, eps_hat, t = (
        value.float() if value.is_floating_point() else value for value in example()
    )
    loss = training_loss(SCHEDULE, eps_hat.bfloat16(), x_0, eps, t)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(
        loss, training_loss(SCHEDULE, eps_hat, x_0, eps, t), rtol=1e-2, atol=0
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_weighting": "max_snr"}, "loss_weighting must be one of uniform.*'max_snr'"),
        ({"loss_weighting": "min_snr", "snr_gamma": 0.0}, "snr_gamma and p2_k must be above 0"),
        ({"loss_weighting": "p2", "p2_k": -1.0}, "snr_gamma and p2_k must be above 0"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss_weights(SCHEDULE, **options)
