"""What a run measured of its samples, and which of its weights it kept, in words for the card.

measured_lines(record)      of training_record.json
"""

from __future__ import annotations

from typing import Any

from ddpm_pipeline.cards.markdown import number, plain

__all__ = ["measured_lines"]

_CRITERIA = {
    "validation_loss": "the loss of held-out images",
    "bound": "the bits/dim of held-out images",
    "distance": "the Fréchet distance of samples",
}


def measured_lines(record: dict[str, Any]) -> list[str]:
    """Say which weights were kept, and what was last measured of samples while training."""
    return [*_kept(record.get("kept")), *_distances(record.get("distances"))]


def _kept(kept: object) -> list[str]:
    if not isinstance(kept, dict):
        return []
    by = _CRITERIA.get(kept.get("by"), plain(kept.get("by")))
    value, count = number(kept.get("value"), ".4g"), number(kept.get("measurements"))
    step = number(kept.get("step"))
    text = f"The weights are those after update {step}, the best by {by} ({value}) of {count}"
    return [f"{text} measurements."]


def _distances(found: object) -> list[str]:
    if not isinstance(found, dict):
        return []
    words = f"Fréchet distance {number(found.get('distance'), '.4g')}, biased upwards as of few"
    if "distance_of_real" in found:
        real = number(found["distance_of_real"], ".4g")
        words += f" samples ({real} for as many real held-out images)"
    else:
        words += " samples"
    if "kid" in found:
        error = number(found.get("kid_standard_error"), ".2g")
        words += f"; KID {number(found['kid'], '.3g')} ± {error}"
    if "copied_share" in found:
        share, error = found["copied_share"], found.get("copied_share_standard_error")
        words += (
            f"; share drawn to training images {number(share, '.2f')} ± {number(error, '.2g')} "
            f"(p = {number(found.get('copied_p_value'), '.2g')})"
        )
    return [f"Last measured while training: {words}."]
