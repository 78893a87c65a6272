"""The network as sampling calls it: guided, in float32, in calls of one size."""

from collections.abc import Callable

import diffusers
import numpy as np
import pytest
import torch
from helpers.device_counts import DEVICE
from helpers.pipelines import pipeline, seeds
from torch.testing import assert_close

from ddpm_pipeline.networks import FastForward
from ddpm_pipeline.pipelines.guidance import GuidedNetwork

MakeUNet = Callable[..., diffusers.UNet2DModel]


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_every_call_has_the_rows_that_were_asked_for(tiny_unet: MakeUNet, scale: float) -> None:
    unet, rows = tiny_unet(num_class_embeds=4), []
    unet.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append((len(args[0]), len(kwargs["class_labels"]))),
        with_kwargs=True,
    )
    labels, image = torch.tensor([2, 0, 1]), torch.randn(3, 1, 8, 8)
    forward, t = FastForward(unet), torch.tensor(500)
    with torch.no_grad():
        filled = GuidedNetwork(unet, forward, labels, scale, call_rows=5)(image, t)
        assert set(rows) == {(5, 5)}
        bare = GuidedNetwork(unet, forward, labels, scale)(image, t)
    assert rows[-1] == (3, 3)
    assert len(rows) == (2 if scale == 1 else 4)
    assert_close(filled, bare, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rows", [6, 16])
def test_one_call_with_both_labels_gives_the_bits_of_two(tiny_unet: MakeUNet, rows: int) -> None:
    unet, calls = tiny_unet(num_class_embeds=4), []
    unet.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    labels, image = torch.tensor([2, 0, 1]), torch.randn(3, 1, 8, 8)
    forward, t = FastForward(unet), torch.tensor(500)
    with torch.no_grad():
        found = GuidedNetwork(unet, forward, labels, 2.5, call_rows=rows)(image, t)
        assert calls == [rows]
        given, empty = (
            GuidedNetwork(unet, forward, own, call_rows=rows)(image, t)
            for own in (labels, torch.full((3,), 3))
        )
    assert torch.equal(found, empty + 2.5 * (given - empty))


@pytest.mark.parametrize(("most", "calls"), [(None, [6]), (6, [6]), (5, [3, 3])])
def test_a_gpu_is_called_once_where_both_fit(
    tiny_unet: MakeUNet, most: int | None, calls: list[int]
) -> None:
    unet, found = tiny_unet(num_class_embeds=4).to(DEVICE), []
    unet.register_forward_pre_hook(lambda _, args: found.append(len(args[0])))
    labels, t = torch.zeros(3, dtype=torch.int64, device=DEVICE), torch.tensor(5, device=DEVICE)
    network = GuidedNetwork(unet, FastForward(unet), labels, 2.5, most_rows=most)
    with torch.no_grad():
        assert network(torch.zeros(3, 1, 8, 8, device=DEVICE), t).shape == (3, 1, 8, 8)
    assert found == calls


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


def test_half_precision_models_sample_in_float32(tiny_unet: MakeUNet) -> None:
    unet = tiny_unet()
    full = pipeline(unet)(2, seeds(0)[0], 20, "np").images
    half = pipeline(unet.to(torch.bfloat16))(2, seeds(0)[0], 20, "np").images
    assert half.dtype == np.float32
    assert np.abs(full - half).mean() < 0.02


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
