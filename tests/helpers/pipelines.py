"""Pipelines of tiny networks, and generators for them."""

from __future__ import annotations

from pathlib import Path

import diffusers
import numpy as np
import torch
from PIL import Image

from ddpm_pipeline import DDPMPipeline, DDPMScheduler


def seeds(*numbers: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(n) for n in numbers]


def quiet(pipe: diffusers.DiffusionPipeline) -> diffusers.DiffusionPipeline:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pipeline(unet: diffusers.UNet2DModel, **config: object) -> DDPMPipeline:
    return quiet(DDPMPipeline(unet, DDPMScheduler(**config)))


def options(model: str, **changes: object) -> dict[str, object]:
    """Options of sampling a saved model: few steps, small batches."""
    return {"model": model, "num_inference_steps": 2, "batch_size": 4, **changes}


def images_of(folder: Path) -> np.ndarray:
    """Read the PNG files of a folder, in order."""
    return np.stack([np.array(Image.open(path)) for path in sorted(folder.glob("*.png"))])
