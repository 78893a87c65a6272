"""Sums are kept in float64 on every device that has it."""

from __future__ import annotations

import pytest
import torch

from ddpm_pipeline.common.precision import precise_dtype


@pytest.mark.parametrize(
    ("device", "dtype"), [("cpu", torch.float64), ("cuda", torch.float64), ("mps", torch.float32)]
)
def test_only_apples_devices_lack_float64(device: str, dtype: torch.dtype) -> None:
    assert precise_dtype(torch.device(device)) == dtype
