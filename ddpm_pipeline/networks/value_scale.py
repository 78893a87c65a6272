r"""``ValueScale``: what a model's unit is in the data's own, and which levels these have.

.. math:: x = \frac{v - c}{u}, \qquad v = c + u\,x

with a centre c and a unit u for each channel. A model whose images are bytes has none: its x is
2 k/255 - 1. Others remember theirs beside their weights, where stock diffusers passes over it.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

__all__ = ["EXACT_TYPES", "ValueScale"]

EXACT_TYPES = ("uint8", "uint16", "int16", "float16", "float32")
"""Types of values that are kept as they are."""


@dataclass(frozen=True)
class ValueScale:
    """How values of a type become those of a model, and what they may be.

    Arguments:
        dtype: One of EXACT_TYPES.
        center, unit: c and u of each channel, as float32 holds them.
        low, high: The lowest and the highest value; None where there is none.
        step: Distance of the levels low, low + step, ..., high of integers; None for floats.
        largest: The largest magnitude of x in training, at which samples are clamped.
    """

    dtype: str
    center: tuple[float, ...]
    unit: tuple[float, ...]
    low: float | None = None
    high: float | None = None
    step: int | None = None
    largest: float = 1.0

    @property
    def is_discrete(self) -> bool:
        """Tell whether values are levels, which have probabilities and no density."""
        return self.step is not None

    @property
    def num_levels(self) -> int | None:
        """Count the levels; None for floats."""
        return None if self.step is None else int((self.high - self.low) // self.step) + 1

    @property
    def log_unit(self) -> float:
        """Give the mean of ln u over channels: nats by which a dimension's density differs."""
        return math.fsum(math.log(unit) for unit in self.unit) / len(self.unit)

    def to_model(self, values: Tensor) -> Tensor:
        """Give x, float32, of values (B, C, H, W) on any device; values outside count as the end.

        Differences are taken before they are divided, so that a centre far from 0 costs no digits.
        """
        center, unit = _channels(self.center, self.unit, values.device)
        import torch  # which options, told apart by what a model remembers, need not wait for

        x = values.to(torch.float32)
        if self.low is not None:
            x = x.clamp(self.low, self.high)
        return (x - center).div_(unit)

    def to_values(self, x: Tensor) -> np.ndarray:
        """Give values of the data's type and unit, (N, H, W, C), of x, (N, C, H, W).

        Integers are those of the nearest level; what is outside the range becomes its end.
        """
        x = x.detach().cpu().double()
        import torch

        center, unit = (torch.tensor(v, dtype=torch.float64).view(-1, 1, 1) for v in self._pair)
        values = x * unit + center
        if self.low is not None:
            if self.step is not None:
                values = ((values - self.low) / self.step).round() * self.step + self.low
            top = self.high if self.step is None else self.low + (self.num_levels - 1) * self.step
            values = values.clamp(self.low, top)
        return values.permute(0, 2, 3, 1).contiguous().numpy().astype(self.dtype)

    def __str__(self) -> str:
        levels = "" if self.step is None else f" of {self.num_levels:,} levels"
        steps = f", {self.step} apart" if (self.step or 1) > 1 else ""
        return f"{self.dtype}{levels}{steps}"

    @property
    def _pair(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return self.center, self.unit

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ValueScale:
        """Take what ``to_dict`` gave.

        Raises:
            ValueError: If it is damaged.
        """
        try:
            known = {f.name: values[f.name] for f in fields(cls) if f.name in values}
            known = {
                k: tuple(map(float, v)) if isinstance(v, list) else v for k, v in known.items()
            }
            scale = cls(**known)
            is_whole = scale.dtype in EXACT_TYPES and len(scale.center) == len(scale.unit) > 0
            if is_whole and scale._has_unit() and scale._has_levels():
                return scale
        except (TypeError, ValueError, AttributeError):
            pass
        raise ValueError(f"the scale of the model's values is damaged: {values!r:.200}")

    def _has_unit(self) -> bool:
        return all(0 < u < math.inf for u in (*self.unit, self.largest))

    def _has_levels(self) -> bool:
        is_integer = "int" in self.dtype
        if not all(math.isfinite(c) for c in self.center):
            return False
        if not is_integer:
            return self.step is None
        return self.step is not None and self.step >= 1 and self.low <= self.high


@lru_cache(maxsize=8)
def _channels(
    center: tuple[float, ...], unit: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Give c and u as (C, 1, 1) on a device, where they stay: each update asks for them."""
    import torch

    from ddpm_pipeline.common import moved

    parts = (torch.tensor(v, dtype=torch.float32).view(-1, 1, 1) for v in (center, unit))
    return tuple(moved(part, device) for part in parts)
