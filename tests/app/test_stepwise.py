"""Tasks that tell of their steps, and end when nobody listens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.browsers import settled
from helpers.pipelines import pipeline
from helpers.unets import make_tiny_unet

from ddpm_pipeline.app.stepwise import in_steps

STEPS = 6


def options(seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {"num_inference_steps": STEPS, "generator": generator, "output_type": "pt"}


def image() -> torch.Tensor:
    return torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_every_step_is_told_and_the_result_is_the_tasks() -> None:
    pipe = pipeline(make_tiny_unet(1), num_train_timesteps=12)
    bar = pipe.progress_bar
    expected = pipe.image_to_image(image(), 1.0, **options()).images
    *steps, last = in_steps(
        pipe,
        lambda own, show: (
            own.image_to_image(image(), 1.0, callback_on_step_end=show, **options()).images
        ),
    )
    assert torch.equal(last.result, expected)
    assert [(step.stage, step.done, step.total) for step in steps] == [
        (0, done, STEPS) for done in range(1, STEPS + 1)
    ]
    assert all(step.images.shape == (1, 1, 8, 8) for step in steps)
    assert pipe.progress_bar == bar


def test_both_walks_of_a_task_are_told() -> None:
    pipe = pipeline(make_tiny_unet(1), num_train_timesteps=12)
    *steps, last = in_steps(
        pipe,
        lambda own, _: (
            own.interpolate(image(), image().flip(-1), 3, num_inference_steps=STEPS).images
        ),
    )
    assert [step.stage for step in steps] == [0] * STEPS + [1] * STEPS
    assert len(last.result) == 3


def test_a_task_ends_when_its_iterator_is_closed() -> None:
    pipe = pipeline(make_tiny_unet(1), num_train_timesteps=1000)
    calls = []
    pipe.unet.register_forward_hook(lambda *_: calls.append(1))
    how = {**options(), "num_inference_steps": 1000}
    steps = in_steps(pipe, lambda own, _: own.image_to_image(image(), 1.0, **how).images)
    assert next(steps).done == 1
    steps.close()
    assert settled(lambda: len(calls)) < 500


def test_a_mistake_is_raised_where_the_steps_are_asked_for() -> None:
    pipe = pipeline(make_tiny_unet(1), num_train_timesteps=12)
    with pytest.raises(ValueError, match="strength"):
        list(in_steps(pipe, lambda own, _: own.image_to_image(image(), 2.0).images))
