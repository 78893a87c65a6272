"""One call beside another: each gives, to the bit, the images that it gives alone."""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Callable

import diffusers
import numpy as np
import pytest
import torch
from helpers.pipelines import pipeline, quiet, seeds
from helpers.schedulers import WORKING, made

from ddpm_pipeline import DDPMPipeline
from ddpm_pipeline.pipelines.calls import own_scheduler

MakeUNet = Callable[..., diffusers.UNet2DModel]
# Those that tell the predicted x_0, which progressive needs.
WITH_X_0 = (
    "ours",
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
)


def pipe_of(tiny_unet: MakeUNet, name: str) -> DDPMPipeline:
    return quiet(DDPMPipeline(tiny_unet(), made(name)))


def draw(pipe: DDPMPipeline, steps: int, **options: object) -> np.ndarray:
    return pipe(2, seeds(steps)[0], steps, "np", **options).images


def progress(pipe: DDPMPipeline, steps: int) -> list[np.ndarray]:
    return [image for _, image in pipe.progressive(2, seeds(steps)[0], steps, "np")]


@pytest.mark.parametrize("name", WITH_X_0)
def test_iterators_and_calls_between_their_steps(tiny_unet: MakeUNet, name: str) -> None:
    pipe = pipe_of(tiny_unet, name)
    alone, other, third = progress(pipe, 5), progress(pipe, 7), draw(pipe, 4)
    first = pipe.progressive(2, seeds(5)[0], 5, "np")
    second = pipe.progressive(2, seeds(7)[0], 7, "np")
    seen: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for _ in range(len(other)):
        for iterator, images in zip((first, second), seen, strict=True):
            images += [image for _, image in [next(iterator, (None, None))] if image is not None]
        assert np.array_equal(draw(pipe, 4), third)
    assert all(np.array_equal(a, b) for a, b in zip(seen[0], alone, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(seen[1], other, strict=True))


@pytest.mark.parametrize("name", WORKING)
def test_a_call_inside_a_callback(tiny_unet: MakeUNet, name: str) -> None:
    pipe, nested = pipe_of(tiny_unet, name), []
    expected, inner = draw(pipe, 5), draw(pipe, 4)

    def call_again(p: DDPMPipeline, *_: object) -> None:
        assert p is pipe
        nested.append(draw(p, 4))

    assert np.array_equal(draw(pipe, 5, callback_on_step_end=call_again), expected)
    assert len(nested) >= 5
    assert all(np.array_equal(images, inner) for images in nested)


@pytest.mark.parametrize("name", WORKING)
def test_threads(tiny_unet: MakeUNet, name: str) -> None:
    pipe = pipe_of(tiny_unet, name)
    lengths = (4, 5, 7, 9)
    expected, found = {K: draw(pipe, K) for K in lengths}, {}
    threads = [
        threading.Thread(target=lambda K=K: found.update({K: draw(pipe, K)})) for K in lengths
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[K], expected[K]) for K in lengths)


@pytest.mark.parametrize("name", WORKING)
def test_a_chain_of_the_users_own_goes_on(tiny_unet: MakeUNet, name: str) -> None:
    """The loop of diffusers' documentation over pipe.scheduler, with calls between its steps."""

    def loop(pipe: DDPMPipeline, between: Callable[[], object]) -> torch.Tensor:
        scheduler, generator = pipe.scheduler, seeds(3)[0]
        takes = "generator" in scheduler.step.__code__.co_varnames
        options = {"generator": generator} if takes else {}
        scheduler.set_timesteps(5)
        x = torch.randn(2, 1, 8, 8, generator=generator) * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            output = pipe.unet(scheduler.scale_model_input(x, t), t).sample  # not detached
            x = scheduler.step(output, t, x, **options).prev_sample
            between()
        return x

    pipe = pipe_of(tiny_unet, name)
    expected, images = loop(pipe_of(tiny_unet, name), lambda: None), draw(pipe, 4)
    found = loop(pipe, lambda: np.testing.assert_array_equal(draw(pipe, 4), images))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", WORKING)
