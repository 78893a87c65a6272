"""The cosine transform against scipy's, and what an orthonormal basis has to keep."""

from __future__ import annotations

import pytest
import scipy.fft
import torch
from helpers.device_counts import DEVICE, DeviceCounts, stand_in_device
from torch import Tensor
from torch.testing import assert_close

from ddpm_pipeline.diffusion.dct import FrequencyBasis, dct_matrix, frequency_bands, pool


def rotation(channels: int) -> Tensor:
    generator = torch.Generator().manual_seed(channels)
    return torch.linalg.qr(
        torch.randn(channels, channels, generator=generator, dtype=torch.float64)
    )[0]


def images(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize("sizes", [(8,), (7, 5), (28, 28), (3, 4, 5)])
def test_the_transform_is_scipys_in_every_axis(sizes: tuple[int, ...]) -> None:
    x = images(2, 3, *sizes)
    axes = tuple(range(2, x.ndim))
    expected = scipy.fft.dctn(x.numpy(), axes=axes, norm="ortho")
    basis = FrequencyBasis(torch.eye(3, dtype=torch.float64), sizes)
    assert_close(basis.to_frequencies(x), torch.from_numpy(expected), rtol=0, atol=1e-12)
    assert_close(basis.to_pixels(x), torch.from_numpy(
        scipy.fft.idctn(x.numpy(), axes=axes, norm="ortho")
    ), rtol=0, atol=1e-12)  # fmt: skip


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_are_combined_and_nothing_is_lost(channels: int) -> None:
    x, shares = images(2, channels, 6, 9), rotation(channels)
    basis = FrequencyBasis(shares, (6, 9))
    mixed = sum(shares[:, c, None, None] * x[:, c : c + 1] for c in range(channels))
    expected = scipy.fft.dctn(mixed.numpy(), axes=(2, 3), norm="ortho")
    assert_close(basis.to_frequencies(x), torch.from_numpy(expected), rtol=0, atol=1e-12)
    assert_close(basis.to_pixels(basis.to_frequencies(x)), x, rtol=0, atol=1e-12)


def test_a_row_is_one_frequency() -> None:
    matrix = dct_matrix(16)
    assert_close(matrix @ matrix.T, torch.eye(16, dtype=torch.float64), rtol=0, atol=1e-12)
    sign_changes = (matrix[:, :-1] * matrix[:, 1:] < 0).sum(1)
    assert sign_changes.tolist() == list(range(16))


def test_autocast_leaves_the_digits_alone() -> None:
    x = images(2, 1, 8, 8, dtype=torch.float32)
    basis = FrequencyBasis(rotation(1).abs(), (8, 8))
    expected = basis.to_frequencies(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(basis.to_frequencies(x), expected)


def test_images_of_another_shape_are_refused() -> None:
    basis = FrequencyBasis(rotation(3), (8, 8))
    for shape in ((2, 1, 8, 8), (2, 3, 8, 9), (2, 3, 8)):
        with pytest.raises(
            ValueError, match=r"of shape \(3, 8, 8\), got .*calibrate at this size"
        ):
            basis.to_pixels(images(*shape))


@pytest.mark.parametrize(("n", "count"), [(5, 9), (9, 9), (28, 14), (64, 12), (513, 14), (7, 1)])
def test_bands_are_runs_that_widen(n: int, count: int) -> None:
    band = frequency_bands(n, count)
    widths = band.bincount()
    assert len(widths) == min(n, count)
    assert widths.sum() == n
    assert (widths > 0).all()
    assert torch.equal(band, band.sort().values)
    assert (widths.diff() >= -1).all()
    assert widths[0] <= widths[-1]
    assert n > count or torch.equal(band, torch.arange(n))


def test_pooling_on_a_gpu_has_an_order() -> None:
    """The additions of index_add_ come in any order there, those of index_put_ are sorted."""
    with stand_in_device(), DeviceCounts() as counts:
        x = torch.zeros(3, 6, 7, device=DEVICE)
        found = pool(x, [frequency_bands(6, 3), frequency_bands(7, 2)])
    assert found.shape == (3, 3, 2)
    assert counts.kernels["index_put_"] == 2
    assert not counts.kernels["index_add_"]
    assert not counts.waits


def test_pooling_is_a_sum_over_the_cells_of_two_axes() -> None:
    x = images(3, 6, 7)
    rows, columns = frequency_bands(6, 3), frequency_bands(7, 2)
    found = pool(x, [rows, columns])
    assert found.shape == (3, 3, 2)
    for i in range(3):
        for j in range(2):
            cell = x[:, rows == i][:, :, columns == j]
            assert_close(found[:, i, j], cell.sum((1, 2)))


@pytest.mark.parametrize("sizes", [(9,), (6, 9), (100, 4), (3, 4, 5), (1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_coefficients_are_added_to_others(channels: int, sizes: tuple[int, ...]) -> None:
    basis = FrequencyBasis(rotation(channels).abs() if channels == 1 else rotation(3), sizes)
    x, others = images(2, channels, *sizes), images(2, channels, *sizes) + 1
    others.requires_grad_()
    found = basis.added_pixels(others, 0.25, x.clone())
    assert_close(found, 0.25 * others + basis.to_pixels(x), rtol=0, atol=1e-12)
    assert_close(basis.to_frequencies(basis.to_pixels(x)), x, rtol=0, atol=1e-12)
    found.sum().backward()
    assert_close(others.grad, torch.full_like(others, 0.25))
