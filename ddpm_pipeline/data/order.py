"""The order of the data: which images a step sees, from (seed, step, rank) alone.

Step i on rank r of R, with B images each, takes places

    (i R + r) B, ..., (i R + r + 1) B - 1

of the endless sequence made of one permutation of the data per epoch. So a resumed run sees what
an uninterrupted one would have seen, all batches are full (one may end an epoch and begin the
next), and the ranks' places are disjoint.
"""

from functools import lru_cache

import torch
from torch import Tensor

from ddpm_pipeline.common import check_integer, stream_generator

__all__ = ["batch_indices", "check_share", "epoch_order"]


def batch_indices(
    step: int, *, length: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
) -> Tensor:
    """Give the numbers of the images that a rank takes at a step, int64 (batch_size,).

    Arguments:
        step: Counted from 0 over the whole run, not per epoch.
        length: How many images there are.
        batch_size: How many one rank takes.

    Raises:
        ValueError: If a batch is empty, the ranks together ask for more images at once than there
            are, or an argument is out of range.
    """
    check_share(batch_size, rank, world_size)
    check_integer("step", step, least=0)
    if batch_size * world_size > length:
        raise ValueError(
            f"batch_size={batch_size} on {world_size} processes is larger than the data: "
            f"{length} images"
        )
    epoch, start = divmod((step * world_size + rank) * batch_size, length)
    order = _epoch_order(length, seed, epoch)[start : start + batch_size]
    if (missing := batch_size - len(order)) > 0:
        return torch.cat([order, _epoch_order(length, seed, epoch + 1)[:missing]])
    return order.clone()


def check_share(batch_size: int, rank: int, world_size: int) -> None:
    """Refuse what no process of a group can take.

    Raises:
        ValueError: If batches are empty, or there is no such rank.
    """
    check_integer("batch_size", batch_size)
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be in 0 ... world_size - 1, got {rank} of {world_size}")


def epoch_order(length: int, seed: int, epoch: int) -> Tensor:
    """Give the permutation of 0 … length - 1 that an epoch goes through, int64."""
    return _epoch_order(length, seed, epoch).clone()


@lru_cache(maxsize=2)  # a batch may end one epoch and begin the next
def _epoch_order(length: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(length, generator=stream_generator("order", seed, epoch))
