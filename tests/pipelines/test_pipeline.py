"""DDPMPipeline beside stock's: the same images, any scheduler, any number of channels."""

from collections.abc import Callable
from pathlib import Path

import diffusers
import numpy as np
import PIL.Image
import pytest
import torch
from helpers.pipelines import pipeline, quiet, seeds

from ddpm_pipeline import DDPMPipeline, DDPMScheduler

MakeUNet = Callable[..., diffusers.UNet2DModel]
SWAPPED = [
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "DDPMParallelScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
]


def stock_images(unet: diffusers.UNet2DModel, steps: int, **config: object) -> np.ndarray:
    pipe = quiet(diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(**config)))
    return pipe(2, seeds(0)[0], steps, output_type="np").images


@pytest.mark.parametrize(
    ("T", "steps", "variance_type"),
    [(1000, 50, "fixed_small"), (1000, 50, "fixed_large"), (250, 250, "fixed_small")],
)
def test_images_agree_with_stock(
    tiny_unet: MakeUNet, T: int, steps: int, variance_type: str
) -> None:
    """Same seed and weights, in [0, 1]; measured 3e-6 at 50 steps and 2e-5 at 1000 of 1000."""
    unet, config = tiny_unet(3), {"num_train_timesteps": T, "variance_type": variance_type}
    ours = pipeline(unet, **config)(2, seeds(0)[0], steps, "np").images
    theirs = stock_images(unet, steps, **config)
    assert theirs.std() > 0.1
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


def test_learned_range_agrees_with_stock(tiny_unet: MakeUNet) -> None:
    unet = tiny_unet(1, out_channels=2)
    config = {"variance_type": "learned_range"}
    ours = pipeline(unet, **config)(2, seeds(0)[0], 50, "np").images
    np.testing.assert_allclose(ours, stock_images(unet, 50, **config), rtol=0, atol=1e-4)


def test_stocks_positional_arguments_work(tiny_unet: MakeUNet) -> None:
    images = pipeline(tiny_unet())(2, seeds(0)[0], 5, "pt", False)[0]
    assert images.shape == (2, 1, 8, 8)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_every_number_of_channels_and_output_type(
    tiny_unet: MakeUNet, channels: int, mode: str
) -> None:
    pipe = pipeline(tiny_unet(channels))
    pil, array, tensor = (
        pipe(3, seeds(0)[0], 4, output_type=kind).images for kind in ("pil", "np", "pt")
    )
    assert [image.mode for image in pil] == [mode] * 3
    assert array.shape == (3, 8, 8, channels)
    assert array.dtype == np.float32
    assert torch.equal(tensor.permute(0, 2, 3, 1), torch.from_numpy(array))
    assert 0 <= array.min() < array.max() <= 1
    as_pixels = np.stack([np.asarray(image).reshape(8, 8, channels) for image in pil])
    assert np.array_equal(as_pixels, (array * 255).round())


def test_progress_is_shown(tiny_unet: MakeUNet, capfd: pytest.CaptureFixture) -> None:
    DDPMPipeline(tiny_unet(), DDPMScheduler())(3, None, 4, max_batch_size=2)
    assert "8/8" in capfd.readouterr().err


@pytest.mark.parametrize("name", SWAPPED)
@pytest.mark.parametrize("learned", [False, True])
def test_stock_schedulers_swap_in(tiny_unet: MakeUNet, name: str, learned: bool) -> None:
    unet = tiny_unet(1, out_channels=2 if learned else 1)
    pipe = pipeline(unet, variance_type="learned_range" if learned else "fixed_small")
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)
    images = pipe(2, seeds(0)[0], 8, output_type="np").images
    assert np.isfinite(images).all()


def test_a_scheduler_put_in_later_becomes_ours(tiny_unet: MakeUNet) -> None:
    pipe = pipeline(tiny_unet())
    pipe.scheduler = diffusers.DDPMScheduler(variance_type="fixed_large_log")
    assert type(pipe.scheduler) is DDPMScheduler
    assert pipe(1, None, 3).images


