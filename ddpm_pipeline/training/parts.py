"""Parts of a U-Net: which of its weights are trained, and how fast each level learns.

    train_only(unet, "decoder", changed)        freezes all others
    rate_factors(unet.named_parameters(), 0.8)  {"conv_in.weight": 0.168, ..., "conv_out.bias": 1}

=======================  ====================================================================
part                     weights
=======================  ====================================================================
``all``                  all
``attention_and_norms``  attention with its norms, and the norms of all blocks
``decoder``              the way up, with the output
``last_levels``          the two largest levels of the way up, with the output
``classes``              the class embeddings
=======================  ====================================================================

What was drawn or put together when the model was fitted to the run is trained in any case: the
embeddings of new classes, a second half of outputs, the first and the last layer for other
channels.

Levels count from the output: the output's convolution and norm are 0, the largest level of the way
up is 1, and so on down the way up, through the middle, up the way down, to the first convolution
and the embeddings of timestep and class, which come last. Level n learns at decay^n of the rate.

Source: Clark et al. 2020 (arXiv:2003.10555) and Bao et al. 2021 (arXiv:2106.08254) for rates that
decay from layer to layer.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["rate_factors", "train_only"]


_LAST_LEVELS = 2
_OUTPUT = ("conv_norm_out.", "conv_out.")
_BLOCK = re.compile(r"(down_blocks|up_blocks)\.(\d+)\.")
_NORMS = re.compile(r"(^|\.)(norm\d*|group_norm|conv_norm_out)\.")


def train_only(unet: nn.Module, part: str, changed: Collection[str] = ()) -> None:
    """Freeze what is not trained.

    Arguments:
        unet: The network, whose parameters are changed.
        part: Its name.
        changed: The names of weights that are trained in any case.
    Raises:
        ValueError: If the network has no such part.
    """
    if part == "all":
        return
    names = [name for name, _ in unet.named_parameters()]
    wanted = {name for name in names if _is_of(name, part, names)}
    if not wanted:
        raise ValueError(f"train_only={part!r}: the network has no such weights")
    for name, parameter in unet.named_parameters():
        if name not in wanted and name not in changed:
            parameter.requires_grad_(False)


def _is_of(name: str, part: str, names: Iterable[str]) -> bool:
    """Tell whether a weight is of a part."""
    if part == "attention_and_norms":
        return ".attentions." in f".{name}" or _NORMS.search(name) is not None
    if part == "classes":
        return name.startswith("class_embedding.")
    if name.startswith(_OUTPUT):
        return True
    found = _BLOCK.match(name)
    if found is None or found[1] != "up_blocks":
        return False
    return part == "decoder" or int(found[2]) >= _count(names, "up_blocks") - _LAST_LEVELS


def _count(names: Iterable[str], blocks: str) -> int:
    """Count the levels of one way."""
    found = [_BLOCK.match(name) for name in names]
    return 1 + max((int(m[2]) for m in found if m is not None and m[1] == blocks), default=-1)


def rate_factors(
    parameters: Iterable[str], decay: float, among: Collection[str] | None = None
) -> dict[str, float]:
    """Give the learning rate of each parameter in that of the output.

    Arguments:
        parameters: Their names.
        decay: Of the rate, from one level to the next.
        among: The names of all parameters of the network; these unless given.
    """
    names = list(parameters)
    every = names if among is None else among
    ups, downs = _count(every, "up_blocks"), _count(every, "down_blocks")
    return {name: decay ** _depth(name, ups, downs) for name in names}


def _depth(name: str, ups: int, downs: int) -> int:
    """Count the levels from the output to a parameter."""
    if name.startswith(_OUTPUT):
        return 0
    found = _BLOCK.match(name)
    if found is not None:
        number = int(found[2])
        return ups - number if found[1] == "up_blocks" else ups + 1 + downs - number
    return ups + 1 if name.startswith("mid_block.") else ups + downs + 2
