"""What somebody gives on the page for a model to be conditioned on: a picture, and numbers.

condition = shown_condition(model, picture, numbers_of("0.3 45"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddpm_pipeline.pipelines import fitted, given_condition, unit_images

if TYPE_CHECKING:
    from PIL import Image

    from ddpm_pipeline.app.models import OpenModel
    from ddpm_pipeline.networks import Condition, Conditioning

__all__ = ["numbers_of", "shown_condition", "usual_numbers"]


def shown_condition(
    model: OpenModel, picture: Image.Image | None, numbers: tuple[float, ...]
) -> Condition | None:
    """Make the condition of all images; None for a model that has none.

    Arguments:
        model: The model.
        picture: Scaled to the size that the model is given, and cut in the middle.
        numbers: In the unit of the columns.
    Raises:
        ValueError: If something is missing, or not what the model is conditioned on.
    """
    told, unet = model.told, model.pipe.unet
    if told is None:
        return None
    parts: dict[str, object] = {}
    if told.columns:
        if len(numbers) != len(told.columns):
            raise ValueError(
                f"numbers must be {len(told.columns)}, {', '.join(told.columns)}; got "
                f"{len(numbers)}"
            )
        parts["vector"] = numbers
    if told.channels:
        if picture is None:
            raise ValueError("picture of the condition must be given: upload one")
        found = unit_images(picture, "picture of the condition", told.channels)
        parts["image"] = fitted(found, told.sides, "picture of the condition", resize=True)
    return given_condition(unet, parts)


def numbers_of(text: str | None) -> tuple[float, ...]:
    """Read numbers that stand in a field, with spaces or commas between them.

    Raises:
        ValueError: If something else stands there.
    """
    try:
        return tuple(float(word) for word in (text or "").replace(",", " ").split())
    except ValueError:
        raise ValueError(f"numbers must be like 0.3 45, got {text!r}") from None


def usual_numbers(told: Conditioning) -> str:
    """Write the middles of the ranges, for a field to begin with."""
    pairs = zip(told.low, told.high, strict=True)
    return " ".join(f"{low + (high - low) / 2:.4g}" for low, high in pairs)
