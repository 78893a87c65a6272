"""Drawing the samples of a grid, which shows what a model has learned.

Image i of a grid starts from noise that follows from (seed, i) alone: grids of different steps,
runs and process counts show the same draws.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import gather_object

from ddpm_pipeline.common import stream_generator
from ddpm_pipeline.data import image_grid
from ddpm_pipeline.networks import facts_of, trained_classes
from ddpm_pipeline.pipelines import DDPMPipeline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from accelerate import Accelerator
    from diffusers import UNet2DModel
    from PIL import Image

    from ddpm_pipeline.data import ImageData
    from ddpm_pipeline.networks import Condition
    from ddpm_pipeline.schedulers import DDPMScheduler
    from ddpm_pipeline.training.config import TrainingConfig

__all__ = [
    "draw_images",
    "draw_samples",
    "drawn_classes",
    "open_guide_of_previews",
    "sample_grid",
]

_BLANK = 128  # the grey between the images


def draw_samples(
    unet: UNet2DModel,
    scheduler: DDPMScheduler,
    config: TrainingConfig,
    accelerator: Accelerator,
    guide: DDPMPipeline | None = None,
    data: ImageData | None = None,
) -> np.ndarray | None:
    """Draw a grid's samples, each process its share.

    Image i is of class i mod C in a class-conditional model, of the C that have training images;
    or of the class of the image whose condition it has.

    Arguments:
        unet: The network, in eval mode.
        scheduler: What it was trained for.
        config: Resolved; says how many images, how, and in how many steps.
        accelerator: The processes.
        guide: The model of preview_guidance_model.
        data: Images whose conditions and classes the samples have, spread evenly; None without
            conditions.
    Returns:
        The images, uint8 (N, H, W, C), on the main process; None on others.
    """
    pipeline = DDPMPipeline(unet, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    rank, world = accelerator.process_index, accelerator.num_processes
    # As many on every process, for a sharded network computes on all of them or none.
    count = math.ceil(config.eval_batch_size / world)
    share = [(rank + world * i) % config.eval_batch_size for i in range(count)]
    rows = _rows(data, share, config.eval_batch_size)
    labels, guidance = _labels(unet, data, rows, share), _guidance(config, guide)
    guidance |= _conditions(data, rows)
    images = draw_images(pipeline, share, config, labels, "previews", **guidance)
    drawn = dict(gather_object(list(zip(share, images, strict=True))))
    if not accelerator.is_main_process:
        return None
    return np.stack([drawn[i] for i in range(config.eval_batch_size)])


def sample_grid(
    images: np.ndarray, num_classes: int | None, bands: Sequence[int] | None = None
) -> Image.Image:
    """Lay out a grid's samples: a row for each class, if there are no more classes than samples.

    Arguments:
        images: uint8 (N, H, W, C), image i of class i mod ``num_classes``.
        num_classes: How many classes there are; None without classes.
        bands: The channels that are shown, as for ``shown_bands``.
    """
    if num_classes is None or num_classes > len(images):
        return image_grid(images, bands=bands)
    columns = math.ceil(len(images) / num_classes)
    missing = columns * num_classes - len(images)
    blank = np.full((missing, *images.shape[1:]), _BLANK, np.uint8)
    by_class = np.concatenate([images, blank]).reshape(columns, num_classes, *images.shape[1:])
    in_rows = by_class.swapaxes(0, 1).reshape(-1, *images.shape[1:])
    return image_grid(in_rows, columns, bands=bands)


def drawn_classes(unet: UNet2DModel) -> Sequence[str | int] | None:
    """Give the classes that a grid shows in turn: those with training images.

    None for a model without any, and where classes come with the conditions.
    """
    embeddings = unet.config.num_class_embeds
    if embeddings is None or facts_of(unet).conditioned_on is not None:
        return None
    return trained_classes(unet) or range(embeddings - 1)


def open_guide_of_previews(
    unet: UNet2DModel,
    scheduler: DDPMScheduler,
    config: TrainingConfig,
    data: ImageData | None = None,
) -> DDPMPipeline | None:
    """Load the model that guides sample grids, and check that it can; None without.

    Raises:
        ValueError: If it cannot be loaded, or does not fit; names the option.
    """
    if config.preview_guidance_scale == 1:
        return None
    pipeline, guide = DDPMPipeline(unet, scheduler), None
    numbers = range(config.eval_batch_size)
    try:
        if config.preview_guidance_model is not None:
            guide = DDPMPipeline.from_pretrained(config.preview_guidance_model)
            guide.to(pipeline.unet.device)
        rows = _rows(data, numbers, config.eval_batch_size)
        labels = _labels(unet, data, rows, numbers)
        asked = _asked(pipeline, numbers, config, labels, "previews")
        # Which checks all of it before it draws anything.
        pipeline.progressive(**asked, **_guidance(config, guide), **_conditions(data, rows))
    except (OSError, ValueError) as error:
        name = "preview_guidance_model" if guide is None else "preview_guidance_model does not fit"
        raise ValueError(f"{name}: {error}") from error
    return guide


def draw_images(
    pipeline: DDPMPipeline,
    numbers: Sequence[int],
    config: TrainingConfig,
    labels: Sequence[str | int] | None,
    stream: str,
    **guidance: Any,  # noqa: ANN401 (options of a call)
) -> np.ndarray:
    """Draw the images of these numbers, uint8 (N, H, W, C).

    Arguments:
        pipeline: Of the network.
        numbers: Image i starts from noise that follows from (seed, i).
        config: Resolved; says how, and in how many steps.
        labels: The class of each; None without classes.
        stream: Of the noise.
        guidance: Options of guidance, and conditions; none guides.
    """
    images = pipeline(**_asked(pipeline, numbers, config, labels, stream), **guidance).images
    return (images * 255).round().astype(np.uint8)


def _asked(
    pipeline: DDPMPipeline,
    numbers: Sequence[int],
    config: TrainingConfig,
    labels: Sequence[str | int] | None,
    stream: str,
) -> dict[str, Any]:
    """Give what the images of these numbers are asked for by."""
    device = pipeline.unet.device
    return {
        "batch_size": len(numbers),
        "generator": [stream_generator(stream, config.seed, i, device=device) for i in numbers],
        "num_inference_steps": config.ddpm_num_inference_steps,
        "output_type": "np",
        "solver": config.preview_scheduler,
        "class_labels": labels,
    }


def _rows(data: ImageData | None, numbers: Sequence[int], count: int) -> torch.Tensor | None:
    """Say whose conditions a grid's images of these numbers, of so many, have; None without."""
    if data is None or data.given is None:
        return None
    return torch.tensor([number * len(data) // count % len(data) for number in numbers])


def _conditions(data: ImageData | None, rows: torch.Tensor | None) -> dict[str, Condition]:
    """Give what a grid's images are conditioned on; {} without."""
    return {} if rows is None else {"condition": data.given.of(rows, None)}


def _labels(
    unet: UNet2DModel, data: ImageData | None, rows: torch.Tensor | None, numbers: Sequence[int]
) -> list[str | int] | None:
    """Give the classes of a grid's images, those of their conditions or else in turn."""
    if rows is not None and unet.config.num_class_embeds is not None:
        return data.labels[rows].tolist()
    classes = drawn_classes(unet)
    return None if classes is None else [classes[i % len(classes)] for i in numbers]


def _guidance(config: TrainingConfig, guide: DDPMPipeline | None) -> dict[str, Any]:
    """Give the options of guidance of a grid."""
    return {
        "guidance_scale": config.preview_guidance_scale,
        "guidance_model": guide,
        "guidance_interval": config.preview_guidance_interval,
    }
