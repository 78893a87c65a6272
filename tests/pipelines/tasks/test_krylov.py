"""Linear algebra by products alone, against the matrices themselves."""

from __future__ import annotations

import torch

from ddpm_pipeline.pipelines.tasks.krylov import conjugate_gradients, root_product


def spd(count: int, size: int, low: float = 1e-3) -> torch.Tensor:
    source = torch.Generator().manual_seed(0)
    q = torch.linalg.qr(torch.randn(count, size, size, generator=source, dtype=torch.float64)).Q
    values = torch.rand(count, size, generator=source, dtype=torch.float64) + low
    return q * values[:, None] @ q.mT


def times(matrix: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return (matrix @ x.flatten(1)[..., None]).reshape(x.shape)


X = torch.randn(5, 1, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
M = spd(5, 12)


def solved(matrix: torch.Tensor, x: torch.Tensor, **options: object) -> torch.Tensor:
    how = {"iterations": 50, "tolerance": 1e-10, **options}
    return conjugate_gradients(lambda u: (times(matrix, u), 2 * u), x, torch.zeros_like(x), **how)


def test_systems_are_solved_and_what_is_carried_is_their_image() -> None:
    expected = 2 * torch.linalg.solve(M, X.flatten(1)[..., None]).reshape(X.shape)
    torch.testing.assert_close(solved(M, X), expected, rtol=1e-7, atol=1e-7)


def test_the_root_is_that_of_the_matrix() -> None:
    values, vectors = torch.linalg.eigh(M)
    expected = times(vectors * values.sqrt()[:, None] @ vectors.mT, X)
    found = root_product(lambda v: times(M, v), X, iterations=12, tolerance=1e-12)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)
    few = root_product(lambda v: times(M, v), X, iterations=50, tolerance=0.01)
    assert 0 < (few - expected).norm() < 0.03 * expected.norm()


def test_an_image_does_not_depend_on_the_others() -> None:
    for found in (
        lambda m, x: solved(m, x, tolerance=0.05),
        lambda m, x: root_product(lambda v: times(m, v), x, iterations=9, tolerance=0.05),
    ):
        together = found(M, X)
        for i in range(len(X)):
            torch.testing.assert_close(found(M[i : i + 1], X[i : i + 1]), together[i : i + 1])


def test_nothing_breaks_where_there_is_nothing_to_solve() -> None:
    zero = torch.zeros_like(X)
    assert torch.equal(solved(M, zero), zero)
    assert torch.equal(solved(-M, X), zero)  # not positive: nothing is added
    assert torch.equal(root_product(lambda v: 0 * v, X, iterations=5, tolerance=1e-3), zero)
    assert torch.equal(root_product(lambda v: v, zero, iterations=5, tolerance=1e-3), zero)
    found = root_product(lambda v: 4 * v, X, iterations=5, tolerance=1e-3)
    torch.testing.assert_close(found, 2 * X)
    assert root_product(lambda v: times(-M, v), X, iterations=12, tolerance=1e-9).norm() < 1e-6
