"""The few operations on tensors that every formula of this folder is written with.

    broadcast(alpha_bar, x_0)        (B,) as (B, 1, 1, 1), in the dtype and on the device of x_0
    combine(a, x_0, b, x_t)          a x_0 + b x_t, the form of every mean
    sum_elements(nats)               (B, C, H, W) to (B,), in float64
    add_rows_(sums, t, values)       (B, *) into the rows t of (T, *)

Coefficients are floats or tensors that broadcast against the data.
"""

import torch
from torch import Tensor

from ddpm_pipeline.common import precise_dtype

__all__ = [
    "Coefficient",
    "add_rows_",
    "add_scaled_",
    "add_sorted_rows_",
    "broadcast",
    "combine",
    "sum_elements",
]


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


def add_rows_(sums: Tensor, t: Tensor, values: Tensor) -> None:
    """Add values to the rows t of sums, with the same digits every time.

    On a CPU one comes after the other. On a GPU the additions of ``index_add_`` would come in any
    order.

    Arguments:
        sums: Added to, shape (T, *).
        t: Rows, int64, shape (B,).
        values: Shape (B, *).
    """
    if t.device.type == "cpu":
        sums.index_add_(0, t, values)
    else:
        add_sorted_rows_(sums, t, values)


def add_sorted_rows_(sums: Tensor, t: Tensor, values: Tensor) -> None:
    """Add values as ``add_rows_`` does on a GPU, where ``index_put_`` sorts the rows first."""
    sums.index_put_((t,), values, accumulate=True)
