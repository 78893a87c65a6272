"""``ddpm edit``: files of images in, files of results out, and a sheet that shows them all.

    edit_images(EditConfig(model="model", task="inpaint", image=("a.png",), mask="hole.png"))

    edited/000000.png ...       the results, those of the first image first
    edited/noise.npy            of invert: float32 (N, C, H, W)
    edited/sheet.png            a row for each image: itself, its mask or noise, its results

All results are drawn before the first is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ddpm_pipeline.common import process_state, stream_generator, write_aside, write_picture
from ddpm_pipeline.data import image_grid, uint8_from_unit_range
from ddpm_pipeline.networks import Condition, check_asked_condition, facts_of, image_channels
from ddpm_pipeline.pipelines.conditions import given_condition
from ddpm_pipeline.pipelines.pipeline import DDPMPipeline
from ddpm_pipeline.pipelines.tasks.conditioned import PosteriorMethod
from ddpm_pipeline.pipelines.tasks.edit_options import EditConfig
from ddpm_pipeline.pipelines.tasks.given import (
    check_bytes,
    fitted,
    given_hole,
    given_measurement,
    image_size,
    unit_images,
)

__all__ = ["edit_images"]


_STEPS, _ROWS, _RESULTS, _ON_THE_WAY, _ITERATIONS = 50, 16, 4, 8, 5


def edit_images(config: EditConfig) -> Path:
    """Do a task on files of images, and write what comes out.

    Arguments:
        config: All options.
    Returns:
        The directory of the results.
    Raises:
        OSError: If the model or an image cannot be read, or a result cannot be written.
        ValueError: If an option does not fit the model or the images; nothing is written then.
    """
    pictures = [_opened(path, "image") for path in config.image]
    mask = None if config.mask is None else _opened(config.mask, "mask")
    told = (
        None if config.condition is None else [_opened(p, "condition") for p in config.condition]
    )
    pipe = DDPMPipeline.from_pretrained(config.model).to(process_state().device)
    pipe.unet.eval()
    check_bytes(pipe.unet)
    condition = _condition(pipe, config, told)
    channels = image_channels(pipe.unet)
    if channels not in (1, 3, 4):
        raise ValueError(f"the model's images must be grey, RGB or RGBA, got {channels} channels")
    results, noise, rows = _TASKS[config.task](_Edit(pipe, config, condition), pictures, mask)
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(results):
        write_picture(folder / f"{i:06d}.png", image)
    if noise is not None:
        with write_aside(folder / "noise.npy") as file:
            np.save(file, noise.cpu().numpy())
    write_picture(folder / "sheet.png", _sheet(rows))
    return folder


def _opened(path: str, option: str) -> Image.Image:
    """Read a picture.

    Raises:
        OSError: If it is none.
    """
    try:
        with Image.open(Path(path).expanduser()) as picture:
            picture.load()
            return picture
    except (OSError, SyntaxError, ValueError) as error:
        raise OSError(f"{option}={path!r} cannot be read as a picture: {error}") from error


def _condition(
    pipe: DDPMPipeline, config: EditConfig, pictures: Sequence[Image.Image] | None
) -> Condition | None:
    """Make what the images are conditioned on, one row for each or for all.

    Raises:
        ValueError: If it is not what the model is conditioned on.
    """
    wanted = facts_of(pipe.unet).conditioned_on
    on = None if config.condition is None else config.condition[0]
    check_asked_condition(wanted, on, config.condition_numbers)
    if wanted is None:
        return None
    if pictures is not None and wanted.scale is not None:
        raise ValueError(
            f"condition must be values of exact {wanted.scale.dtype}, which pictures are not: "
            "give them in Python, to the pipeline's method"
        )
    parts = {"vector": config.condition_numbers, "image": pictures}
    return given_condition(pipe.unet, {k: v for k, v in parts.items() if v is not None})


class _Edit:
    """A pipeline, and the options of its calls."""

    def __init__(
        self, pipe: DDPMPipeline, config: EditConfig, condition: Condition | None
    ) -> None:
        self.pipe, self.config, self.condition = pipe, config, condition
        T = pipe.scheduler.config.num_train_timesteps
        self.steps = config.num_inference_steps or min(_STEPS, T)
        guide = config.guidance_model
        if guide is not None:
            guide = DDPMPipeline.from_pretrained(guide).to(pipe.device)
        self.guide = guide

    def options(self, count: int) -> dict[str, Any]:
        """Give what every task is called with for so many results."""
        config, seeded = self.config, range(count)
        labels = config.class_labels
        found = {
            "generator": [stream_generator("edits", config.seed, i) for i in seeded],
            "num_inference_steps": self.steps,
            "guidance_scale": config.guidance_scale,
            "guidance_model": self.guide,
            "guidance_interval": config.guidance_interval,
            "max_batch_size": config.batch_size or _ROWS,
            "class_labels": labels and [labels[i % len(labels)] for i in seeded],
            "condition": self._conditions(count),
        }
        return found if config.eta is None else {**found, "eta": config.eta}

    def _conditions(self, count: int) -> Condition | None:
        """Give the condition of each result: those of an image have that of the image."""
        if self.condition is None or len(self.condition) == 1:
            return self.condition
        return self.condition[torch.arange(count) * len(self.condition) // count]

    def method(self) -> PosteriorMethod:
        """Give the method of a posterior."""
        config = self.config
        return PosteriorMethod(
            config.method or "mmps",
            covariance=config.covariance or "jacobian",
            iterations=config.iterations or _ITERATIONS,
        )

    def images(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Give pictures at the model's size, in [0, 1]."""
        unet, resize = self.pipe.unet, self.config.resize
        found = [unit_images(picture, "image", image_channels(unet)) for picture in pictures]
        return torch.cat([fitted(x, image_size(unet), "image", resize=resize) for x in found])

    def hole(self, mask: Image.Image, picture: Image.Image) -> Tensor:
        """Give a mask of a picture's size at the model's."""
        found = given_hole(mask, (picture.height, picture.width), 1)
        size = image_size(self.pipe.unet)
        return (fitted(found, size, "mask", resize=self.config.resize) >= 0.5).float()


