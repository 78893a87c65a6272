r"""Does a model copy its training images? Two tests, from distances to the nearest images.

    found = copy_test(to_train, to_held_out, held_out_to_train, num_train=140, seed=0)
    found.share, found.standard_error, found.p_value, found.copies

n training images and m held-out ones were drawn alike, so a model that did not remember which of
them it was trained on is drawn to neither. Of the :math:`N = n + m` images together, let
:math:`w_z` be the sum, over the samples that lie nearest to image z, of
:math:`(1 - d_1 / d_{10})^2` with a sample's distances to the nearest and the tenth nearest of the
N: about 1 for a copy, little for a new image. Of k images that are equally near each gets a k-th;
a sample with ten of them says nothing. None of it asks for labels. So for a model that does not
copy the labels "training" and "held out" are a random permutation of the N images, and

.. math::
    A = \sum_{z\ \text{held out}} w_z, \qquad p = P(A_\pi \le A)

over permutations :math:`\pi` is exact, whatever the model's images look like: p is below any level
with no more than that probability. Of 9,999 permutations and the labels themselves, it stays so.

How much is copied is told by counts: c = 1 - (samples nearest to held-out images) N / (S m) is the
share of S samples that are drawn to their training image beyond chance, 0 for a model that does
not copy and 1 for one that does nothing else. Samples are shared among equally near images here
too; one that says nothing is shared among all N.

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

__all__ = ["AROUND", "LEVEL", "CopyTest", "NearestPairs", "copy_test", "nearer"]

LEVEL = 0.05
"""A model is said to copy when the p-value is below this."""

AROUND = 10
"""A sample's distance to its nearest image is seen beside that to the one of this rank."""

_PERMUTATIONS = 9_999
_AT_ONCE = 2**22  # numbers that are permuted at a time
_SAME = 1e-5  # a difference of distances that counts as none, beside d_10


class NearestPairs(NamedTuple):
    """The nearest image of a set to each of some others.

    Arguments:
        distances: float64 (Q,).
        numbers: Which image of the set it is, int64 (Q,).
        around: Distances to the AROUND nearest images of the set, ascending, float64 (Q, AROUND);
            infinite where the set has fewer.
        around_numbers: Which images of the set these are, int64 (Q, AROUND).
    """

    distances: Tensor
    numbers: Tensor
    around: Tensor
    around_numbers: Tensor


@dataclass(frozen=True, kw_only=True)
class CopyTest:
    """What the two tests found."""

    share: float
    """Samples that are drawn to their training image beyond chance: 0 for none, 1 for all."""
    standard_error: float
    p_value: float
    """Chance of samples so close to training images, or closer, for a model that does not copy."""
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
    sizes = num_train, num_held_out
    if num_samples < 1 or num_held_out < 2 or num_train < 1:
        raise ValueError(
            "the test of copying needs a sample, two held-out images and a training image at "
            f"least, got {num_samples}, {num_held_out} and {num_train}"
        )
    nearest = _Nearest.of(to_train, to_held_out, sizes)
    counts = nearest.weights(torch.ones(num_samples, dtype=torch.float64), sizes)
    close = nearest.weights(nearest.closeness, sizes)
    expected = num_samples * num_held_out / (num_train + num_held_out)
    value, error = nearer(to_train.distances, held_out_to_train)
    return CopyTest(
        share=1 - counts[1].sum().item() / expected,
        standard_error=_error(*counts) / expected,
        p_value=_permutation_p_value(*close, seed),
        nearer=value,
        nearer_standard_error=error,
        nearer_p_value=_rank_p_value(to_train.distances, held_out_to_train),
        num_samples=num_samples,
        num_train=num_train,
        num_held_out=num_held_out,
    )


class _Nearest(NamedTuple):
    """The images of both sets that are nearest to each sample; which set they are of is no matter.

    Arguments:
        numbers: Which of the N images, training images first, int64 (S, 2 AROUND).
        shares: What each of them has of the sample, float64 (S, 2 AROUND), with sum 1; 0 for all
            if there are too many to know them.
        closeness: (1 - d_1 / d_10)², float64 (S,); 0 if there are too many.
    """

    numbers: Tensor
    shares: Tensor
    closeness: Tensor

    @classmethod
    def of(
        cls, to_train: NearestPairs, to_held_out: NearestPairs, sizes: tuple[int, int]
    ) -> _Nearest:
        """Find them."""
        around = torch.cat([to_train.around, to_held_out.around], 1).double()
        numbers = [to_train.around_numbers, sizes[0] + to_held_out.around_numbers]
        ranked = around.topk(min(AROUND, sum(sizes)), largest=False).values
        first, tenth = ranked.amin(1, keepdim=True), ranked.amax(1, keepdim=True)
        is_nearest = around - first <= _SAME * tenth
        count = is_nearest.sum(1, keepdim=True)
        is_known = count < AROUND
        ratio = first / tenth.clamp_min(torch.finfo(torch.double).tiny)
        closeness = (is_known * (1 - ratio).square())[:, 0]
        return cls(torch.cat(numbers, 1), is_known * is_nearest / count.double(), closeness)

    def weights(self, of_samples: Tensor, sizes: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Sum up what each training image and each held-out one has of the samples.

        Arguments:
            of_samples: What a sample counts, float64 (S,).
            sizes: n and m.
        """
        shared = of_samples[:, None] * self.shares
        weights = torch.zeros(sum(sizes), dtype=torch.float64)
        weights.index_add_(0, self.numbers.flatten(), shared.flatten())
        weights += of_samples[~self.shares.any(1)].sum() / sum(sizes)
        return tuple(weights.split(sizes))


def _error(train: Tensor, held_out: Tensor) -> float:
    """Estimate the standard error of A, for images of either set drawn anew.

    A = S q for the share q = A / (A + B) of two independent sums; that of one sample at least.
    Where one of the sets has no sample there is no spread to see: it is then what one image more
    would change, by the mean over samples of what their image has.
    """
    q = (held_out.sum() / (held_out.sum() + train.sum())).item()
    variance = (1 - q) ** 2 * _variance_of_sum(held_out) + q**2 * _variance_of_sum(train)
    least = 1.0
    if not (train.any() and held_out.any()):
        weights = torch.cat([train, held_out])
        least = max(least, (weights.square().sum() / weights.sum()).item())
    return math.sqrt(max(variance, least**2))


def _variance_of_sum(weights: Tensor) -> float:
    return len(weights) * weights.var().item() if len(weights) > 1 else 0.0


def _permutation_p_value(train: Tensor, held_out: Tensor, seed: int) -> float:
    """Count the permutations of the labels that leave so little to held-out images.

    Only images with a weight change the sum: how many of them are held out is hypergeometric, and
    which ones, a random choice.
    """
    weights, draws = torch.cat([train, held_out]).numpy(), np.random.default_rng(seed)
    some = weights[weights > 0]
    counts = draws.hypergeometric(
        len(some), len(weights) - len(some), len(held_out), size=_PERMUTATIONS
    )
    most = held_out.sum().item() + 1e-9 * some.sum()  # equal sums of another order
    at_most, rows = 0, max(1, _AT_ONCE // (len(some) + 1))
    for part in np.split(counts, range(rows, len(counts), rows)):
        order = draws.permuted(np.tile(some, (len(part), 1)), axis=1)
        sums = np.pad(order.cumsum(1), ((0, 0), (1, 0)))
        at_most += (sums[np.arange(len(part)), part] <= most).sum()
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
