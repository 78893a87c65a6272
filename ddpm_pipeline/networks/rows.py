"""How many images a network is called with at once, where nobody says.

    rows_per_call(unet, (3, 32, 32), device, on_cpu=16, elements=2**20)

A CPU is busy with a few images. A GPU waits for its host unless a call has about a million
elements; so it is given as many, or what half of its memory holds. The number depends on the
network, the images and the device alone, not on what happens to be in memory: kernels for other
numbers of rows round differently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from weakref import WeakSet, finalize

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ddpm_pipeline.networks.condition import blank_inputs
from ddpm_pipeline.networks.denoiser import dtype_of

if TYPE_CHECKING:
    from ddpm_pipeline.networks.denoiser import Denoiser

__all__ = ["bytes_per_row", "rows_per_call"]


_META = torch.device("meta")
_WITH_FEW_ROWS = {"cpu", "mps"}
# Of a GPU's memory: weights, workspaces and what else the process keeps there take the rest.
_SHARE = 0.5
_TRIAL_ROWS = 8


def rows_per_call(
    network: Denoiser, shape: Sequence[int], device: torch.device, *, on_cpu: int, elements: int
) -> int:
    """Choose how many images a call of a network computes.

    Arguments:
        network: What is called, without gradients.
        shape: Of an image, (C, H, W).
        device: Where it is.
        on_cpu: The number on CPUs, and on devices that share the host's memory.
        elements: What a call on a GPU should have at least, over all of its images.
    Returns:
        On GPUs a power of two, the smallest with as many elements, or the largest that fits.
    """
    if device.type in _WITH_FEW_ROWS:
        return on_cpu
    rows = 2 ** math.ceil(math.log2(max(1, elements / math.prod(shape))))
    memory = _memory(device)
    if memory is None:
        return rows
    each = bytes_per_row(network, shape)
    fitting = rows if each is None else max(1, int(_SHARE * memory / each))
    return min(rows, 2 ** int(math.log2(fitting)))


def _memory(device: torch.device) -> int | None:
    """Give the bytes that a device has in all; None where that is not known."""
    if device.type != "cuda":
        return None
    return torch.cuda.get_device_properties(device).total_memory


def bytes_per_row(network: Denoiser, shape: Sequence[int]) -> float | None:
    """Find out how much memory each image of a call takes, from a call without any data.

    Arguments:
        network: A module, whose weights are only looked at.
        shape: Of an image.
    Returns:
        Bytes of all tensors that are alive at the worst moment; None for what is no module, or
        does not work without data, or without labels that its config does not tell of.
    """
    if not isinstance(network, nn.Module):
        return None
    tensors = [*network.named_parameters(), *network.named_buffers()]
    weights = {name: tensor.detach().to(_META) for name, tensor in tensors}
    dtype = dtype_of(network, torch.float32)
    x_t, labels = blank_inputs(network, torch.empty(_TRIAL_ROWS, *shape, device=_META))
    x_t = x_t.to(dtype)
    t = torch.zeros(_TRIAL_ROWS, dtype=torch.int64, device=_META)
    named = {} if labels is None else {"class_labels": labels}
    peak = _PeakBytes(known=[x_t, t, *weights.values()])
    try:
        with torch.no_grad(), peak:
            functional_call(network, weights, (x_t, t), named)
    except Exception:  # noqa: BLE001 (of any kind: it may need labels, data or another device)
        return None  # whether the network works is for its first call to say
    return peak.most / _TRIAL_ROWS


class _PeakBytes(TorchDispatchMode):
    """Counts the bytes of tensors that are made, and alive at one time, while the mode is on.

    Arguments:
        known: Tensors whose views are not counted.
    """

    def __init__(self, known: Sequence[Tensor]) -> None:
        super().__init__()
        self.most = self._alive = 0
        self._seen = WeakSet(tensor.untyped_storage() for tensor in known)

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.untyped_storage() not in self._seen:
                self._add(tensor.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        self._seen.add(storage)
        self._alive += storage.nbytes()
        self.most = max(self.most, self._alive)
        finalize(storage, self._forget, storage.nbytes())

    def _forget(self, size: int) -> None:
        self._alive -= size
