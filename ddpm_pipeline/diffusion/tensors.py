"""TODO diffusion.tensors."""

import torch
from torch import Tensor

__all__ = ["broadcast"]


Coefficient = float | Tensor


def broadcast(coefficient: Tensor, x: Tensor) -> Tensor:
    """A per-example coefficient, shape () or (B,), as (B, 1, ..., 1) in x's dtype and device.

    Half-precision x gets float32 coefficients: bfloat16 cannot hold 1 - 1e-4.
    """
    dtype = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
    coefficient = coefficient.to(x.device, dtype)
    return coefficient.reshape(-1, *[1] * (x.ndim - 1)) if coefficient.ndim else coefficient


def add_scaled_(x: Tensor, b: Coefficient, y: Tensor) -> Tensor:
    """x + b y in place, in one kernel, for a float or a broadcastable tensor b."""
    return x.addcmul_(b, y.to(b.dtype)) if isinstance(b, Tensor) else x.add_(y, alpha=b)


def combine(a: Coefficient, x: Tensor, b: Coefficient, y: Tensor) -> Tensor:
    """a x + b y in the dtype of the coefficients."""
    return add_scaled_(torch.mul(x.to(a.dtype) if isinstance(a, Tensor) else x, a), b, y)
