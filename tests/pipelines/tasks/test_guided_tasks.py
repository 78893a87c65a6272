"""Tasks on given images that another model guides, against one network that combines the two."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, HeunDiscreteScheduler
from diffusers.models.unets.unet_2d import UNet2DOutput
from helpers.pipelines import pipeline, quiet, seeds
from helpers.unets import make_tiny_unet
from torch import Tensor, nn

from ddpm_pipeline import DDPMPipeline
from ddpm_pipeline.pipelines import PosteriorMethod

IMAGES = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
HOLE = np.zeros((8, 8), bool)
HOLE[2:6, 2:6] = True
SCALE, INTERVAL = 1.7, (200, 800)
STEPS = {"num_inference_steps": 6, "output_type": "pt"}


class Combined(nn.Module):
    """g + w (f - g) at the timesteps of the interval, else f."""

    def __init__(self, f: nn.Module, g: nn.Module) -> None:
        super().__init__()
        self.f, self.g, self.config = f, g, f.config

    def forward(self, x: Tensor, t: Tensor, class_labels: None = None) -> UNet2DOutput:  # noqa: ARG002
        f = self.f(x, t).sample
        if INTERVAL[0] <= float(t) <= INTERVAL[1]:
            g = self.g(x, t).sample
            f = g + SCALE * (f - g)
        return UNet2DOutput(sample=f)


def there_and_back(pipe: DDPMPipeline, **how: object) -> Tensor:
    given = {k: v for k, v in how.items() if k not in ("generator", "output_type")}
    noise = pipe.invert(IMAGES, **given)
    return torch.cat([noise, pipe.revert(noise, **given, output_type="pt").images])


TASKS: dict[str, Callable[..., Tensor]] = {
    "vary": lambda pipe, **how: pipe.image_to_image(IMAGES, 0.7, **how).images,
    "interpolate": lambda pipe, **how: (
        pipe.interpolate(
            IMAGES[:1], IMAGES[1:], 3, **{k: v for k, v in how.items() if k != "generator"}
        ).images
    ),
    "invert": there_and_back,
    "inpaint": lambda pipe, **how: (
        pipe.inpaint(IMAGES, HOLE, method=PosteriorMethod(iterations=2), **how).images
    ),
    "inpaint by dps": lambda pipe, **how: pipe.inpaint(IMAGES, HOLE, method="dps", **how).images,
    "repaint": lambda pipe, **how: (
        pipe.inpaint(
            IMAGES, HOLE, method=PosteriorMethod("repaint", jump_length=2, resamples=2), **how
        ).images
    ),
    "restore": lambda pipe, **how: (
        pipe.restore(IMAGES, "blur:1", 0.05, method=PosteriorMethod(iterations=2), **how).images
    ),
}


@pytest.mark.parametrize("name", TASKS)
def test_a_guided_task_is_that_of_the_combined_network(name: str) -> None:
    f, g = (make_tiny_unet(seed=seed) for seed in (0, 1))
    own, both = pipeline(f), pipeline(Combined(f, g))
    task, guide = TASKS[name], pipeline(g)
    more = {"guidance_model": guide, "guidance_scale": SCALE, "guidance_interval": INTERVAL}
    expected = task(both, generator=seeds(1, 2), **STEPS)
    found = task(own, generator=seeds(1, 2), **STEPS, **more)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    plain = task(own, generator=seeds(1, 2), **STEPS)
    assert (plain - expected).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["vary", "inpaint", "inpaint by dps", "repaint", "restore"])
@pytest.mark.parametrize("scheduler", [EulerDiscreteScheduler, HeunDiscreteScheduler])
def test_tasks_are_guided_by_chains_of_no_whole_timesteps_too(scheduler: type, name: str) -> None:
    f, g = (make_tiny_unet(seed=seed) for seed in (0, 1))
    own, both = (quiet(DDPMPipeline(unet, scheduler(1000))) for unet in (f, Combined(f, g)))
    own.scheduler.set_timesteps(6)
    assert own.scheduler.timesteps.frac().any()
    more = {"guidance_model": g, "guidance_scale": SCALE, "guidance_interval": INTERVAL}
    expected = TASKS[name](both, generator=seeds(1, 2), **STEPS)
    found = TASKS[name](own, generator=seeds(1, 2), **STEPS, **more)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    plain = TASKS[name](own, generator=seeds(1, 2), **STEPS)
    assert (plain - expected).abs().max() > 1e-3


def test_an_interval_counts_for_the_null_class_too() -> None:
    unet = make_tiny_unet(num_class_embeds=4)
    pipe, rows = pipeline(unet), []
    unet.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    how = {"class_labels": [0, 2], "guidance_scale": 2.0, "generator": seeds(1, 2), **STEPS}
    how["max_batch_size"] = 2  # no room for both labels in a call
    guided = pipe.image_to_image(IMAGES, 1.0, guidance_interval=(0, 400), **how).images
    pipe.scheduler.set_timesteps(6)
    inside = int((pipe.scheduler.timesteps <= 400).sum())
    assert len(rows) == 6 + inside
    everywhere = pipe.image_to_image(IMAGES, 1.0, **how).images
    assert not torch.equal(guided, everywhere)


def test_a_guide_of_another_shape_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="guidance_model must be of the model's images"):
        pipeline(make_tiny_unet()).image_to_image(
            IMAGES, 0.5, guidance_model=make_tiny_unet(3), guidance_scale=2.0, **STEPS
        )
