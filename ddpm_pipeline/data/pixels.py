"""TODO data.pixels."""

from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor

__all__ = ["images_from_uint8", "random_flip", "to_model_range", "uint8_from_unit_range"]


# On the device.


def to_model_range(images: Tensor) -> Tensor:
    """Bytes 0 … 255 to float32 in [-1, 1]: 2 k / 255 - 1, on the device they are on.

    Raises:
        TypeError: If the images are not bytes.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"images must be uint8, got {images.dtype}")
    return images.to(torch.float32).mul_(2).div_(255).sub_(1)


def random_flip(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Each image mirrored left to right with probability one half.

    Arguments:
        images: (B, C, H, W), of any dtype.
        generator: On the device of the images, or on the CPU.
    """
    device = images.device if generator is None else generator.device
    coins = torch.randint(0, 2, (len(images), 1, 1, 1), generator=generator, device=device)
    flipped = coins.to(images.device, torch.bool, non_blocking=True)
    return torch.where(flipped, images.flip(-1), images)


def uint8_from_unit_range(images: Tensor) -> np.ndarray:
    """Images in [0, 1], (N, C, H, W), on the 256 levels: uint8, (N, H, W, C), on the CPU."""
    return (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def images_from_uint8(images: np.ndarray) -> list[PIL.Image.Image]:
    """Pillow images of uint8 (N, H, W, C) with C = 1 (L), 2 (LA), 3 (RGB) or 4 (RGBA)."""
    return [PIL.Image.fromarray(i[..., 0] if i.shape[-1] == 1 else i) for i in images]


def unit_range(samples: Tensor) -> Tensor:
    if not samples.isfinite().all():
        raise ValueError(
            "the images are not finite: the model's weights or its scheduler are at fault (DDIM "
            "with eta=1 and zero terminal SNR divides by zero; DDPMScheduler does not)"
        )
    return (samples / 2 + 0.5).clamp(0, 1)


OUTPUTS: dict[str, Callable[[Tensor], Any]] = {
    "pil": lambda images: images_from_uint8(uint8_from_unit_range(images)),
    "np": lambda images: images.permute(0, 2, 3, 1).cpu().numpy(),
    "pt": lambda images: images,
}


def concatenated(parts: list[Any]) -> list[PIL.Image.Image] | np.ndarray | Tensor:
    if isinstance(parts[0], list):
        return [image for part in parts for image in part]
    return torch.cat(parts) if isinstance(parts[0], Tensor) else np.concatenate(parts)
