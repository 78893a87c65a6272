"""Samples beside the images whose conditions they have: how near a model comes to the truth.

    sampler, rows = paired(sampler, data, num_images, seed)     sample i has the condition of row i
    measure_pairs(draw, data, rows)                             PSNR and SSIM, with their errors

A vector says little of an image's pixels; these are measured where the condition is an image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ddpm_pipeline.common import stream_generator

if TYPE_CHECKING:
    from ddpm_pipeline.data import ImageData
    from ddpm_pipeline.pipelines import ImageSampler

__all__ = ["measure_pairs", "paired", "pairs_text"]

_MOST, _ROWS = 256, 64
_LEAST_SIDE = 11  # of the window of SSIM
_HIGHEST_PSNR = 10 * math.log10(12 * 255**2)
"""58.9 dB, of the rounding error of bytes, 1/12 of a level squared; equal images have it too."""


def paired(
    sampler: ImageSampler, data: ImageData, count: int, seed: int
) -> tuple[ImageSampler, Tensor | None]:
    """Give a sampler the conditions of reference images, drawn at random without repetition.

    Arguments:
        sampler: Of the model.
        data: The reference images.
        count: How many images there are to be drawn; beyond those of the reference they repeat.
        seed: Of the draws.
    Returns:
        The sampler, and the reference image of each condition; None where there are no pictures.
    """
    if data.given is None:
        return sampler, None
    generator = stream_generator("evaluated_pairs", seed)
    rows = torch.randperm(len(data), generator=generator)[:count]
    told = data.given.of(rows, None)
    key = {"of": data.fingerprint}
    sampler = replace(sampler, condition=told, condition_key=key)
    return sampler, None if data.given.pictures is None else rows


def measure_pairs(
    draw: Callable[[Sequence[int]], Tensor], data: ImageData, rows: Tensor | None
) -> dict[str, Any] | None:
    """Compare samples with the images of their conditions.

    Arguments:
        draw: Gives the samples of some numbers, uint8 (B, C, H, W).
        data: The reference images.
        rows: Of each sample's condition; None for no comparison.
    Returns:
        Means over images of PSNR in decibels and of SSIM, with their standard errors; SSIM is None
        for images smaller than its window. The mean squared error of an image counts as at least
        1/12 of a level squared, that of rounding to bytes, so that no PSNR is above 58.9 dB.
    Raises:
        ImportError: If torchmetrics is not installed.
    """
    if rows is None:
        return None
    try:
        from torchmetrics.functional.image import (
            peak_signal_noise_ratio,
            structural_similarity_index_measure,
        )
    except ImportError:
        raise ImportError("PSNR and SSIM need `pip install ddpm_pipeline[eval]`") from None
    found: dict[str, list[Tensor]] = {"psnr": [], "ssim": []}
    numbers = range(min(_MOST, len(rows)))
    for start in range(0, len(numbers), _ROWS):
        part = numbers[start : start + _ROWS]
        samples, truth = (
            images.cpu().double() / 255 for images in (draw(part), data.pictures(rows[list(part)]))
        )
        each = {"data_range": 1.0, "reduction": "none"}
        psnr = peak_signal_noise_ratio(samples, truth, dim=(1, 2, 3), **each)
        found["psnr"].append(psnr.clamp(max=_HIGHEST_PSNR))
        if min(truth.shape[2:]) >= _LEAST_SIDE:
            found["ssim"].append(structural_similarity_index_measure(samples, truth, **each))
    report: dict[str, Any] = {"num_images": len(numbers)}
    for name, parts in found.items():
        values = torch.cat(parts) if parts else None
        report[name] = None if values is None else values.mean().item()
        enough = values is not None and len(values) > 1
        error = values.std().item() / math.sqrt(len(values)) if enough else None
        report[f"{name}_standard_error"] = error
    return report


def pairs_text(pairs: dict[str, Any]) -> dict[str, str]:
    """Give the rows of a table that say what ``measure_pairs`` found."""
    rows = {}
    for name, unit in (("psnr", " dB"), ("ssim", "")):
        value, error = pairs[name], pairs[f"{name}_standard_error"]
        if value is not None:
            about = "" if error is None else f" ± {error:.2g}"
            rows[name.upper()] = f"{value:.4g}{about}{unit} on {pairs['num_images']} images"
    return rows
