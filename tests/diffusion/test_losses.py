"""Training objectives: equal to the equations of the papers, whatever the network predicts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers.oracles import gaussian, linear_betas
from torch.distributions import Normal, kl_divergence

from ddpm_pipeline import (
    DDPMScheduler,
    NoiseSchedule,
    marginal,
    posterior,
    reverse,
    variational_bound,
)
from ddpm_pipeline.diffusion.choices import LOSS_WEIGHTINGS, LOSSES, check_loss
from ddpm_pipeline.diffusion.losses import loss_weights, training_loss
from ddpm_pipeline.diffusion.predictions import convert

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


def test_stock_weight_of_x_0_is_unbounded() -> None:
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


# The bound as a loss


def learned_example() -> tuple[torch.Tensor, ...]:
    """x_0 on the 256 levels, noise, an output with a variance, and every kind of timestep."""
    x_0, eps, eps_hat, t = example()
    x_0 = (x_0.clamp(-2, 2) * 60).round() * 2 / 255 - 1 / 255
    share = torch.tanh(example(1)[2])
    return x_0, eps, torch.cat([eps_hat, share], dim=1).requires_grad_(), t


@pytest.mark.parametrize("variance_type", ["learned_range", "fixed_large"])
def test_vlb_is_t_times_each_term_in_bits_per_dim(variance_type: str) -> None:
    x_0, eps, output, t = learned_example()
    output = output if variance_type == "learned_range" else output[:, :2]
    options = {"variance_type": variance_type}
    found = training_loss(SCHEDULE, output, x_0, eps, t, loss="vlb", **options)
    x_t = marginal(SCHEDULE, x_0, t).reparameterize(eps)
    for i in range(len(t)):
        one = slice(i, i + 1)
        p = reverse(SCHEDULE, output[one], x_t[one], t[one], **options)
        if t[i] == 0:
            nats = -p.discretized_log_prob(x_0[one]).sum()
        else:
            q = posterior(SCHEDULE, x_0[one], x_t[one], t[one])
            normals = (Normal(g.mean, g.std.expand_as(g.mean)) for g in (q, p))
            nats = kl_divergence(*normals).sum()
        assert found[i].item() == pytest.approx(T * nats.item() / (32 * math.log(2)), rel=1e-9)


def test_the_mean_of_the_vlb_loss_over_the_chain_is_the_bound() -> None:
    schedule = NoiseSchedule.linear(10, 1e-3, 0.3)
    x_0 = torch.full((20_000, 1), 2 * 100 / 255 - 1, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)

    def model(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return 0.8 * x_t + 0.01 * t[:, None]

    losses = []
    for step in range(10):
        eps = torch.randn(x_0.shape, generator=generator, dtype=torch.float64)
        t = torch.full((len(x_0),), step)
        output = model(marginal(schedule, x_0, t).reparameterize(eps), t)
        losses.append(training_loss(schedule, output, x_0, eps, t, loss="vlb"))
    report = variational_bound(
        model, DDPMScheduler(10, beta_start=1e-3, beta_end=0.3), x_0, generator=generator
    )
    loss = torch.stack(losses).mean(0)
    error = math.hypot(loss.std().item() / len(loss) ** 0.5, report.standard_error)
    assert abs(loss.mean().item() - (report.bits_per_dim - report.prior)) < 4 * error
    assert error < 0.02 * report.bits_per_dim


def gradient_of(loss: str, **options: object) -> torch.Tensor:
    x_0, eps, output, t = learned_example()
    options |= {"variance_type": "learned_range"}
    training_loss(SCHEDULE, output, x_0, eps, t, loss=loss, **options).sum().backward()
    return output.grad


def test_the_hybrid_loss_moves_the_mean_by_simple_and_the_variance_by_the_bound() -> None:
    simple, vlb, hybrid = (gradient_of(loss) for loss in ("simple", "vlb", "hybrid"))
    torch.testing.assert_close(hybrid[:, :2], simple[:, :2])
    torch.testing.assert_close(hybrid[:, 2:], 1e-3 * vlb[:, 2:])
    assert (simple[:, 2:] == 0).all()
    assert (vlb[:, :2] != 0).any()
    torch.testing.assert_close(gradient_of("hybrid", vlb_weight=0.5)[:, 2:], 0.5 * vlb[:, 2:])


def test_the_best_share_of_the_hybrid_loss_is_the_true_reverse_variance() -> None:
    """Gaussian data N(0, 1/4): x_s and x_t are jointly Gaussian, and p(x_s | x_t) is known."""
    step, data = 60, gaussian(0, 0.5)
    x_0 = data.sample((50_000, 1), torch.Generator().manual_seed(0))
    eps = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    t = torch.full((len(x_0),), step)
    x_t = marginal(SCHEDULE, x_0, t).reparameterize(eps)
    eps_hat = data.denoiser(linear_betas(T))(x_t, t)
    share = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([share], max_iter=30, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        output = torch.cat([eps_hat, share.expand_as(eps_hat)], dim=1)
        options = {"variance_type": "learned_range", "vlb_weight": 1e3}
        loss = training_loss(SCHEDULE, output, x_0, eps, t, loss="hybrid", **options).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    beta = linear_betas(T)[step]
    kept = np.prod(1 - linear_betas(T)[:step])
    var_s = 0.25 * kept + 1 - kept
    best = var_s - (1 - beta) * var_s**2 / ((1 - beta) * var_s + beta)
    small = beta * (1 - kept) / (1 - (1 - beta) * kept)
    expected = 2 * np.log(best / small) / np.log(beta / small) - 1
    assert share.item() == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_gradients_of_the_bound_are_finite_however_wrong_the_network(scale: float) -> None:
    x_0, eps, output, t = (v.float() if v.is_floating_point() else v for v in learned_example())
    output = (scale * output.detach()).requires_grad_()
    output.data[:, 2:].clamp_(-1.5, 1.5)
    loss = training_loss(SCHEDULE, output, x_0, eps, t, loss="vlb", variance_type="learned_range")
    loss.sum().backward()
    assert loss.isfinite().all()
    assert loss.dtype == torch.float32
    assert output.grad.isfinite().all()


def test_a_loss_for_one_example_does_not_depend_on_the_others() -> None:
    x_0, eps, output, t = learned_example()
    options = {"loss": "hybrid", "variance_type": "learned_range"}
    together = training_loss(SCHEDULE, output, x_0, eps, t, **options)
    for i in range(len(t)):
        one = slice(i, i + 1)
        alone = training_loss(SCHEDULE, output[one], x_0[one], eps[one], t[one], **options)
        torch.testing.assert_close(alone[0], together[i])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("elbo", "learned"), "loss must be one of simple, vlb, hybrid, got 'elbo'"),
        (("simple", "learned"), "'learned' must be trained with loss vlb or hybrid"),
        (("hybrid", "fixed_small"), "needs variance_type learned or learned_range, got 'fixed_s"),
        (("vlb", "learned", "snr"), "loss_weighting must be uniform for loss 'vlb'.*'snr'"),
    ],
)
def test_losses_that_cannot_be_trained_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_loss(*arguments)
    check_loss("simple", "fixed_small", "snr")
    check_loss("vlb", "fixed_large")
    check_loss("hybrid", "learned_range", "min_snr")


def test_channels_that_do_not_fit_the_variance_are_refused() -> None:
    x_0, eps, output, t = learned_example()
    for loss in LOSSES:
        with pytest.raises(ValueError, match="must have 4 channels for variance_type 'learned'"):
            training_loss(SCHEDULE, output[:, :2], x_0, eps, t, loss=loss, variance_type="learned")