def test_a_stock_scheduler_becomes_ours(tiny_unet: MakeUNet) -> None:
    stock = diffusers.DDPMScheduler(variance_type="fixed_large", beta_schedule="scaled_linear")
    pipe = DDPMPipeline(tiny_unet(), stock)
    assert type(pipe.scheduler) is DDPMScheduler
    assert pipe.scheduler.config.beta_schedule == "scaled_linear"
    ddim = diffusers.DDIMScheduler()
    assert DDPMPipeline(tiny_unet(), ddim).scheduler is ddim


def test_images_that_are_not_finite_are_refused(tiny_unet: MakeUNet) -> None:
    config = {
        "rescale_betas_zero_snr": True,
        "prediction_type": "v_prediction",
        "beta_schedule": "scaled_linear",
    }
    pipe = pipeline(tiny_unet(), timestep_spacing="trailing", **config)
    pipe(1, None, 5)
    pipe.scheduler = diffusers.DDIMScheduler(
        timestep_spacing="trailing", clip_sample=False, **config
    )
    with pytest.raises(ValueError, match=r"not finite.*DDIM with eta=1 and zero terminal SNR"):
        pipe(1, None, 5, eta=1.0)


def test_pillow_opens_what_was_drawn(tiny_unet: MakeUNet, tmp_path: Path) -> None:
    image = pipeline(tiny_unet(4))(1, None, 2).images[0]
    image.save(tmp_path / "image.png")
    with PIL.Image.open(tmp_path / "image.png") as opened:
        assert opened.mode == "RGBA"


def test_an_unknown_push_option_is_refused_before_anything_is_saved(
    tiny_unet: MakeUNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = []
    monkeypatch.setattr(DDPMPipeline, "save_pretrained", lambda *args: saved.append(args))
    with pytest.raises(TypeError, match="unexpected keyword argument 'squash'"):
        pipeline(tiny_unet()).push_to_hub("alice/digits", squash=True)
    assert saved == []


def test_saving_hands_push_options_on_and_keeps_its_own(
    tiny_unet: MakeUNet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pushed = []
    monkeypatch.setattr(
        "ddpm_pipeline.pipelines.pipeline.push_model",
        lambda *args, **options: pushed.append((args, options)),
    )
    pipe, folder = pipeline(tiny_unet()), tmp_path / "digits"
    options = {"revision": "r", "private": True, "commit_message": "m", "token": "t"}
    options |= {"create_pr": True, "timeout": 9.0}
    pipe.save_pretrained(folder, push_to_hub=True, variant="fp16", **options)
    assert pushed == [((folder, "digits"), {"is_whole": False, **options})]
    assert (folder / "unet/diffusion_pytorch_model.fp16.safetensors").is_file()
    pipe.save_pretrained(folder, push_to_hub=True, repo_id="alice/other")
    assert pushed[1] == ((folder, "alice/other"), {"is_whole": False})
    pipe.save_pretrained(folder, push_to_hub=False, repo_id="alice/other", token="t")
    assert len(pushed) == 2


def test_progressive_images_end_with_those_of_a_call(tiny_unet: MakeUNet) -> None:
    pipe = DDPMPipeline(tiny_unet(), DDPMScheduler(20, timestep_spacing="trailing"))
    pipe.set_progress_bar_config(disable=True)
    seen = list(pipe.progressive(2, seeds(0)[0], 5, "pt"))
    assert [t for t, _ in seen] == [19, 15, 11, 7, 3]
    assert torch.equal(seen[-1][1], pipe(2, seeds(0)[0], 5, "pt").images)
    assert not torch.equal(seen[0][1], seen[-1][1])
    assert not seen[0][1].requires_grad


def test_progressive_refuses_at_once(tiny_unet: MakeUNet) -> None:
    pipe = DDPMPipeline(tiny_unet(), DDPMScheduler(20))
    with pytest.raises(ValueError, match="output_type must be one of"):
        pipe.progressive(1, output_type="jpg")
    pipe.scheduler = diffusers.PNDMScheduler(20)
    pipe.set_progress_bar_config(disable=True)
    with pytest.raises(ValueError, match="gives its predicted x_0"):
        next(iter(pipe.progressive(1, num_inference_steps=5)))
