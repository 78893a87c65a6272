"""Sample grids, so that one sees what a model draws.

Image i of a grid starts from noise that follows from (seed, i) alone: grids of different steps,
runs and process counts show the same draws.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from ddpm_pipeline.training_setup import stream_generator

if TYPE_CHECKING:
    from ddpm_pipeline.pipeline import DDPMPipeline

__all__ = ["draw_samples", "image_grid"]


def draw_samples(
    pipeline: DDPMPipeline,
    indices: range,
    *,
    seed: int,
    num_inference_steps: int,
    num_classes: int | None = None,
) -> np.ndarray:
    """The samples of these numbers, uint8 (N, H, W, C); image i is of class i mod num_classes."""
    if len(indices) == 0:
        config = pipeline.unet.config
        return np.zeros((0, config.sample_size, config.sample_size, config.in_channels), np.uint8)
    device = pipeline.unet.device
    labels = None if num_classes is None else torch.tensor([i % num_classes for i in indices])
    images = pipeline(
        batch_size=len(indices),
        generator=[stream_generator("previews", seed, i, device=device) for i in indices],
        num_inference_steps=num_inference_steps,
        output_type="np",
        class_labels=labels,
    ).images
    return (images * 255).round().astype(np.uint8)


def image_grid(images: np.ndarray, columns: int | None = None, gap: int = 1) -> Image.Image:
    """Images (N, H, W, C) side by side on grey, in rows of ``columns``, near a square if None."""
    count, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    shape = (rows * (height + gap) + gap, columns * (width + gap) + gap, channels)
    canvas = np.full(shape, 128, np.uint8)
    for i, image in enumerate(images):
        y, x = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        canvas[y : y + height, x : x + width] = image
    return Image.fromarray(canvas.squeeze(2) if channels == 1 else canvas)
