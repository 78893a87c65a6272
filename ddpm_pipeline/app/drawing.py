"""Images as they come out of the noise, and how long they took.

    for view in draw(models, Wish(model="model", num_images=4, seed=0, num_steps=20)):
        view.picture, view.said

What is drawn in the end is what ``ddpm sample --scheduler as_saved`` draws with the same seed,
class and steps, but for the rounding of calls with another number of rows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor

from ddpm_pipeline.app.conditions import shown_condition
from ddpm_pipeline.app.models import Models, OpenModel
from ddpm_pipeline.common import stream_generator
from ddpm_pipeline.data import image_grid, uint8_from_unit_range

__all__ = ["VIEWS_A_SECOND", "Asked", "View", "Wish", "draw", "enlarged"]

VIEWS_A_SECOND = 8
_SMALLEST_SIDE = 512  # pixels of a picture on the page; those of images are enlarged whole


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What all wishes have.

    Arguments:
        model: Its name on the page.
        num_images: How many images.
        seed: Image i depends on (seed, i).
        num_steps: K; 0 is the model's own.
        class_label: A class of a model that has some.
        guidance_scale: 1 is no guidance.
        condition_picture, condition_numbers: What a model is conditioned on that has conditions.
    """

    model: str
    num_images: int = 4
    seed: int = 0
    num_steps: int = 0
    class_label: str | int | None = None
    guidance_scale: float = 1.0
    condition_picture: Image.Image | None = None
    condition_numbers: tuple[float, ...] = ()

    def options(self, model: OpenModel, *, most_images: int, most_steps: int) -> dict[str, Any]:
        """Give the options of the pipeline's calls.

        Raises:
            ValueError: If there are more images or steps than the page or the model allows, or
                what the model is conditioned on is missing.
        """
        num_steps = self.num_steps or model.num_steps
        for name, value, most in (
            ("images", self.num_images, most_images),
            ("steps", num_steps, min(most_steps, model.most_steps)),
        ):
            if not 1 <= value <= most:
                raise ValueError(f"{name} must be from 1 to {most:,} here, got {value:,}")
        device = model.pipe.device
        return {
            "batch_size": self.num_images,
            "generator": [
                stream_generator("samples", self.seed, i, device=device)
                for i in range(self.num_images)
            ],
            "num_inference_steps": num_steps,
            "class_labels": self.class_label,
            "condition": shown_condition(model, self.condition_picture, self.condition_numbers),
            "guidance_scale": self.guidance_scale,
            "output_type": "pt",
        }


@dataclass(frozen=True, kw_only=True)
class Wish(Asked):
    """Images to draw.

    Arguments:
        solver: "" is the model's own.
    """

    solver: str = ""


@dataclass(frozen=True, eq=False)
class View:
    """What is to be seen after a step.

    Arguments:
        picture: All images, as far as they can be told; None for what was shown before.
        said: The step and the time, in words.
        is_last: Whether these are the images.
        images: They themselves at the end, (N, C, H, W) in [0, 1], where somebody needs them.
        frames: Each of them as a picture, where somebody needs them.
    """

    picture: Image.Image | None
    said: str
    is_last: bool
    images: Tensor | None = None
    frames: tuple[Image.Image, ...] = ()


def draw(models: Models, wish: Wish, *, most_images: int, most_steps: int) -> Iterator[View]:
    """Draw images and show them on the way, a few times a second.

    Arguments:
        models: Those of the page.
        wish: What is asked for.
        most_images, most_steps: More than these are refused.
    Raises:
        ValueError: If something of it is not allowed.
        OSError: If the model cannot be loaded.
    """
    model = models.open(wish.model)
    options = wish.options(model, most_images=most_images, most_steps=most_steps)
    return _views(model, wish, options)


def _views(model: OpenModel, wish: Wish, options: dict[str, Any]) -> Iterator[View]:
    begun = time.perf_counter()
    steps = model.pipe.progressive(solver=wish.solver or None, **options)
    shown = begun
    for index, (_, images) in enumerate(steps, start=1):
        now = time.perf_counter()
        if now - shown >= 1 / VIEWS_A_SECOND:
            shown = now
            yield View(_picture(images), f"step {index:,}, {now - begun:.1f} s", is_last=False)
    seconds = time.perf_counter() - begun
    each = 1000 * seconds / wish.num_images
    said = f"step {index:,}, {seconds:.1f} s, {each:,.0f} ms for each image"
    said += "" if model.source == model.name else f"; from {model.source}"
    yield View(_picture(images), said, is_last=True)


def _picture(images: Tensor) -> Image.Image:
    return enlarged(image_grid(uint8_from_unit_range(images)))


def enlarged(grid: Image.Image, smallest: int = _SMALLEST_SIDE) -> Image.Image:
    """Make a small picture large enough to see, each of its pixels a square."""
    times = max(1, smallest // max(grid.size))
    return grid.resize((grid.width * times, grid.height * times), Image.Resampling.NEAREST)
