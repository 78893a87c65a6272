"""Hashes by which content is known again: of a file, of tensors, of a network's weights.

Weights are known by SHA-256 hashes, one for each precision that they may be loaded in: what knows
float32 weights also knows their float16 and bfloat16 roundings.
"""

from __future__ import annotations

import hashlib
import logging
import weakref
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

__all__ = [
    "check_weights",
    "file_hash",
    "tensors_hash",
    "weights_hash",
    "weights_hashes",
]

_PRECISIONS = {
    torch.float64: (torch.float64, torch.float32, torch.float16, torch.bfloat16),
    torch.float32: (torch.float32, torch.float16, torch.bfloat16),
    torch.float16: (torch.float16,),
    torch.bfloat16: (torch.bfloat16,),
}

logger = logging.getLogger(__name__)

# By network: the versions of its parameters when they were hashed, and the hash.
_known: weakref.WeakKeyDictionary[nn.Module, tuple[object, str]] = weakref.WeakKeyDictionary()


def file_hash(path: Path) -> str:
    """Hash the content of a file with SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensors_hash(tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> str:
    """Hash tensors with their names, types and shapes, to the same SHA-256 on any device.

    Arguments:
        tensors: The tensors by name.
        dtype: Round floating-point ones to this first.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        value = tensor.detach()
        if dtype is not None and value.is_floating_point():
            value = value.to(dtype)
        value = value.cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def weights_hash(network: nn.Module, dtype: torch.dtype | None = None) -> str:
    """Hash all parameters and buffers of a network, to the same SHA-256 on any device.

    Arguments:
        network: Any module; what ``torch.compile`` or a wrapper for many devices adds to the
            names does not count.
        dtype: Round floating-point weights to this first.
    """
    return tensors_hash(_bare(network).state_dict(), dtype)


def weights_hashes(network: nn.Module) -> dict[str, str]:
    """Hash the weights as they are and rounded to lower precisions, by name, as in "float32"."""
    precisions = _PRECISIONS.get(_precision(network), ())
    return {_name(dtype): weights_hash(network, dtype) for dtype in precisions}


def check_weights(hashes: Mapping[str, str] | None, network: nn.Module) -> None:
    """Refuse a network whose weights are not those that were hashed.

    Weights are hashed once, and again when they have changed.

    Arguments:
        hashes: From ``weights_hashes``; None allows any weights.
        network: The network. A precision that was not hashed, or weights that are not in memory,
            cannot be checked and pass with a warning.
    Raises:
        ValueError: If the weights are others.
    """
    if hashes is None:
        return
    name = _name(_precision(network))
    if name not in hashes or any(p.is_meta for p in network.parameters()):
        logger.warning(
            "The calibration knows the weights as %s and cannot tell whether these, as %s, are "
            "the same.",
            ", ".join(hashes),
            name,
        )
    elif _current_hash(network) != hashes[name]:
        raise ValueError(
            "the scheduler's calibration was made for other weights than this model's; calibrate "
            "again, or accept it as it is with "
            "scheduler.set_calibration(scheduler.calibration.for_any_weights())"
        )


def _current_hash(network: nn.Module) -> str:
    """Hash the weights, or give the last hash if they have not changed since."""
    versions = [
        (id(p), p.dtype, 0 if p.is_inference() else p._version)  # noqa: SLF001
        for p in network.parameters()
    ]
    if _known.get(network, (None, ""))[0] != versions:
        _known[network] = versions, weights_hash(network, _precision(network))
    return _known[network][1]


def _bare(network: nn.Module) -> nn.Module:
    """Take the wrappers of torch.compile and of many devices off a network."""
    if type(network).__module__.startswith("torch._dynamo."):  # whose import takes a second
        return _bare(network._orig_mod)  # noqa: SLF001
    if isinstance(network, nn.DataParallel | DistributedDataParallel):
        return _bare(network.module)
    return network


def _precision(network: nn.Module) -> torch.dtype | None:
    """Give the floating-point type of the weights, None if there are none."""
    return next((p.dtype for p in network.parameters() if p.is_floating_point()), None)


def _name(dtype: torch.dtype | None) -> str:
    return str(dtype).removeprefix("torch.")
