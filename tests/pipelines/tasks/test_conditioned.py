"""The methods that are asked for by name: what they cost, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.gaussian_images import GaussianImages
from helpers.oracles import linear_betas
from helpers.pipelines import pipeline, seeds

from ddpm_pipeline.pipelines import PosteriorMethod
from ddpm_pipeline.pipelines.tasks.operators import missing

IMAGES = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
HOLE = np.zeros((8, 8), bool)
HOLE[2:6, 2:6] = True
STEPS = {"num_inference_steps": 6, "output_type": "pt"}
MMPS = PosteriorMethod(iterations=3)
REPAINT = PosteriorMethod("repaint", jump_length=2, resamples=3)


@pytest.mark.parametrize(
    ("method", "calls"), [(MMPS, 6), ("dps", 6), (REPAINT, 18)], ids=["mmps", "dps", "repaint"]
)
def test_what_is_around_the_hole_stays(tiny_unet: object, method: object, calls: int) -> None:
    pipe, counted = pipeline(tiny_unet()), []
    pipe.unet.register_forward_hook(lambda *_: counted.append(1))
    found = pipe.inpaint(IMAGES, HOLE, method=method, generator=seeds(1, 2), **STEPS).images
    around = torch.from_numpy(~HOLE)
    torch.testing.assert_close(found[..., around], IMAGES[..., around], rtol=0, atol=1e-6)
    assert (found[..., ~around] - IMAGES[..., ~around]).abs().max() > 0.1
    assert len(counted) == calls
    alone = pipe.inpaint(IMAGES[1:], HOLE, method=method, generator=seeds(2), **STEPS).images
    torch.testing.assert_close(alone, found[1:], rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", [MMPS, "dps", REPAINT])
def test_classes_guidance_callbacks_and_learned_variances_are_those_of_a_call(
    tiny_unet: object, method: object
) -> None:
    unet = tiny_unet(num_class_embeds=4, out_channels=2)
    pipe, seen = pipeline(unet, variance_type="learned_range"), []

    def callback(_: object, index: int, t: object, tensors: dict) -> None:
        seen.append((index, int(t), tensors["image"].shape))

    how = {
        "class_labels": [0, 2],
        "guidance_scale": 2.0,
        "callback_on_step_end": callback,
        **STEPS,
    }
    found = pipe.inpaint(IMAGES, HOLE, method=method, generator=seeds(1, 2), **how).images
    assert found.isfinite().all()
    assert [index for index, *_ in seen] == list(range(18 if method is REPAINT else 6))
    with pytest.raises(ValueError, match="class_labels must"):
        pipe.inpaint(IMAGES, HOLE, method=method, **STEPS)


def test_dps_moves_towards_what_was_measured() -> None:
    data = GaussianImages.smooth((1, 4, 4))
    pipe = pipeline(data.denoiser(linear_betas()), clip_sample=False)
    y = torch.full((1, 1, 4, 4), 0.62)
    how = {**STEPS, "num_inference_steps": 50, "batch_size": 200, "generator": seeds(1)[0]}
    off = []
    for size in (1e-6, 0.2):
        method = PosteriorMethod("dps", step_size=size)
        off.append((pipe.restore(y, "blur:1", 0.01, method=method, **how).images - y).abs().mean())
    assert off[1] < 0.8 * off[0]


def test_repaint_with_one_pass_fills_from_noise_on_the_known(tiny_unet: object) -> None:
    """As ``edit`` would do it: known pixels of x_s drawn from q after every step."""
    pipe = pipeline(tiny_unet())
    method = PosteriorMethod("repaint", resamples=1)
    found = pipe.inpaint(IMAGES, HOLE, method=method, generator=seeds(5)[0], **STEPS).images
    source, hole = seeds(5)[0], torch.from_numpy(HOLE)
    draws = [torch.randn(2, 1, 8, 8, generator=source) for _ in range(12)]
    scheduler = pipe.scheduler
    scheduler.set_timesteps(6)
    x, k = draws[0], 1
    for t in scheduler.timesteps:
        with torch.no_grad():
            output = pipe.unet(x, t).sample
        gaussian = scheduler.reverse(output, t, x)
        s = scheduler.previous_timestep(int(t))
        if s < 0:
            x = torch.where(hole, gaussian.mean, IMAGES * 2 - 1)
            break
        own = gaussian.mean + gaussian.std * draws[k]
        known = scheduler.add_noise(IMAGES * 2 - 1, draws[k + 1], torch.tensor([s, s]))
        x, k = torch.where(hole, own, known), k + 2
    torch.testing.assert_close(found, (x / 2 + 0.5).clamp(0, 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "gibbs"}, "method must be one of mmps, dps, repaint, got 'gibbs'"),
        ({"noise_std": -0.1}, "noise_std must be at least 0, got -0.1"),
        ({"noise_std": "much"}, "noise_std must be a number of at least 0, got 'much'"),
        (
            {"method": "repaint"},
            "method 'repaint' is for known pixels without noise, got operator",
        ),
        ({"mask": HOLE}, "mask is for operator 'missing', got operator='blur'"),
        ({"y": IMAGES * 2 - 1}, r"y must lie in \[0, 1\] but for its noise of noise_std=0.01"),
        ({"y": IMAGES[..., :4]}, r"y must have the shape that the operator 'blur' gives"),
        ({"class_labels": 1}, "class_labels"),
        ({"operator": (torch.sin, torch.cos)}, "the operator must be linear"),
    ],
)
def test_what_cannot_be_restored_is_refused(
    tiny_unet: object, arguments: dict, message: str
) -> None:
    pipe, calls = pipeline(tiny_unet()), []
    pipe.unet.register_forward_hook(lambda *_: calls.append(1))
    how = {"y": IMAGES, "operator": "blur", "noise_std": 0.01, **STEPS, **arguments}
    with pytest.raises(ValueError, match=message):
        pipe.restore(**how)
    with pytest.raises(TypeError, match="operator must be a name, a LinearOperator"):
        pipe.restore(IMAGES, 3, 0.1)
    assert calls == []


@pytest.mark.parametrize("value", [float("nan"), -1.0])
@pytest.mark.parametrize("as_array", [True, False])
def test_what_stands_in_a_hole_is_not_looked_at(
    tiny_unet: object, value: float, as_array: bool
) -> None:
    pipe, hole = pipeline(tiny_unet()), torch.from_numpy(HOLE)
    found = []
    for inside in (0.0, value):
        y = torch.where(hole, inside, IMAGES)
        y = y.movedim(1, -1).numpy() if as_array else y
        how = {"mask": HOLE, "method": "dps", "generator": seeds(1, 2), **STEPS}
        found.append(pipe.restore(y, "missing", **how).images)
    assert torch.equal(*found)
    with pytest.raises(ValueError, match="y must be finite, got NaN or infinity"):
        pipe.restore(IMAGES / (~hole).float() - torch.inf, "missing", mask=HOLE)


@pytest.mark.parametrize("count", [2, 3])
def test_an_operator_of_several_holes_is_refused_in_words(tiny_unet: object, count: int) -> None:
    hole = torch.rand(count, 1, 8, 8, generator=seeds(1)[0]).round()
    y = IMAGES[:1].expand(count, -1, -1, -1)
    with pytest.raises(ValueError, match=r"got 'missing', which fails|itself"):
        pipeline(tiny_unet()).restore(y, missing(hole), **STEPS)
    one = pipeline(tiny_unet()).restore(y, missing(hole[:1]), method="dps", **STEPS).images
    assert one.isfinite().all()


def test_options_of_methods_are_checked() -> None:
    with pytest.raises(ValueError, match="iterations must be an integer of at least 1, got 0"):
        PosteriorMethod(iterations=0)
    with pytest.raises(ValueError, match="step_size must be above 0, got -1"):
        PosteriorMethod("dps", step_size=-1)
    with pytest.raises(ValueError, match="covariance must be one of jacobian, calibrated"):
        PosteriorMethod(covariance="guess")


def test_images_and_masks_are_scaled_alike(tiny_unet: object) -> None:
    pipe = pipeline(tiny_unet())
    large = torch.nn.functional.interpolate(IMAGES, scale_factor=2)
    mask = HOLE.repeat(2, 0).repeat(2, 1)
    found = pipe.inpaint(large, mask, resize=True, method="dps", **STEPS).images
    assert found.shape == (2, 1, 8, 8)
    with pytest.raises(ValueError, match=r"image must be 8 x 8 .* got 16 x 16"):
        pipe.inpaint(large, mask, **STEPS)
    with pytest.raises(ValueError, match="mask must be of the image's size, 16 x 16"):
        pipe.inpaint(large, HOLE, resize=True, **STEPS)
