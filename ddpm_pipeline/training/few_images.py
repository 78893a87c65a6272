"""``FewImagesOptions``: the options of ``TrainingConfig`` that get the most out of few images.

They are checked with all others in ``checks``. What each is for: docs/train.md, "Few images".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["AUGMENTATION_NAMES", "FewImagesOptions", "check_channels", "is_chosen"]

AUGMENTATION_NAMES = (
    "flip",
    "vertical_flip",
    "rotate90",
    "crop",
    "translate",
    "scale",
    "rotate",
    "brightness",
    "contrast",
    "saturation",
)
"""What ``augment`` may hold; ``data.AUGMENTATIONS`` has them."""


@dataclass(frozen=True, kw_only=True)
class FewImagesOptions:
    """How a run varies its images, what it measures of its samples, which weights it keeps."""

    augment: tuple[str, ...] = ()
    """Change training images and tell the network how, so that its samples show none of it:
    flip vertical_flip rotate90 crop translate scale rotate brightness contrast saturation."""
    augment_probability: float = 0.12
    """Probability of each of them for each image."""
    validate_fid_steps: int = 0
    """Updates between measurements of the Fréchet distance of samples to the training images, and
    of KID, and once at the end; 0 for none."""
    validate_fid_features: str | None = None
    """What they are measured in, as features of `ddpm evaluate`."""
    validate_fid_images: int = 1000
    """How many samples are drawn for it: more than features; few bias the distance upwards."""
    best_by: Literal["validation_loss", "bound", "distance"] = "validation_loss"
    """What tells which weights are the best: the loss or bits/dim of held-out images, or the
    Fréchet distance of samples."""
    keep: Literal["last", "best"] = "last"
    """Which weights become the model: those at the end, or the best by best_by; the last are in
    the checkpoint anyway."""
    early_stop: int = 0
    """End the run when so many measurements of best_by in a row found no better; 0 does not."""


def check_channels(options: FewImagesOptions, channels: int) -> None:
    """Refuse augmentations of colours that images have not.

    Arguments:
        options: Of the run.
        channels: Of the images.
    Raises:
        ValueError: If there are any.
    """
    if "saturation" in options.augment and channels < 3:
        raise ValueError(
            f"augment saturation needs images of 3 channels or 4, got images of {channels}"
        )


def is_chosen(options: FewImagesOptions) -> bool:
    """Tell whether anything depends on which weights are the best."""
    return options.keep == "best" or options.early_stop > 0
