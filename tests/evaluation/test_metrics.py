"""Distances between feature sets, against closed forms, brute force, SciPy and other libraries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg
from torch import Tensor
from torch.testing import assert_close

from ddpm_pipeline.evaluation import metrics
from ddpm_pipeline.evaluation.metrics import (
    Moments,
    frechet_distance,
    gaussian_frechet_distance,
    kid,
    nearest_neighbors,
    precision_recall,
)

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def moments_of(features: Tensor, batch_size: int = 37) -> Moments:
    moments = Moments(features.shape[1])
    for batch in features.split(batch_size):
        moments.update(batch)
    return moments


def random_covariance(dim: int, seed: int) -> Tensor:
    mix = torch.randn(dim, dim, generator=torch.Generator().manual_seed(seed)).double()
    return mix @ mix.T


def two_sets() -> tuple[Tensor, Tensor]:
    """Correlated features, from NumPy's frozen legacy stream, that golden numbers refer to."""
    draw = np.random.RandomState(0)
    mix = draw.standard_normal((16, 16))
    first = draw.standard_normal((1000, 16)) @ mix
    second = draw.standard_normal((800, 16)) @ mix * 1.2 + 0.3
    return torch.from_numpy(first), torch.from_numpy(second)


# Moments.


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_moments_are_those_of_numpy_for_any_batches(batch_size: int) -> None:
    features, _ = two_sets()
    moments = moments_of(features, batch_size)
    assert moments.count == 1000
    assert_close(moments.mean, features.mean(0), **EXACT)
    expected = torch.from_numpy(np.cov(features.numpy(), rowvar=False))
    assert_close(moments.covariance, expected, **EXACT)


def test_merged_moments_are_those_of_all() -> None:
    features, _ = two_sets()
    merged = moments_of(features[:300])
    merged.merge(moments_of(features[300:]))
    expected = moments_of(features)
    assert merged.count == expected.count
    assert_close(merged.mean, expected.mean, **EXACT)
    assert_close(merged.covariance, expected.covariance, **EXACT)


def test_float32_features_far_from_zero_keep_their_covariance() -> None:
    features = 1000 + torch.randn(4000, 3)
    expected = torch.from_numpy(np.cov(features.double().numpy(), rowvar=False))
    assert_close(moments_of(features).covariance, expected, rtol=1e-7, atol=1e-7)


def test_moments_refuse_other_features() -> None:
    with pytest.raises(ValueError, match=r"features must be \(B, 3\), got \(5, 4\)"):
        Moments(3).update(torch.zeros(5, 4))


# The Fréchet distance.


