"""DDPMPipeline beside stock's: the same images, saved models that open anywhere, clear errors."""

import gc
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import diffusers
import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

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


def seeds(*numbers: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(n) for n in numbers]


def quiet(pipe: diffusers.DiffusionPipeline) -> diffusers.DiffusionPipeline:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pipeline(unet: diffusers.UNet2DModel, **config: object) -> DDPMPipeline:
    return quiet(DDPMPipeline(unet, DDPMScheduler(**config)))


def stock_images(unet: diffusers.UNet2DModel, steps: int, **config: object) -> np.ndarray:
    pipe = quiet(diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(**config)))
    return pipe(2, seeds(0)[0], steps, output_type="np").images


@pytest.mark.parametrize(
    ("steps", "variance_type"), [(50, "fixed_small"), (50, "fixed_large"), (1000, "fixed_small")]
)
def test_images_agree_with_stock(tiny_unet: MakeUNet, steps: int, variance_type: str) -> None:
    """Same seed and weights, in [0, 1]; measured 3e-6 at 50 steps and 2e-5 at 1000."""
    unet = tiny_unet(3)
    ours = pipeline(unet, variance_type=variance_type)(2, seeds(0)[0], steps, "np").images
    theirs = stock_images(unet, steps, variance_type=variance_type)
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


def test_oblong_images(tiny_unet: MakeUNet) -> None:
    image = pipeline(tiny_unet(sample_size=(8, 16)))(1, num_inference_steps=2).images[0]
    assert image.size == (16, 8)


@pytest.mark.parametrize(
    "name", ["DDPMScheduler", "DDIMScheduler", "EulerAncestralDiscreteScheduler"]
)
def test_a_generator_fixes_its_image_whatever_the_batch(tiny_unet: MakeUNet, name: str) -> None:
    pipe = pipeline(tiny_unet(3))
    if name != "DDPMScheduler":
        pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)
    together = pipe(20, seeds(*range(20)), 10, "np").images
    for batch in ([3], [19, 3, 0], [17, 16]):
        alone = pipe(len(batch), seeds(*batch), 10, "np").images
        assert np.array_equal(alone, together[batch])


def test_a_split_request_draws_the_same_images(tiny_unet: MakeUNet) -> None:
    pipe = pipeline(tiny_unet())
    whole = pipe(5, seeds(*range(5)), 5, "np", max_batch_size=5).images
    split = pipe(5, seeds(*range(5)), 5, "np", max_batch_size=2).images
    np.testing.assert_allclose(split, whole, rtol=0, atol=1e-5)
    calls = []
    pipe.unet.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    pipe(5, None, 1, max_batch_size=2)
    assert calls == [2, 2, 1]


def test_memory_holds_one_batch_and_the_finished_images(tiny_unet: MakeUNet) -> None:
    pipe, rows = pipeline(tiny_unet(1, sample_size=(8, 24))), []

    def count_rows(*_: object) -> None:
        tensors = (t for t in gc.get_objects() if type(t) is torch.Tensor)
        rows.append(sum(len(t) for t in tensors if t.shape[1:] == (1, 8, 24)))

    images = pipe(64, seeds(0)[0], 2, max_batch_size=4, callback_on_step_end=count_rows).images
    assert len(images) == 64
    assert max(rows) <= 8 * 4  # a few tensors of one batch, of 64 images


def test_timesteps_can_be_chosen(tiny_unet: MakeUNet) -> None:
    pipe, seen = pipeline(tiny_unet()), []
    pipe(
        1, timesteps=[900, 300, 20], callback_on_step_end=lambda _p, _i, t, _k: seen.append(int(t))
    )
    assert seen == [900, 300, 20]
    assert pipe.scheduler.custom_timesteps


def test_all_timesteps_are_the_default(tiny_unet: MakeUNet) -> None:
    pipe = pipeline(tiny_unet(), num_train_timesteps=7)
    pipe()
    assert len(pipe.scheduler.timesteps) == 7


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


def test_a_scheduler_put_in_later_becomes_ours(tiny_unet: MakeUNet) -> None:
    pipe = pipeline(tiny_unet())
    pipe.scheduler = diffusers.DDPMScheduler(variance_type="fixed_large_log")
    assert type(pipe.scheduler) is DDPMScheduler
    assert pipe(1, None, 3).images


