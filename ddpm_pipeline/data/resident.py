"""Images that are kept on the device, where they take little of its memory.

    batches = batches_on(ImageLoader(data, batch_size=64), device)

A batch is then a gather there, of indices that the host sends ahead; no thread decodes, pins or
copies images while the host makes updates. The order is the loader's, and so is every byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ddpm_pipeline.common import moved
from ddpm_pipeline.data.images import Batch, ImageData
from ddpm_pipeline.data.loader import BatchSource, ImageLoader, Prefetcher

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ResidentImages", "batches_on"]


_SHARE = 0.1
"""Of the device's free memory that images may take; the rest is for the network."""


class ResidentImages:
    """The images of an `ImageData` on a device, taken in batches as it gives them.

    Arguments:
        data: Images that are all of one size.
        device: Where they go, in one copy.
    """

    windows = None

    def __init__(self, data: ImageData, device: torch.device) -> None:
        values = data.values
        if data.members is not None:
            values = values.index_select(0, data.members)
        self._values = values.to(device)
        self._labels = None if data.labels is None else data.labels.to(device)
        self._device, self.fingerprint = device, data.fingerprint

    def __len__(self) -> int:
        return len(self._values)

    def batch(self, indices: Tensor, _: torch.Generator | None = None) -> Batch:
        """Take the images and labels at indices that are on the CPU; nothing is drawn."""
        there = moved(indices, self._device)
        labels = None if self._labels is None else self._labels.index_select(0, there)
        return Batch(self._values.index_select(0, there), labels)


def batches_on(loader: BatchSource, device: torch.device) -> Prefetcher:
    """Give a loader's batches on a device, from images that are there if they take little of it.

    Arguments:
        loader: Where batches come from. It belongs to what is returned from then on.
        device: Where they go. Images are kept on CUDA devices alone.
    """
    if not _fits(loader, device):
        return Prefetcher(loader, device)
    loader.data = ResidentImages(loader.data, device)
    return Prefetcher(loader, device, background=False)


def _fits(loader: BatchSource, device: torch.device) -> bool:
    """Tell whether a loader's images are of one size, and few enough."""
    if device.type != "cuda" or not isinstance(loader, ImageLoader):
        return False
    if loader.data.windows is not None or loader.data.given is not None:
        return False
    images = len(loader.data) * loader.data.values[0].numel()
    free, _ = torch.cuda.mem_get_info(device)
    return images <= _SHARE * free
