"""The forward passes of a calibration, as a device sees them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from helpers.device_counts import DEVICE, DeviceCounts, stand_in_device

from ddpm_pipeline.calibration.moments import MomentSums
from ddpm_pipeline.calibration.run import CalibrationRun, NumberedBatch, Sums
from ddpm_pipeline.diffusion import NoiseSchedule

T = 20


@pytest.mark.parametrize("variance_type", ["fixed_small", "learned_range"])
def test_no_batch_waits_for_the_moments(tiny_unet: Callable, variance_type: str) -> None:
    outputs = 2 if variance_type == "learned_range" else 1
    unet = tiny_unet(out_channels=outputs, num_class_embeds=3).to(DEVICE)
    run = CalibrationRun(NoiseSchedule.linear(T), "epsilon", variance_type, T, True, seed=1)
    labels = torch.zeros(6, dtype=torch.int64)
    batch = NumberedBatch(0, 0, torch.zeros(6, 1, 8, 8), labels)
    sums = Sums(MomentSums.zeros(T, (1, 8, 8), DEVICE, histogram=True), None)
    with stand_in_device(), torch.no_grad():
        run.add(sums, unet, batch, slice(None))  # makes the tables
        with DeviceCounts() as counts:
            run.add(sums, unet, batch, slice(None))
    assert (counts.waits, counts.unpinned) == ([], [])
    assert len(counts.pinned) == 3  # images, labels, and what their forwards are


def test_float32_is_that_of_ieee_while_it_runs() -> None:
    seen = []

    def model(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, t))
        return x_t

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        run = CalibrationRun(NoiseSchedule.linear(T), "epsilon", "fixed_small", T, False, seed=1)
        run.sum_forwards(model, [torch.zeros(T, 1, 8, 8)])
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
    assert [switches[:2] for switches in seen] == [("highest", False)]
