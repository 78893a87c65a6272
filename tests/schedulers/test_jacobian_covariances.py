"""The benchmark's covariances by Jacobians, on data whose covariance is known."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from helpers.coloured_noise import SHAPE as COLOURS
from helpers.coloured_noise import coloured_scheduler
from jacobian_covariances import Walk, by_lanczos, by_one_product, jacobian_times, rings_of
from torch import Tensor

from ddpm_pipeline.common.randomness import seeded_generator
from ddpm_pipeline.diffusion import FrequencyBasis

N, SHAPE = 10_000, (1, 4, 4)


def symmetric(eigenvalues: list[float]) -> Tensor:
    g = torch.Generator().manual_seed(0)
    q = torch.linalg.qr(torch.randn(16, 16, generator=g, dtype=torch.float64))[0]
    return q @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ q.T


def product(matrix: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda v: (v.flatten(1) @ matrix).view_as(v)


def drawn(count: int = N) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1)).double()


def test_lanczos_is_exact_with_as_many_steps_as_there_are_eigenvalues() -> None:
    matrix = symmetric([0.3] * 6 + [1.0] * 5 + [4.0] * 5)
    values, vectors = torch.linalg.eigh(matrix)
    z = drawn(50)
    expected = z.flatten(1) @ (vectors * (0.5 + values).sqrt() @ vectors.T)
    found = by_lanczos(product(matrix), lambda c: (0.5 + c).sqrt(), z)
    assert torch.allclose(found.flatten(1), expected, atol=1e-9)


def test_lanczos_comes_nearer_with_every_step() -> None:
    matrix = symmetric([0.01 * 1.6**k for k in range(16)])
    values, vectors = torch.linalg.eigh(matrix)
    z = drawn(50)
    expected = z.flatten(1) @ (vectors * values.sqrt() @ vectors.T)
    errors = [
        (by_lanczos(product(matrix), torch.sqrt, z, steps=k).flatten(1) - expected).norm().item()
        for k in (1, 2, 3, 5)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 4


def test_one_product_estimates_a_variance_for_each_ring() -> None:
    basis = FrequencyBasis(torch.eye(1, dtype=torch.float64), (4, 4))
    rings = rings_of(SHAPE)
    by_ring = torch.linspace(2.0, 0.1, int(rings.max()) + 1, dtype=torch.float64)

    def covariance(v: Tensor) -> Tensor:
        return basis.to_pixels(by_ring[rings] * basis.to_frequencies(v))

    signs = drawn().roll(1, 0).sign()
    noise = by_one_product(basis, rings, covariance, drawn(), signs)
    second_moment = basis.to_frequencies(noise).square().mean(0)
    assert torch.allclose(second_moment, by_ring[rings], rtol=0.08)


def test_rings_grow_with_frequency_and_none_is_empty() -> None:
    rings = rings_of((3, 28, 28))
    assert rings.shape == (3, 28, 28)
    assert rings[:, 0, 0].tolist() == [0, rings[0].max() + 1, 2 * (rings[0].max() + 1)]
    assert (rings.flatten().bincount() > 0).all()
    assert (rings[0, 0].diff() >= 0).all()
    assert (rings[0].diff(dim=0) >= 0).all()


@pytest.mark.parametrize(("method", "calls"), [("one product", 8), ("Lanczos", 16)])
def test_every_call_counts(method: str, calls: int) -> None:
    """Of 4 steps the two in the middle take products, of two calls each."""
    scheduler, data = coloured_scheduler(rescale_betas_zero_snr=True)
    made = []

    def counted(x: Tensor, t: Tensor) -> Tensor:
        made.append(t)
        return data(x, t)

    walk = Walk(counted, scheduler, method)
    assert walk.images(2, 4, seeded_generator(0)).isfinite().all()
    assert walk.calls == len(made) == calls


def test_a_product_is_that_of_automatic_differentiation() -> None:
    x, v = drawn(8), drawn(8).roll(1, 0) / 30
    matrix = symmetric([0.1 * k for k in range(16)])

    def f(x: Tensor) -> Tensor:
        return (x.flatten(1) @ matrix).view_as(x).tanh()

    expected = torch.func.jvp(f, (x,), (v,))[1]
    assert torch.allclose(jacobian_times(f, x, v), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", ["one product", "Lanczos"])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_few_steps_draw_gaussian_data_nearly_right(method: str, zero_snr: bool) -> None:
    scheduler, data = coloured_scheduler(rescale_betas_zero_snr=zero_snr)
    scheduler.set_timesteps(4)
    walk, generator, count = Walk(data, scheduler, method), seeded_generator(0), 3000
    x = torch.randn(count, *COLOURS, generator=generator, dtype=torch.float64)
    for t, s in pairwise(map(int, scheduler.timesteps)):
        x = walk.step(x, t, s, generator)
    found = data.basis.to_frequencies(x).var(0)
    expected = data.marginal_variance(scheduler.timesteps[-1])
    # 162 estimates with a standard error of 2.6 % each.
    assert (found / expected - 1).abs().max() < 0.12
    assert (found.sum() / expected.sum()).item() == pytest.approx(1, abs=0.02)
