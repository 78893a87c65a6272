"""The order of the bytes of packed TIFF files."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.raw_images import tiff

from ddpm_pipeline.data.byte_order import is_swapped
from ddpm_pipeline.data.decoding import Preparation, decode
from ddpm_pipeline.data.depth import open_image
from ddpm_pipeline.data.inspection import inspect_image


@pytest.mark.parametrize(("dtype", "kind"), [("uint16", 1), ("int16", 2), ("float32", 3)])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflate", [False, True])
def test_values_come_out_as_they_went_in(dtype: str, kind: int, order: str, deflate: bool) -> None:
    values = (np.arange(64).reshape(8, 8, 1) * 301 - 9000 * (kind > 1)).astype(dtype)
    bits = 8 * values.dtype.itemsize
    raw = tiff(values, bits, sample_format=kind, order=order, deflate=deflate)
    decoded, _ = decode(raw, Preparation(8, 1, depth="exact"))
    np.testing.assert_array_equal(decoded[0], values[..., 0])


def test_what_was_cached_turned_round_is_not_believed() -> None:
    values, settings = np.ones((8, 8, 1), np.float32), Preparation(8, depth="exact")
    for order, deflate in ((">", True), (">", False), ("<", True)):
        raw = tiff(values, 32, sample_format=3, order=order, deflate=deflate)
        swapped = order == ">" and deflate
        assert is_swapped(open_image(raw)) == swapped
        assert inspect_image(raw, settings).digest.endswith(b", unswapped") == swapped