Found = tuple[list[Image.Image], Tensor | None, list[list[np.ndarray]]]


def _vary(edit: _Edit, pictures: Sequence[Image.Image], mask: None) -> Found:  # noqa: ARG001
    images, strength = edit.images(pictures), edit.config.strength
    many = edit.config.num_results or _RESULTS
    repeated = images.repeat_interleave(many, 0)
    strength = 0.5 if strength is None else strength
    results = edit.pipe.image_to_image(repeated, strength, **edit.options(len(repeated))).images
    return results, None, _rows(images, [], results, many)


def _inpaint(edit: _Edit, pictures: Sequence[Image.Image], mask: Image.Image) -> Found:
    images = edit.images(pictures)
    many = edit.config.num_results or _RESULTS
    holes = torch.cat([edit.hole(mask, picture) for picture in pictures])
    repeated = [x.repeat_interleave(many, 0) for x in (images, holes)]
    options = edit.options(len(repeated[0]))
    results = edit.pipe.inpaint(*repeated, method=edit.method(), **options).images
    return results, None, _rows(images, [holes.expand_as(images)], results, many)


def _restore(edit: _Edit, pictures: Sequence[Image.Image], mask: Image.Image | None) -> Found:
    unet, config = edit.pipe.unet, edit.config
    many, noise_std = config.num_results or _RESULTS, config.noise_std or 0.0
    size = image_size(unet)
    y = torch.cat([given_measurement(p, image_channels(unet), noise_std) for p in pictures])
    operator = config.operator or "blur"
    repeated, hole = y.repeat_interleave(many, 0), None
    if config.resize:
        raise ValueError("resize is not for task restore: another size is another measurement")
    if mask is not None:
        hole = given_hole(mask, (mask.height, mask.width), 1)
    results = edit.pipe.restore(
        repeated.permute(0, 2, 3, 1).numpy(),
        operator,
        noise_std,
        mask=hole,
        method=edit.method(),
        **edit.options(len(repeated)),
    ).images
    shown = torch.nn.functional.interpolate(y, size, mode="nearest").clamp(0, 1)
    beside = [] if hole is None else [hole.expand_as(shown)]
    return results, None, _rows(shown, beside, results, many)


def _interpolate(
    edit: _Edit,
    pictures: Sequence[Image.Image],
    mask: None,  # noqa: ARG001
) -> Found:
    images = edit.images(pictures)
    n = edit.config.num_results or _ON_THE_WAY
    results = edit.pipe.interpolate(images[:1], images[1:], n, **edit.options(n)).images
    a, b = (row[0] for row in _rows(images, [], [], 0))
    return results, None, [[a, *map(_pixels, results), b]]


def _invert(edit: _Edit, pictures: Sequence[Image.Image], mask: None) -> Found:  # noqa: ARG001
    images = edit.images(pictures)
    options = edit.options(len(images))
    noise = edit.pipe.invert(images, **options)
    results = edit.pipe.revert(noise, **options).images
    shown = (noise.cpu() / 6 + 0.5).clamp(0, 1)  # three standard deviations to either side
    return results, noise, _rows(images, [shown], results, 1)


_TASKS = {
    "vary": _vary,
    "inpaint": _inpaint,
    "restore": _restore,
    "interpolate": _interpolate,
    "invert": _invert,
}


def _rows(
    images: Tensor, beside: Sequence[Tensor], results: Sequence[Image.Image], many: int
) -> list[list[np.ndarray]]:
    """Lay out a row for each image, with what stands beside it and its results."""
    columns = [uint8_from_unit_range(column) for column in (images, *beside)]
    return [
        [
            *(column[i] for column in columns),
            *map(_pixels, results[i * many : (i + 1) * many]),
        ]
        for i in range(len(images))
    ]


def _pixels(picture: Image.Image) -> np.ndarray:
    pixels = np.asarray(picture)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _sheet(rows: list[list[np.ndarray]]) -> Image.Image:
    cells = np.stack([cell for row in rows for cell in row])
    return image_grid(cells, columns=len(rows[0]), gap=2)
