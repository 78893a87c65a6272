"""Calls are no larger than their work, and refused with an estimate where they cannot fit."""

from __future__ import annotations

import types

import pytest
import torch
from helpers.broken_files import at_most
from helpers.pipelines import pipeline, seeds
from helpers.unets import make_tiny_unet

from ddpm_pipeline.common import memory
from ddpm_pipeline.pipelines.room import check_room, filled_rows

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_one_image_is_not_padded_to_millions_of_rows() -> None:
    pipe, rows = pipeline(make_tiny_unet()), []
    pipe.unet.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    pipe.unet.forward = lambda x, *_, **__: types.SimpleNamespace(sample=x)
    with at_most(5):
        pipe(1, seeds(0), 1, "np", max_batch_size=4_000_000)
    assert rows == [256]


@pytest.mark.parametrize(
    ("most", "device"), [(1, CPU), (2, CPU), (16, CPU), (256, CPU), (1000, GPU), (16384, GPU)]
)
def test_calls_of_ordinary_sizes_are_always_full(most: int, device: torch.device) -> None:
    for count in (1, 2, 1000, 10**6):
        assert filled_rows(most, count, device) == most


@pytest.mark.parametrize(("device", "always"), [(CPU, 256), (GPU, 16384)])
@pytest.mark.parametrize("count", [1, 128, 129, 8192, 8193, 10_000, 500_000])
def test_larger_ones_hold_both_calls_of_guidance_and_little_more(
    count: int, device: torch.device, always: int
) -> None:
    rows = filled_rows(4_000_000, count, device)
    assert 2 * count <= rows <= max(always, 4 * count)


def test_what_cannot_fit_is_refused_before_it_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 10**8)
    pipe = pipeline(make_tiny_unet())
    pipe.unet.forward = pytest.fail
    message = r"a call of the network with 200,000 rows takes at least 0\.5 GB of memory, and 0\.1"
    with pytest.raises(ValueError, match=message):
        pipe(200_000, None, 1, max_batch_size=200_000)


def test_other_devices_and_sizes_that_are_not_known_are_left_to_them() -> None:
    check_room(make_tiny_unet(), 10**12, torch.device("cuda"))
    check_room(types.SimpleNamespace(config=types.SimpleNamespace(sample_size=None)), 10**12, CPU)
    config = types.SimpleNamespace(sample_size=(4, 8), in_channels=1)
    check_room(types.SimpleNamespace(config=config), 10**5, CPU)
    with pytest.raises(ValueError, match="1,000,000,000,000 rows"):
        check_room(types.SimpleNamespace(config=config), 10**12, CPU)
