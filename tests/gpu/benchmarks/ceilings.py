"""What the device can do: products of matrices, copies, launches."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from gpu.found import spread

from ddpm_pipeline.common import float32_arithmetic

if TYPE_CHECKING:
    from gpu.found import Found
    from gpu.place import Place

__all__ = ["matmul_flops", "seconds_of"]


def seconds_of(
    call: Callable[[], object], place: Place, *, repeats: int, calls: int
) -> list[float]:
    """Seconds of a call, as the mean of several; so many times, after two that warm up."""
    for _ in range(2):
        call()
    found = []
    for _ in range(repeats):
        place.wait()
        began = time.perf_counter()
        for _ in range(calls):
            call()
        place.wait()
        found.append((time.perf_counter() - began) / calls)
    return found


def matmul_flops(place: Place, dtype: torch.dtype, *, tf32: bool = False) -> list[float]:
    """FLOP/s of a large product, several times."""
    side = place.pick(8192, 64)
    a = torch.randn(side, side, device=place.device, dtype=dtype)
    with float32_arithmetic(tf32=tf32):
        times = seconds_of(lambda: a @ a, place, repeats=5, calls=place.pick(10, 1))
    return [2 * side**3 / seconds for seconds in times]


def ceilings(place: Place, found: Found) -> None:
    found.table("what", "median", "lowest", "highest", "unit")
    kinds = {
        "product in bf16": (torch.bfloat16, False),
        "product in float32, TF32": (torch.float32, True),
        "product in float32, IEEE": (torch.float32, False),
    }
    for name, (dtype, tf32) in kinds.items():
        _row(found, name, [f / 1e12 for f in matmul_flops(place, dtype, tf32=tf32)], "TFLOP/s")
    count = place.pick(2**28, 2**12)
    source = torch.zeros(count, device=place.device)
    target = torch.empty_like(source)
    times = seconds_of(lambda: target.copy_(source), place, repeats=5, calls=5)
    _row(found, "copy, read and written", [8 * count / 1e12 / s for s in times], "TB/s")
    one = torch.zeros(1, device=place.device)
    times = seconds_of(lambda: one.add_(1), place, repeats=5, calls=place.pick(2000, 20))
    _row(found, "launch of the smallest kernel", [1e6 * s for s in times], "µs")
    found.say(f"bf16 {found.rows[0][1]:.3g} TFLOP/s, copy {found.rows[3][1]:.3g} TB/s")


def _row(found: Found, name: str, values: list[float], unit: str) -> None:
    found.row(name, statistics.median(values), min(values), max(values), unit)
    found.note(**{name: spread(values)})
