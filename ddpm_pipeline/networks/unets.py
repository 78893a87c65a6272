"""The UNet that training starts from, with a config made for the resolution.

=========  ==========================================================================
size       the shorter side is halved until it is at most 8; widths at each level
=========  ==========================================================================
``small``  32, 64, 64, 128, 128, ... with one block each; 1.1 M parameters at 28 … 32
``base``   64, 128, 128, 256, 256, ... with two blocks each; 6.5 M at 28 … 32
``ddpm``   the UNets of Ho et al. 2020: 35.7 M up to 32 pixels, 113.7 M above
``adm``    like those of Dhariwal and Nichol 2021: 276 M up to 64 pixels, 282 to 285 M above
=========  ==========================================================================

``small`` and ``base`` attend at the last level only, ``adm`` at the last three, which are 32, 16
and 8 pixels wide at 64, 128 and 256. With C classes the network has C + 1 class embeddings, the
last being the null class that label dropout puts in and guidance asks for.

The last layer of every residual branch, and of the network, starts at zero, so that branches grow
from nothing; in the code of Ho et al. 2020 their variance is 1e-10. Diffusers draws them like all
others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any

from torch import nn

from ddpm_pipeline.common import Resolution, described_sides, sides_of

if TYPE_CHECKING:
    from diffusers import UNet2DModel

__all__ = ["attention_warning", "check_halvings", "fresh_unet", "unet_config"]


_LARGE_SIDE = 32  # of an image at which attention is slow
_LAST_LAYERS = (".conv2", ".to_out.0", "conv_out")  # of residual blocks, attention, the network


def unet_config(
    size: str,
    *,
    resolution: Resolution,
    channels: int,
    out_channels: int | None = None,
    num_classes: int | None = None,
    dropout: float = 0,
) -> dict[str, Any]:
    """Choose the arguments of ``UNet2DModel`` for images (C, H, W).

    Arguments:
        size: small, base, ddpm or adm.
        resolution: Side of the images, or their height and width.
        channels: C.
        out_channels: Of the output; C unless given, 2C for learned variances.
        num_classes: Classes without the null class; None for a network without.
        dropout: In residual blocks, 0 to 1.

    Raises:
        ValueError: If the resolution cannot be halved as often as the size asks for.
    """
    config = _SIZES[size](sides_of(resolution))
    check_halvings(resolution, len(config["block_out_channels"]) - 1, f"model_size {size!r}")
    return {
        "sample_size": resolution,
        "in_channels": channels,
        "out_channels": out_channels or channels,
        "dropout": dropout,
        "num_class_embeds": None if num_classes is None else num_classes + 1,
        **config,
    }


def check_halvings(resolution: Resolution, halvings: int, what: str) -> None:
    """Refuse sides that cannot be halved as often as the levels of a network ask for.

    Arguments:
        resolution: Of the images.
        halvings: The levels but one.
        what: Which network, for the message.
    Raises:
        ValueError: Says which sides are nearest that fit.
    """
    step, sides = 2**halvings, sides_of(resolution)
    if not any(side % step for side in sides):
        return
    is_square = isinstance(resolution, int)
    got = resolution if is_square else described_sides(resolution)
    fitting = dict.fromkeys(_nearest(side, step) for side in sides if side % step)
    raise ValueError(
        f"resolution must be a multiple of {step} for {what}, got {got}; "
        f"what fits: {', '.join(fitting)}"
    )


def _nearest(side: int, step: int) -> str:
    """Say which multiples of a step are nearest to a side that is none."""
    below = side - side % step
    fitting = f"{below} or {below + step}" if below else f"{step}"
    return f"{fitting} in place of {side}"


def fresh_unet(config: Mapping[str, Any]) -> UNet2DModel:
    """Make a UNet to train, drawn from torch's global generator, with last layers of zeros.

    Arguments:
        config: From ``unet_config``, or the config of any ``UNet2DModel``.
    """
    from diffusers import UNet2DModel

    unet = UNet2DModel.from_config(config)
    for name, layer in unet.named_modules():
        if name.endswith(_LAST_LAYERS):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    return unet


def attention_warning(resolution: Resolution) -> str | None:
    """Warn of a resolution at which ``small`` and ``base`` attend at a large image, or give None.

    Attention takes time by the square of the number of places.
    """
    height, width = sides = _attention_sides(sides_of(resolution))
    if not _is_large(sides):
        return None
    other = next(n for n in _larger(sides_of(resolution)) if not _is_large(_attention_sides(n)))
    smaller = " x ".join(map(str, _attention_sides(other)))
    of = other[0] if isinstance(resolution, int) else described_sides(other)
    named = resolution if isinstance(resolution, int) else described_sides(resolution)
    return (
        f"the UNet of resolution {named} attends at {height} x {width} places, to be halved no "
        f"further; that of {of} attends at {smaller}"
    )


def _is_large(sides: tuple[int, int]) -> bool:
    """Tell whether attention is slow at an image of these sides."""
    return sides[0] * sides[1] > _LARGE_SIDE**2


def _larger(sides: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yield these sides, and then both rounded up to multiples of 2, 4, 8, ..."""
    if sides[0] == sides[1]:
        yield from ((n, n) for n in count(sides[0]))
    yield sides
    for step in (2**k for k in count(1)):
        yield tuple(-(-side // step) * step for side in sides)


def _attention_sides(sides: tuple[int, int]) -> tuple[int, int]:
    """Give the sides of the last level, where ``small`` and ``base`` attend."""
    halvings = len(_small_or_base(sides, 1, 1)["block_out_channels"]) - 1
    return sides[0] >> halvings, sides[1] >> halvings


def _halvings(sides: tuple[int, int], smallest: int) -> int:
    """Count how often sides can be halved that stay even and end at `smallest` or more."""
    halvings = 0
    while not any(side % 2 for side in sides) and min(sides) // 2 >= smallest:
        sides, halvings = (sides[0] // 2, sides[1] // 2), halvings + 1
    return halvings


def _small_or_base(sides: tuple[int, int], width: int, layers: int) -> dict[str, Any]:
    """Lay out ``small`` and ``base``, which differ in their width and their blocks per level."""
    levels = 1 + _halvings(sides, 4 if min(sides) < 16 else 7)
    widths = tuple(width * 2 ** ((level + 1) // 2) for level in range(levels))
    return _unet(widths, layers, attention={levels - 1}, norm_num_groups=16)


def _ddpm(sides: tuple[int, int]) -> dict[str, Any]:
    """Lay out the UNets of Ho et al. 2020, appendix B."""
    small = max(sides) <= 32
    widths = (128, 256, 256, 256) if small else (128, 128, 256, 256, 512, 512)
    attention = {1} if small else {4}
    return _unet(
        widths,
        2,
        attention,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
        attention_head_dim=None,
    )


def _adm(sides: tuple[int, int]) -> dict[str, Any]:
    """Lay out UNets like those of Dhariwal and Nichol 2021, of stock's blocks.

    From there: the multiples of channels at each level, heads of 64 channels, attention at 32, 16
    and 8 pixels, and the time as scale and shift of the norms. Otherwise than there: sides are
    halved and doubled by plain convolutions; above 64 pixels there are 192 channels in place of
    256, and up to 128 three blocks at each level in place of two.
    Source: Dhariwal and Nichol 2021, section 3 and appendix I.
    """
    multiples, layers = _ADM[min((most for most in _ADM if max(sides) <= most), default=256)]
    levels = len(multiples)
    return _unet(
        tuple(192 * multiple for multiple in multiples),
        layers,
        attention={levels - 3, levels - 2, levels - 1},
        attention_head_dim=64,
        resnet_time_scale_shift="scale_shift",
    )


_ADM = {64: ((1, 2, 3, 4), 3), 128: ((1, 1, 2, 3, 4), 3), 256: ((1, 1, 2, 2, 4, 4), 2)}
"""The multiples of channels at each level, and the blocks there, up to so many pixels."""


def _unet(
    widths: tuple[int, ...], layers: int, attention: set[int], **more: object
) -> dict[str, Any]:
    names = ["Attn" if level in attention else "" for level in range(len(widths))]
    return {
        "block_out_channels": widths,
        "layers_per_block": layers,
        "down_block_types": tuple(f"{name}DownBlock2D" for name in names),
        "up_block_types": tuple(f"{name}UpBlock2D" for name in reversed(names)),
        **more,
    }


_SIZES = {
    "small": lambda sides: _small_or_base(sides, 32, 1),
    "base": lambda sides: _small_or_base(sides, 64, 2),
    "ddpm": _ddpm,
    "adm": _adm,
}
