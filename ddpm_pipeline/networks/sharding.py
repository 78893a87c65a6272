"""Weights cut into shards, of which each process keeps one: ``fully_shard`` of torch (FSDP2).

With n processes, each holds 1/n of the weights, the gradients, the optimiser's state and the
averages. A block of the UNet is put together from the processes' shards when it computes, forward
and backward, and its gradient is averaged into shards. So every call of a sharded network is a
collective: all processes must make equally many.

A sharded parameter is torch's ``DTensor``; every function here takes plain tensors too, and then
has nothing to do.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import Tensor
from torch.distributed import get_world_size, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from accelerate import Accelerator
    from diffusers import UNet2DModel

__all__ = [
    "gathered",
    "is_sharded_run",
    "joined",
    "like",
    "own_part",
    "shard",
    "whole",
    "without_accelerates_own",
]

logger = logging.getLogger(__name__)


_LAUNCHED = "ACCELERATE_USE_FSDP"


@contextmanager
def without_accelerates_own() -> Iterator[None]:
    """Have accelerate set up plain processes, also where it was launched with --use_fsdp.

    Its own FSDP, which is not used here, refuses to start on CPUs.
    """
    launched = os.environ.pop(_LAUNCHED, None)
    try:
        yield
    finally:
        if launched is not None:
            os.environ[_LAUNCHED] = launched


def is_sharded_run(accelerator: Accelerator, *, asked: bool) -> bool:
    """Whether a run shards its weights: if it was ``asked`` to, or launched with --use_fsdp.

    Raises:
        ValueError: If accelerate was told to do something else with the weights, or there is only
            one process.
    """
    kind = accelerator.distributed_type.value
    by_launcher = kind == "FSDP" or os.environ.get(_LAUNCHED, "").lower() == "true"
    if kind not in {"NO", "FSDP"} and not kind.startswith("MULTI_"):
        raise ValueError(
            f"accelerate's distributed_type {kind} is not supported; launch with --multi_gpu or "
            "torchrun, and add --fsdp to shard the weights"
        )
    if (asked or by_launcher) and accelerator.num_processes == 1:
        raise ValueError("fsdp needs more than one process to share the weights, got 1")
    if by_launcher and accelerator.is_main_process:
        logger.info("sharding every block of the UNet; accelerate's own FSDP options are not used")
    return asked or by_launcher


def shard(unet: UNet2DModel) -> None:
    """Leave each process its shard of every parameter, in place, block by block.

    Arguments:
        unet: Whole and alike on all processes, on their device; its parameters are replaced.
    """
    device = next(unet.parameters()).device.type
    mesh = init_device_mesh(device, (get_world_size(),))
    for module in (*unet.down_blocks, unet.mid_block, *unet.up_blocks, unet):
        if module is not None:
            # The root too: unsharded weights that an evaluation leaves behind would be those of
            # an average, and the next update would compute with them.
            fully_shard(module, mesh=mesh, reshard_after_forward=True)


def own_part(tensor: Tensor) -> Tensor:
    """This process's part of a tensor, over the same memory."""
    if not isinstance(tensor, DTensor):
        return tensor
    return tensor.to_local().detach().requires_grad_(tensor.requires_grad)


def joined(parameter: Tensor, part: Tensor) -> Tensor:
    """The tensor, sharded as the parameter is, of which ``part`` is this process's part."""
    if not isinstance(parameter, DTensor):
        return part
    return DTensor.from_local(
        part,
        parameter.device_mesh,
        parameter.placements,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


def like(parameter: Tensor, value: Tensor) -> Tensor:
    """A whole ``value`` that every process has, cut into shards as the parameter is."""
    if not isinstance(parameter, DTensor):
        return value
    return distribute_tensor(
        value.to(parameter.device),
        parameter.device_mesh,
        parameter.placements,
        src_data_rank=None,
    )


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor; every process must ask, in the same order."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Whole tensors, those put together from shards in main memory; none unless ``keep``.

    Every process must ask, in the same order; at most one tensor is whole on a device at a time.
    """
    result = {}
    for name, tensor in tensors.items():
        value = whole(tensor)
        if keep:
            result[name] = value.cpu() if isinstance(tensor, DTensor) else value
    return result
