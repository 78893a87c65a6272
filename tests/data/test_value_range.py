"""What is said of values that are kept exactly; test_exact.py has what is refused."""

from __future__ import annotations

import numpy as np

from ddpm_pipeline.data.images import open_images


def test_a_description_says_the_values_and_their_levels() -> None:
    values = (np.arange(64, dtype=np.uint16) * 16 + 100).reshape(1, 8, 8)
    data = open_images(values, resolution=8, depth="exact", progress=False)
    assert "values: 100 … 1108, kept as uint16 of 4,096 levels, 16 apart" in data.describe()
    data = open_images(values.astype(np.float32), resolution=8, depth="exact", progress=False)
    assert "values: 100 … 1108, kept as float32" in data.describe()
    assert "values" not in open_images(values.astype(np.uint8), resolution=8).describe()
