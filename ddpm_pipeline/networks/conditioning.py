r"""A UNet that is told in training how its images were augmented, and is a plain one otherwise.

    condition_on(unet, size, generator)               before training
    unet(x_t, t, conditions(labels, a))               a: (B, size), labels or embeddings or None
    with unconditioned(unet): unet(x_t, t, labels)    as if a were 0, to the bit
    plain_weights(unet.state_dict())                  of the plain UNet2DModel

To the embedding of the timestep is added

.. math:: M(a) = W_2\, \mathrm{silu}(W_1 a)

beside that of the class, or of the numbers that the model is conditioned on, which describe the
image as it was. There are no biases, so that M(0) = 0: at a = 0, where models are sampled, the
plain UNet computes the same, and the two matrices are left out of what is saved.

Source: Karras et al. 2022 (arXiv:2206.00364), appendix F.2; M takes the place of their one matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

if TYPE_CHECKING:
    from diffusers import UNet2DModel

__all__ = ["condition_on", "conditions", "plain_weights", "unconditioned"]

T = TypeVar("T")

_NAME = "class_embedding.augmentation."


class _ConditionEmbedding(nn.Module):
    """Embeds classes, if there are any, and augmentations, in the place of the classes' embedding.

    Arguments:
        classes: The classes' embedding, whose weight stays what it is called; ``nn.Identity``
            where embeddings are given; None without any.
        size: How many numbers say how an image was augmented.
        width: Of an embedding.
        generator: Draws the first matrix; the second is zero.
    """

    def __init__(
        self,
        classes: nn.Embedding | nn.Identity | None,
        size: int,
        width: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.has_classes = isinstance(classes, nn.Embedding)
        self.given_width = width if isinstance(classes, nn.Identity) else 0
        if isinstance(classes, nn.Embedding):
            self.weight = classes.weight
        first, second = (
            nn.utils.skip_init(nn.Linear, n, width, bias=False) for n in (size, width)
        )
        nn.init.normal_(first.weight, std=size**-0.5, generator=generator)
        nn.init.zeros_(second.weight)
        self.augmentation = nn.Sequential(first, nn.SiLU(), second)

    def forward(self, given: Tensor) -> Tensor:
        """Embed what ``conditions`` gave, or what is told of images as they are: class numbers,
        int64 (B,), or embeddings, (B, width).
        """
        if not given.is_floating_point():
            return embedding(given, self.weight)
        if self.given_width:
            embedded, changes = given.tensor_split([self.given_width], 1)
            return embedded + self.augmentation(changes) if changes.shape[1] else embedded
        if not self.has_classes:
            return self.augmentation(given)
        return embedding(given[:, 0].long(), self.weight) + self.augmentation(given[:, 1:])


def condition_on(unet: UNet2DModel, size: int, generator: torch.Generator) -> None:
    """Have a UNet told how its images were augmented.

    Arguments:
        unet: Fresh or trained; changed in place, and computes the same until it is trained.
        size: How many numbers say how an image was augmented.
        generator: On the CPU.
    Raises:
        ValueError: If it is no UNet2DModel, or its classes are neither embedded by a table nor
            given as embeddings.
    """
    if not hasattr(unet, "class_embedding") or not hasattr(unet, "time_embedding"):
        raise ValueError(
            f"augment needs a UNet2DModel, whose embeddings tell it, got {type(unet).__name__}"
        )
    classes = unet.class_embedding
    if classes is not None and not isinstance(classes, nn.Embedding | nn.Identity):
        raise ValueError(
            "augment needs a UNet whose class_embed_type is null or 'identity' in its config, got "
            f"{unet.config.class_embed_type!r}"
        )
    width = unet.time_embedding.linear_2.out_features
    unet.class_embedding = _ConditionEmbedding(classes, size, width, generator)


def conditions(labels: Tensor | None, augmentation: Tensor) -> Tensor:
    """Put class numbers and augmentations together as one tensor, which the network is given.

    Arguments:
        labels: int64 (B,); embeddings, float32 (B, width); or None without classes.
        augmentation: float32 (B, size).
    """
    if labels is None:
        return augmentation
    if labels.is_floating_point():
        return torch.cat([labels, augmentation], 1)
    return torch.cat([labels[:, None].to(augmentation), augmentation], 1)


@contextmanager
def unconditioned(unet: UNet2DModel) -> Iterator[None]:
    """Call a UNet as one that was not told of augmentations for a while: without, or by class."""
    told = getattr(unet, "class_embedding", None)
    if not isinstance(told, _ConditionEmbedding) or told.has_classes or told.given_width:
        yield
        return
    unet.class_embedding = None
    try:
        yield
    finally:
        unet.class_embedding = told


def plain_weights(weights: Mapping[str, T]) -> dict[str, T]:
    """Leave out of a state what stands for augmentations, as if there were none."""
    return {name: value for name, value in weights.items() if not name.startswith(_NAME)}
