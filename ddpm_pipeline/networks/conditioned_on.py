r"""``Conditioning``: what a model is conditioned on beside its classes, a vector or a picture.

A vector v of n numbers becomes the embedding that a ``UNet2DModel`` with ``class_embed_type``
"identity" adds to that of the timestep. With u = (v - low) / (high - low), by the lowest and the
highest number of the training images, and F = width // 2n frequencies,

.. math:: e = (\cos \omega_k u_j, \sin \omega_k u_j)_{j, k}, \qquad
    \omega_k = \tfrac{\pi}{2}\, 32^{k / (F - 1)}

followed by zeros up to the width. The slowest wave takes a quarter of a turn over the range, the
fastest eight turns. Without a condition e is 0, which is that of no v.

A picture becomes more input channels, after those of x_t, in the unit of a model's images. A
smaller one is scaled up first. Without a condition they are 0, which is no byte: 2 k/255 - 1 = 0
has no whole k.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from ddpm_pipeline.networks.value_scale import ValueScale

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Conditioning", "Upsampling", "check_asked_condition", "vector_encoding"]

Upsampling = Literal["bicubic", "nearest"]
_FASTEST = 32.0  # over the slowest frequency


@dataclass(frozen=True)
class Conditioning:
    """What a model is conditioned on beside its classes.

    Arguments:
        columns: Names of the n numbers of the vector; none without.
        low, high: The lowest and the highest number of each column in training.
        channels: Of the picture; 0 without.
        sides: Height and width of the picture as it is given; they divide those of the images.
        upsampling: How a smaller picture is scaled up.
        values: The ``ValueScale`` of a picture that is no bytes, as JSON values.
        trains_null: Whether the model was also trained without the condition.
    """

    columns: tuple[str, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    channels: int = 0
    sides: tuple[int, int] | None = None
    upsampling: Upsampling = "bicubic"
    values: dict[str, Any] | None = None
    trains_null: bool = False

    def encoded(self, vector: Tensor, width: int) -> Tensor:
        """Give the embeddings (B, width) of vectors (B, n) in the unit of the columns."""
        return vector_encoding(vector, self.low, self.high, width)

    def scaled(self, vector: Tensor) -> Tensor:
        """Give u, float32 (B, n), of vectors (B, n) in the unit of the columns."""
        return _scaled(vector, self.low, self.high)

    @property
    def scale(self) -> ValueScale | None:
        """Give the scale of the picture's values; None for bytes, or without a picture."""
        return None if self.values is None else ValueScale.from_dict(self.values)

    def pictured(self, pictures: Tensor, sides: tuple[int, int]) -> Tensor:
        """Give float32 (B, C, H, W) of pictures of their own type, in the size of the images."""
        scale = self.scale
        x = pictures.float().mul(2).div(255).sub(1) if scale is None else scale.to_model(pictures)
        return self.upsampled(x, sides)

    def upsampled(self, x: Tensor, sides: tuple[int, int]) -> Tensor:
        """Scale pictures in a model's unit up to the size of the images, by ``interpolate``."""
        from torch.nn.functional import interpolate

        if tuple(x.shape[2:]) == tuple(sides):
            return x
        return interpolate(x, tuple(sides), mode=self.upsampling)

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON values, without what is as it is unless said."""
        default = Conditioning()
        values = {k: v for k, v in asdict(self).items() if v != getattr(default, k)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Conditioning:
        """Take what ``to_dict`` gave.

        Raises:
            ValueError: If it is damaged.
        """
        try:
            known = {f.name: values[f.name] for f in fields(cls) if f.name in values}
            known = {k: tuple(v) if isinstance(v, list) else v for k, v in known.items()}
            found = cls(**known)
            if found._is_whole():
                return found
        except (TypeError, ValueError, AttributeError):
            pass
        raise ValueError(f"what the model is conditioned on is damaged: {values!r:.200}")

    def _is_whole(self) -> bool:
        ranges = list(zip(self.columns, self.low, self.high, strict=True))
        has_ranges = all(low < high and math.isfinite(high - low) for _, low, high in ranges)
        if self.channels:
            has_ranges &= len(self.sides) == 2 and self.upsampling in get_args(Upsampling)
            ValueScale.from_dict(self.values) if self.values is not None else None
        return has_ranges and bool(self.columns or self.channels) and self.channels >= 0

    def __str__(self) -> str:
        parts = []
        if self.columns:
            ranges = zip(self.columns, self.low, self.high, strict=True)
            parts.append(", ".join(f"{name} {low:g} … {high:g}" for name, low, high in ranges))
        if self.channels:
            height, width = self.sides
            plural = "" if self.channels == 1 else "s"
            parts.append(f"images {height}×{width}, {self.channels} channel{plural}")
        return "; ".join(parts)


def check_asked_condition(
    wanted: Conditioning | None, on: str | None, vector: tuple[float, ...] | None
) -> None:
    """Refuse conditions that a model has not, and to leave out those that it has.

    Arguments:
        wanted: What the model is conditioned on.
        on, vector: The options ``condition`` and ``condition_numbers``.
    Raises:
        ValueError: Says what the model is conditioned on.
    """
    has_pictures = wanted is not None and wanted.channels > 0
    has_vector = wanted is not None and bool(wanted.columns)
    said = f"the model is conditioned on {wanted or 'nothing'}"
    for name, given, needed in (
        ("condition", on, has_pictures),
        ("condition_numbers", vector, has_vector),
    ):
        if (given is not None) != needed:
            raise ValueError(f"{name} must be {'given' if needed else 'left out'}: {said}")
    if has_vector and len(vector) != len(wanted.columns):
        raise ValueError(
            f"condition_numbers must be {len(wanted.columns)} numbers, got {len(vector)}: {said}"
        )


def vector_encoding(
    vector: Tensor, low: tuple[float, ...], high: tuple[float, ...], width: int
) -> Tensor:
    """Give the embeddings of vectors by the formula above.

    Arguments:
        vector: In the unit of the columns, (B, n).
        low, high: Of each column.
        width: Of an embedding, at least 2n.
    Returns:
        float32, (B, width).
    """
    import torch
    from torch.nn.functional import pad

    count = width // (2 * len(low))
    waves = math.pi / 2 * _FASTEST ** torch.linspace(0, 1, count, device=vector.device)
    angles = _scaled(vector, low, high)[..., None] * waves
    e = torch.cat([angles.cos(), angles.sin()], -1).flatten(1)
    return pad(e, (0, width - e.shape[1]))


def _scaled(vector: Tensor, low: tuple[float, ...], high: tuple[float, ...]) -> Tensor:
    """Bring numbers to [0, 1], and then to float32, which a small range far from 0 needs."""
    from ddpm_pipeline.common import precise_dtype

    precise = vector.to(precise_dtype(vector.device))
    least, most = (precise.new_tensor(ends) for ends in (low, high))
    return ((precise - least) / (most - least)).float()
