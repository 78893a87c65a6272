"""Nearest reference images of generated ones, for a person to see whether a model copies.

    distances, numbers = nearest_images(images, data, extractor)

The reference passes through one batch at a time, on all processes together.
"""

from __future__ import annotations

import torch
from accelerate.utils import gather_object
from torch import Tensor

from ddpm_pipeline.common import process_state
from ddpm_pipeline.data import ImageData
from ddpm_pipeline.evaluation.features import FeatureExtractor
from ddpm_pipeline.evaluation.metrics import nearest_neighbors

__all__ = ["nearest_images"]


def nearest_images(
    images: Tensor,
    data: ImageData,
    extractor: FeatureExtractor,
    *,
    count: int = 3,
    batch_size: int = 64,
) -> tuple[Tensor, Tensor]:
    """Find the reference images whose features are nearest to those of some images.

    Arguments:
        images: uint8 (Q, C, H, W).
        data: The reference images, at least `count`, which pass through one batch at a time.
        extractor: Maps images to features.
        count: How many are looked for.
        batch_size: How many reference images pass through at a time.
    Returns:
        Distances, float64, and numbers in `data`, int64, both (Q, count), the nearest first.
    """
    state = process_state()
    queries, best = extractor(images), None
    for start in range(0, len(data), batch_size)[state.process_index :: state.num_processes]:
        numbers = range(start, min(start + batch_size, len(data)))
        features = extractor(data.batch(numbers).images)
        best = nearest_neighbors(queries, features, best, start, count)
    found = gather_object([] if best is None else [(best[0].cpu(), best[1].cpu())])
    distances = torch.cat([part[0] for part in found], 1)
    numbers = torch.cat([part[1] for part in found], 1)
    order = distances.argsort(dim=1, stable=True)[:, :count]
    return distances.gather(1, order), numbers.gather(1, order)