@pytest.mark.parametrize("steps", [0, -1, 1001, 2.5])
@pytest.mark.parametrize("name", ["DDIMScheduler", "UniPCMultistepScheduler"])
def test_numbers_of_steps_are_checked_for_every_scheduler(
    tiny_unet: MakeUNet, name: str, steps: float
) -> None:
    pipe = quiet(DDPMPipeline(tiny_unet(), getattr(diffusers, name)()))
    with pytest.raises(ValueError, match="num_inference_steps must be an integer from 1 to 1000"):
        pipe(1, None, steps)


def test_stocks_trailing_defect_is_named(tiny_unet: MakeUNet) -> None:
    ddim = diffusers.DDIMScheduler(timestep_spacing="trailing")
    with pytest.raises(ValueError, match="61 makes DDIMScheduler step below 0"):
        quiet(DDPMPipeline(tiny_unet(), ddim))(1, None, 61)


def test_a_stock_scheduler_becomes_ours(tiny_unet: MakeUNet) -> None:
    stock = diffusers.DDPMScheduler(variance_type="fixed_large", beta_schedule="scaled_linear")
    pipe = DDPMPipeline(tiny_unet(), stock)
    assert type(pipe.scheduler) is DDPMScheduler
    assert pipe.scheduler.config.beta_schedule == "scaled_linear"
    ddim = diffusers.DDIMScheduler()
    assert DDPMPipeline(tiny_unet(), ddim).scheduler is ddim


def test_half_precision_models_sample_in_float32(tiny_unet: MakeUNet) -> None:
    unet = tiny_unet()
    full = pipeline(unet)(2, seeds(0)[0], 20, "np").images
    half = pipeline(unet.to(torch.bfloat16))(2, seeds(0)[0], 20, "np").images
    assert half.dtype == np.float32
    assert np.abs(full - half).mean() < 0.02


def test_guidance_moves_between_the_empty_and_the_given_label(tiny_unet: MakeUNet) -> None:
    pipe = pipeline(tiny_unet(num_class_embeds=4), clip_sample=False)

    def first_x_0(**options: object) -> torch.Tensor:
        seen = []
        pipe(
            2,
            seeds(0)[0],
            1,
            callback_on_step_end=lambda _p, _i, _t, k: seen.append(k["image"]),
            **options,
        )
        return seen[0]

    labelled, empty = first_x_0(class_labels=[1, 2]), first_x_0(class_labels=3)
    guided = first_x_0(class_labels=[1, 2], guidance_scale=2.5)
    assert not torch.allclose(labelled, empty)
    assert_close(guided, empty + 2.5 * (labelled - empty), rtol=1e-3, atol=1e-3)


# Saved models.

OPEN_IN_STOCK = """
import sys
sys.modules["ddpm_pipeline"] = None  # cannot be imported
import diffusers, numpy, torch
directory = sys.argv[1]
for name in ("DiffusionPipeline", "DDPMPipeline", "DDIMPipeline"):
    pipe = getattr(diffusers, name).from_pretrained(directory)
    generator = torch.Generator().manual_seed(0)
    images = pipe(2, generator=generator, num_inference_steps=10, output_type="np").images
    numpy.save(f"{directory}/{name}.npy", images)
assert not [module for module in sys.modules if module.startswith("ddpm_pipeline.")]
"""


def test_saved_models_open_without_this_package(tiny_unet: MakeUNet, tmp_path: Path) -> None:
    pipe = pipeline(tiny_unet(3), timestep_spacing="quadratic", prediction_type="v_prediction")
    pipe.save_pretrained(tmp_path)
    command = [sys.executable, "-W", "error::UserWarning", "-c", OPEN_IN_STOCK, tmp_path]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "not expected" not in run.stderr
    assert "ignored" not in run.stderr
    nearest = pipeline(pipe.unet, timestep_spacing="trailing", prediction_type="v_prediction")
    ours = nearest(2, seeds(0)[0], 10, "np").images
    for name in ("DiffusionPipeline", "DDPMPipeline"):
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), ours, rtol=0, atol=1e-4)
    assert np.isfinite(np.load(tmp_path / "DDIMPipeline.npy")).all()


