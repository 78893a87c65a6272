"""Values as deep as they are stored: 8 or 16 bits, integers or floating point, not rounded.

    dtype = exact_type(layout_of(image))                  "uint16", from the header alone
    values, changes = decode_exact(array, settings)       (C, H, W) of that type
    values, changes = decode_exact_image(raw, image, layout, settings)

Nothing is converted between channels, colours or types: what cannot be kept is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ddpm_pipeline.data.bands import fitted_bands
from ddpm_pipeline.data.bounds import DECODING, decoding_bytes
from ddpm_pipeline.data.depth import Layout, deep_values, upright
from ddpm_pipeline.data.levels import RefusedImageError
from ddpm_pipeline.networks import EXACT_TYPES

if TYPE_CHECKING:
    from PIL import Image

    from ddpm_pipeline.data.decoding import Preparation

__all__ = ["check_exact_type", "decode_exact", "decode_exact_image", "exact_type"]


def check_exact_type(dtype: str) -> None:
    """Refuse arrays of a type that is not kept as it is.

    Raises:
        ValueError: Says which are.
    """
    if dtype not in {*EXACT_TYPES, "bool"}:
        raise ValueError(
            f"depth='exact' keeps {', '.join(EXACT_TYPES)}, got {dtype}: convert it to one of "
            "these, or give value_range for bytes"
        )


def exact_type(layout: Layout) -> str:
    """Tell the type of a file's values, from what its header says.

    Raises:
        RefusedImageError: If it is none that is kept.
    """
    if not layout.exact:
        return "uint8"
    if layout.name.startswith("F"):
        return "float32"
    if layout.name in {"L signed", "I;16 signed"}:
        return "int16"
    if layout.white is not None:
        return "uint16"
    raise RefusedImageError(
        f"its values ({layout.unknown}) are none of {', '.join(EXACT_TYPES)}, which depth='exact' "
        "keeps"
    )


def decode_exact(raw: np.ndarray, settings: Preparation) -> tuple[np.ndarray, tuple[str, ...]]:
    """Bring an array (H, W) or (H, W, C) that is deeper than 8 bits to the resolution.

    Raises:
        RefusedImageError: If it holds NaN or infinite values, or does not fit the settings.
    """
    values = raw if raw.ndim == 3 else raw[:, :, None]
    return fitted_bands(_checked(values), settings)


def decode_exact_image(
    raw: bytes, image: Image.Image, layout: Layout, settings: Preparation
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Decode an image file that is deeper than 8 bits, in its own type.

    Arguments:
        raw: The file.
        image: What ``open_image`` gave of it.
        layout: What ``layout_of`` says of that.
        settings: What size, and how.
    Raises:
        RefusedImageError: If it holds NaN or infinite values, or something that cannot be kept.
        Exception: Of many types, from Pillow's decoders, if the file is broken.
    """
    with DECODING.hold(decoding_bytes(image, settings.channels or 3, is_deep=True)):
        values, alpha, _ = deep_values(raw, image, layout)
        if alpha is not None:
            raise RefusedImageError("its transparency cannot be kept by depth='exact'")
        values = upright(values.astype(exact_type(layout)), image)
        return fitted_bands(_checked(values), settings)


def _checked(values: np.ndarray) -> np.ndarray:
    """Give an array (H, W, C) in this machine's byte order; refuse what is no number in it."""
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        wrong = np.argwhere(~np.isfinite(values))
        y, x, c = wrong[0].tolist()
        kind = "NaN" if np.isnan(values[y, x, c]) else "an infinite value"
        raise RefusedImageError(
            f"it holds {kind} at row {y}, column {x}, channel {c}; {len(wrong)} of {values.size} "
            "values are not finite"
        )
    return values