def test_batches_of_a_call_do_not_depend_on_those_before(tiny_unet: MakeUNet, name: str) -> None:
    pipe = pipe_of(tiny_unet, name)
    together = pipe(4, seeds(1, 2, 3, 4), 5, "np", max_batch_size=2).images
    for i, generator in enumerate(seeds(1, 2, 3, 4)):
        alone = pipe(1, [generator], 5, "np", max_batch_size=2).images
        assert np.array_equal(alone[0], together[i])


def test_two_pipelines_with_one_scheduler(tiny_unet: MakeUNet) -> None:
    scheduler = diffusers.UniPCMultistepScheduler()
    first, second = (quiet(DDPMPipeline(tiny_unet(seed=i), scheduler)) for i in range(2))
    expected = draw(first, 5), draw(second, 4)
    nested = []
    found = draw(first, 5, callback_on_step_end=lambda *_: nested.append(draw(second, 4)) and None)
    assert np.array_equal(found, expected[0])
    assert all(np.array_equal(images, expected[1]) for images in nested)


@pytest.mark.parametrize("name", WORKING)
def test_the_scheduler_is_left_as_it_was(tiny_unet: MakeUNet, name: str) -> None:
    pipe = pipe_of(tiny_unet, name)
    pipe.scheduler.set_timesteps(6)
    before, same = copy.deepcopy(vars(pipe.scheduler)), pipe.scheduler
    draw(pipe, 4)
    list(pipe.progressive(1, None, 4)) if name in WITH_X_0 else None
    assert pipe.scheduler is same
    assert vars(same).keys() == before.keys()
    assert torch.equal(same.timesteps, before["timesteps"])
    for key, value in before.items():
        if isinstance(value, int | float | str | list | torch.Tensor):
            assert str(vars(same)[key]) == str(value), key


def test_a_failed_or_forgotten_call_leaves_nothing_behind(tiny_unet: MakeUNet) -> None:
    pipe = pipe_of(tiny_unet, "HeunDiscreteScheduler")
    expected = draw(pipe, 5)
    next(pipe.progressive(1, None, 6))
    with pytest.raises(ZeroDivisionError):
        draw(pipe, 7, callback_on_step_end=lambda *_: 1 / 0)
    assert np.array_equal(draw(pipe, 5), expected)


def test_what_is_put_into_the_pipeline_meanwhile_is_for_later_calls(tiny_unet: MakeUNet) -> None:
    pipe = pipeline(tiny_unet())
    expected = draw(pipe, 5)

    def swap(p: DDPMPipeline, *_: object) -> None:
        p.scheduler = diffusers.EulerDiscreteScheduler()

    assert np.array_equal(draw(pipe, 5, callback_on_step_end=swap), expected)
    assert type(pipe.scheduler) is diffusers.EulerDiscreteScheduler


def test_a_method_that_was_replaced_on_a_scheduler_is_called(tiny_unet: MakeUNet) -> None:
    pipe, steps = pipeline(tiny_unet()), []
    expected, step = draw(pipe, 3), pipe.scheduler.step

    @functools.wraps(step)
    def counted(*args: object, **options: object) -> object:
        steps.append(args[1])
        return step(*args, **options)

    pipe.scheduler.step = counted
    assert np.array_equal(draw(pipe, 3), expected)
    assert len(steps) == 3


def test_a_copy_of_ours_shares_its_tables_and_not_its_chain() -> None:
    ours = made("ours")
    own = own_scheduler(ours)
    assert own.schedule is ours.schedule
    own.set_timesteps(3)
    assert len(ours.timesteps) == 1000


# The noise that a caller gives.


@pytest.mark.parametrize("name", ["ours", "EulerDiscreteScheduler"])
@pytest.mark.parametrize("rows", [None, 2])
def test_given_noise_is_that_of_the_generator(
    tiny_unet: MakeUNet, name: str, rows: int | None
) -> None:
    pipe = pipe_of(tiny_unet, name)
    expected = pipe(4, seeds(0)[0], 5, "np").images
    generator = seeds(0)[0]
    noise = torch.randn(4, 1, 8, 8, generator=generator)
    kept = noise.clone()
    found = pipe(4, generator, 5, "np", noise=noise).images
    assert np.array_equal(found, expected)
    assert torch.equal(noise, kept)
    if name == "EulerDiscreteScheduler" or rows is None:  # whose steps draw nothing
        found = pipe(None, seeds(1)[0], 5, "np", noise=noise, max_batch_size=rows).images
        assert len(found) == 4


