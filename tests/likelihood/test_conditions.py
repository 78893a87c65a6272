"""The bound given a condition, and without: by networks whose answers are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from ddpm_pipeline.likelihood.bound import variational_bound
from ddpm_pipeline.networks.condition import Condition
from ddpm_pipeline.networks.conditioned_on import Conditioning
from ddpm_pipeline.networks.model_facts import ModelFacts, set_facts
from ddpm_pipeline.schedulers.scheduler import DDPMScheduler

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusers import UNet2DModel


@pytest.fixture
def network(tiny_unet: Callable[..., UNet2DModel]) -> UNet2DModel:
    """Answers x_0 = y, the image that it is given; 0 where it is given none."""
    made = tiny_unet(channels=2, out_channels=1, sample_size=4)
    wanted = Conditioning(channels=1, sides=(4, 4), trains_null=True)
    set_facts(made, ModelFacts(conditioning=wanted.to_dict()))
    made.forward = lambda x, _: x[:, 1:]
    return made


def test_the_bound_given_the_image_itself_is_its_noise(network: UNet2DModel) -> None:
    scheduler = DDPMScheduler(20, prediction_type="sample", beta_schedule="squaredcos_cap_v2")
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (6, 1, 4, 4), dtype=torch.uint8, generator=generator)
    x_0, told = 2 * pictures.float() / 255 - 1, Condition(picture=pictures)
    report = variational_bound(network, scheduler, x_0, class_labels=told)
    assert report.transitions.abs().max() < 1e-9  # the posterior's mean is that of x_0 = y
    swapped = variational_bound(
        network, scheduler, x_0, class_labels=told[torch.arange(5, -1, -1)]
    )
    assert swapped.bits_per_dim > report.bits_per_dim + 1
    dropped = told.without(torch.ones(6, dtype=torch.bool))
    without = variational_bound(network, scheduler, x_0, class_labels=dropped)
    zero = variational_bound(lambda x_t, _: torch.zeros_like(x_t), scheduler, x_0)
    assert without.bits_per_dim > report.bits_per_dim + 1
    # KL divergences of moves whose means are known hold no noise.
    assert torch.allclose(without.transitions, zero.transitions, rtol=1e-6)
    batches = [(x_0[:4], told[:4]), (x_0[4:], told[4:])]
    parts = variational_bound(network, scheduler, batches)
    assert parts.transitions.abs().max() < 1e-9
    with pytest.raises(ValueError, match=r"class_labels must have shape \(6,\), .* got \(2,\)"):
        variational_bound(network, scheduler, x_0, class_labels=told[:2])
