"""The loop: run as stock runs it, from any image and timestep, edited on the way."""

import gc
from collections.abc import Callable

import diffusers
import numpy as np
import pytest
import torch
from helpers.device_counts import DEVICE, DeviceCounts, stand_in_device
from helpers.pipelines import pipeline, quiet, seeds
from torch.testing import assert_close

from ddpm_pipeline import DDPMPipeline, DDPMScheduler
from ddpm_pipeline.pipelines.denoising import Step, denoise

MakeUNet = Callable[..., diffusers.UNet2DModel]


def network(unet: diffusers.UNet2DModel) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    return lambda image, t: unet(image, t).sample


def chain(name: str, steps: int = 6) -> diffusers.SchedulerMixin:
    scheduler = DDPMScheduler() if name == "ours" else getattr(diffusers, name)()
    scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize("name", ["ours", "DDIMScheduler", "EulerDiscreteScheduler"])
@pytest.mark.parametrize("start", [1, 3, 5])
def test_a_chain_goes_on_from_any_of_its_steps(tiny_unet: MakeUNet, name: str, start: int) -> None:
    """The rest of the chain, from x_t, ends at the image of the whole chain, bit for bit."""
    unet, noise = tiny_unet(), torch.randn(2, 1, 8, 8)
    options = {"eta": 0.0} if name == "ours" else {}
    scheduler = chain(name)
    noise = noise * scheduler.init_noise_sigma
    whole = list(denoise(network(unet), scheduler, noise, scheduler.timesteps, **options))
    assert [step.index for step in whole] == [0, 1, 2, 3, 4, 5]
    assert torch.equal(torch.stack([step.t for step in whole]), scheduler.timesteps)
    again = chain(name)
    image, timesteps = whole[start - 1].image, again.timesteps[start:]
    rest = list(denoise(network(unet), again, image, timesteps, **options))
    assert len(rest) == 6 - start
    for ours, expected in zip(rest, whole[start:], strict=True):
        assert torch.equal(ours.image, expected.image)
        assert torch.equal(ours.predicted_x_0, expected.predicted_x_0)


def test_an_edit_takes_the_place_of_the_image_and_nothing_else(tiny_unet: MakeUNet) -> None:
    unet, scheduler, noise = tiny_unet(), chain("ours"), torch.randn(2, 1, 8, 8)
    seen, inputs = [], []

    def call(image: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        inputs.append(image)
        return unet(image, t).sample

    def halved_once(step: Step) -> torch.Tensor | None:
        seen.append(step)
        return step.image / 2 if step.index == 2 else None

    steps = list(denoise(call, scheduler, noise, scheduler.timesteps, eta=0.0, edit=halved_once))
    assert len(seen) == len(steps) == 6
    for before, after in zip(seen, steps, strict=True):
        expected = before.image / 2 if before.index == 2 else before.image
        assert torch.equal(after.image, expected)
        assert after.predicted_x_0 is before.predicted_x_0
    assert torch.equal(inputs[3], seen[2].image / 2)


def test_a_dict_that_the_callback_changes_is_not_read_back(tiny_unet: MakeUNet) -> None:
    pipe = pipeline(tiny_unet())

    def forgets_to_return(_p: object, _i: int, _t: torch.Tensor, tensors: dict) -> None:
        tensors["image"] = torch.zeros(())

    expected = pipe(1, seeds(0), 3, "np").images
    found = pipe(1, seeds(0), 3, "np", callback_on_step_end=forgets_to_return).images
    assert np.array_equal(found, expected)


def test_eta_is_refused_where_steps_do_not_take_it(tiny_unet: MakeUNet) -> None:
    pipe = quiet(DDPMPipeline(tiny_unet(), diffusers.EulerDiscreteScheduler()))
    with pytest.raises(ValueError, match="eta cannot be chosen for a EulerDiscreteScheduler"):
        pipe(1, None, 2, eta=0.5)


def test_ddim_is_stocks_ddim(tiny_unet: MakeUNet) -> None:
    unet = tiny_unet(3)
    stock = quiet(diffusers.DDIMPipeline(unet, diffusers.DDIMScheduler()))
    theirs = stock(2, seeds(0)[0], eta=0.5, num_inference_steps=10, output_type="np").images
    pipe = quiet(DDPMPipeline(unet, diffusers.DDIMScheduler()))
    ours = pipe(2, seeds(0)[0], 10, "np", eta=0.5).images
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"eta must be a number in \[0, 1\], got 3"):
        pipe(2, seeds(0)[0], 10, "np", eta=3.0)  # which stock takes


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "HeunDiscreteScheduler"])
def test_schedulers_with_scaled_inputs_are_run_as_stock_does(
    tiny_unet: MakeUNet, name: str
) -> None:
    unet, scheduler = tiny_unet(3), getattr(diffusers, name)()
    scheduler.set_timesteps(5)
    x = torch.randn(2, 3, 8, 8, generator=seeds(0)[0]) * scheduler.init_noise_sigma
    with torch.no_grad():
        for t in scheduler.timesteps:
            output = unet(scheduler.scale_model_input(x, t), t).sample
            x = scheduler.step(output, t, x).prev_sample
    expected = (x / 2 + 0.5).clamp(0, 1)
    pipe = quiet(DDPMPipeline(unet, getattr(diffusers, name)()))
    assert_close(pipe(2, seeds(0)[0], 5, "pt").images, expected, rtol=0, atol=1e-5)