def test_given_noise_starts_progressive_too(tiny_unet: MakeUNet) -> None:
    pipe = pipeline(tiny_unet())
    noise = torch.randn(2, 1, 8, 8)
    *_, (_, last) = pipe.progressive(None, seeds(1)[0], 4, "np", noise=noise)
    assert np.array_equal(last, pipe(2, seeds(1)[0], 4, "np", noise=noise).images)


def test_half_precision_noise_is_taken_without_rounding(tiny_unet: MakeUNet) -> None:
    pipe, noise = pipeline(tiny_unet()), torch.randn(2, 1, 8, 8).half()
    found = pipe(2, seeds(1)[0], 3, "np", noise=noise).images
    assert np.array_equal(found, pipe(2, seeds(1)[0], 3, "np", noise=noise.float()).images)


@pytest.mark.parametrize(
    ("noise", "batch_size", "message"),
    [
        (torch.zeros(3, 1, 8, 8), 2, r"shape \(2, 1, 8, 8\), got \(3, 1, 8, 8\)"),
        (torch.zeros(2, 1, 8, 9), None, r"shape \(N, 1, 8, 8\), got \(2, 1, 8, 9\)"),
        (torch.zeros(2, 3, 8, 8), 2, r"shape \(2, 1, 8, 8\), got \(2, 3, 8, 8\)"),
        (torch.zeros(1, 8, 8), None, r"got \(1, 8, 8\)"),
        (torch.zeros(0, 1, 8, 8), None, r"got \(0, 1, 8, 8\)"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.float64), 1, "float32 tensor, got torch.float64"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.int64), 1, "float32 tensor, got torch.int64"),
        (np.zeros((1, 1, 8, 8), np.float32), 1, "float32 tensor, got ndarray"),
        (torch.full((1, 1, 8, 8), torch.nan), 1, "noise must be finite"),
        (torch.full((1, 1, 8, 8), torch.inf), 1, "noise must be finite"),
    ],
)
def test_noise_that_cannot_be_is_refused(
    tiny_unet: MakeUNet, noise: object, batch_size: int | None, message: str
) -> None:
    pipe = pipeline(tiny_unet())
    for draws in (pipe, pipe.progressive):
        with pytest.raises(ValueError, match=message):
            draws(batch_size, None, 2, noise=noise)


# Networks without a size.


def test_a_network_without_a_size_takes_that_of_the_noise(tiny_unet: MakeUNet) -> None:
    pipe = pipeline(tiny_unet(sample_size=None))
    with pytest.raises(ValueError, match="no sample_size"):
        pipe(2, None, 2)
    noise = torch.randn(2, 1, 16, 8)
    assert pipe(2, None, 2, "np", noise=noise).images.shape == (2, 16, 8, 1)
    assert pipe(noise=noise, num_inference_steps=2).images[0].size == (8, 16)
    with pytest.raises(ValueError, match=r"shape \(N, 1, H, W\), got \(2, 2, 8, 8\)"):
        pipe(noise=torch.zeros(2, 2, 8, 8))
    pipe.unet.register_to_config(sample_size=8)
    assert pipe(1, None, 2).images[0].size == (8, 8)


# What a picture cannot hold.


def test_pictures_of_five_channels_show_the_first_three(tiny_unet: MakeUNet) -> None:
    pipe = pipeline(tiny_unet(5))
    values = pipe(1, seeds(0), 2, "np").images
    assert values.shape == (1, 8, 8, 5)
    (picture,) = pipe(1, seeds(0), 2).images
    assert np.abs(np.asarray(picture) / 255 - values[0, ..., :3]).max() <= 0.5 / 255 + 1e-6
