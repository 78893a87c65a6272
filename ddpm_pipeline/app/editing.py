"""A given picture, changed by a model: a painted hole filled, or the whole of it varied.

view = edit(models, EditWish(model="model", task="fill", picture=picture, hole=hole))
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ddpm_pipeline.app.drawing import Asked, View, enlarged
from ddpm_pipeline.app.models import Models
from ddpm_pipeline.common import check_choice
from ddpm_pipeline.data import image_grid, uint8_from_unit_range
from ddpm_pipeline.pipelines import PosteriorMethod

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


def edit(models: Models, wish: EditWish, *, most_images: int, most_steps: int) -> View:
    """Change a picture several times.

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
    model = models.open(wish.model)
    options = wish.options(model, most_images=most_images, most_steps=most_steps)
    options["resize"] = True
    begun = time.perf_counter()
    if wish.task == "fill":
        if wish.hole is None:
            raise ValueError("hole must be painted on the picture first")
        method = PosteriorMethod(iterations=_ITERATIONS)
        images = model.pipe.inpaint(wish.picture, wish.hole, method=method, **options).images
    else:
        images = model.pipe.image_to_image(wish.picture, wish.strength, **options).images
    seconds = time.perf_counter() - begun
    picture = enlarged(image_grid(uint8_from_unit_range(images)))
    return View(picture, f"{seconds:.1f} s", is_last=True)


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
