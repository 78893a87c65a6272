"""What of several options does not go together: a row says when, and what to tell of it.

``checks`` has the other rows, and goes through all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ddpm_pipeline.training.few_images import is_chosen

if TYPE_CHECKING:
    from ddpm_pipeline.training.config import TrainingConfig

__all__ = ["FEW_IMAGES", "Conflict", "validation_sources"]


class Conflict(NamedTuple):
    """Options that are allowed each but not together, and what to tell the caller then."""

    is_in: Callable[[TrainingConfig], bool]
    message: str


def validation_sources(config: TrainingConfig) -> int:
    """Count the ways in which held-out images are given."""
    given = (config.validation_data_dir, config.validation_split, config.validation_size)
    return sum(map(bool, given))


FEW_IMAGES: list[Conflict] = [
    Conflict(
        lambda c: bool(c.augment) and not isinstance(c.resolution, int),
        "augment needs square images, got resolution={config.resolution}; random_flip mirrors "
        "others too",
    ),
    Conflict(
        lambda c: c.random_flip and "flip" in c.augment,
        "give either random_flip, after which samples are mirrored too, or augment flip, "
        "after which they are not; got both",
    ),
    Conflict(
        lambda c: "saturation" in c.augment and c.channels == 1,
        "augment saturation needs images of 3 channels or 4, got channels=1",
    ),
    Conflict(
        lambda c: c.best_by != "validation_loss" and not is_chosen(c),
        "best_by={config.best_by!r} has no meaning without keep best or early_stop",
    ),
    Conflict(
        lambda c: (
            is_chosen(c)
            and c.best_by != "distance"
            and (c.train_data_dir or c.dataset_name) is not None
            and not validation_sources(c)
        ),
        "keep best and early_stop by {config.best_by} need held-out images: give one of the "
        "validation options, or best_by distance",
    ),
    Conflict(
        lambda c: is_chosen(c) and c.best_by == "validation_loss" and c.validation_steps == 0,
        "keep best and early_stop by validation_loss need validation_steps above 0, got 0",
    ),
    Conflict(
        lambda c: is_chosen(c) and c.best_by == "bound" and not c.validate_bound_steps,
        "keep best and early_stop by bound need validate_bound_steps above 0, got 0",
    ),
    Conflict(
        lambda c: is_chosen(c) and c.best_by == "distance" and not c.validate_fid_steps,
        "keep best and early_stop by distance need validate_fid_steps above 0, got 0",
    ),
    Conflict(
        lambda c: c.validate_fid_steps > 0 and c.validate_fid_features is None,
        "validate_fid_steps={config.validate_fid_steps} needs validate_fid_features: "
        "'inception', a .py file, a directory of features, or a vision model of transformers",
    ),
    Conflict(
        lambda c: c.validate_fid_features is not None and not c.validate_fid_steps,
        "validate_fid_features has no meaning without validate_fid_steps above 0",
    ),
]
"""Of augmentation, distances, and the choice of weights."""
