r"""The classes of images that are drawn to be compared with others: as often as these have them.

.. math::
    \text{label}_i = F^{-1}\big((u + i\,\varphi) \bmod 1\big), \qquad \varphi = (\sqrt 5 - 1)/2

with F the data's cumulative frequencies and u from the seed. Among the first N images, for any N,
a class of share p comes N p times to within about two: closer than independent draws, and as they
do, image i keeps its class whatever the number of images is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ddpm_pipeline.common import PRIVATE_KEY, stream_generator
from ddpm_pipeline.data import ImageData

if TYPE_CHECKING:
    from diffusers import UNet2DModel

__all__ = [
    "AS_OFTEN",
    "ChosenClasses",
    "check_classes_of_conditions",
    "classes_as_often",
    "classes_of_images",
]

AS_OFTEN = "as often as in the data"
"""What a report says of the classes in place of their numbers."""

_STREAM = "evaluated_classes"
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class ChosenClasses:
    """The classes of images that are to be drawn.

    Arguments:
        numbers: Of image i.
        names: Of all classes, or None.
        named: Whether the model knows them by these names.
    """

    numbers: tuple[int, ...]
    names: Sequence[str] | None
    named: bool = False

    @property
    def labels(self) -> tuple[int | str, ...]:
        """Give the class of each image as the pipeline takes it."""
        return tuple(self.names[i] for i in self.numbers) if self.named else self.numbers

    @property
    def counts(self) -> dict[str, int]:
        """Count the images of each class, by its name or else its number."""
        counts = sorted(Counter(self.numbers).items())
        return {str(i if self.names is None else self.names[i]): n for i, n in counts}


def classes_as_often(
    data: ImageData, unet_config: Mapping[str, Any], count: int, *, seed: int
) -> ChosenClasses:
    """Choose the classes of images 0 … count - 1 so that they come as often as in data.

    Arguments:
        data: Images with classes, of which there may be none of some.
        unet_config: The config of the network that draws; it may know names of its classes.
        count: How many images are drawn.
        seed: Where the sequence starts follows from it.
    """
    shares = torch.bincount(data.labels).double() / len(data)
    start = torch.rand((), dtype=torch.float64, generator=stream_generator(_STREAM, seed))
    place = (start + torch.arange(count, dtype=torch.float64) * _GOLDEN) % 1
    numbers = torch.searchsorted(shares.cumsum(0), place, right=True)
    # Rounding may leave a little beyond the sum of all shares.
    return _chosen(numbers.clamp(max=int(data.labels.max())), data, unet_config)


def classes_of_images(
    data: ImageData, unet_config: Mapping[str, Any], rows: Tensor, count: int
) -> ChosenClasses:
    """Take the classes of the images whose conditions are drawn with, which belong together.

    Arguments:
        data: Images with classes.
        unet_config: The config of the network that draws.
        rows: The image of data whose condition drawn image i has, i mod the rows, int64 (R,).
        count: How many images are drawn.
    """
    return _chosen(data.labels[rows[torch.arange(count) % len(rows)]], data, unet_config)


def check_classes_of_conditions(
    unet: UNet2DModel, class_labels: Sequence[int | str] | None
) -> None:
    """Refuse classes for images that have the conditions, and so the classes, of others.

    Raises:
        ValueError: If the model has both, and classes are given.
    """
    if class_labels is not None and unet.config.num_class_embeds is not None:
        raise ValueError(
            "class_labels must be left out, for each image is drawn with the class of the image "
            f"whose condition it has; got {', '.join(map(str, class_labels))}"
        )


def _chosen(numbers: Tensor, data: ImageData, unet_config: Mapping[str, Any]) -> ChosenClasses:
    known = unet_config.get(PRIVATE_KEY) or {}
    named = known.get("class_names") is not None
    return ChosenClasses(tuple(numbers.tolist()), data.class_names, named)
