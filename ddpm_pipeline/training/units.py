"""The unit of a pretrained model, which images are given that it is trained further on.

data = fitted_values(data, facts.scale, config)
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ddpm_pipeline.data import with_scale
from ddpm_pipeline.training.data import TrainingData, data_from_images
from ddpm_pipeline.training.pretrained import OPTION

if TYPE_CHECKING:
    from ddpm_pipeline.networks import ValueScale
    from ddpm_pipeline.training.config import TrainingConfig

__all__ = ["fitted_values"]


def fitted_values(
    data: TrainingData, scale: ValueScale | None, config: TrainingConfig
) -> TrainingData:
    """Give images the unit of a model, whose weights know no other.

    Arguments:
        data: The images.
        scale: The model's; None for bytes, or where it says nothing.
        config: Of the run.
    Raises:
        ValueError: If they are of another type or depth, or have values that it has no place for.
    """
    if scale is None or data.scale == scale:
        return data
    name = f"{OPTION}: the training data"
    if data.train is None:
        raise ValueError(f"{name} are a stream of bytes, and the model was trained on {scale}")
    train = with_scale(
        data.train, scale, name, config.outside_range, widens=config.max_train_steps != 0
    )
    own = data.scale
    if (
        config.value_range is not None
        and "value_range" in config.given
        and (own.center, own.unit) != (scale.center, scale.unit)
    ):
        raise ValueError(
            f"value_range={config.value_range} is another unit than that of the pretrained model; "
            "leave it out"
        )
    opened = data_from_images(config, train, data.validation)
    return replace(opened, reading=data.reading, held_out=data.held_out)
