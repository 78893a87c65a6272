"""How an image is brought to a resolution: how far it is scaled, where it is cut and padded.

    size = scaled_size((640, 480), (48, 80))         width and height that cover 48×80
    left, top = middle((640, 480), (80, 48))         where a window of 80×48 lies in its middle

Only sizes are computed here; images of Pillow and bands of arrays follow them alike. Sizes are
(width, height), as Pillow has them, and sides (height, width), as arrays have them.
"""

from __future__ import annotations

from ddpm_pipeline.data.levels import RefusedImageError

__all__ = ["check_not_larger", "excess_ratio", "middle", "scaled_size"]

Size = tuple[int, int]


def scaled_size(size: Size, sides: Size) -> Size:
    """Give the smallest size of the same proportions, rounded, that covers the sides.

    Arguments:
        size: Width and height of an image.
        sides: Height and width to be covered.
    """
    (width, height), (H, W) = size, sides
    if (height == H and width >= W) or (width == W and height >= H):
        return size
    scale = max(H / height, W / width)
    return max(W, round(width * scale)), max(H, round(height * scale))


def excess_ratio(size: Size, sides: Size) -> float:
    """Give how many times more pixels a scaled image has than the sides hold."""
    (width, height), (H, W) = size, sides
    aspect = (width * H) / (height * W)
    return max(aspect, 1 / aspect)


def check_not_larger(size: Size, sides: Size, resolution: object) -> None:
    """Refuse an image that padding cannot bring to the sides.

    Raises:
        RefusedImageError: If it is longer in any direction.
    """
    (width, height), (H, W) = size, sides
    if width > W or height > H:
        raise RefusedImageError(
            f"{width}x{height} is larger than resolution={resolution}, so fit must be 'resize'"
        )


def middle(size: Size, inner: Size) -> Size:
    """Give (left, top) of the middle window of a size; of a larger one, where to paste into it.

    Arguments:
        size, inner: Width and height.
    """
    return (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
