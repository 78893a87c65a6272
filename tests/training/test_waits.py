"""How often the host waits for the device in an update, counted on a device that is not there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from helpers import training_runs
from helpers.device_counts import DEVICE, DeviceCounts, stand_in_device
from helpers.training_runs import a_learner_far_away, image_data

from ddpm_pipeline.data.images import Batch
from ddpm_pipeline.training.log import DeviceLosses
from ddpm_pipeline.training.validation import validation_loss

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LEARNED = {"variance_type": "learned_range"}
CLASSES = {"class_conditional": True, "embeddings": 4}
# Of each kind of update: waits, and copies of pinned memory.
UPDATES: dict[str, tuple[dict[str, Any], int, int]] = {
    "simple": ({}, 0, 1),
    "weighted": ({"loss_weighting": "min_snr"}, 0, 1),
    "epsilon": ({"prediction_type": "epsilon"}, 0, 1),
    "classes": (CLASSES, 0, 1),
    "several averages": ({"ema_decay": (0.9, 0.999)}, 0, 1),
    "accumulation": ({"gradient_accumulation_steps": 3}, 0, 1),
    "muon": ({"optimizer": "muon"}, 0, 1),
    "hybrid": ({"loss": "hybrid"} | LEARNED, 0, 1),
    "vlb": ({"loss": "vlb"} | LEARNED, 0, 1),
    # The next timesteps are drawn by these losses.
    "importance": ({"loss": "vlb", "timestep_sampler": "importance"} | LEARNED, 1, 2),
}


def far_away_batches(labels: bool) -> Iterator[Batch]:
    """Batches that are on the device already."""
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8, device=DEVICE)
    while True:
        yield Batch(images, torch.zeros(4, dtype=torch.int64, device=DEVICE) if labels else None)


@pytest.mark.parametrize("kind", UPDATES)
def test_waits_and_copies_of_an_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    options, waits, copies = UPDATES[kind]
    if "variance_type" in options:
        monkeypatch.setitem(training_runs.TINY_UNET, "out_channels", 2)
    with stand_in_device():
        learner = a_learner_far_away(tmp_path, **options)
        source = far_away_batches("class_conditional" in options)
        for step in (0, 1):
            with DeviceCounts() as counts:
                learner.update(step, source)
    assert len(counts.waits) == waits, counts.waits
    assert len(counts.pinned) == copies, counts.pinned
    assert not counts.unpinned


def test_losses_are_read_once_per_logging_interval() -> None:
    with stand_in_device(), DeviceCounts() as counts:
        losses = DeviceLosses(
            50, SimpleNamespace(device=DEVICE, num_processes=1), check_norms=True
        )
        for _ in range(50):
            losses.add(torch.zeros((), device=DEVICE), torch.ones((), device=DEVICE))
        losses.read(50)
    assert len(counts.waits) == 1


def test_validation_waits_for_nothing_until_its_sum_is_read(tmp_path: Path) -> None:
    with stand_in_device():
        learner = a_learner_far_away(tmp_path, **CLASSES)
        with DeviceCounts() as counts:
            total = validation_loss(
                learner.losses,
                image_data(labels=[i % 3 for i in range(40)]),
                num_train_timesteps=20,
                batch_size=16,
                device=DEVICE,
            )
    assert total.device == DEVICE
    assert not counts.waits
    assert not counts.unpinned
