r"""Augmentations whose parameters a network is told, so that its samples show none of them.

    a   = draw_augmentation(("flip", "translate"), 0.12, count, sides, generator)    (B, A)
    x_0 = augmented(x_0, ("flip", "translate"), a)
    y   = moved_alike(y, ("flip", "translate"), a)      a picture that goes with x_0

Row b of a says what is done to image b, in numbers of the order of one; a row of zeros leaves
the image as it is, to the bit. A network that is trained on (augmented x_0, a) and sampled at
a = 0 has learned from more images than there are, and draws images like those that there are.

What moves pixels is one affine map of the positions and one bilinear interpolation, with the image
mirrored at its borders; colours follow.

Source: Karras et al. 2022 (arXiv:2206.00364), appendix F.2 and table 6, whose amounts these are;
"crop" is not among them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

__all__ = ["AUGMENTATIONS", "augmentation_size", "augmented", "draw_augmentation", "moved_alike"]

_SHIFT = 1 / 8  # of the side, at most; by whole pixels
_SMALLEST_CROP = 3 / 4  # of the side
_SCALE, _BRIGHTNESS, _CONTRAST, _SATURATION = 0.2, 0.2, 0.5, 1.0  # standard deviations


_Sides = tuple[int, int]


class _Kind(NamedTuple):
    """One augmentation.

    Arguments:
        size: How many numbers say what it does.
        draw: f(count, generator, sides) gives them, (count, size).
        place: f(numbers, sides) gives the map of positions, from where a pixel of the new image is
            taken, (B, 2, 3), in a plane where the image is [-1, 1]²; None for colours.
        colour: f(images, numbers) changes colours; None for what moves pixels.
    """

    size: int
    draw: Callable[[int, torch.Generator, _Sides], Tensor]
    place: Callable[[Tensor, _Sides], Tensor] | None = None
    colour: Callable[[Tensor, Tensor], Tensor] | None = None


def draw_augmentation(
    names: Sequence[str],
    probability: float,
    count: int,
    sides: tuple[int, int],
    generator: torch.Generator,
) -> Tensor:
    """Draw what is done to each of some images, every augmentation by a coin of its own.

    Arguments:
        names: Of AUGMENTATIONS, each at most once.
        probability: Of each augmentation for each image.
        count: B.
        sides: Height and width of the images, in pixels.
        generator: On the CPU.
    Returns:
        (B, augmentation_size(names)), float32; zeros where nothing is done.
    """
    parts = []
    for name in names:
        coins = torch.rand(count, 1, generator=generator) < probability
        drawn = AUGMENTATIONS[name].draw(count, generator, sides)
        parts.append(torch.where(coins, drawn, 0.0))
    return torch.cat(parts, 1)


def augmentation_size(names: Sequence[str]) -> int:
    """Count the numbers that say what these augmentations do to an image."""
    return sum(AUGMENTATIONS[name].size for name in names)


def augmented(x_0: Tensor, names: Sequence[str], drawn: Tensor) -> Tensor:
    """Change images as ``draw_augmentation`` says.

    Arguments:
        x_0: In [-1, 1], float32 (B, C, H, W). The last of 2 or 4 channels is no colour.
        names: As they were drawn.
        drawn: (B, A), on the device of the images.
    Returns:
        Images of that shape; those whose row is zero are the same bits.
    """
    numbers = _by_name(names, drawn)
    changed = _moved(x_0, numbers, "bilinear")
    for name, part in numbers.items():
        if (colour := AUGMENTATIONS[name].colour) is not None:
            changed = _coloured(changed, colour, part)
    untouched = (drawn == 0).all(1).view(-1, 1, 1, 1)
    return torch.where(untouched, x_0, changed)


def moved_alike(
    pictures: Tensor,
    names: Sequence[str],
    drawn: Tensor,
    mode: Literal["bilinear", "nearest"] = "bilinear",
) -> Tensor:
    """Move pictures that go with images as these are moved, and leave their colours alone.

    Arguments:
        pictures: Of the images' size, float32 (B, C, H, W).
        names, drawn: As for the images.
        mode: How values between pixels are found; "nearest" makes no new ones.
    Returns:
        Pictures of that shape; those that are not moved are the same bits.
    """
    numbers = {k: v for k, v in _by_name(names, drawn).items() if AUGMENTATIONS[k].place}
    if not numbers:
        return pictures
    untouched = (torch.cat(list(numbers.values()), 1) == 0).all(1).view(-1, 1, 1, 1)
    return torch.where(untouched, pictures, _moved(pictures, numbers, mode))


def _by_name(names: Sequence[str], drawn: Tensor) -> dict[str, Tensor]:
    """Give the numbers of each augmentation, in the order in which they are made."""
    parts = drawn.split([AUGMENTATIONS[name].size for name in names], 1)
    numbers = dict(zip(names, parts, strict=True))
    return {name: numbers[name] for name in AUGMENTATIONS if name in numbers}


def _moved(images: Tensor, numbers: Mapping[str, Tensor], mode: str) -> Tensor:
    """Take every pixel from where the maps of positions, the last one first, say."""
    sides = (images.shape[-2], images.shape[-1])
    kinds = [(AUGMENTATIONS[name], part) for name, part in numbers.items()]
    maps = [kind.place(part, sides) for kind, part in kinds if kind.place is not None]
    if not maps:
        return images
    whole = maps[0]
    for following in maps[1:]:
        # The later change is looked up first: it says where in the earlier result to look.
        linear = whole[:, :, :2] @ following[:, :, :2]
        shift = whole[:, :, :2] @ following[:, :, 2:] + whole[:, :, 2:]
        whole = torch.cat([linear, shift], 2)
    grid = torch.nn.functional.affine_grid(whole, list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode=mode, padding_mode="reflection", align_corners=False)


def _coloured(
    images: Tensor, colour: Callable[[Tensor, Tensor], Tensor], numbers: Tensor
) -> Tensor:
    """Change the colours of images, and leave an alpha channel alone."""
    channels = images.shape[1]
    count = channels - 1 if channels in {2, 4} else channels
    changed = colour(images[:, :count], numbers.view(-1, 1, 1, 1))
    return torch.cat([changed, images[:, count:]], 1)


# Numbers.


def _coins(count: int, generator: torch.Generator, _sides: _Sides) -> Tensor:
    return torch.randint(0, 2, (count, 1), generator=generator).float()


def _normal(count: int, generator: torch.Generator, _sides: _Sides) -> Tensor:
    return torch.randn(count, 1, generator=generator)


def _turns(count: int, generator: torch.Generator, _sides: _Sides) -> Tensor:
    """Give cos - 1 and sin of 0, 90, 180 or 270 degrees, exactly."""
    table = torch.tensor([[0.0, 0.0], [-1.0, 1.0], [-2.0, 0.0], [-1.0, -1.0]])
    return table[torch.randint(0, 4, (count,), generator=generator)]


def _angles(count: int, generator: torch.Generator, _sides: _Sides) -> Tensor:
    """Give cos - 1 and sin of any angle."""
    angles = (2 * torch.rand(count, 1, generator=generator) - 1) * math.pi
    return torch.cat([angles.cos() - 1, angles.sin()], 1)


def _shifts(count: int, generator: torch.Generator, sides: _Sides) -> Tensor:
    """Give shifts to the right and down by whole pixels, in units of the largest ones."""
    parts = []
    for side in reversed(sides):
        most = _most_pixels(side)
        parts.append(torch.randint(-most, most + 1, (count, 1), generator=generator) / most)
    return torch.cat(parts, 1)


def _most_pixels(side: int) -> int:
    """Give the largest shift, in pixels."""
    return max(1, round(_SHIFT * side))


def _crops(count: int, generator: torch.Generator, _sides: _Sides) -> Tensor:
    """Give how much of the most is cut off, and where of the places that are left."""
    cut = torch.rand(count, 1, generator=generator)
    return torch.cat([cut, 2 * torch.rand(count, 2, generator=generator) - 1], 1)


# Maps of positions.


def _affine(linear: Sequence[Sequence[Tensor]], shift: Sequence[Tensor]) -> Tensor:
    """Put (B, 2, 3) together from columns (B,)."""
    rows = [torch.stack([*row, move], 1) for row, move in zip(linear, shift, strict=True)]
    return torch.stack(rows, 1)


def _mirror(numbers: Tensor, *, upright: bool) -> Tensor:
    sign, one, zero = 1 - 2 * numbers[:, 0], 1 + 0 * numbers[:, 0], 0 * numbers[:, 0]
    across, down = (one, sign) if upright else (sign, one)
    return _affine([[across, zero], [zero, down]], [zero, zero])


def _rotation(numbers: Tensor, sides: _Sides) -> Tensor:
    """Turn pixels, whose sides are alike also where those of the plane are not."""
    cos, sin, longer = 1 + numbers[:, 0], numbers[:, 1], sides[0] / sides[1]
    return _affine([[cos, -sin * longer], [sin / longer, cos]], [0 * cos, 0 * cos])


def _scaling(numbers: Tensor, _sides: _Sides) -> Tensor:
    inverse = torch.exp2(-_SCALE * numbers[:, 0])
    return _affine([[inverse, 0 * inverse], [0 * inverse, inverse]], [0 * inverse, 0 * inverse])


def _translation(numbers: Tensor, sides: _Sides) -> Tensor:
    one = 1 + 0 * numbers[:, 0]
    height, width = sides  # which are 2 in the plane
    right = -2 * _most_pixels(width) / width * numbers[:, 0]
    down = -2 * _most_pixels(height) / height * numbers[:, 1]
    return _affine([[one, 0 * one], [0 * one, one]], [right, down])


def _cropping(numbers: Tensor, _sides: _Sides) -> Tensor:
    side = 1 - (1 - _SMALLEST_CROP) * numbers[:, 0]
    places = [(1 - side) * numbers[:, 1], (1 - side) * numbers[:, 2]]
    return _affine([[side, 0 * side], [0 * side, side]], places)


# Colours, in [-1, 1] with grey at 0.


def _saturated(images: Tensor, numbers: Tensor) -> Tensor:
    grey = images.mean(1, keepdim=True)
    return grey + (images - grey) * torch.exp2(_SATURATION * numbers)


AUGMENTATIONS: dict[str, _Kind] = {
    "flip": _Kind(1, _coins, lambda a, _: _mirror(a, upright=False)),
    "vertical_flip": _Kind(1, _coins, lambda a, _: _mirror(a, upright=True)),
    "rotate90": _Kind(2, _turns, _rotation),
    "crop": _Kind(3, _crops, _cropping),
    "translate": _Kind(2, _shifts, _translation),
    "scale": _Kind(1, _normal, _scaling),
    "rotate": _Kind(2, _angles, _rotation),
    "brightness": _Kind(1, _normal, colour=lambda x, a: x + _BRIGHTNESS * a),
    "contrast": _Kind(1, _normal, colour=lambda x, a: x * torch.exp2(_CONTRAST * a)),
    "saturation": _Kind(1, _normal, colour=_saturated),
}
"""All augmentations by name, in the order in which they are made."""
