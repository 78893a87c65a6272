"""Images on the device give the batches that a loader gives from memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from helpers.device_counts import DEVICE, DeviceCounts, stand_in_device
from helpers.training_runs import image_data
from torch import Tensor

from ddpm_pipeline.data.loader import ImageLoader, Prefetcher
from ddpm_pipeline.data.resident import ResidentImages, batches_on

if TYPE_CHECKING:
    from ddpm_pipeline.data.images import ImageData

LABELS = [i % 3 for i in range(40)]


def loaders(data: ImageData) -> tuple[ImageLoader, ImageLoader]:
    """A loader from memory, and one whose images are where a device would have them."""
    plain, resident = (ImageLoader(data, batch_size=16, seed=3) for _ in range(2))
    resident.data = ResidentImages(data, torch.device("cpu"))
    return plain, resident


@pytest.mark.parametrize("labels", [None, LABELS])
@pytest.mark.parametrize("some", [False, True])
def test_batches_are_the_loaders(labels: list[int] | None, some: bool) -> None:
    data = image_data(labels=labels)
    if some:
        data = data.subset(torch.arange(1, 40, 2))
    plain, resident = loaders(data)
    for _ in range(5):  # beyond an epoch
        a, b = next(plain), next(resident)
        assert torch.equal(a.images, b.images)
        assert (a.labels is None) == (b.labels is None) == (labels is None)
        assert labels is None or torch.equal(a.labels, b.labels)
    assert plain.state_dict() == resident.state_dict()


def test_a_run_may_go_on_with_images_in_the_other_place() -> None:
    plain, resident = loaders(image_data())
    next(plain)
    resident.load_state_dict(plain.state_dict())
    assert torch.equal(next(plain).images, next(resident).images)


def test_a_batch_is_one_copy_of_its_indices_and_a_gather() -> None:
    with stand_in_device():
        loader = ImageLoader(image_data(labels=LABELS), batch_size=16)
        loader.data = ResidentImages(loader.data, DEVICE)
        batches = Prefetcher(loader, DEVICE, background=False)
        with DeviceCounts() as counts:
            images, labels = next(batches)
    assert images.device == labels.device == DEVICE
    assert counts.kernels == {"_to_copy": 1, "index_select": 2}
    assert (len(counts.pinned), counts.unpinned, counts.waits) == (1, [], [])


@pytest.mark.parametrize(("free", "stay"), [(10 * 40 * 64, True), (10 * 40 * 64 - 1, False)])
def test_images_are_kept_on_cuda_where_they_take_a_tenth_of_it(
    monkeypatch: pytest.MonkeyPatch, free: int, stay: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 2 * free))
    moved = []
    monkeypatch.setattr(Tensor, "to", lambda tensor, device: moved.append(device) or tensor)
    loader = ImageLoader(image_data(), batch_size=4)
    batches = batches_on(loader, torch.device("cuda"))
    assert isinstance(loader.data, ResidentImages) is stay
    assert batches.background is not stay
    assert moved == [torch.device("cuda")] * stay
    on_cpu = ImageLoader(image_data(), batch_size=4)
    batches_on(on_cpu, torch.device("cpu"))
    assert not isinstance(on_cpu.data, ResidentImages)
