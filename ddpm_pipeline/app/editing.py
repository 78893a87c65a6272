"""A given picture, changed by a model: a painted hole filled, or the whole of it varied.

for view in edit(models, EditWish(model="model", task="fill", picture=picture, hole=hole)):
    view.picture, view.said
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor

from ddpm_pipeline.app.drawing import VIEWS_A_SECOND, Asked, View, enlarged
from ddpm_pipeline.app.models import Models
from ddpm_pipeline.app.stepwise import Progress, Show, in_steps
from ddpm_pipeline.common import check_choice
from ddpm_pipeline.data import image_grid, uint8_from_unit_range
from ddpm_pipeline.pipelines import DDPMPipeline, PosteriorMethod

__all__ = ["TASKS", "EditWish", "edit", "hole_of"]

TASKS = ("fill", "vary")
_ITERATIONS = 5  # as `ddpm edit`: each is a product with the network's Jacobian


@dataclass(frozen=True, kw_only=True, eq=False)
class EditWish(Asked):
    """A picture to change.

    Arguments:
        task: "fill" or "vary".
        picture: What is changed; scaled to the model's size, and cut in the middle.
        hole: Of "fill": white where it is to be filled, of the size of the picture.
        strength: Of "vary": 0 leaves the picture as it is, 1 draws another.
    """

    task: str
    picture: Image.Image | None
    hole: Image.Image | None = None
    strength: float = 0.5


def edit(models: Models, wish: EditWish, *, most_images: int, most_steps: int) -> Iterator[View]:
    """Change a picture several times, and show the results on their way, a few times a second.

    Arguments:
        models: Those of the page.
        wish: What is asked for.
        most_images, most_steps: More than these are refused.
    Raises:
        ValueError: If something of it is not allowed.
        OSError: If the model cannot be loaded.
    """
    check_choice("task", wish.task, TASKS)
    if wish.picture is None:
        raise ValueError("picture must be given: upload one, then paint the hole on it")
    if wish.task == "fill" and wish.hole is None:
        raise ValueError("hole must be painted on the picture first")
    model = models.open(wish.model)
    options = wish.options(model, most_images=most_images, most_steps=most_steps)
    options["resize"] = True

    def work(pipe: DDPMPipeline, show: Show) -> Tensor:
        how = {**options, "callback_on_step_end": show}
        if wish.task == "fill":
            method = PosteriorMethod(iterations=_ITERATIONS)
            return pipe.inpaint(wish.picture, wish.hole, method=method, **how).images
        return pipe.image_to_image(wish.picture, wish.strength, **how).images

    return _views(in_steps(model.pipe, work))


def _views(steps: Iterator[Progress]) -> Iterator[View]:
    begun = shown = time.perf_counter()
    with closing(steps):
        for step in steps:
            now = time.perf_counter()
            if step.result is not None:
                grid = image_grid(uint8_from_unit_range(step.result))
                yield View(enlarged(grid), f"{now - begun:.1f} s", is_last=True)
            elif step.images is not None and now - shown >= 1 / VIEWS_A_SECOND:
                shown = now
                grid = image_grid(uint8_from_unit_range(step.images.clamp(-1, 1) / 2 + 0.5))
                said = f"step {step.done:,} of {step.total:,}, {now - begun:.1f} s"
                yield View(enlarged(grid), said, is_last=False)


def hole_of(layers: list[Image.Image], size: tuple[int, int]) -> Image.Image | None:
    """Give the pixels that are painted on any of the layers; None if there are none.

    Arguments:
        layers: Pictures with transparency, opaque where they are painted.
        size: Width and height of the picture below.
    """
    painted = np.zeros(size[::-1], dtype=bool)
    for layer in layers:
        alpha = layer.convert("RGBA").getchannel("A")
        painted |= np.asarray(alpha if alpha.size == size else alpha.resize(size)) > 0
    return Image.fromarray(painted) if painted.any() else None
