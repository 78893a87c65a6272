"""A picture varied: the ends of the strength, the noise in between, and any scheduler."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch
from helpers.pipelines import pipeline, quiet, seeds

from ddpm_pipeline import DDPMPipeline
from ddpm_pipeline.pipelines.tasks.variation import kept_steps

IMAGES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("solver", ["ddpm", "ddim", "multistep"])
@pytest.mark.parametrize("is_list", [True, False])
def test_at_strength_1_it_is_a_plain_sample(tiny_unet: object, solver: str, is_list: bool) -> None:
    pipe = pipeline(tiny_unet())
    how = {"num_inference_steps": 7, "output_type": "np", "solver": solver}

    def generator() -> object:
        return seeds(4, 5, 6) if is_list else seeds(4)[0]

    varied = pipe.image_to_image(IMAGES, 1, generator=generator(), **how).images
    assert np.array_equal(varied, pipe(3, generator(), **how).images)


def test_towards_strength_0_it_is_the_image(tiny_unet: object) -> None:
    pipe = pipeline(tiny_unet())
    bytes_of_images = (IMAGES * 255).round().to(torch.uint8)
    for strength in (0, 1e-9):
        pictures = pipe.image_to_image(bytes_of_images, strength, num_inference_steps=7).images
        found = np.stack([np.asarray(picture) for picture in pictures])
        assert np.array_equal(found, bytes_of_images[:, 0].numpy())
    how = {"num_inference_steps": 1000, "generator": seeds(1, 2, 3), "output_type": "pt"}
    near = pipe.image_to_image(IMAGES, 0.001, **how).images
    assert (near - IMAGES).abs().max() < 0.05


def test_the_rest_of_the_chain_starts_from_the_noisy_image(tiny_unet: object) -> None:
    pipe = pipeline(tiny_unet(), num_train_timesteps=100)
    seen = []
    pipe.unet.register_forward_pre_hook(lambda _, args: seen.append(args))
    how = {"num_inference_steps": 10, "generator": seeds(8)[0], "output_type": "pt"}
    pipe.image_to_image(IMAGES, 0.4, **how)
    assert [int(t) for _, t in seen] == [30, 20, 10, 0]
    noise = torch.randn(3, 1, 8, 8, generator=seeds(8)[0])
    stock = diffusers.DDPMScheduler(100).add_noise(IMAGES * 2 - 1, noise, torch.tensor([30] * 3))
    torch.testing.assert_close(seen[0][0], stock)


@pytest.mark.parametrize(
    "name",
    [
        "DDIMScheduler",
        "EulerDiscreteScheduler",
        "HeunDiscreteScheduler",
        "DPMSolverMultistepScheduler",
        "PNDMScheduler",
    ],
)
def test_every_scheduler_varies_and_draws(tiny_unet: object, name: str) -> None:
    own = pipeline(tiny_unet())
    scheduler = getattr(diffusers, name).from_config(own.scheduler.config)
    pipe = quiet(DDPMPipeline(tiny_unet(), scheduler))
    how = {"num_inference_steps": 8, "output_type": "np"}
    plain = pipe(3, seeds(1, 2, 3), **how).images
    whole = pipe.image_to_image(IMAGES, 1, generator=seeds(1, 2, 3), **how).images
    assert np.array_equal(whole, plain)
    half = pipe.image_to_image(IMAGES, 0.25, generator=seeds(1, 2, 3), **how).images
    original = IMAGES.permute(0, 2, 3, 1).numpy()
    assert 0 < np.abs(half - original).mean() < np.abs(plain - original).mean()


def test_kept_steps_grow_from_none_to_all(tiny_unet: object) -> None:
    scheduler = pipeline(tiny_unet()).scheduler
    scheduler.set_timesteps(20)
    counts = [kept_steps(scheduler, i / 100) for i in range(101)]
    assert counts[0] == 0
    assert counts[-1] == 20
    assert counts == sorted(counts)


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan"), "half", True, None])
def test_other_strengths_are_refused(tiny_unet: object, strength: object) -> None:
    with pytest.raises(ValueError, match=r"strength must .* \[0, 1\], got"):
        pipeline(tiny_unet()).image_to_image(IMAGES, strength)


def test_one_image_may_be_varied_several_times(tiny_unet: object) -> None:
    pipe = pipeline(tiny_unet())
    how = {"num_inference_steps": 4, "output_type": "pt"}
    three = pipe.image_to_image(IMAGES[:1], 0.7, generator=seeds(1, 2, 3), **how).images
    alone = pipe.image_to_image(IMAGES[:1], 0.7, generator=seeds(2), **how).images
    assert torch.equal(three[1:2], alone)
    assert len(pipe.image_to_image(IMAGES[:1], 0.7, batch_size=5, **how).images) == 5
    with pytest.raises(ValueError, match="image must be one image or batch_size=2, got 3"):
        pipe.image_to_image(IMAGES, 0.7, batch_size=2, **how)
    with pytest.raises(TypeError, match="no option 'steps' here; there are generator, num_infer"):
        pipe.image_to_image(IMAGES, 0.7, steps=2)
    with pytest.raises(ValueError, match="class"):
        pipe.image_to_image(IMAGES, 0.7, class_labels=1)


def test_the_callback_sees_and_changes_the_steps(tiny_unet: object) -> None:
    pipe, seen = pipeline(tiny_unet()), []

    def callback(_: object, index: int, t: object, tensors: dict) -> dict:
        seen.append((index, int(t)))
        return {"image": torch.zeros_like(tensors["image"])}

    images = pipe.image_to_image(
        IMAGES, 0.5, num_inference_steps=4, output_type="pt", callback_on_step_end=callback
    ).images
    assert seen == [(0, 250), (1, 0)]
    assert (images == 0.5).all()
