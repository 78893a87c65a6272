"""What is measured of the values of all images: moments, and the step of their levels."""

from __future__ import annotations

import time
from fractions import Fraction
from itertools import combinations
from math import gcd
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpm_pipeline.data import open_images
from ddpm_pipeline.data.moments import ValueMeter, ValueMoments


def metered(images: list[np.ndarray]) -> dict:
    """What the meter says of images that need no decoding."""
    meter = ValueMeter(lambda raw: (raw, ()), images[0].dtype.name)
    for image in images:
        _, _, moments = meter(image)
        meter.add(moments)
    return meter.to_json()


levels = st.one_of(
    st.lists(st.lists(st.integers(0, 65535), min_size=1, max_size=5), min_size=1, max_size=4),
    st.integers(1, 300).flatmap(
        lambda step: st.lists(
            st.lists(st.integers(0, 200).map(lambda k: 13 + step * k), min_size=1, max_size=4),
            min_size=1,
            max_size=4,
        )
    ),
)


@given(levels, st.sampled_from(["uint16", "int16"]))
def test_the_step_divides_all_differences_and_is_the_largest(
    lists: list[list[int]], dtype: str
) -> None:
    shift = 32768 if dtype == "int16" else 0
    images = [np.array([[values]]).astype(np.int64) - shift for values in lists]
    everything = {v for values in lists for v in values}
    wanted = gcd(*(abs(a - b) for a, b in combinations(everything, 2))) or 1
    assert metered([image.astype(dtype) for image in images])["step"] == wanted


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32", "float16"])
def test_moments_are_those_of_exact_arithmetic(dtype: str) -> None:
    rng = np.random.default_rng(0)
    images = [(rng.normal(500, 100, (2, 4, 5))).astype(dtype) for _ in range(3)]
    found = ValueMoments.from_json(metered(images)["moments"])
    assert found.count == 60
    for channel in range(2):
        values = [Fraction(float(v)) for image in images for v in image[channel].flat]
        mean = sum(values) / 60
        assert found.mean[channel] == pytest.approx(float(mean), rel=1e-14)
        squares = float(sum((v - mean) ** 2 for v in values))
        assert found.squares[channel] == pytest.approx(squares, rel=1e-12)
        assert (found.low[channel], found.high[channel]) == (min(values), max(values))


@pytest.mark.slow
def test_exact_values_are_prepared_as_fast_as_bytes(tmp_path: Path) -> None:
    """Processor time for each byte of the cache; 1.2 times that of bytes when it was written."""
    rng = np.random.default_rng(0)
    cases = {"uint8": "bytes", "uint16": "exact", "float32": "exact"}
    for dtype in cases:
        np.save(tmp_path / f"{dtype}.npy", rng.integers(0, 256, (1000, 64, 64)).astype(dtype))
    taken: dict[str, float] = dict.fromkeys(cases, np.inf)
    for turn in range(4):
        for dtype, depth in cases.items():
            began = time.process_time()
            open_images(
                tmp_path / f"{dtype}.npy",
                resolution=64,
                depth=depth,
                cache_dir=tmp_path / f"{dtype}-{turn}",
                num_threads=1,
                progress=False,
            )
            used = (time.process_time() - began) / np.dtype(dtype).itemsize
            taken[dtype] = min(taken[dtype], used)
    assert taken["uint16"] < 1.6 * taken["uint8"]
    assert taken["float32"] < 1.6 * taken["uint8"]
