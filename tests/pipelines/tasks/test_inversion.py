"""The noise of an image: the steps come back to it, whatever network, chain or clipping."""

from __future__ import annotations

import math

import diffusers
import pytest
import torch
from helpers.gaussian_images import GaussianImages
from helpers.oracles import alpha_bars, linear_betas
from helpers.pipelines import pipeline, quiet, seeds

from ddpm_pipeline import DDPMPipeline
from ddpm_pipeline.schedulers import Solver

IMAGES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return -10 * math.log10((a - b).square().mean().item())


@pytest.mark.parametrize("config", [{}, {"timestep_spacing": "trailing"}])
def test_the_steps_come_back_to_the_images(tiny_unet: object, config: dict) -> None:
    pipe = pipeline(tiny_unet(), **config)
    how = {"num_inference_steps": 8}
    drawn = pipe(2, seeds(1, 2), 8, "pt", eta=0.0).images
    noise = pipe.invert(drawn, calls_per_step=12, **how)
    back = pipe.revert(noise, output_type="pt", **how).images
    assert psnr(back, drawn) > 38
    assert torch.equal(pipe(noise=noise, eta=0, output_type="pt", **how).images, back)


def test_steps_that_a_solver_was_chosen_for_are_not_those_of_other_tasks(
    tiny_unet: object,
) -> None:
    pipe, seen = pipeline(tiny_unet(), num_train_timesteps=20), []
    pipe.scheduler.set_solver(Solver("multistep", num_inference_steps=4))
    noise = pipe.invert(IMAGES[:1])
    back = pipe(noise=noise, eta=0, output_type="pt").images
    assert torch.equal(pipe.revert(noise, output_type="pt").images, back)
    assert psnr(back, IMAGES[:1]) > 30
    hole, how = torch.eye(8), {"callback_on_step_end": lambda *_: seen.append(1)}
    for steps, draw in (
        (20, lambda: pipe.inpaint(IMAGES[:1], hole, method="dps", **how)),
        (20, lambda: pipe.interpolate(*IMAGES[:2], 2, **how)),
        (4, lambda: pipe.image_to_image(IMAGES[:1], 1.0, **how)),
        (4, lambda: pipe(1, **how)),
    ):
        seen.clear()
        draw()
        assert len(seen) == steps


def test_more_calls_come_closer_and_are_counted(tiny_unet: object) -> None:
    pipe, calls = pipeline(tiny_unet()), []
    pipe.unet.register_forward_hook(lambda *_: calls.append(1))
    found = []
    how = {"num_inference_steps": 5}
    for most in (1, 3, 10):
        calls.clear()
        noise = pipe.invert(IMAGES[:1], calls_per_step=most, **how)
        assert len(calls) <= 5 * most
        back = pipe.revert(noise, output_type="pt", **how).images
        found.append(psnr(back, IMAGES[:1]))
    assert found == sorted(found)
    assert found[-1] > 30


def test_gaussian_images_come_from_the_noise_of_the_exact_map() -> None:
    data = GaussianImages.smooth((1, 4, 4))
    unet = data.denoiser(linear_betas())
    pipe = pipeline(unet, clip_sample=False)
    images = data.sample(4).float()
    steps = {"num_inference_steps": 20}
    noise = pipe.invert((images + 1) / 2, calls_per_step=40, **steps)
    # Every step multiplies each component of the covariance by a number of its own.
    alpha_bar, one_minus = (a.astype(float) for a in alpha_bars(linear_betas()))
    values, basis = torch.linalg.eigh(data.covariance)
    gain = torch.ones_like(values)
    for t in range(950, -1, -50):
        a, b = alpha_bar[t], one_minus[t]
        c, d = (1.0, 0.0) if t == 0 else (alpha_bar[t - 50], one_minus[t - 50])
        to_x_0 = math.sqrt(a) * values / (a * values + b)
        gain = gain * (math.sqrt(d / b) + (math.sqrt(c) - math.sqrt(d * a / b)) * to_x_0)
    start = math.sqrt(alpha_bar[950]) * data.mean
    expected = start + ((images.flatten(1).double() - data.mean) @ basis / gain) @ basis.T
    torch.testing.assert_close(noise.flatten(1).double(), expected, rtol=0.01, atol=0.02)


def test_an_image_does_not_depend_on_the_others(tiny_unet: object) -> None:
    pipe = pipeline(tiny_unet())
    how = {"num_inference_steps": 5, "calls_per_step": 6}
    three = pipe.invert(IMAGES, generator=seeds(1, 2, 3), **how)
    assert torch.equal(pipe.invert(IMAGES[1:2], generator=seeds(9), **how), three[1:2])
    torch.testing.assert_close(
        pipe.invert(IMAGES, max_batch_size=2, **how), three, rtol=0.02, atol=0.02
    )


def test_the_scheduler_of_stock_is_taken_backwards_too() -> None:
    scheduler = diffusers.DDIMScheduler(1000, clip_sample=False)
    data = GaussianImages.smooth((1, 4, 4))
    pipe = quiet(DDPMPipeline(data.denoiser(linear_betas()), scheduler))
    images = (data.sample(3).float() + 1) / 2
    noise = pipe.invert(images, num_inference_steps=10)
    assert psnr(pipe(noise=noise, num_inference_steps=10, output_type="pt").images, images) > 40


def test_what_cannot_be_taken_backwards_is_refused(tiny_unet: object) -> None:
    euler = quiet(DDPMPipeline(tiny_unet(), diffusers.EulerDiscreteScheduler(1000)))
    with pytest.raises(ValueError, match="of a EulerDiscreteScheduler cannot be taken backwards"):
        euler.invert(IMAGES, num_inference_steps=5)
    pipe = pipeline(tiny_unet())
    with pytest.raises(ValueError, match="calls_per_step must be an integer of at least 1, got 0"):
        pipe.invert(IMAGES, num_inference_steps=5, calls_per_step=0)
    with pytest.raises(TypeError, match="no option 'eta' here"):
        pipe.invert(IMAGES, eta=0.5)
    with pytest.raises(ValueError, match=r"noise must be of shape \(1, 1, 8, 8\)"):
        pipe.revert(torch.zeros(1, 3, 8, 8), num_inference_steps=5)
