"""What callers pass: splits, chains and labels, and mistakes that are named."""

from collections.abc import Callable

import diffusers
import numpy as np
import pytest
import torch
from helpers.pipelines import pipeline, quiet, seeds

from ddpm_pipeline import DDPMPipeline
from ddpm_pipeline.networks import ModelFacts, set_facts

MakeUNet = Callable[..., diffusers.UNet2DModel]


def test_a_split_request_draws_the_same_images(tiny_unet: MakeUNet) -> None:
    pipe = pipeline(tiny_unet())
    whole = pipe(5, seeds(*range(5)), 5, "np", max_batch_size=5).images
    split = pipe(5, seeds(*range(5)), 5, "np", max_batch_size=2).images
    np.testing.assert_allclose(split, whole, rtol=0, atol=1e-5)
    calls = []
    pipe.unet.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    pipe(5, None, 1, max_batch_size=2)
    assert calls == [2, 2, 1]


def test_timesteps_can_be_chosen(tiny_unet: MakeUNet) -> None:
    pipe, seen = pipeline(tiny_unet()), []
    pipe(
        1, timesteps=[900, 300, 20], callback_on_step_end=lambda _p, _i, t, _k: seen.append(int(t))
    )
    assert seen == [900, 300, 20]


def test_all_timesteps_are_the_default(tiny_unet: MakeUNet) -> None:
    pipe, seen = pipeline(tiny_unet(), num_train_timesteps=7), []
    pipe(callback_on_step_end=lambda _p, _i, t, _d: seen.append(int(t)))
    assert seen == [6, 5, 4, 3, 2, 1, 0]


def test_oblong_images(tiny_unet: MakeUNet) -> None:
    image = pipeline(tiny_unet(sample_size=(8, 16)))(1, num_inference_steps=2).images[0]
    assert image.size == (16, 8)


# Errors.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"batch_size": 2.5}, "batch_size must be an integer of at least 1, got 2.5"),
        ({"generator": 5}, "generator must be a torch.Generator or a list, got 5"),
        ({"generator": seeds(0, 1)}, "a list of batch_size = 1, got 2"),
        ({"output_type": "jpg"}, "output_type must be one of pil, np, pt, array, got 'jpg'"),
        ({"num_inference_steps": 1001}, "from 1 to 1000"),
        ({"num_inference_steps": 0}, "from 1 to 1000"),
        ({"timesteps": [1, 2]}, "descending order"),
        ({"timesteps": [2, 1], "num_inference_steps": 2}, "only one of"),
        ({"max_batch_size": 0}, "max_batch_size must be an integer of at least 1, got 0"),
        ({"class_labels": 1}, "needs a class-conditional model"),
        ({"guidance_scale": 2.0}, "needs a class-conditional model"),
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


def test_channels_that_do_not_fit_are_named(tiny_unet: MakeUNet) -> None:
    with pytest.raises(ValueError, match=r"must have 6 output channels .* 'learned_range', got 3"):
        pipeline(tiny_unet(3), variance_type="learned_range")
    with pytest.raises(ValueError, match=r"must have 3 output channels .* 'fixed_small', got 6"):
        pipeline(tiny_unet(3, out_channels=6))
    with pytest.raises(ValueError, match=r"must have 1 or 2 output channels .* got 3"):
        DDPMPipeline(tiny_unet(1, out_channels=3), diffusers.DDIMScheduler())


# Classes by name.


def named_pipeline(tiny_unet: MakeUNet, **facts: object) -> DDPMPipeline:
    """Cats, dogs, which it never saw, and eels; the last embedding is the null class."""
    unet = tiny_unet(num_class_embeds=4)
    known = {"class_names": ("cat", "dog", "eel"), "class_counts": (3, 0, 2)}
    set_facts(unet, ModelFacts(**known | {"trains_null_class": True} | facts))
    return pipeline(unet)


@pytest.mark.parametrize(
    ("labels", "numbers"),
    [
        ("eel", 2),
        (["cat", "eel"], [0, 2]),
        (("eel", "eel"), [2, 2]),
        (["cat", 2], [0, 2]),
        (["0", "2"], [0, 2]),
        (np.array(["eel", "cat"]), [2, 0]),
        (np.array([2, 0]), [2, 0]),
        (np.int64(2), 2),
        ([torch.tensor(2), 0], [2, 0]),
    ],
)
def test_a_class_has_a_name_or_a_number(
    tiny_unet: MakeUNet, labels: object, numbers: object
) -> None:
    pipe = named_pipeline(tiny_unet)
    expected = pipe(2, seeds(0, 1), 2, "np", class_labels=torch.tensor(numbers)).images
    found = pipe(2, seeds(0, 1), 2, "np", class_labels=labels).images
    np.testing.assert_array_equal(found, expected)
    *_, (_, last) = pipe.progressive(2, seeds(0, 1), 2, "np", class_labels=labels)
    np.testing.assert_allclose(last, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "class_labels must be given, one for each image or for all: cat, eel"),
        ({"class_labels": "fox"}, "class_labels must be among cat, dog, eel, got 'fox'"),
        ({"class_labels": ["fox"]}, "class_labels must be among cat, dog, eel, got 'fox'"),
        ({"class_labels": "dog"}, "cat, eel; the training data held no images of class 'dog'"),
        ({"class_labels": 1}, "cat, eel; the training data held no images of class 'dog'"),
        ({"class_labels": torch.tensor([1])}, "held no images of class 'dog'"),
        ({"class_labels": ["cat", "eel"]}, "one integer or 1 of them"),
        ({"class_labels": None}, "class_labels must be given"),
        ({"class_labels": [None]}, r"names \(cat, dog, eel\) or integers .* got None"),
        ({"class_labels": {"cat": 1}}, r"names \(cat, dog, eel\) or integers .* got {'cat': 1}"),
        ({"class_labels": [True]}, "or integers from 0 to 3, got True"),
        ({"class_labels": 0.5}, "or integers from 0 to 3, got 0.5"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(
    tiny_unet: MakeUNet, options: dict, message: str
) -> None:
    pipe = named_pipeline(tiny_unet)
    with pytest.raises(ValueError, match=message):
        pipe(1, None, 2, **options)
    with pytest.raises(ValueError, match=message):
        pipe.progressive(1, None, 2, **options)


def test_a_null_class_that_was_not_trained_is_refused(tiny_unet: MakeUNet) -> None:
    pipe = named_pipeline(tiny_unet, trains_null_class=False)
    pipe(1, None, 2, class_labels="cat")
    with pytest.raises(ValueError, match="guidance_scale other than 1 needs the null class"):
        pipe(1, None, 2, class_labels="cat", guidance_scale=2.0)
    with pytest.raises(ValueError, match=r"class_labels=3 needs the null class, .* label_dropout"):
        pipe(1, None, 2, class_labels=3)
    trained = named_pipeline(tiny_unet)
    trained(1, None, 2, class_labels="cat", guidance_scale=2.0)
    trained(1, None, 2, class_labels=3)


@pytest.mark.parametrize("labels", ["cat", ["cat"]])
def test_a_model_without_names_asks_for_integers(tiny_unet: MakeUNet, labels: object) -> None:
    with pytest.raises(
        ValueError,
        match="class_labels must be integers from 0 to 3, got 'cat': the model keeps no",
    ):
        pipeline(tiny_unet(num_class_embeds=4))(1, None, 2, class_labels=labels)
    with pytest.raises(ValueError, match=r"class_labels=.* needs a class-conditional model"):
        pipeline(tiny_unet())(1, None, 2, class_labels=labels)
