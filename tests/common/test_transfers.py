"""Tensors from the host to a device, without waiting for it."""

from __future__ import annotations

import torch
from helpers.device_counts import DEVICE, DeviceCounts, stand_in_device

from ddpm_pipeline.common.transfers import moved


def test_the_host_does_not_wait_for_its_copy() -> None:
    with stand_in_device(), DeviceCounts() as counts:
        assert moved(torch.arange(3), DEVICE).device == DEVICE
    assert (len(counts.pinned), counts.unpinned, counts.waits) == (1, [], [])


def test_what_is_there_is_not_copied() -> None:
    here = torch.arange(3)
    there = here.to(DEVICE)
    assert moved(here, "cpu") is here
    assert moved(there, DEVICE) is there
