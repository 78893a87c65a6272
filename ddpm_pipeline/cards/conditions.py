"""What a card says of a model that is told numbers, or is given images, beside its classes.

told = conditioning_in(config)          of the network's config; None without
told.sentence, told.argument            "It is told x (0 … 1).", "condition=[0.5]"
stock_lines(told, shape, steps)         how stock diffusers calls such a network
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddpm_pipeline.cards.markdown import plain
from ddpm_pipeline.common import PRIVATE_KEY, is_integer

__all__ = ["ToldCondition", "conditioning_in", "picture_lines", "stock_lines"]


@dataclass(frozen=True)
class ToldCondition:
    """What a network's config says that it is conditioned on.

    Arguments:
        ranges: Name, lowest and highest of each number; none without.
        channels: Of the image; 0 without.
        sides: Its height and width.
        upsampling: How it is scaled up.
        dtype: Of an image whose values are kept exactly; None of bytes.
    """

    ranges: tuple[tuple[str, float, float], ...]
    channels: int
    sides: tuple[int, int]
    upsampling: str
    dtype: str | None = None

    @property
    def sentence(self) -> str:
        """Say what the model is told and given."""
        parts = []
        if self.ranges:
            named = (f"{plain(name)} ({low:g} … {high:g})" for name, low, high in self.ranges)
            parts.append(f"is told {', '.join(named)}")
        if self.channels:
            height, width = self.sides
            parts.append(f"is given an image of {height}×{width} and {self.channels} channel(s)")
        return f"It {' and '.join(parts)}."

    @property
    def argument(self) -> str:
        """Write the argument of a call of the pipeline, with numbers in the middle."""
        vector = str([round((low + high) / 2, 6) for _, low, high in self.ranges])
        if not self.channels:
            return f"condition={vector}"
        if not self.ranges:
            return "condition=picture"
        return f'condition={{"vector": {vector}, "image": picture}}'


def conditioning_in(config: Mapping[str, Any]) -> ToldCondition | None:
    """Read what a network is conditioned on; None where it is not, or what it says is damaged."""
    entry = (config.get(PRIVATE_KEY) or {}).get("conditioning")
    if not isinstance(entry, dict):
        return None
    try:
        ends = (entry.get(name, ()) for name in ("columns", "low", "high"))
        ranges = tuple((str(n), float(a), float(b)) for n, a, b in zip(*ends, strict=True))
        channels, sides = entry.get("channels", 0), tuple(entry.get("sides", (0, 0)))
        if not all(map(is_integer, (channels, *sides))) or len(sides) != 2:
            return None
        upsampling = "nearest" if entry.get("upsampling") == "nearest" else "bicubic"
        dtype = (entry.get("values") or {}).get("dtype")
        return ToldCondition(ranges, channels, sides, upsampling, dtype and str(dtype))
    except (AttributeError, TypeError, ValueError):
        return None


def picture_lines(told: ToldCondition | None) -> tuple[list[str], list[str]]:
    """Write what must be imported to open the image that a model is given, and the opening."""
    if told is None or not told.channels:
        return [], []
    if told.dtype is None:
        return ["import PIL.Image", ""], ['picture = PIL.Image.open("small.png")  # yours']
    comment = f"# yours: {told.dtype}, (C, H, W)"
    opening = f'picture = torch.from_numpy(np.load("small.npy"))  {comment}'
    return ["import numpy as np", "import torch", ""], [opening]


def stock_lines(
    told: ToldCondition,
    shape: Sequence[int],
    steps: int,
    *,
    has_classes: bool = False,
    learns_variance: bool = False,
) -> list[str]:
    """Write the loop by which stock diffusers draws, after ``pipe`` is loaded.

    Arguments:
        told: What the network is conditioned on.
        shape: Of the images, (B, C, H, W).
        steps: K.
        has_classes: Whether the network has these too.
        learns_variance: Whether the scheduler takes a variance from the network's output.
    """
    x, labels, before = "x_t", "", []
    if told.ranges:
        middle = [round((low + high) / 2, 6) for _, low, high in told.ranges]
        before += [
            f'facts = pipe.unet.config["{PRIVATE_KEY}"]["conditioning"]',
            'low, high = torch.tensor([facts["low"], facts["high"]], dtype=torch.float64)',
            "width = 4 * pipe.unet.config.block_out_channels[0]",
            "waves = math.pi / 2 * 32 ** torch.linspace(0, 1, width // (2 * len(low)))",
            f"v = torch.tensor({[middle] * shape[0]}, dtype=torch.float64)",
            "angles = ((v - low) / (high - low)).float()[..., None] * waves",
            "labels = torch.cat([angles.cos(), angles.sin()], -1).flatten(1)",
            "labels = torch.nn.functional.pad(labels, (0, width - labels.shape[1]))",
        ]
        labels = ", labels"
    elif has_classes:
        before.append(f"labels = torch.tensor({list(range(shape[0]))})")
        labels = ", labels"
    if told.channels:
        small = (shape[0], told.channels, *told.sides)
        before += [
            f"small = torch.rand{small}  # yours, in [0, 1]",
            "y = torch.nn.functional.interpolate(",
            f'    small * 2 - 1, {tuple(shape[2:])}, mode="{told.upsampling}"',
            ")",
        ]
        x = "torch.cat([x_t, y], 1)"
    output = "output" if learns_variance else f"output[:, :{shape[1]}]"
    return [
        *before,
        f"x_t = torch.randn{tuple(shape)}",
        f"pipe.scheduler.set_timesteps({steps})",
        "with torch.no_grad():",
        "    for t in pipe.scheduler.timesteps:",
        f"        output = pipe.unet({x}, t{labels}).sample",
        f"        x_t = pipe.scheduler.step({output}, t, x_t).prev_sample",
    ]
