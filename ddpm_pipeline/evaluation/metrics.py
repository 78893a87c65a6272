r"""Distances between two sets of images, measured in features of dimension D.

.. math::
    d^2 = \|\mu_1 - \mu_2\|^2 + \operatorname{tr}\bigl(\Sigma_1 + \Sigma_2
        - 2 (\Sigma_1 \Sigma_2)^{1/2}\bigr)
    \qquad\text{(Fréchet distance, FID in Inception features)}

    \mathrm{MMD}^2 = \mathbb E\,k(x, x') + \mathbb E\,k(y, y') - 2\,\mathbb E\,k(x, y),
    \qquad k(x, y) = (x \cdot y / D + 1)^3 \qquad\text{(KID)}

Precision is the share of generated images that lie in the manifold of real ones, recall the share
of real images in the manifold of generated ones; the manifold of a set is the union of the balls
around its members that reach to their k-th nearest neighbour.

The Fréchet distance needs sums alone (`Moments`), so any number N of images costs the same memory.
It is biased upwards by about 1 / N; KID is unbiased at any N. KID, precision and recall look at
features one by one, of as many images as the caller keeps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "KernelDistance",
    "Moments",
    "check_count",
    "frechet_distance",
    "gaussian_frechet_distance",
    "kid",
    "nearest_neighbors",
    "precision_recall",
]


@dataclass(frozen=True)
class KernelDistance:
    """An estimate of KID and its standard error."""

    value: float
    standard_error: float


class Moments:
    """Count, sum and sum of outer products of features, in float64.

    Arguments:
        dim: D.
        device: Where the sums are kept; a device with float64.
    """

    def __init__(self, dim: int, device: torch.device | str = "cpu") -> None:
        self.count = 0
        self.total = torch.zeros(dim, dtype=torch.float64, device=device)
        self.outer = torch.zeros(dim, dim, dtype=torch.float64, device=device)

    @property
    def dim(self) -> int:
        """Give D."""
        return len(self.total)

    def update(self, features: Tensor) -> None:
        """Add features (B, D).

        Raises:
            ValueError: If they have another shape.
        """
        if features.dim() != 2 or features.shape[1] != self.dim:
            raise ValueError(f"features must be (B, {self.dim}), got {tuple(features.shape)}")
        features = features.to(self.total)
        self.count += len(features)
        self.total += features.sum(0)
        self.outer.addmm_(features.T, features)

    def merge(self, other: Moments) -> None:
        """Add what another one has seen, on another process for instance."""
        self.count += other.count
        self.total += other.total.to(self.total)
        self.outer += other.outer.to(self.outer)

    def cpu(self) -> Moments:
        """Give the same sums on the CPU."""
        copy = Moments(self.dim)
        copy.merge(self)
        return copy

    @property
    def mean(self) -> Tensor:
        """Give the mean (D,), float64."""
        return self.total / self.count

    @property
    def covariance(self) -> Tensor:
        """Give the unbiased covariance (D, D), float64."""
        centred = self.outer - self.count * torch.outer(self.mean, self.mean)
        return centred / (self.count - 1)


def frechet_distance(first: Moments, second: Moments) -> float:
    """Compute the squared Fréchet distance between the Gaussians fitted to two sets of features.

    Arguments:
        first, second: Moments of the two sets.
    Returns:
        d², in the square of the features' unit; 0 for equal moments.
    Raises:
        ValueError: If the dimensions differ, or a set has no more images than features.
    Source: Heusel et al. 2017 (arXiv:1706.08500), eq. 6.
    """
    if first.dim != second.dim:
        raise ValueError(
            f"both sets must have the same features, got {first.dim} and {second.dim} dimensions"
        )
    for moments in (first, second):
        check_count(moments.count, moments.dim)
    means_and_covariances = (first.mean, first.covariance, second.mean, second.covariance)
    return gaussian_frechet_distance(*means_and_covariances).item()


def check_count(count: int, dim: int, source: str = "") -> None:
    """Refuse a covariance that could not have full rank.

    Arguments:
        count: Images.
        dim: Features.
        source: Where the count is from, for the message, such as " by num_images".
    Raises:
        ValueError: If there are no more images than features.
    """
    if count <= dim:
        raise ValueError(
            f"the Fréchet distance in {dim} features needs more than {dim} images in both sets, "
            f"got {count}{source}"
        )


def gaussian_frechet_distance(
    mean_1: Tensor, covariance_1: Tensor, mean_2: Tensor, covariance_2: Tensor
) -> Tensor:
    r"""Compute the squared Fréchet distance between two Gaussians.

    tr (Σ_1 Σ_2)^{1/2} is the sum of the singular values of Σ_1^{1/2} Σ_2^{1/2}, which stays exact
    for covariances without full rank, where the square root of a product would not.

    Arguments:
        mean_1, mean_2: (D,).
        covariance_1, covariance_2: (D, D), positive semidefinite.
    Returns:
        d², a scalar of float64.
    Source: Dowson and Landau 1982.
    """
    mean_1, covariance_1, mean_2, covariance_2 = (
        x.double().cpu() for x in (mean_1, covariance_1, mean_2, covariance_2)
    )
    roots = _square_root(covariance_1) @ _square_root(covariance_2)
    overlap = torch.linalg.svdvals(roots).sum()
    traces = covariance_1.trace() + covariance_2.trace()
    distance = (mean_1 - mean_2).square().sum() + traces - 2 * overlap
    return distance.clamp(min=0)  # rounding alone can make it negative


def _square_root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def kid(
    first: Tensor,
    second: Tensor,
    *,
    num_subsets: int = 10,
    generator: torch.Generator | None = None,
) -> KernelDistance:
    """Estimate KID, the unbiased squared MMD with the cubic kernel, and its standard error.

    Both sets are cut at random into `num_subsets` disjoint subsets. The pairs of subsets are
    independent, so that the spread of their values gives an honest error.

    Arguments:
        first, second: Features (N, D) and (M, D).
        num_subsets: How many subsets, at least 2.
        generator: Where the cut is drawn from, on the CPU.
    Returns:
        The mean over the subsets, unbiased (so it may be below 0), and its standard error.
    Raises:
        ValueError: If the dimensions differ, or a subset would have fewer than 2 images.
    Source: Bińkowski et al. 2018 (arXiv:1801.01401), section 4.
    """
    _check_features(first, second)
    smallest = min(len(first), len(second))
    if num_subsets < 2 or smallest < 2 * num_subsets:
        raise ValueError(
            f"num_subsets must be at least 2, with 2 images or more in each, got {num_subsets} "
            f"for {len(first)} and {len(second)} images"
        )
    pairs = zip(
        _cut(first, num_subsets, generator), _cut(second, num_subsets, generator), strict=True
    )
    values = torch.stack([_squared_mmd(x.double(), y.double()) for x, y in pairs])
    error = values.std() / num_subsets**0.5
    return KernelDistance(values.mean().item(), error.item())


def _cut(
    features: Tensor, num_subsets: int, generator: torch.Generator | None
) -> tuple[Tensor, ...]:
    order = torch.randperm(len(features), generator=generator).to(features.device)
    return features[order].tensor_split(num_subsets)


def _squared_mmd(x: Tensor, y: Tensor) -> Tensor:
    n, m = len(x), len(y)
    k_xx, k_yy = _cubic_kernel(x, x), _cubic_kernel(y, y)
    within_x = (k_xx.sum() - k_xx.trace()) / (n * (n - 1))
    within_y = (k_yy.sum() - k_yy.trace()) / (m * (m - 1))
    return within_x + within_y - 2 * _cubic_kernel(x, y).mean()


def _cubic_kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def precision_recall(
    real: Tensor, generated: Tensor, *, neighbors: int = 3, batch_size: int = 1024
) -> tuple[float, float]:
    """Count the share of generated images in the real manifold, and of real ones in the generated.

    Arguments:
        real, generated: Features (N, D) and (M, D).
        neighbors: k; the ball around an image reaches to its k-th nearest neighbour.
        batch_size: Rows of distances that are held at once.
    Returns:
        (precision, recall), each in [0, 1].
    Raises:
        ValueError: If the dimensions differ, or a set has no more than k images.
    Source: Kynkäänniemi et al. 2019 (arXiv:1904.06991), eq. 1-2.
    """
    _check_features(real, generated)
    if neighbors < 1 or min(len(real), len(generated)) <= neighbors:
        raise ValueError(
            f"neighbors must be at least 1 and below the images of either set, got {neighbors} "
            f"for {len(real)} and {len(generated)} images"
        )
    real, generated = real.double(), generated.double()
    precision = _share_inside(generated, real, neighbors, batch_size)
    return precision, _share_inside(real, generated, neighbors, batch_size)


def _share_inside(points: Tensor, members: Tensor, neighbors: int, batch_size: int) -> float:
    """Count the share of the points that lie in the manifold of the members."""
    radii = torch.cat(
        [  # the nearest member is the member itself
            torch.cdist(rows, members).kthvalue(neighbors + 1).values
            for rows in members.split(batch_size)
        ]
    )
    inside = [
        (torch.cdist(rows, members) <= radii).any(1).sum() for rows in points.split(batch_size)
    ]
    return torch.stack(inside).sum().item() / len(points)


def nearest_neighbors(
    queries: Tensor, members: Tensor, best: tuple[Tensor, Tensor] | None, offset: int, k: int
) -> tuple[Tensor, Tensor]:
    """Fold a further batch of a set into the k nearest members of each query seen so far.

    Arguments:
        queries: Features (Q, D).
        members: Features (B, D), members offset … offset + B - 1 of the set.
        best: What the last call returned; None at first.
        offset: How many members came before.
        k: How many are kept.
    Returns:
        (distances, indices), each (Q, k) or fewer columns while fewer members have been seen.
    """
    distances = torch.cdist(queries.double(), members.double())
    indices = torch.arange(offset, offset + len(members), device=queries.device)
    indices = indices.expand_as(distances)
    if best is not None:
        distances = torch.cat([best[0], distances], 1)
        indices = torch.cat([best[1], indices], 1)
    nearest = distances.topk(min(k, distances.shape[1]), largest=False)
    return nearest.values, indices.gather(1, nearest.indices)


def _check_features(first: Tensor, second: Tensor) -> None:
    if first.dim() != 2 or second.dim() != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(
            "features must be (N, D) and (M, D), got "
            f"{tuple(first.shape)} and {tuple(second.shape)}"
        )
