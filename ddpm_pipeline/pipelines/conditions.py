"""What callers condition images on, checked and in the form that the network is called with.

    condition = given_condition(unet, [0.3, 45.0])                      one row, for all images
    condition = given_condition(unet, pictures)                         a row for each picture
    condition = given_condition(unet, {"vector": v, "image": pictures})
    told = told_rows(unet, labels, condition, batch_size=4)

Mistakes are ValueErrors that name the argument and say what the model is conditioned on.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ddpm_pipeline.common import sides_of
from ddpm_pipeline.networks import Condition, facts_of, ready_for
from ddpm_pipeline.pipelines.tasks.given import unit_images

if TYPE_CHECKING:
    from diffusers import UNet2DModel

    from ddpm_pipeline.networks import Conditioning, Told

__all__ = ["GivenCondition", "alike", "checked_vector", "given_condition", "told_rows"]

logger = logging.getLogger(__name__)

_ROUNDED = 1e-6  # of a range, which float32 may be off by

GivenCondition = Any
"""Numbers, pictures, or both in a dict, as of ``given_condition``; or a ``Condition``."""


def given_condition(unet: UNet2DModel, condition: GivenCondition) -> Condition | None:
    """Make a condition of what a caller gives; None for a model that has none.

    Arguments:
        unet: The model's network.
        condition: A vector of numbers in the unit of the columns, or one for each image, (B, n);
            pictures as of ``unit_images``, in their own size; of models that need both, a dict
            with "vector" and "image".
    Raises:
        ValueError: If it is missing, not needed, or not what the model is conditioned on.
        TypeError: If it is of another type.
    """
    wanted = facts_of(unet).conditioned_on
    if wanted is None:
        if condition is not None:
            raise ValueError("condition must be left out: the model is not conditioned on any")
        return None
    if condition is None:
        raise ValueError(f"condition must be given: the model is conditioned on {wanted}")
    if isinstance(condition, Condition):
        return condition
    needed = [name for name in _PARTS if _is_needed(wanted, name)]
    parts = condition if isinstance(condition, dict) else {needed[0]: condition}
    if set(parts) != set(needed):
        raise ValueError(
            f"condition must be a dict with {' and '.join(needed)}: the model is conditioned on "
            f"{wanted}; got {type(condition).__name__}"
            + (f" with {', '.join(map(str, condition))}" if isinstance(condition, dict) else "")
        )
    found = {name: _PARTS[name](wanted, parts[name]) for name in needed}
    found = alike(found)
    return Condition(vector=found.get("vector"), picture=found.get("image"))


def alike(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give a part of one image as often as the others have images."""
    rows = max(map(len, parts.values()))
    return {k: v.expand(rows, *v.shape[1:]) if len(v) == 1 else v for k, v in parts.items()}


def _is_needed(wanted: Conditioning, name: str) -> bool:
    return bool(wanted.columns) if name == "vector" else wanted.channels > 0


def checked_vector(
    wanted: Conditioning,
    given: Any,  # noqa: ANN401
    option: str = "condition",
) -> Tensor:
    """Check the numbers of a vector, one for all images or for each, and give float64 (B, n).

    Arguments:
        wanted: What the model is conditioned on.
        given: The numbers.
        option: What the caller gave them as, for messages.
    Raises:
        ValueError: If they are not as many as the model is conditioned on, or not finite.
    """
    names = ", ".join(wanted.columns)
    try:
        vector = torch.as_tensor(given, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{option} must be numbers, {names}: {error}") from error
    vector = vector[None] if vector.ndim == 1 else vector
    if vector.ndim != 2 or vector.shape[1] != len(wanted.columns) or len(vector) == 0:
        raise ValueError(
            f"{option} must be {len(wanted.columns)} numbers, {names}, for all images or for "
            f"each, got shape {(*vector.shape,)}"
        )
    if not vector.isfinite().all():
        raise ValueError(f"{option} must be finite, got NaN or infinity")
    u = wanted.scaled(vector)
    if not u.isfinite().all():
        raise ValueError(f"{option} must be within 1e38 times the range of training, {wanted}")
    outside = ((u < -_ROUNDED) | (u > 1 + _ROUNDED)).any(0).tolist()
    if any(outside):
        logger.warning(
            "%s lies outside what the model was trained on, %s: %s",
            option,
            wanted,
            ", ".join(
                name for name, is_out in zip(wanted.columns, outside, strict=True) if is_out
            ),
        )
    return vector


def _picture(wanted: Conditioning, given: Any) -> Tensor:  # noqa: ANN401
    """Check pictures, and give them as the training images' were: bytes, or of their scale."""
    if wanted.scale is None:
        pictures = unit_images(given, "condition", wanted.channels)
        picture = (pictures * 255).round().to(torch.uint8)
    else:
        picture = _exact(given, wanted.scale.dtype)
    if tuple(picture.shape[1:]) != (wanted.channels, *wanted.sides):
        raise ValueError(
            f"condition must be of shape (N, {wanted.channels}, {wanted.sides[0]}, "
            f"{wanted.sides[1]}), got {(*picture.shape,)}"
        )
    return picture


def _exact(given: Any, dtype: str) -> Tensor:  # noqa: ANN401
    """Check the type of pictures whose values are kept exactly, and give them as (N, C, H, W)."""
    said = f"condition must be a tensor of {dtype} in the unit of the training images, got"
    try:
        picture = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{said} {type(given).__name__}") from error
    if picture.dtype != getattr(torch, dtype):
        raise ValueError(f"{said} {picture.dtype}")
    return picture[None] if picture.ndim == 3 else picture


_PARTS = {"vector": checked_vector, "image": _picture}


def told_rows(
    unet: UNet2DModel,
    labels: Tensor | None,
    condition: Condition | None,
    batch_size: int,
    *,
    sides: tuple[int, int] | None = None,
) -> Told:
    """Give what the network is told of every image, ready to be called with.

    Arguments:
        unet: The network.
        labels: Classes, (batch_size,), or None.
        condition: Of one image for all, or of each; None without.
        batch_size: How many images there are.
        sides: Their height and width; None for those that the network's config says.
    Raises:
        ValueError: If the condition is of another number of images.
    """
    if condition is None:
        return labels
    if len(condition) not in (1, batch_size):
        raise ValueError(
            f"condition must be one, or one for each of {batch_size} images, got {len(condition)}"
        )
    if sides is None:
        size = unet.config.sample_size
        sides = sides_of(size) if size else condition.picture.shape[2:]
    ready = ready_for(unet, condition, sides)
    ready = ready.expanded(batch_size) if len(ready) != batch_size else ready
    if labels is None:
        return ready
    return Condition(labels=labels, picture=ready.picture, is_ready=True)
