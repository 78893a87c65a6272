"""The few operations on tensors that every formula of this folder is written with.

    broadcast(alpha_bar, x_0)        (B,) as (B, 1, 1, 1), in the dtype and on the device of x_0
    combine(a, x_0, b, x_t)          a x_0 + b x_t, the form of every mean
    sum_elements(nats)               (B, C, H, W) to (B,), in float64

Coefficients are floats or tensors that broadcast against the data.
"""

import torch
from torch import Tensor

from ddpm_pipeline.common import precise_dtype

__all__ = ["Coefficient", "add_scaled_", "broadcast", "combine", "sum_elements"]


Coefficient = float | Tensor


def broadcast(coefficient: Tensor, x: Tensor) -> Tensor:
    """Shape a per-example coefficient, () or (B,), as (B, 1, ..., 1) in x's dtype and device.

    Half-precision x gets float32 coefficients: bfloat16 cannot hold 1 - 1e-4.
    """
    dtype = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
    coefficient = coefficient.to(x.device, dtype)
    return coefficient.reshape(-1, *[1] * (x.ndim - 1)) if coefficient.ndim else coefficient


def add_scaled_(x: Tensor, b: Coefficient, y: Tensor) -> Tensor:
    """Add b y to x in place, in one kernel, for a float or a broadcastable tensor b."""
    return x.addcmul_(b, y.to(b.dtype)) if isinstance(b, Tensor) else x.add_(y, alpha=b)


def combine(a: Coefficient, x: Tensor, b: Coefficient, y: Tensor) -> Tensor:
    """Give a x + b y in the dtype of the coefficients."""
    return add_scaled_(torch.mul(x.to(a.dtype) if isinstance(a, Tensor) else x, a), b, y)


def sum_elements(x: Tensor) -> Tensor:
    """Sum over all but the first axis, in float64 (float32 on devices without it)."""
    return x.flatten(1).sum(1, dtype=precise_dtype(x.device))
