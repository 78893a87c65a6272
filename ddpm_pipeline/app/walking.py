"""A walk from one image to another, on the great circle between their noise.

for view in walk(models, WalkWish(model="model", seed=0, last_seed=1, num_images=8)):
view.picture, view.said, view.frames
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any

import torch
from PIL import Image
from torch import Tensor

from ddpm_pipeline.app.drawing import Asked, View, enlarged
from ddpm_pipeline.app.models import Models
from ddpm_pipeline.app.stepwise import Show, in_steps, views_of
from ddpm_pipeline.common import stream_generator
from ddpm_pipeline.data import image_grid, uint8_from_unit_range
from ddpm_pipeline.networks import image_channels
from ddpm_pipeline.pipelines import DDPMPipeline, image_size, shares_of_way, spherical
from ddpm_pipeline.schedulers import standard_normal

__all__ = ["LEAST_OF_A_WAY", "WalkWish", "walk", "write_animation"]

LEAST_OF_A_WAY = 2  # its ends
_WIDTH = 960  # pixels of a walk that is shown side by side
_FRAME = 150  # milliseconds
_WALKS = ("finding the noise of both, ", "drawing, ")


@dataclass(frozen=True, kw_only=True, eq=False)
class WalkWish(Asked):
    """A walk between two images: of two seeds, or given.

    Arguments:
        num_images: On the way, the two ends among them; at least 2.
        seed, last_seed: The ends are drawn from the noise of image 0 of these.
        pictures: The ends, if they are given; scaled to the model's size, and cut in the middle.
    """

    last_seed: int = 1
    pictures: tuple[Image.Image | None, Image.Image | None] | None = None


def walk(models: Models, wish: WalkWish, *, most_images: int, most_steps: int) -> Iterator[View]:
    """Walk, and show how far it is; the last view has the images one by one.

    Arguments:
        models: Those of the page.
        wish: What is asked for.
        most_images, most_steps: More than these are refused.
    Raises:
        ValueError: If something of it is not allowed.
        OSError: If the model cannot be loaded.
    """
    if wish.num_images < LEAST_OF_A_WAY:
        raise ValueError(
            f"images must be at least {LEAST_OF_A_WAY} on a way, got {wish.num_images}"
        )
    if wish.pictures is not None and None in wish.pictures:
        raise ValueError("pictures must be two: upload the first and the last")
    model = models.open(wish.model)
    options = wish.options(model, most_images=most_images, most_steps=most_steps)
    del options["batch_size"]

    def work(pipe: DDPMPipeline, show: Show) -> Tensor:
        how = {**options, "callback_on_step_end": show}
        if wish.pictures is not None:
            return pipe.interpolate(*wish.pictures, wish.num_images, resize=True, **how).images
        noise = [_noise(pipe, seed) for seed in (wish.seed, wish.last_seed)]
        way = spherical(*noise, shares_of_way(wish.num_images, noise[0]))
        return pipe.revert(way, **how).images

    steps = in_steps(model.pipe, work)
    walks = _WALKS if wish.pictures is not None else ("",)
    return map(_with_frames, views_of(steps, _side_by_side, lambda images: (images, ""), walks))


def _noise(pipe: DDPMPipeline, seed: int) -> Tensor:
    """Give the noise that image 0 of a seed is drawn from, (1, C, H, W).

    Raises:
        ValueError: If the model does not say how large its images are, or the seed is negative.
    """
    size = image_size(pipe.unet)
    if size is None:
        raise ValueError("the model has no sample_size that says how large its images are")
    generator = stream_generator("samples", seed, 0, device=pipe.device)
    shape = (1, image_channels(pipe.unet), *size)
    return standard_normal(shape, [generator], pipe.device, torch.float32)


def _side_by_side(images: Tensor) -> Image.Image:
    grid = image_grid(uint8_from_unit_range(images), columns=len(images))
    return enlarged(grid, _WIDTH)


def _with_frames(view: View) -> View:
    if not view.is_last:
        return view
    images = uint8_from_unit_range(view.images)
    frames = [enlarged(image_grid(image[None], gap=0)) for image in images]
    return replace(view, frames=tuple(frames))


def write_animation(file: IO[bytes], frames: Sequence[Image.Image]) -> None:
    """Write a walk there and back as an animated PNG, which browsers repeat."""
    there, *others = frames
    others += others[-2::-1]
    how: dict[str, Any] = {"save_all": True, "duration": _FRAME, "loop": 0}
    there.save(file, format="PNG", append_images=others, **how)
    file.flush()
