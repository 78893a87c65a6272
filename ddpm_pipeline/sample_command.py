"""``ddpm sample``: images from a saved model, as one grid or a file each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from diffusers import DDIMScheduler
from PIL import Image

from ddpm_pipeline.arguments import parse
from ddpm_pipeline.pipeline import DDPMPipeline
from ddpm_pipeline.previews import image_grid
from ddpm_pipeline.training_setup import stream_generator

__all__ = ["SampleArguments", "run"]


@dataclass(frozen=True)
class SampleArguments:
    """Draw images from a saved model."""

    model: str
    """A model's folder, or its name on the Hub; `--model` may be left out before it."""
    num_images: int = 16
    """How many."""
    output: Path = Path("samples.png")
    """A file for one grid of all images; or a folder, for a file of each."""
    scheduler: Literal["ddim", "ddpm"] = "ddim"
    """How to draw: without noise along the chain, or with the model's own variances."""
    num_inference_steps: int = 50
    """Reverse steps."""
    class_labels: tuple[int, ...] = ()
    """Classes to draw, in turn; for models trained on labels."""
    guidance_scale: float = 1.0
    """Weight of the class against no class; 1 is no guidance."""
    max_batch_size: int = 64
    """Images of one forward pass."""
    seed: int = 0
    """Image i follows from this number and i."""
    device: str = "auto"
    """Where to compute; "auto" is a GPU if there is one."""

    def __post_init__(self) -> None:
        for name in ("num_images", "num_inference_steps", "max_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


def run(argv: Sequence[str]) -> None:
    """Draw images as the arguments say."""
    if argv and not argv[0].startswith("-"):
        argv = ["--model", *argv]
    arguments = parse(SampleArguments, argv, prog="ddpm sample")
    images = _draw(arguments)
    for path in _write(images, arguments.output):
        print(path)  # noqa: T201


def _draw(arguments: SampleArguments) -> list[Image.Image]:
    pipeline = DDPMPipeline.from_pretrained(arguments.model)
    if arguments.scheduler == "ddim":
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.to(_device(arguments.device))
    labels = arguments.class_labels
    numbers = range(arguments.num_images)
    return pipeline(
        batch_size=arguments.num_images,
        generator=[stream_generator("previews", arguments.seed, i) for i in numbers],
        num_inference_steps=arguments.num_inference_steps,
        max_batch_size=arguments.max_batch_size,
        class_labels=[labels[i % len(labels)] for i in numbers] if labels else None,
        guidance_scale=arguments.guidance_scale,
    ).images


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.device(name)
    except RuntimeError:
        raise ValueError(
            f"device must be auto, cpu, cuda or another of torch's, got {name!r}"
        ) from None


def _write(images: list[Image.Image], output: Path) -> list[Path]:
    """One grid if the output has a picture's ending, else a numbered file each in a folder."""
    if output.suffix.lower() in Image.registered_extensions():
        output.parent.mkdir(parents=True, exist_ok=True)
        image_grid(np.stack([_with_channels(image) for image in images])).save(output)
        return [output]
    output.mkdir(parents=True, exist_ok=True)
    paths = [output / f"{i:06d}.png" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        image.save(path)
    return paths


def _with_channels(image: Image.Image) -> np.ndarray:
    values = np.asarray(image)
    return values if values.ndim == 3 else values[..., None]
