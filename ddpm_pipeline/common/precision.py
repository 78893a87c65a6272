"""The floating-point type in which long sums are kept, by device."""

from __future__ import annotations

import torch

__all__ = ["precise_dtype"]


def precise_dtype(device: torch.device) -> torch.dtype:
    """Give float64, or float32 on devices without it, such as Apple's."""
    return torch.float32 if device.type == "mps" else torch.float64
