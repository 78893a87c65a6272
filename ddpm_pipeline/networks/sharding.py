"""Weights in shards, one on each process: ``fully_shard`` of torch (FSDP2).

With n processes, each holds 1/n of the weights, the gradients, the optimizer's state and the
averages. A block of the UNet is put together from the processes' shards when it computes, forward
and backward, and its gradient is averaged into shards. So every call of a sharded network needs
all processes: each must make the same number of calls.

A sharded parameter is torch's ``DTensor``. Every function here also takes plain tensors, and gives
them back as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.distributed import get_world_size, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from diffusers import UNet2DModel

__all__ = ["gathered", "joined", "like", "own_part", "shard", "whole"]


def shard(unet: UNet2DModel) -> None:
    """Cut the parameters of a UNet into shards and leave each process its own, block by block.

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
    """Give this process's part of a tensor, over the same memory."""
    if not isinstance(tensor, DTensor):
        return tensor
    return tensor.to_local().detach().requires_grad_(tensor.requires_grad)


def joined(parameter: Tensor, part: Tensor) -> Tensor:
    """Join the processes' parts to a tensor that is sharded as the parameter is.

    Arguments:
        parameter: A parameter of the network.
        part: This process's part of the tensor.
    """
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
    """Cut a whole ``value``, which every process has, into shards as the parameter is."""
    if not isinstance(parameter, DTensor):
        return value
    return distribute_tensor(
        value.to(parameter.device),
        parameter.device_mesh,
        parameter.placements,
        src_data_rank=None,
    )


def whole(tensor: Tensor) -> Tensor:
    """Put a tensor together from its shards; all processes must call this, in the same order."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(
    tensors: Mapping[str, Tensor], *, keep: bool, copied: bool = False
) -> dict[str, Tensor]:
    """Put tensors together from their shards, in main memory; give none back unless ``keep``.

    All processes must call this. At most one tensor is whole on a device at a time.

    Arguments:
        tensors: By name; those without shards stay where they are.
        keep: Whether this process gets them.
        copied: Whether all must be in memory of their own, which no update changes.
    """
    result = {}
    for name, tensor in tensors.items():
        value = whole(tensor)
        if keep:
            here = value.cpu() if isinstance(tensor, DTensor) else value
            result[name] = here.clone() if copied and here is value else here
    return result
