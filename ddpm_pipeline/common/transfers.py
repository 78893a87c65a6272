"""Tensors from the host to a device, without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["moved"]


# Whose memory is not read by copies beside the host's work.
_WITHOUT_PINNING = {"cpu", "mps"}


def moved(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Give a tensor on a device; what comes from the host to a GPU is copied behind the host.

    From ordinary memory the host would wait until all that the GPU was given before is done. The
    copy goes through pinned memory, which torch keeps until the GPU has read it.
    """
    if tensor.device == device:
        return tensor
    if tensor.device.type == "cpu" and torch.device(device).type not in _WITHOUT_PINNING:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