def test_saved_index_names_only_diffusers(tiny_unet: MakeUNet, tmp_path: Path) -> None:
    pipeline(tiny_unet()).save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"] == "DDPMPipeline"
    assert index["scheduler"] == ["diffusers", "DDPMScheduler"]
    assert index["unet"] == ["diffusers", "UNet2DModel"]
    assert not list(tmp_path.rglob("*.bin"))


def test_save_and_load_are_the_identity(tiny_unet: MakeUNet, tmp_path: Path) -> None:
    pipe = pipeline(tiny_unet(3), timestep_spacing="quadratic")
    pipe.save_pretrained(tmp_path / "a")
    loaded = quiet(DDPMPipeline.from_pretrained(tmp_path / "a"))
    assert type(loaded.scheduler) is DDPMScheduler
    assert loaded.scheduler.timestep_spacing == "quadratic"
    expected = pipe(2, seeds(0)[0], 5, "np").images
    assert np.array_equal(loaded(2, seeds(0)[0], 5, "np").images, expected)
    loaded.save_pretrained(tmp_path / "b")
    for file in (p for p in (tmp_path / "a").rglob("*") if p.is_file()):
        copy = tmp_path / "b" / file.relative_to(tmp_path / "a")
        assert copy.read_bytes() == file.read_bytes()


def test_no_path_gets_into_a_saved_model(tiny_unet: MakeUNet, tmp_path: Path) -> None:
    pipeline(tiny_unet()).save_pretrained(tmp_path / "a")
    DDPMPipeline.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    for file in (tmp_path / "b").rglob("*"):
        assert file.is_dir() or str(tmp_path).encode() not in file.read_bytes()


def test_what_stock_saves_opens_here(tiny_unet: MakeUNet, tmp_path: Path) -> None:
    unet = tiny_unet(3)
    stock = quiet(
        diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(variance_type="fixed_large"))
    )
    stock.save_pretrained(tmp_path)
    loaded = quiet(DDPMPipeline.from_pretrained(tmp_path))
    assert type(loaded.scheduler) is DDPMScheduler
    theirs = stock(2, seeds(0)[0], 20, output_type="np").images
    np.testing.assert_allclose(loaded(2, seeds(0)[0], 20, "np").images, theirs, rtol=0, atol=1e-4)


def test_save_here_save_in_stock_load_here(tiny_unet: MakeUNet, tmp_path: Path) -> None:
    pipeline(tiny_unet(), timestep_spacing="quadratic").save_pretrained(tmp_path / "a")
    diffusers.DDPMPipeline.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    loaded = DDPMPipeline.from_pretrained(tmp_path / "b")
    assert loaded.scheduler.timestep_spacing == "quadratic"


OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def save_old_layout(unet: diffusers.UNet2DModel, directory: Path, suffix: str) -> None:
    """A repository as of diffusers 0.1: flat, old attention names, old scheduler keys."""
    directory.mkdir(parents=True)
    unet.save_config(directory)
    config = json.loads((directory / "config.json").read_text())
    config["_diffusers_version"] = "0.1.1"
    (directory / "config.json").write_text(json.dumps(config))
    weights = {}
    for name, tensor in unet.state_dict().items():
        old_name = name
        for new, old in OLD_NAMES.items():
            old_name = old_name.replace(f".{new}.", f".{old}.")
        weights[old_name] = tensor.clone()
    assert any(".query." in name for name in weights)
    if suffix == "safetensors":
        save_file(weights, directory / "diffusion_pytorch_model.safetensors")
    else:
        torch.save(weights, directory / "diffusion_pytorch_model.bin")
    (directory / "scheduler_config.json").write_text(
        json.dumps(
            {
                "_class_name": "DDPMScheduler",
                "_diffusers_version": "0.1.1",
                "beta_end": 0.02,
                "beta_schedule": "linear",
                "beta_start": 0.0001,
                "clip_predicted_image": True,
                "clip_sample": True,
                "timesteps": 1000,
                "trained_betas": None,
                "variance_type": "fixed_large",
            }
        )
    )
    (directory / "model_index.json").write_text(
        json.dumps(
            {
                "_class_name": "DDPMPipeline",
                "_diffusers_version": "0.1.1",
                "scheduler": ["diffusers", "DDPMScheduler"],
                "unet": ["diffusers", "UNet2DModel"],
            }
        )
    )


