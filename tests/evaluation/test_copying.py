"""The test of copying: its statistics against other programs, its level and its power."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from ddpm_pipeline.evaluation.copying import (
    AROUND,
    CopyTest,
    NearestPairs,
    _error,
    copy_test,
    nearer,
)
from ddpm_pipeline.evaluation.nearest import NearestOfMany

DIM = 4
SLOW = [pytest.mark.slow, pytest.mark.timeout(600)]


def nearest(queries: torch.Tensor, members: torch.Tensor) -> NearestPairs:
    found = NearestOfMany(queries)
    found.add(members, 0)
    return found.pairs()


def found_in(samples: torch.Tensor, train: torch.Tensor, held_out: torch.Tensor) -> CopyTest:
    return copy_test(
        nearest(samples, train),
        nearest(samples, held_out),
        nearest(held_out, train).distances,
        num_train=len(train),
    )


def normal(count: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    return scale * torch.randn(count, DIM, generator=draws, dtype=torch.float64)


def test_ranks_are_those_of_mann_and_whitney_with_ties() -> None:
    draws = np.random.default_rng(0)
    first = torch.from_numpy(draws.integers(0, 12, 60).astype(float))
    second = torch.from_numpy(draws.integers(1, 14, 25).astype(float))
    expected = stats.mannwhitneyu(first, second, alternative="less", method="asymptotic")
    zeros = torch.zeros((60, AROUND), dtype=torch.int64)
    pairs = NearestPairs(first, zeros[:, 0], first[:, None].expand(60, AROUND), zeros)
    far = pairs._replace(distances=first + 1, around=pairs.around + 1)
    found = copy_test(pairs, far, second, num_train=1)
    assert found.nearer_p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.nearer == pytest.approx(1 - expected.statistic / (60 * 25), rel=1e-12)


def test_the_error_of_the_probability_is_its_spread() -> None:
    draws = np.random.default_rng(1)
    found = [
        nearer(
            torch.from_numpy(draws.normal(0, 1, 40)), torch.from_numpy(draws.normal(0.5, 2, 25))
        )
        for _ in range(400)
    ]
    values, errors = np.array(found).T
    expected = stats.norm.cdf(0.5 / np.sqrt(1 + 4))
    assert abs(values.mean() - expected) < 4 * values.std() / 20
    assert errors.mean() == pytest.approx(values.std(), rel=0.15)


@pytest.mark.parametrize("times", [1, 3, 6])
def test_the_p_value_is_that_of_all_permutations(times: int) -> None:
    """Brute force: every choice of the held-out images among twelve, and their weights."""
    which = torch.arange(12)[torch.randperm(12, generator=torch.Generator().manual_seed(1))]
    which //= times
    images, samples = normal(12 // times, 0)[which], normal(9, 2)
    distances = torch.cdist(samples, images)
    nearest, tenth = distances.min(1), distances.sort(1).values[:, 9]
    weights, counts = torch.zeros((2, 12), dtype=torch.float64)
    for number, distance, other in zip(nearest.indices, nearest.values, tenth, strict=True):
        equal = (which == which[number]).double()
        weights += equal / equal.sum() * (1 - distance / other) ** 2
        counts += equal / equal.sum()
    observed = weights[9:].sum() + 1e-12
    sums = [weights[list(chosen)].sum() for chosen in itertools.combinations(range(12), 3)]
    expected = np.mean([value <= observed for value in sums])
    found = found_in(samples, images[:9], images[9:])
    assert found.p_value == pytest.approx(expected, abs=0.02)
    assert found.share == pytest.approx(1 - counts[9:].sum().item() / (9 * 3 / 12))


def test_few_copies_among_many_new_images_are_found() -> None:
    """A twentieth of the samples is copies; their count alone tells one in four times or so."""
    found = []
    for i in range(10):
        train, held_out = normal(140, 3 * i), normal(300, 3 * i + 1)
        samples = normal(400, 1000 + i)
        samples[:20] = train[:20] + normal(20, 2000 + i, 0.01)
        found.append(found_in(samples, train, held_out))
    assert np.mean([one.copies for one in found]) >= 0.9
    assert np.mean([one.share > 1.64 * one.standard_error for one in found]) < 0.7


def test_copies_of_an_image_that_is_there_many_times_are_copies() -> None:
    train, held_out, samples = normal(140, 0), normal(100, 1), normal(200, 2)
    train[:8] = train[0]
    samples[:20] = train[0]
    samples[20:40] = train[20:40]
    assert found_in(samples, train, held_out).p_value < 0.001


@pytest.mark.parametrize(
    ("scale", "runs"),
    [
        *((scale, 100) for scale in (1.0, 0.5, 2.0)),
        *(pytest.param(scale, 3000, marks=SLOW) for scale in (1.0, 0.5, 2.0)),
    ],
)
def test_a_model_that_does_not_copy_is_flagged_as_seldom_as_the_level_says(
    scale: float, runs: int
) -> None:
    """Also one whose images are less varied than real ones, or more: 0.5 and 2."""
    found = [
        found_in(normal(80, 3 * i, scale), normal(60, 3 * i + 1), normal(25, 3 * i + 2))
        for i in range(runs)
    ]
    p = np.array([one.p_value for one in found])
    for level in (0.01, 0.05, 0.2):
        most = stats.binom.ppf(0.9995, len(p), level) / len(p)
        assert (p <= level).mean() <= most
    # Few held-out images leave few values of p, each of which counts all that is as likely.
    assert 0.5 - 2 / np.sqrt(runs) < np.median(p) < 0.6 + 1 / np.sqrt(runs)
    shares = np.array([one.share for one in found])
    errors = np.array([one.standard_error for one in found])
    assert abs(shares.mean()) < 4 * shares.std() / np.sqrt(len(shares))
    assert errors.mean() == pytest.approx(shares.std(), rel=0.25)


def test_the_error_of_the_share_is_its_spread_with_many_samples_of_few_images() -> None:
    """5,000 samples on 95 + 5 images at random: each image has about fifty of them."""
    draws = np.random.default_rng(0)
    found = []
    for _ in range(200):
        counts = torch.from_numpy(draws.multinomial(5000, [0.01] * 100)).double()
        held_out = counts[95:].sum().item()
        found.append((1 - held_out / 250, _error(counts[:95], counts[95:]) / 250))
    shares, errors = np.array(found).T
    assert errors.mean() == pytest.approx(shares.std(), rel=0.3)


def test_samples_that_all_lie_near_one_image_leave_the_share_open() -> None:
    """An untrained model: 65 blurs, all far from all images and nearest to the same one."""
    train, held_out = normal(540, 0), normal(60, 1)
    far = torch.full((1, train.shape[1]), 9.0, dtype=train.dtype)
    train[7], samples = far, 2 * far + normal(65, 2)
    found = found_in(samples, train, held_out)
    assert not found.copies
    assert found.share == pytest.approx(1)
    assert found.standard_error == pytest.approx(65 / 6.5)  # of one image more, which has all
    train[7], held_out[0] = held_out[0].clone(), train[7].clone()
    assert found_in(samples, train, held_out).share < -5


def test_less_varied_samples_are_nearer_without_being_copies() -> None:
    """Why the distances alone do not decide."""
    found = [
        found_in(normal(80, 3 * i, 0.5), normal(60, 3 * i + 1), normal(25, 3 * i + 2))
        for i in range(50)
    ]
    assert np.mean([one.nearer_p_value < 0.01 for one in found]) > 0.6
    assert np.mean([one.p_value < 0.01 for one in found]) <= 0.06


def test_copies_are_found_and_their_share_is_told() -> None:
    for share, least in ((1.0, 1.0), (0.5, 0.9)):
        found = []
        for i in range(20):
            train, held_out = normal(140, 3 * i), normal(60, 3 * i + 1)
            count = round(share * 500)
            samples = normal(500, 1000 + i)
            chosen = torch.randint(140, (count,), generator=torch.Generator().manual_seed(i))
            samples[:count] = train[chosen] + normal(count, 2000 + i, 0.01)
            found.append(found_in(samples, train, held_out))
        assert np.mean([one.copies for one in found]) >= least
        assert np.mean([one.share for one in found]) == pytest.approx(share, abs=0.06)


@pytest.mark.parametrize("splits", [200, pytest.param(3000, marks=SLOW)])
def test_images_that_are_there_several_times_raise_no_alarm(splits: int) -> None:
    """Each four times, and few of them trained on: what is equal falls on both sides."""
    p = []
    for i in range(splits):
        order = torch.randperm(48, generator=torch.Generator().manual_seed(i))
        images = normal(12, 2 * i).repeat(4, 1)[order]
        p.append(found_in(normal(60, 2 * i + 1), images[:8], images[8:]).p_value)
    for level in (0.01, 0.05, 0.2):
        assert np.mean(np.array(p) <= level) <= stats.binom.ppf(0.9995, splits, level) / splits


def test_ten_equal_images_or_more_say_nothing() -> None:
    same = normal(1, 0).expand(12, DIM)
    train, held_out = torch.cat([normal(20, 1), same[:11]]), torch.cat([normal(8, 2), same[11:]])
    found = found_in(same, train, held_out)
    assert found.share == pytest.approx(0, abs=1e-12)
    assert found.p_value == 1


def test_images_in_both_sets_count_half_for_each() -> None:
    """A model that copies only what both sets hold has copied nothing that tells them apart."""
    both = normal(30, 0)
    found = found_in(both[torch.arange(90) % 30], both, both)
    assert found.share == 0.0
    assert found.p_value > 0.2
    assert not found.copies


def test_equal_distances_everywhere_say_nothing() -> None:
    same = torch.zeros(5, DIM, dtype=torch.float64)
    found = found_in(same, same, same)
    assert (found.share, found.nearer, found.nearer_p_value) == (0.0, 0.5, 1.0)
    assert found.p_value > 0.2


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"two held-out images .* got 3, 1 and 4"):
        found_in(normal(3, 0), normal(4, 1), normal(1, 2))


def test_nearest_of_many_is_brute_force() -> None:
    queries, members = normal(90, 0).float(), normal(500, 1).float()
    members[77] = queries[3]
    found = NearestOfMany(queries)
    for start in range(0, 500, 60):
        found.add(members[start : start + 60], start)
    pairs = found.pairs()
    expected = (queries.double()[:, None] - members.double()).norm(dim=2).min(1)
    assert torch.equal(pairs.numbers, expected.indices)
    assert_close(pairs.distances, expected.values, rtol=1e-12, atol=1e-12)
    assert pairs.distances[3] == 0
    around = torch.cdist(queries.double(), members.double()).sort(1)
    assert_close(pairs.around, around.values[:, :AROUND], rtol=1e-6, atol=1e-6)
    assert torch.equal(pairs.around_numbers, around.indices[:, :AROUND])
