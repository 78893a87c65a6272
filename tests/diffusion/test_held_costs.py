"""What it costs to hold a prediction: a walk of DDIM on Gaussian data, and a pushed flow."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from ddpm_pipeline.diffusion import (
    ComponentErrors,
    Components,
    ErrorSpectrum,
    FrequencyBasis,
    NoiseSchedule,
    held_prediction_costs,
    linear_error,
    shortest_paths,
    step_errors,
)
from ddpm_pipeline.diffusion.held_costs import never_falling

T = 1000
SCHEDULES = {
    "linear": NoiseSchedule.linear(T),
    "zero SNR": NoiseSchedule.cosine(T).zero_terminal_snr(),
}
DATA = Components(torch.tensor([0.3, 1.0, 6.0]).double(), torch.tensor([0.5, 0.3, 0.2]).double())


def of_gaussians(schedule: NoiseSchedule) -> ComponentErrors:
    """What the best prediction errs by, component by component."""
    error = [linear_error(schedule, float(variance)) for variance in DATA.variance]
    return ComponentErrors(DATA.variance, DATA.share, torch.stack(error, dim=1))


def cost_of(costs: torch.Tensor, chain: list[int]) -> torch.Tensor:
    return costs[chain, torch.tensor([*chain[1:], -1]) + 1].sum()


@pytest.mark.parametrize("name", SCHEDULES)
def test_steps_of_ddim_on_gaussian_data_cost_what_a_walk_gets_wrong(name: str) -> None:
    schedule = SCHEDULES[name]
    costs = held_prediction_costs(schedule, of_gaussians(schedule))
    for chain in ([999, 600, 300, 0], [999, 930, 700, 450, 150, 40, 0], [999, 0]):
        expected = step_errors(schedule, torch.tensor([chain]), DATA, order=1, corrector=False)
        assert_close(cost_of(costs, chain), expected[0], rtol=2e-3, atol=0)


def test_an_error_reaches_the_image_as_a_flow_carries_it() -> None:
    """Two flows, one of them pushed after a step, with predictions that answer as Tweedie says."""
    schedule = SCHEDULES["linear"]
    t = torch.arange(T)
    snr = schedule.snr(t)
    variance, error = 2.0, 2.0 / (1 + 2.0 * snr) ** 1.4  # knows more than a linear filter
    components = ComponentErrors(
        torch.tensor([variance]).double(), torch.ones(1).double(), error[:, None]
    )
    costs = held_prediction_costs(schedule, components)
    signal, size = snr.sqrt(), (variance - error).sqrt()
    for start, end in ((999, 700), (800, 300), (400, 100)):
        # In x/sigma, from one timestep to the next by the midpoint of what predictions are.
        pushed = exact = torch.zeros(())
        for i in range(start, 0, -1):
            step = signal[i - 1] - signal[i]
            change = (size[i - 1] + size[i]) / 2 * step
            exact = exact + change
            if i > end:
                pushed = pushed + size[start] * step
            else:
                answer = (signal[i] * error[i] + signal[i - 1] * error[i - 1]) / 2
                off = pushed - exact + change  # what it was before this step
                pushed = pushed + change + off * torch.expm1(answer * step)
        off = (pushed - exact) * signal[0] * error[0]
        assert_close(costs[start, end + 1], off.square(), rtol=0.02, atol=0)


def test_a_network_that_knows_more_has_cheaper_steps_at_high_noise() -> None:
    schedule = SCHEDULES["zero SNR"]
    gaussian = of_gaussians(schedule)
    better = gaussian._replace(error=gaussian.error**2 / gaussian.variance)
    first, second = (held_prediction_costs(schedule, each) for each in (gaussian, better))
    assert second[999, 900 + 1] < 0.5 * first[999, 900 + 1]


def test_components_keep_the_mean_error_of_a_spectrum_and_none_is_above_a_filters() -> None:
    schedule = SCHEDULES["zero SNR"]
    snr = schedule.snr(torch.arange(T))
    variance = torch.logspace(1, -2, 64).double().reshape(1, 8, 8)
    spectrum = ErrorSpectrum(
        basis=FrequencyBasis(torch.eye(1).double(), (8, 8)),
        data_variance=variance,
        ratios=torch.linspace(0.3, 1.2, T).double().reshape(T, 1, 1, 1),
        bands=(torch.zeros(8, dtype=torch.int64),) * 2,
        snr=snr,
    )
    found = ComponentErrors.of(spectrum)
    assert len(found.variance) < 40
    limit = found.variance / (1 + found.variance * snr[:, None])
    assert (found.error <= 1.01 * limit).all()
    allowed = torch.minimum(spectrum.at(torch.arange(T)), spectrum.limit(torch.arange(T)))
    assert_close((found.error * found.share).sum(1), allowed.flatten(1).mean(1), rtol=0.01, atol=0)


def test_the_nearest_sequence_that_never_falls_is_that_of_a_minimum_over_maxima() -> None:
    values = torch.rand(60, generator=torch.Generator().manual_seed(0)).double()
    found = never_falling(values)
    for i in range(60):
        means = [[values[a : b + 1].mean() for b in range(i, 60)] for a in range(i + 1)]
        assert_close(found[i], max(min(row) for row in means), rtol=1e-12, atol=0)


def test_a_timestep_that_was_measured_wrong_does_not_draw_steps_to_itself() -> None:
    schedule = SCHEDULES["zero SNR"]
    snr = schedule.snr(torch.arange(T))
    ratios = torch.full((T, 1, 1, 1), 0.5, dtype=torch.float64)
    chains = []
    for wrong in (1.0, 0.1):
        ratios[984] = 0.5 * wrong
        spectrum = ErrorSpectrum(
            basis=FrequencyBasis(torch.eye(1).double(), (2, 2)),
            data_variance=torch.tensor([[[6.0, 1.0], [1.0, 0.3]]]).double(),
            ratios=ratios.clone(),
            bands=(torch.zeros(2, dtype=torch.int64),) * 2,
            snr=snr,
        )
        costs = held_prediction_costs(schedule, ComponentErrors.of(spectrum))
        chains.append(shortest_paths(costs, 5).chain(5))
    assert (chains[0] - chains[1]).abs().max() < 15
