"""Operators by name against SciPy and plain means, and others that are none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from ddpm_pipeline.pipelines import LinearOperator
from ddpm_pipeline.pipelines.tasks.operators import (
    blur,
    check_operator,
    downsampling,
    missing,
    named_operator,
)

X = torch.rand(2, 3, 8, 6, generator=torch.Generator().manual_seed(0))


def test_a_blur_is_scipys() -> None:
    for sigma in (0.6, 1.5, 4.0):
        expected = [[gaussian_filter(c.numpy(), sigma, mode="reflect") for c in x] for x in X]
        found = blur(sigma, (8, 6))(X).numpy()
        np.testing.assert_allclose(found, np.array(expected), atol=1e-6)


def test_down_sampling_is_the_mean_of_blocks() -> None:
    expected = torch.nn.functional.avg_pool2d(X, 2)
    torch.testing.assert_close(named_operator("downsample:2", (8, 6), None)(X), expected)
    torch.testing.assert_close(named_operator("downsample", (8, 6), None)(X), expected)


def test_missing_pixels_are_0() -> None:
    hole = torch.zeros(1, 1, 8, 6)
    hole[..., 2:4] = 1
    found = named_operator("missing", (8, 6), hole)(X)
    assert (found[..., 2:4] == 0).all()
    assert torch.equal(found[..., 4:], X[..., 4:])


@pytest.mark.parametrize("operator", [blur(1.0, (8, 6)), downsampling(2, (8, 6))])
def test_adjoints_are_those_of_the_matrix(operator: LinearOperator) -> None:
    eye = torch.eye(3 * 48).reshape(-1, 3, 8, 6)
    matrix = operator(eye).flatten(1).T
    u = operator(X)
    expected = (u.flatten(1) @ matrix).reshape(X.shape)
    torch.testing.assert_close(operator.transposed(u, X.shape), expected)
    by_autograd = LinearOperator(operator.forward)
    torch.testing.assert_close(by_autograd.transposed(u, X.shape), expected)
    check_operator(operator, X, u)
    check_operator(by_autograd, X, u)


def shifted(x: torch.Tensor) -> torch.Tensor:
    return x.roll(1, -1)


@pytest.mark.parametrize(
    ("forward", "adjoint", "message"),
    [
        (shifted, shifted, "adjoint does not fit: <A x, u> and <x, A\\^T u> must be equal"),
        (lambda x: 2 * x, lambda u: u, "adjoint does not fit"),
        (lambda x: x + 1, lambda u: u, "operator must be linear, got a relative error"),
        (lambda x: x.clamp(-1, 1), lambda u: u, "operator must be linear"),
        (lambda x: x - x.mean(0), lambda u: u - u.mean(0), "measure each image by itself"),
        (lambda x: x[..., :3], lambda u: u, r"y must have the shape that .* gives of each image"),
        (lambda x: x, lambda u: u[..., :3], r"adjoint must give images of shape \(3, 8, 6\)"),
    ],
)
def test_what_is_no_operator_is_refused(forward: object, adjoint: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_operator(LinearOperator(forward, adjoint), X, X)


def test_a_wrong_adjoint_is_found_in_large_images_too() -> None:
    x = torch.zeros(1, 3, 256, 256)
    check_operator(LinearOperator(shifted, lambda u: u.roll(-1, -1)), x, x)
    with pytest.raises(ValueError, match="adjoint does not fit"):
        check_operator(LinearOperator(shifted, shifted), x, x)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sharpen", "operator must be 'blur:SIGMA', 'downsample:FACTOR', 'missing'"),
        ("blur:much", "operator must have a number behind its name, got 'blur:much'"),
        ("blur:0", "operator 'blur' must have a sigma above 0, got 0"),
        ("downsample:3", "factor of at least 2 that divides the height and width 8 x 6, got 3"),
        ("downsample:1", "got 1"),
        ("downsample:2.5", "got 2.5"),
        ("missing", "mask must be given for operator 'missing'"),
        ("missing:2", "operator must be"),
    ],
)
def test_names_that_are_none_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        named_operator(text, (8, 6), None)
    assert missing(torch.ones(1, 1, 8, 6))(X).abs().max() == 0