def test_memory_holds_one_batch_and_the_finished_images(tiny_unet: MakeUNet) -> None:
    pipe, rows = pipeline(tiny_unet(1, sample_size=(8, 24))), []

    def count_rows(*_: object) -> None:
        tensors = (t for t in gc.get_objects() if type(t) is torch.Tensor)
        rows.append(sum(len(t) for t in tensors if t.shape[1:] == (1, 8, 24)))

    images = pipe(64, seeds(0)[0], 2, max_batch_size=4, callback_on_step_end=count_rows).images
    assert len(images) == 64
    assert max(rows) <= 8 * 4  # a few tensors of one batch, of 64 images


def test_the_callback_sees_and_replaces_the_image(tiny_unet: MakeUNet) -> None:
    pipe, steps = pipeline(tiny_unet()), []

    def black(p: DDPMPipeline, i: int, t: torch.Tensor, tensors: dict) -> dict:
        assert p is pipe
        assert set(tensors) == {"image", "pred_original_sample"}
        steps.append(i)
        return {"image": torch.full_like(tensors["image"], -1.0)}

    image = pipe(1, None, 3, callback_on_step_end=black).images[0]
    assert steps == [0, 1, 2]
    assert image.getextrema() == (0, 0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ours", {}),
        ("ours", {"eta": 0.0}),
        ("DDIMScheduler", {}),
        ("EulerDiscreteScheduler", {}),
        ("DPMSolverMultistepScheduler", {}),
    ],
)
def test_no_step_waits_for_the_device(tiny_unet: MakeUNet, name: str, options: dict) -> None:
    scheduler = DDPMScheduler() if name == "ours" else getattr(diffusers, name)()
    pipe = quiet(DDPMPipeline(tiny_unet(num_class_embeds=4), scheduler))
    waits = []
    with stand_in_device():
        pipe.unet.to(DEVICE)
        for steps in (5, 9):
            with DeviceCounts() as counts:
                pipe(3, seeds(0, 1, 2), steps, "pt", class_labels=1, guidance_scale=2.0, **options)
            waits.append(counts.waits)
            assert counts.unpinned == []
    # One look at the images, whether they are finite, however many steps there are.
    assert [len(w) for w in waits] == [1, 1]
    assert all("data/pixels.py" in place for w in waits for place in w)
