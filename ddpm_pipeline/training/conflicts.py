"""What of several options does not go together: a row says when, and what to tell of it.

``checks`` has the other rows, and goes through all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ddpm_pipeline.training.few_images import is_chosen

if TYPE_CHECKING:
    from ddpm_pipeline.training.config import TrainingConfig

__all__ = [
    "CONDITIONS",
    "FEW_IMAGES",
    "PREVIEWS",
    "Conflict",
    "are_named",
    "check_guidance",
    "is_the_models",
    "validation_sources",
]


class Conflict(NamedTuple):
    """Options that are allowed each but not together, and what to tell the caller then."""

    is_in: Callable[[TrainingConfig], bool]
    message: str


def is_the_models(config: TrainingConfig, name: str) -> bool:
    """Tell whether an option waits for what the pretrained model says."""
    return config.pretrained_model_name_or_path is not None and name not in config.given


def are_named(config: TrainingConfig) -> bool:
    """Tell whether a config names the images; those that are open already say more than it."""
    return (config.train_data_dir or config.dataset_name) is not None


def check_guidance(config: TrainingConfig, *, has_classes: bool, has_conditions: bool) -> None:
    """Refuse guided sample grids of a model that is not trained without what it is told.

    Arguments:
        config: Of the run.
        has_classes, has_conditions: Whether the images have them.
    Raises:
        ValueError: If nothing would guide.
    """
    if _lacks_guide(config, has_classes=has_classes, has_conditions=has_conditions):
        raise ValueError(_NO_GUIDE.format(config=config))


def _lacks_guide(config: TrainingConfig, *, has_classes: bool, has_conditions: bool) -> bool:
    drops_classes = has_classes and config.label_dropout > 0
    drops_conditions = has_conditions and config.condition_dropout > 0
    is_asked = config.preview_guidance_scale != 1 and config.preview_guidance_model is None
    return is_asked and not (drops_classes or drops_conditions)


_NO_GUIDE = (
    "preview_guidance_scale={config.preview_guidance_scale} needs preview_guidance_model, or "
    "class_conditional with a label_dropout above 0: the null class guides then; or conditions "
    "with a condition_dropout above 0"
)


def validation_sources(config: TrainingConfig) -> int:
    """Count the ways in which held-out images are given."""
    given = (config.validation_data_dir, config.validation_split, config.validation_size)
    return sum(map(bool, given))


CONDITIONS: list[Conflict] = [
    Conflict(
        lambda c: bool(c.condition_vector) and c.class_conditional,
        "give either condition_vector or class_conditional: a UNet2DModel has one embedding; give "
        "classes as columns of numbers",
    ),
    *(
        Conflict(
            lambda c, given=given: bool(getattr(c, given)) and c.streaming,
            f"{given} does not work with streaming, {why}; leave streaming out",
        )
        for given, why in (
            ("condition_on", "which gives one image of each row"),
            ("condition_vector", "where the range of numbers is not known beforehand"),
        )
    ),
    Conflict(
        lambda c: c.condition_on is not None and not c.center_crop,
        "condition_on needs center_crop: a place drawn anew would not be that of the condition",
    ),
]

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
            is_chosen(c) and c.best_by != "distance" and are_named(c) and not validation_sources(c)
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

PREVIEWS: list[Conflict] = [
    *(
        Conflict(
            lambda c, name=name: getattr(c, name) is not None and c.preview_guidance_scale == 1,
            f"{name} needs a preview_guidance_scale other than 1, which is none",
        )
        for name in ("preview_guidance_model", "preview_guidance_interval")
    ),
    Conflict(
        lambda c: (
            are_named(c)
            and not is_the_models(c, "class_conditional")  # which every model answers
            and _lacks_guide(
                c,
                has_classes=c.class_conditional,
                has_conditions=bool(c.condition_on or c.condition_vector),
            )
        ),
        _NO_GUIDE,
    ),
    Conflict(
        lambda c: (
            (c.preview_guidance_interval or (0, 0))[1] >= c.ddpm_num_steps
            and not is_the_models(c, "ddpm_num_steps")
        ),
        "preview_guidance_interval must end below ddpm_num_steps={config.ddpm_num_steps}, got "
        "{config.preview_guidance_interval}",
    ),
]
"""Of sample grids that are guided."""