def test_frechet_distance_of_commuting_gaussians() -> None:
    # Σ_i = Q diag(v_i) Qᵀ: the distance is |μ_1 - μ_2|² + Σ (√v_1 - √v_2)².
    q = torch.linalg.qr(random_covariance(4, 0)).Q
    v_1 = torch.tensor([4.0, 9.0, 0.25, 0.0], dtype=torch.float64)
    v_2 = torch.tensor([1.0, 16.0, 0.25, 49.0], dtype=torch.float64)
    mean = torch.tensor([1.0, -2.0, 2.0, 0.0], dtype=torch.float64)
    found = gaussian_frechet_distance(mean, q * v_1 @ q.T, torch.zeros_like(mean), q * v_2 @ q.T)
    assert_close(found.item(), 9.0 + (1 + 1 + 0 + 49), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("dim", [1, 2, 20])
def test_frechet_distance_is_that_of_scipys_square_root(dim: int) -> None:
    first, second = random_covariance(dim, 1), random_covariance(dim, 2)
    root = linalg.sqrtm((first @ second).numpy())
    expected = (first.trace() + second.trace()).item() - 2 * np.trace(root).real
    zero = torch.zeros(dim, dtype=torch.float64)
    found = gaussian_frechet_distance(zero, first, zero, second).item()
    assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_equal_sets_have_distance_zero() -> None:
    features, _ = two_sets()
    assert frechet_distance(moments_of(features), moments_of(features, 100)) < 1e-11


def test_equal_gaussians_without_full_rank_have_distance_zero() -> None:
    half = torch.randn(8, 3, dtype=torch.float64)
    mean = torch.zeros(8, dtype=torch.float64)
    assert gaussian_frechet_distance(mean, half @ half.T, mean, half @ half.T) < 1e-11


@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 10), shift=st.floats(-5, 5))
def test_frechet_distance_is_symmetric_and_moves_as_a_squared_distance(
    seed: int, scale: float, shift: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    second = 0.5 + torch.randn(50, 3, generator=generator, dtype=torch.float64) ** 3
    distance = frechet_distance(moments_of(first), moments_of(second))
    assert distance >= 0
    assert_close(frechet_distance(moments_of(second), moments_of(first)), distance)
    scaled = frechet_distance(moments_of(scale * first), moments_of(scale * second))
    assert_close(scaled, scale**2 * distance, rtol=1e-6, atol=1e-9)
    moved = frechet_distance(moments_of(first), moments_of(first + shift))
    assert_close(moved, 3 * shift**2, rtol=1e-6, atol=1e-9)


def test_frechet_distance_is_that_of_torch_fidelity() -> None:
    # fid_statistics_to_metric of torch-fidelity 0.4.0 on these features.
    first, second = two_sets()
    found = frechet_distance(moments_of(first), moments_of(second))
    assert_close(found, 15.126826104918337, rtol=1e-9, atol=0.0)


def test_frechet_distance_is_that_of_torchmetrics() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    first, second = two_sets()
    metric = FrechetInceptionDistance(feature=torch.nn.Flatten(), input_img_size=(16, 1, 1))
    metric.update(first, real=True)
    metric.update(second, real=False)
    found = frechet_distance(moments_of(first), moments_of(second))
    assert_close(found, metric.compute().item(), rtol=1e-9, atol=0.0)


def test_frechet_distance_refuses_too_few_images_and_other_features() -> None:
    few, enough = moments_of(torch.randn(16, 16)), moments_of(torch.randn(17, 16))
    with pytest.raises(ValueError, match=r"16 features needs more than 16 images .*, got 16"):
        frechet_distance(enough, few)
    with pytest.raises(ValueError, match="same features, got 16 and 2 dimensions"):
        frechet_distance(enough, moments_of(torch.randn(17, 2)))


# KID.


def test_squared_mmd_is_that_of_torch_fidelity() -> None:
    # kid_features_to_metric of torch-fidelity 0.4.0 on these features, one subset of 800.
    first, second = two_sets()
    found = metrics._squared_mmd(first[:800], second).item()
    assert_close(found, 36.05291784032363, rtol=1e-9, atol=0.0)


def test_kid_is_the_mean_over_disjoint_subsets() -> None:
    from torchmetrics.image.kid import poly_mmd

    first, second = (features[:800] for features in two_sets())
    estimate = kid(first, second, num_subsets=4, generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    x, y = (features[torch.randperm(800, generator=generator)] for features in (first, second))
    values = [poly_mmd(*pair).item() for pair in zip(x.split(200), y.split(200), strict=True)]
    assert_close(estimate.value, np.mean(values), rtol=1e-9, atol=0.0)
    assert_close(estimate.standard_error, np.std(values, ddof=1) / 2, rtol=1e-9, atol=0.0)


def test_one_pair_of_equal_size_is_that_of_torchmetrics() -> None:
    from torchmetrics.image.kid import poly_mmd

    first, second = two_sets()
    expected = poly_mmd(first[:800], second).item()
    assert_close(metrics._squared_mmd(first[:800], second).item(), expected, rtol=1e-9, atol=0.0)


@pytest.mark.parametrize(("shift", "expected"), [(0.0, 0.0), (1.0, 22.0)])
def test_kid_is_unbiased_with_an_honest_error(shift: float, expected: float) -> None:
    # In one dimension MMD² = Σ_j C(3, j) (E x^j - E y^j)²; moments 0, 1, 0 against 1, 2, 4 give
    # 3·1 + 3·1 + 1·16.
    generator = torch.Generator().manual_seed(0)
    estimates = [
        kid(
            torch.randn(60, 1, generator=generator),
            torch.randn(40, 1, generator=generator) + shift,
            num_subsets=5,
            generator=generator,
        )
        for _ in range(1500)
    ]
    values = torch.tensor([estimate.value for estimate in estimates])
    assert abs(values.mean() - expected) < 4 * values.std() / len(values) ** 0.5
    errors = torch.tensor([estimate.standard_error for estimate in estimates])
    assert_close(errors.square().mean().sqrt(), values.std(), rtol=0.15, atol=0.0)


def test_kid_of_sorted_features_is_cut_at_random() -> None:
    features = torch.linspace(-3, 3, 400).unsqueeze(1)
    generator = torch.Generator().manual_seed(0)
    estimate = kid(features, features, generator=generator)
    assert abs(estimate.value) < 4 * estimate.standard_error


def test_kid_refuses_what_it_cannot_cut() -> None:
    with pytest.raises(ValueError, match=r"num_subsets must be at least 2, .* got 10 for 19"):
        kid(torch.randn(19, 2), torch.randn(30, 2))
    with pytest.raises(ValueError, match="got 1 for 30"):
        kid(torch.randn(30, 2), torch.randn(30, 2), num_subsets=1)
    with pytest.raises(ValueError, match=r"\(30, 2\) and \(30, 3\)"):
        kid(torch.randn(30, 2), torch.randn(30, 3))


# Precision and recall.


def brute_force_share(points: np.ndarray, members: np.ndarray, k: int) -> float:
    radii = []
    for i, member in enumerate(members):
        others = [np.linalg.norm(member - x) for j, x in enumerate(members) if j != i]
        radii.append(sorted(others)[k - 1])
    inside = [
        any(np.linalg.norm(p - m) <= r for m, r in zip(members, radii, strict=True))
        for p in points
    ]
    return float(np.mean(inside))


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("batch_size", [7, 1024])
def test_precision_and_recall_by_brute_force(k: int, batch_size: int) -> None:
    real, generated = torch.randn(50, 3), 1.5 * torch.randn(40, 3) + 0.5
    expected = (
        brute_force_share(generated.numpy(), real.numpy(), k),
        brute_force_share(real.numpy(), generated.numpy(), k),
    )
    found = precision_recall(real, generated, neighbors=k, batch_size=batch_size)
    assert_close(found, expected)
    assert 0 < found[0] < 1


def test_precision_and_recall_are_those_of_torch_fidelity() -> None:
    # prc_features_to_metric of torch-fidelity 0.4.0 on these features, three neighbours.
    real, generated = two_sets()
    assert_close(precision_recall(real, generated), (0.6375, 0.973), rtol=1e-6, atol=0.0)


def test_equal_sets_are_in_each_others_manifold_and_distant_sets_are_not() -> None:
    features = torch.randn(30, 4)
    assert precision_recall(features, features) == (1.0, 1.0)
    assert precision_recall(features, features + 100) == (0.0, 0.0)


def test_a_copied_mode_is_precise_and_has_no_recall() -> None:
    real = torch.cat([torch.randn(50, 2), torch.randn(50, 2) + 100])
    precision, recall = precision_recall(real, real[:50] + 1e-3)
    assert precision == 1.0
    assert recall == 0.5


def test_precision_refuses_more_neighbors_than_images() -> None:
    with pytest.raises(ValueError, match=r"neighbors must be at least 1 .* got 3 for 3 and 9"):
        precision_recall(torch.randn(3, 2), torch.randn(9, 2))


# Nearest neighbours.


@pytest.mark.parametrize("batch_size", [2, 11, 100])
def test_nearest_neighbors_batch_by_batch_are_those_of_all(batch_size: int) -> None:
    queries, members = torch.randn(5, 3), torch.randn(40, 3)
    best = None
    for start in range(0, 40, batch_size):
        batch = members[start : start + batch_size]
        best = nearest_neighbors(queries, batch, best, start, 4)
    distances = (queries[:, None] - members).double().norm(dim=2)
    expected = distances.sort(dim=1)
    assert_close(best[0], expected.values[:, :4], rtol=1e-6, atol=1e-6)
    assert torch.equal(best[1], expected.indices[:, :4])
