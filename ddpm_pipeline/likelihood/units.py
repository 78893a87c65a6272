"""In which unit, and of which levels, the bound of a model's data is.

    ``variational_bound(unet, scheduler, batches, **units_of(scale, decoder=None))``

Bytes and other integers have levels, and the decoder gives each a probability; floating-point
values have a density, which is that of the data's own unit: p(v) = p(x) / u.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ddpm_pipeline.diffusion import Levels

if TYPE_CHECKING:
    from ddpm_pipeline.diffusion import Decoder
    from ddpm_pipeline.networks import ValueScale

__all__ = ["check_units", "levels_of", "unit_settings", "units_of"]


def levels_of(scale: ValueScale | None) -> Levels | None:
    """Give the levels of data in a model's unit; None of bytes and of floats."""
    if scale is None or not scale.is_discrete:
        return None
    center, unit = (torch.tensor(v, dtype=torch.float64) for v in (scale.center, scale.unit))
    return Levels((scale.low - center) / unit, scale.step / unit, scale.num_levels)


def units_of(scale: ValueScale | None, decoder: Decoder | None = None) -> dict[str, Any]:
    """Give the arguments of ``variational_bound`` that say what data are.

    Arguments:
        scale: That of the model's values; None for bytes.
        decoder: As asked for; None is "discretized" for integers, "continuous" for floats.
    Raises:
        ValueError: If levels are asked for of data that have none.
    """
    if scale is None:
        return {"decoder": decoder or "discretized"}
    decoder = decoder or ("discretized" if scale.is_discrete else "continuous")
    if decoder == "continuous":
        return {"decoder": decoder, "log_unit": scale.log_unit}
    if not scale.is_discrete:
        raise ValueError(
            f"decoder must be 'continuous' for {scale.dtype} values, which have a density and no "
            f"levels, got {decoder!r}"
        )
    return {"decoder": decoder, "levels": levels_of(scale)}


def unit_settings(levels: Levels | None, log_unit: float | None) -> dict[str, Any]:
    """Give what a report says of the unit and the levels."""
    return {"log_unit": log_unit, "num_levels": None if levels is None else levels.count}


def check_units(decoder: str, levels: Levels | None, log_unit: float | None) -> bool:
    """Refuse levels of a density, and a unit of what has none.

    Returns:
        Whether the data must lie in [-1, 1], as bytes do.
    """
    if levels is not None and decoder != "discretized":
        raise ValueError(f"levels are for decoder 'discretized', got decoder {decoder!r}")
    if log_unit is not None and decoder != "continuous":
        raise ValueError(f"log_unit is for decoder 'continuous', got decoder {decoder!r}")
    return decoder != "continuous" and levels is None
