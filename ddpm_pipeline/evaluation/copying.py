r"""Does a model copy its training images? Two tests, from distances to the nearest images.

    found = copy_test(to_train, to_held_out, held_out_to_train, num_train=140, seed=0)
    found.share, found.standard_error, found.p_value, found.copies

n training images and m held-out ones were drawn alike, so a model that did not remember which of
them it was trained on is drawn to neither. Of the :math:`N = n + m` images together, let
:math:`w_z` be the number of the S samples that lie nearest to image z, half a sample each for two
that are equally near. Then the labels "training" and "held out" are a random permutation, and

.. math::
    A = \sum_{z\ \text{held out}} w_z, \qquad \mathbb E A = S\,\frac mN, \qquad
    c = 1 - \frac{A}{\mathbb E A}, \qquad p = P(A_\pi \le A)

over permutations :math:`\pi`, exactly, whatever the model's images look like: c is the share of
samples that are drawn to their training image beyond chance, 0 for a model that does not copy and
1 for one that does nothing else.

The other test compares the distances themselves, those of samples and those of held-out images to
their nearest training image, by the probability that the former is smaller (Mann and Whitney's
U). It asks for more: images that are smoother or less varied than real ones lie nearer to any of
them, copied or not. Hence the first decides.

Source: the second is the global test of Meehan et al. 2020 (arXiv:2004.05675); the first is a
permutation test of the nearest neighbour's label.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["LEVEL", "CopyTest", "NearestPairs", "copy_test", "nearer"]

LEVEL = 0.05
"""A model is said to copy when the p-value is below this."""

_PERMUTATIONS = 9_999
_SAME = 1e-6  # relative difference of two distances that counts as none


class NearestPairs(NamedTuple):
    """The nearest image of a set to each of some others.

    Arguments:
        distances: float64 (Q,).
        numbers: Which image of the set it is, int64 (Q,).
    """

    distances: Tensor
    numbers: Tensor


@dataclass(frozen=True, kw_only=True)
class CopyTest:
    """What the two tests found."""

    share: float
    """Samples that are drawn to their training image beyond chance: 0 for none, 1 for all."""
    standard_error: float
    p_value: float
    """Chance of so large a share, or a larger one, for a model that does not copy."""
    nearer: float
    """Probability that a sample lies nearer to the training images than a held-out image does."""
    nearer_standard_error: float
    nearer_p_value: float
    """Chance of so large a probability if samples were as far away as held-out images."""
    num_samples: int
    num_train: int
    num_held_out: int

    @property
    def copies(self) -> bool:
        """Tell whether the model copies, at the level of 5%."""
        return self.p_value < LEVEL

    def to_dict(self) -> dict[str, Any]:
        """Give all of it as JSON values."""
        return asdict(self) | {"copies": self.copies, "level": LEVEL}


def copy_test(
    to_train: NearestPairs,
    to_held_out: NearestPairs,
    held_out_to_train: Tensor,
    *,
    num_train: int,
    seed: int = 0,
) -> CopyTest:
    """Test whether samples are drawn to the training images.

    Arguments:
        to_train: The training image nearest to each sample.
        to_held_out: The held-out image nearest to each sample.
        held_out_to_train: Distance of each held-out image to its nearest training image (m,).
        num_train: n, the training images that were looked at.
        seed: Of the permutations.
    Raises:
        ValueError: If there are no samples, fewer than two held-out images or no training images.
    """
    num_samples, num_held_out = len(to_train.distances), len(held_out_to_train)
    if num_samples < 1 or num_held_out < 2 or num_train < 1:
        raise ValueError(
            "the test of copying needs a sample, two held-out images and a training image at "
            f"least, got {num_samples}, {num_held_out} and {num_train}"
        )
    train, held_out = _weights(to_train, to_held_out, num_train, num_held_out)
    expected = num_samples * num_held_out / (num_train + num_held_out)
    value, error = nearer(to_train.distances, held_out_to_train)
    return CopyTest(
        share=1 - held_out.sum().item() / expected,
        standard_error=_error(train, held_out) / expected,
        p_value=_permutation_p_value(train, held_out, seed),
        nearer=value,
        nearer_standard_error=error,
        nearer_p_value=_rank_p_value(to_train.distances, held_out_to_train),
        num_samples=num_samples,
        num_train=num_train,
        num_held_out=num_held_out,
    )


def _weights(
    to_train: NearestPairs, to_held_out: NearestPairs, num_train: int, num_held_out: int
) -> tuple[Tensor, Tensor]:
    """Count the samples nearest to each training image and each held-out one."""
    difference = to_train.distances - to_held_out.distances
    scale = to_train.distances + to_held_out.distances
    # 1 where the training image is nearer, 0 where the held-out one is, else one half.
    side = (1 - difference.sign()) / 2
    side = torch.where(difference.abs() <= _SAME * scale, 0.5, side).double()
    train = torch.zeros(num_train, dtype=torch.float64)
    held_out = torch.zeros(num_held_out, dtype=torch.float64)
    train.index_add_(0, to_train.numbers, side)
    held_out.index_add_(0, to_held_out.numbers, 1 - side)
    return train, held_out


def _error(train: Tensor, held_out: Tensor) -> float:
    """Estimate the standard error of A, for images of either set drawn anew.

    A = S q for the share q = A / (A + B) of two independent sums; that of one sample at least, as
    a model that does nothing but copy leaves no spread to see.
    """
    q = (held_out.sum() / (held_out.sum() + train.sum())).item()
    variance = (1 - q) ** 2 * _variance_of_sum(held_out) + q**2 * _variance_of_sum(train)
    return math.sqrt(max(variance, 1.0))


def _variance_of_sum(weights: Tensor) -> float:
    return len(weights) * weights.var().item() if len(weights) > 1 else 0.0


def _permutation_p_value(train: Tensor, held_out: Tensor, seed: int) -> float:
    """Count the permutations of the labels that leave so few samples to held-out images.

    Images of the same weight are alike: a permutation is how many of each weight are held out.
    """
    halves = torch.cat([train, held_out]).mul(2).round().long().numpy()
    values, counts = np.unique(halves, return_counts=True)
    drawn = np.random.default_rng(seed).multivariate_hypergeometric(
        counts, len(held_out), size=_PERMUTATIONS
    )
    at_most = (drawn @ values <= round(2 * held_out.sum().item())).sum()
    return float(1 + at_most) / (1 + _PERMUTATIONS)


def nearer(samples: Tensor, others: Tensor) -> tuple[float, float]:
    """Estimate the probability that a sample's distance is the smaller one, ties counting half.

    Arguments:
        samples, others: Distances (S,) and (m,).
    Returns:
        The probability and its standard error.
    Source: DeLong et al. 1988, for the error.
    """
    of_samples, of_others = _placements(samples, others), _placements(others, samples)
    parts = [p.var().item() / len(p) for p in (of_samples, of_others) if len(p) > 1]
    return of_samples.mean().item(), math.sqrt(sum(parts))


def _placements(values: Tensor, others: Tensor) -> Tensor:
    """Give the share of the others that are larger than each value, equal ones counting half."""
    ordered = others.double().sort().values
    below = torch.searchsorted(ordered, values.double())
    not_above = torch.searchsorted(ordered, values.double(), right=True)
    return 1 - (below + not_above).double() / (2 * len(ordered))


def _rank_p_value(samples: Tensor, others: Tensor) -> float:
    """Give the one-sided p-value of Mann and Whitney's U, as a normal variable with ties."""
    s, m = len(samples), len(others)
    count = s + m
    ties = torch.cat([samples, others]).unique(return_counts=True)[1].double()
    spread = count + 1 - (ties**3 - ties).sum().item() / (count * (count - 1))
    variance = s * m / 12 * spread
    if variance <= 0:
        return 1.0
    excess = _placements(samples, others).sum().item() * m - s * m / 2 - 0.5
    return 0.5 * math.erfc(excess / math.sqrt(2 * variance))
