"""``FewImagesOptions``: the options of ``TrainingConfig`` that get the most out of few images.

They are checked with all others in ``checks``. What each is for: docs/train.md, "Few images".
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AUGMENTATION_NAMES", "FewImagesOptions", "check_channels"]

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
    """How a run varies its images without showing it in its samples."""

    augment: tuple[str, ...] = ()
    """Change training images and tell the network how, so that its samples show none of it:
    flip vertical_flip rotate90 crop translate scale rotate brightness contrast saturation."""
    augment_probability: float = 0.12
    """Probability of each of them for each image."""


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