def test_the_old_flat_layout_opens(tiny_unet: MakeUNet, tmp_path: Path) -> None:
    unet = tiny_unet(3)
    save_old_layout(unet, tmp_path / "old", "safetensors")
    loaded = quiet(DDPMPipeline.from_pretrained(tmp_path / "old"))
    for name, tensor in unet.state_dict().items():
        assert torch.equal(loaded.unet.state_dict()[name], tensor)
    assert loaded.scheduler.variance_type == "fixed_large"
    expected = pipeline(unet, variance_type="fixed_large")(1, seeds(0)[0], 5, "np").images
    # Kernels round by where tensors lie in memory, and those read from a file lie elsewhere.
    np.testing.assert_allclose(loaded(1, seeds(0)[0], 5, "np").images, expected, atol=1e-5)


def test_pickled_weights_are_refused_unless_asked_for(tiny_unet: MakeUNet, tmp_path: Path) -> None:
    save_old_layout(tiny_unet(), tmp_path / "old", "bin")
    with pytest.raises(OSError, match=r"only pickled weights .*use_safetensors=False\).save_pre"):
        DDPMPipeline.from_pretrained(tmp_path / "old")
    logging.disable(logging.WARNING)
    try:
        loaded = DDPMPipeline.from_pretrained(tmp_path / "old", use_safetensors=False)
    finally:
        logging.disable(logging.NOTSET)
    loaded.save_pretrained(tmp_path / "new")
    assert load_file(tmp_path / "new" / "unet" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(ValueError, match="safe_serialization must be True"):
        loaded.save_pretrained(tmp_path / "new", safe_serialization=False)


# Errors.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"batch_size": 2.5}, "batch_size must be an integer of at least 1, got 2.5"),
        ({"generator": 5}, "generator must be a torch.Generator or a list, got 5"),
        ({"generator": seeds(0, 1)}, "a list of batch_size = 1, got 2"),
        ({"output_type": "jpg"}, "output_type must be one of pil, np, pt, got 'jpg'"),
        ({"num_inference_steps": 1001}, "from 1 to 1000"),
        ({"num_inference_steps": 0}, "from 1 to 1000"),
        ({"timesteps": [1, 2]}, "descending order"),
        ({"timesteps": [2, 1], "num_inference_steps": 2}, "only one of"),
        ({"max_batch_size": 0}, "max_batch_size must be an integer of at least 1, got 0"),
        ({"class_labels": 1}, "need a class-conditional model"),
        ({"guidance_scale": 2.0}, "need a class-conditional model"),
        ({"eta": 1.5, "num_inference_steps": 2}, r"eta must be a number in \[0, 1\], got 1.5"),
    ],
)
def test_caller_mistakes_are_named(tiny_unet: MakeUNet, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline(tiny_unet())(**options)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "class_labels must be given, 0 to 3"),
        (4, r"lie in \[0, 3\], got 4"),
        ([0, 1], "one integer or 1"),
    ],
)
def test_impossible_labels_are_named(tiny_unet: MakeUNet, labels: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline(tiny_unet(num_class_embeds=4))(1, None, 2, class_labels=labels)


def test_channels_that_do_not_fit_are_named(tiny_unet: MakeUNet) -> None:
    with pytest.raises(ValueError, match=r"must have 6 output channels .* 'learned_range', got 3"):
        pipeline(tiny_unet(3), variance_type="learned_range")
    with pytest.raises(ValueError, match=r"must have 3 output channels .* 'fixed_small', got 6"):
        pipeline(tiny_unet(3, out_channels=6))
    with pytest.raises(ValueError, match=r"must have 1 or 2 output channels .* got 3"):
        DDPMPipeline(tiny_unet(1, out_channels=3), diffusers.DDIMScheduler())


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


def test_missing_directory_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises((OSError, ValueError)):
        DDPMPipeline.from_pretrained(os.fspath(tmp_path / "nothing"))


def test_pillow_opens_what_was_drawn(tiny_unet: MakeUNet, tmp_path: Path) -> None:
    image = pipeline(tiny_unet(4))(1, None, 2).images[0]
    image.save(tmp_path / "image.png")
    with PIL.Image.open(tmp_path / "image.png") as opened:
        assert opened.mode == "RGBA"
