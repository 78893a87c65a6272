"""Nearest reference images of generated ones, to see and to test whether a model copies.

    distances, numbers = nearest_images(images, data, extractor)      the three nearest of a few
    pairs = nearest_of_many(features, data, extractor)                the nearest one of thousands

The reference passes through one batch at a time, on all processes together.
"""

from __future__ import annotations

import torch
from accelerate.utils import gather_object
from torch import Tensor

from ddpm_pipeline.common import process_state
from ddpm_pipeline.data import ImageData
from ddpm_pipeline.evaluation.copying import AROUND, CopyTest, NearestPairs, copy_test
from ddpm_pipeline.evaluation.features import FeatureExtractor
from ddpm_pipeline.evaluation.metrics import nearest_neighbors

__all__ = ["NearestOfMany", "copy_test_of_features", "nearest_images", "nearest_of_many"]

_QUERIES = 4096  # of which distances to a batch are held at once


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
        features = extractor(data.pictures(numbers))
        best = nearest_neighbors(queries, features, best, start, count)
    found = gather_object([] if best is None else [(best[0].cpu(), best[1].cpu())])
    distances = torch.cat([part[0] for part in found], 1)
    numbers = torch.cat([part[1] for part in found], 1)
    order = distances.argsort(dim=1, stable=True)[:, :count]
    return distances.gather(1, order), numbers.gather(1, order)


class NearestOfMany:
    """The nearest member of a set to each of many queries, as the members pass by.

    Arguments:
        queries: Features (Q, D).
    """

    def __init__(self, queries: Tensor) -> None:
        self._queries = queries.double()
        self._scores = queries.new_full((len(queries),), torch.inf, dtype=torch.float64)
        self._members = torch.zeros_like(self._queries)
        self._numbers = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
        self._around = self._scores[:, None].repeat(1, AROUND)
        self._around_numbers = self._numbers[:, None].repeat(1, AROUND)

    def add(self, features: Tensor, offset: int) -> None:
        """Look at members offset … offset + B - 1 of the set, by their features (B, D)."""
        members = features.to(self._queries)
        squares = members.square().sum(1)
        for rows in torch.arange(len(self._queries), device=members.device).split(_QUERIES):
            # |y|² - 2 x·y orders the members y of a query x as their distance does.
            scores = torch.addmm(squares, self._queries[rows], members.T, alpha=-2)
            best = scores.min(1)
            closer = best.values < self._scores[rows]
            improved, found = rows[closer], best.indices[closer]
            self._scores[improved] = best.values[closer]
            self._members[improved] = members[found]
            self._numbers[improved] = found + offset
            nearest = scores.topk(min(AROUND, scores.shape[1]), largest=False)
            self._around[rows], self._around_numbers[rows] = _nearest_of(
                [self._around[rows], nearest.values],
                [self._around_numbers[rows], nearest.indices + offset],
            )

    def pairs(self) -> NearestPairs:
        """Give the nearest members so far, with distances that are exact for equal ones too."""
        distances = (self._queries - self._members).norm(dim=1)
        distances = distances.masked_fill(self._scores.isinf(), torch.inf)
        squares = self._around + self._queries.square().sum(1, keepdim=True)
        around = torch.maximum(squares.clamp_min(0).sqrt(), distances[:, None])
        found = (distances, self._numbers, *_nearest_of([around], [self._around_numbers]))
        return NearestPairs(*(values.cpu() for values in found))


def _nearest_of(distances: list[Tensor], numbers: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Give the AROUND smallest distances of each row, ascending, and their numbers."""
    found = torch.cat(distances, 1).topk(AROUND, largest=False)
    return found.values, torch.cat(numbers, 1).gather(1, found.indices)


def nearest_of_many(
    queries: Tensor, data: ImageData, extractor: FeatureExtractor, *, batch_size: int = 64
) -> NearestPairs:
    """Find the one image of a set that is nearest to each of many features.

    Arguments:
        queries: Features (Q, D), on any device.
        data: The images, which pass through one batch at a time.
        extractor: Maps images to features.
        batch_size: How many images pass through at a time.
    Returns:
        The pairs, the same on every process, on the CPU.
    """
    state = process_state()
    best = NearestOfMany(queries.to(extractor.device))
    for start in range(0, len(data), batch_size)[state.process_index :: state.num_processes]:
        numbers = range(start, min(start + batch_size, len(data)))
        best.add(extractor(data.pictures(numbers)), start)
    parts = gather_object([tuple(best.pairs())])
    distances = torch.stack([part[0] for part in parts])
    closest = distances.min(0)
    numbers = torch.stack([part[1] for part in parts])
    return NearestPairs(
        closest.values,
        numbers.gather(0, closest.indices[None])[0],
        *_nearest_of([part[2] for part in parts], [part[3] for part in parts]),
    )


def copy_test_of_features(
    samples: Tensor, train: Tensor, held_out: Tensor, *, seed: int = 0
) -> CopyTest:
    """Test whether samples are drawn to training images, all of them given by their features.

    Arguments:
        samples, train, held_out: (S, D), (n, D) and (m, D).
        seed: Of the permutations.
    Raises:
        ValueError: If there are too few of any.
    """
    found = []
    for queries, members in ((samples, train), (samples, held_out), (held_out, train)):
        nearest = NearestOfMany(queries)
        nearest.add(members, 0)
        found.append(nearest.pairs())
    to_train, to_held_out, between = found
    return copy_test(to_train, to_held_out, between.distances, num_train=len(train), seed=seed)
