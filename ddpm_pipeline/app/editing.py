"""A given picture, changed by a model, by the tasks of ``ddpm edit`` that work on one picture.

for view in edit(models, EditWish(model="model", task="inpaint", picture=picture, hole=hole)):
view.picture, view.said
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ddpm_pipeline.app.drawing import Asked, View, enlarged
from ddpm_pipeline.app.models import Models, OpenModel
from ddpm_pipeline.app.stepwise import Show, in_steps, views_of
from ddpm_pipeline.common import check_choice, stream_generator
from ddpm_pipeline.data import image_grid, uint8_from_unit_range
from ddpm_pipeline.pipelines import (
    OPERATORS,
    DDPMPipeline,
    PosteriorMethod,
    given_images,
    named_operator,
)

__all__ = ["KINDS", "TASKS", "EditWish", "edit", "hole_of", "seen_by"]

KINDS = OPERATORS
TASKS = ("inpaint", "vary", "restore", "invert")
_METHOD = PosteriorMethod(iterations=5)  # as `ddpm edit`: each is a product with a Jacobian
_WIDTHS = 3  # standard deviations of noise between grey and black
_WALKS = {"invert": ("finding the noise, ", "drawing from it, ")}


@dataclass(frozen=True, kw_only=True, eq=False)
class EditWish(Asked):
    """A picture to change.

    Arguments:
        task: One of TASKS.
        picture: What is changed; scaled to the model's size, and cut in the middle.
        hole: What is to be filled, white, in the picture as the model sees it.
        strength: Of "vary": 0 leaves the picture as it is, 1 draws another.
        operator: Of "restore": what was done to the picture, as of ``pipe.restore``.
        noise_std: Of "restore": the noise on it, of white 1.
        is_whole: Of "restore": whether the picture is a whole one, to which that is done first.
    """

    task: str
    picture: Image.Image | None
    hole: Image.Image | None = None
    strength: float = 0.5
    operator: str = "blur"
    noise_std: float = 0.0
    is_whole: bool = True


@dataclass(frozen=True, eq=False)
class _Found:
    """What a task gave: images in [0, 1], (N, C, H, W), what they are, and what it says."""

    images: Tensor
    said: str = ""


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
        raise ValueError("picture must be given: upload one")
    if wish.hole is None and (wish.task == "inpaint" or _needs_hole(wish)):
        raise ValueError("hole must be painted on the picture first")
    model = models.open(wish.model)
    if wish.task == "invert":
        wish = replace(wish, num_images=1)
    options = wish.options(model, most_images=most_images, most_steps=most_steps)
    work = _TASKS[wish.task]
    steps = in_steps(model.pipe, lambda own, show: work(own, wish, show, options))

    def last(found: _Found) -> tuple[Tensor, str]:
        return found.images, found.said

    return views_of(steps, _picture, last, _WALKS.get(wish.task, ("",)))


def _needs_hole(wish: EditWish) -> bool:
    return wish.task == "restore" and wish.operator == "missing"


def _seen(pipe: DDPMPipeline, wish: EditWish) -> tuple[Tensor, Image.Image | None]:
    """Give the picture as the model sees it, (1, C, H, W) in [0, 1], and the hole in it."""
    images = given_images(pipe.unet, wish.picture, "picture", resize=True) / 2 + 0.5
    if wish.hole is None:
        return images, None
    size = (images.shape[3], images.shape[2])
    hole = np.asarray(wish.hole.convert("L").resize(size, Image.Resampling.BOX)) > 0
    return images, Image.fromarray(hole)


def _inpaint(pipe: DDPMPipeline, wish: EditWish, show: Show, options: dict[str, Any]) -> _Found:
    image, hole = _seen(pipe, wish)
    how = {**options, "method": _METHOD, "callback_on_step_end": show}
    return _Found(pipe.inpaint(image, hole, **how).images)


def _vary(pipe: DDPMPipeline, wish: EditWish, show: Show, options: dict[str, Any]) -> _Found:
    image, _ = _seen(pipe, wish)
    how = {**options, "callback_on_step_end": show}
    return _Found(pipe.image_to_image(image, wish.strength, **how).images)


def _restore(pipe: DDPMPipeline, wish: EditWish, show: Show, options: dict[str, Any]) -> _Found:
    """Undo what was done to a picture; one that is whole is shown as it was before, and after."""
    image, hole = _seen(pipe, wish)
    mask = hole if _needs_hole(wish) else None
    how = {**options, "mask": mask, "method": _METHOD, "callback_on_step_end": show}
    if not wish.is_whole:
        return _Found(pipe.restore(wish.picture, wish.operator, wish.noise_std, **how).images)
    held = None if mask is None else torch.from_numpy(np.array(mask)).float()[None, None]
    measured = named_operator(wish.operator, tuple(image.shape[2:]), held)(image)
    generator = stream_generator("edits", wish.seed, 0)
    y = measured + wish.noise_std * torch.randn(measured.shape, generator=generator)
    found = pipe.restore(y, wish.operator, wish.noise_std, **how).images
    shown = torch.nn.functional.interpolate(y, image.shape[2:], mode="nearest").clamp(0, 1)
    words = "first the picture, then what was made of it, then results"
    return _Found(torch.cat([image, shown, found.cpu()]), words)


def _invert(
    pipe: DDPMPipeline,
    wish: EditWish,
    show: Show,
    options: dict[str, Any],
) -> _Found:
    """Find the noise of a picture, and come back."""
    image, _ = _seen(pipe, wish)
    how = {name: value for name, value in options.items() if name != "output_type"}
    noise = pipe.invert(image, **how)
    back = pipe.revert(noise, callback_on_step_end=show, **options).images.cpu()
    error = (back - image).double().square().mean()
    ratio = "without an error" if error == 0 else f"at {-10 * error.log10().item():.1f} dB"
    shown = (noise.cpu() / (2 * _WIDTHS) + 0.5).clamp(0, 1)
    words = f"the picture, its noise, and what is drawn from that, {ratio}"
    return _Found(torch.cat([image, shown, back]), words)


_TASKS: dict[str, Callable[..., _Found]] = {
    "inpaint": _inpaint,
    "vary": _vary,
    "restore": _restore,
    "invert": _invert,
}


def _picture(images: Tensor) -> Image.Image:
    return enlarged(image_grid(uint8_from_unit_range(images)))


def seen_by(model: OpenModel, picture: Image.Image) -> Image.Image:
    """Give a picture as a model sees it: scaled to its size, and cut in the middle.

    Raises:
        ValueError: If it does not fit.
    """
    images = given_images(model.pipe.unet, picture, "picture", resize=True) / 2 + 0.5
    return image_grid(uint8_from_unit_range(images), gap=0).convert("RGB")


def hole_of(layers: Sequence[Image.Image]) -> Image.Image | None:
    """Give what is painted on any of the layers, white; None if nothing is.

    Arguments:
        layers: Pictures of one size, opaque where they are painted.
    """
    alphas = [np.asarray(layer.convert("RGBA").getchannel("A")) for layer in layers]
    painted = np.any([alpha > 0 for alpha in alphas], axis=0) if alphas else np.zeros(())
    return Image.fromarray(painted) if painted.any() else None
