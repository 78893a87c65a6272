"""The conditions that ``ddpm sample`` is given: images of a folder or a file, or numbers.

condition, key = opened_condition(SampleConfig(model="model", condition="small/"), unet)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ddpm_pipeline.common import described_sides
from ddpm_pipeline.data import ReadingOptions, check_unchanged_size, open_images, with_scale
from ddpm_pipeline.networks import Condition, check_asked_condition, facts_of
from ddpm_pipeline.pipelines.conditions import alike, checked_vector

if TYPE_CHECKING:
    from diffusers import UNet2DModel
    from torch import Tensor

    from ddpm_pipeline.data import ImageData
    from ddpm_pipeline.networks import Conditioning
    from ddpm_pipeline.pipelines.config import SamplingOptions

__all__ = ["opened_condition"]


def opened_condition(options: SamplingOptions, unet: UNet2DModel) -> tuple[Condition | None, Any]:
    """Open what images are to be conditioned on; give also what tells it from others.

    Arguments:
        options: With ``condition`` and ``condition_numbers``, if they have these.
        unet: The model's network.
    Raises:
        ValueError: If it is not what the model is conditioned on.
    """
    if not hasattr(options, "condition"):
        return None, None
    facts = facts_of(unet)
    wanted = facts.conditioned_on
    check_asked_condition(wanted, options.condition, options.condition_numbers)
    if wanted is None:
        return None, None
    parts: dict[str, Tensor] = {}
    key: dict[str, Any] = {}
    if options.condition_numbers is not None:
        parts["vector"] = checked_vector(wanted, options.condition_numbers, "condition_numbers")
        key["vector"] = list(options.condition_numbers)
    if options.condition is not None:
        reading = ReadingOptions.from_dict(facts.reading or {})
        data = _opened(options.condition, wanted, reading)
        parts["picture"] = data.batch(range(len(data))).images
        key["images"] = data.fingerprint
    return Condition(**alike(parts)), key


def _opened(source: str, wanted: Conditioning, reading: ReadingOptions) -> ImageData:
    """Open pictures as those of training were; all must be readable, for they go by number."""
    option = f"condition={source!r}"
    depth = reading.depth or ("bytes" if wanted.scale is None else "exact")
    try:
        data = open_images(
            source,
            resolution=wanted.sides,
            channels=wanted.channels,
            depth=depth,
            value_range=reading.value_range if depth == "bytes" else None,  # of the images alone
            background=reading.background,
            max_pixels=reading.max_pixels,
            tiff_bands=reading.tiff_bands,
            strict=True,
        )
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from error
    check_unchanged_size(data, option, f"; they must be {described_sides(wanted.sides)}")
    return with_scale(data, wanted.scale, option, "clip")
