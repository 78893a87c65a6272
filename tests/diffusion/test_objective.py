"""The loss by a table: that of the schedule, for every loss and every timestep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from ddpm_pipeline import NoiseSchedule, marginal
from ddpm_pipeline.diffusion.losses import loss_weights, training_loss
from ddpm_pipeline.diffusion.objective import TrainingObjective
from ddpm_pipeline.diffusion.reverse_model import ReverseProcess

if TYPE_CHECKING:
    from ddpm_pipeline.diffusion.choices import LossWeighting

T = 50
SCHEDULES = {
    "linear": NoiseSchedule.linear(T),
    "nothing left at the end": NoiseSchedule.cosine(T).zero_terminal_snr(),
}
LOSSES: list[dict[str, Any]] = [
    {"loss": "simple", "prediction_type": "sample"},
    {"loss": "simple", "variance_type": "learned"},
    {"loss": "vlb", "variance_type": "fixed_large"},
    {"loss": "vlb", "variance_type": "learned"},
    {"loss": "hybrid", "variance_type": "learned_range", "vlb_weight": 0.1},
]


def example(options: dict[str, Any], t: torch.Tensor) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.randint(256, (len(t), 2, 4, 4), generator=generator) / 127.5 - 1
    channels = 4 if options.get("variance_type", "").startswith("learned") else 2
    output = torch.randn(len(t), channels, 4, 4, generator=generator)
    return x_0, torch.randn(x_0.shape, generator=generator), 0.5 * output


@pytest.mark.parametrize("options", LOSSES, ids=lambda o: "-".join(map(str, o.values())))
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_table_gives_the_loss_of_the_schedule(name: str, options: dict[str, Any]) -> None:
    """In float64 without a table, one timestep at a time."""
    options = {"prediction_type": "v_prediction", "variance_type": "fixed_small"} | options
    schedule, t = SCHEDULES[name], torch.tensor([7, 0, T - 1, 0, 1])
    x_0, eps, output = example(options, t)
    weights: dict[str, LossWeighting] = (
        {} if options["loss"] == "vlb" else {"loss_weighting": "p2"}
    )
    w = loss_weights(schedule, prediction_type=options["prediction_type"], **weights)
    process = ReverseProcess(schedule, options["prediction_type"], options["variance_type"])
    rest = {k: v for k, v in options.items() if k in {"loss", "vlb_weight"}}
    objective = TrainingObjective(process, weights=w, **rest)
    chosen = objective.at(t)
    x_t = chosen.noisy(x_0, eps)
    losses = objective.losses(chosen, output, x_0, eps, x_t)
    assert losses.dtype == torch.float32
    for i in range(len(t)):
        one = [v[i : i + 1].double() for v in (output, x_0, eps)]
        expected = training_loss(schedule, *one, t[i : i + 1], weights=w, **options)
        torch.testing.assert_close(losses[i].double(), expected[0], rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_noisy_images_are_the_marginals_to_the_bit(name: str) -> None:
    schedule, t = SCHEDULES[name], torch.arange(T)
    x_0, eps, _ = example({}, t)
    chosen = TrainingObjective(ReverseProcess(schedule, "v_prediction")).at(t)
    assert torch.equal(chosen.noisy(x_0, eps), marginal(schedule, x_0, t).reparameterize(eps))
