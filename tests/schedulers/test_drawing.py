"""Noise as diffusers would draw it, with as few calls as the streams allow."""

from __future__ import annotations

import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor
from helpers.device_counts import DEVICE, DeviceCounts, stand_in_device
from helpers.pipelines import seeds

from ddpm_pipeline.schedulers.drawing import scaled_noise, standard_normal

CPU = torch.device("cpu")


@pytest.mark.parametrize("shape", [(4, 1, 8, 8), (4, 3, 5, 7), (4, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("is_list", [True, False])
def test_it_is_that_of_diffusers(
    shape: tuple[int, ...], dtype: torch.dtype, is_list: bool
) -> None:
    ours, theirs = (seeds(*range(4)) if is_list else seeds(5)[0] for _ in range(2))
    for _ in range(2):  # the streams go on alike too
        found = standard_normal(shape, ours, CPU, dtype)
        assert torch.equal(found, randn_tensor(shape, generator=theirs, device=CPU, dtype=dtype))


def test_it_is_scaled_by_a_number_or_by_one_for_each_example() -> None:
    x, std = torch.empty(3, 1, 4, 4), torch.tensor([0.5, 1.0, 2.0]).reshape(3, 1, 1, 1)
    noise = standard_normal(x.shape, seeds(0, 1, 2), CPU, x.dtype)
    assert torch.equal(scaled_noise(x, 0.5, seeds(0, 1, 2)), 0.5 * noise)
    assert torch.equal(scaled_noise(x, std, seeds(0, 1, 2)), std * noise)


def test_generators_of_the_host_cost_one_copy_that_nobody_waits_for() -> None:
    with stand_in_device(), DeviceCounts() as counts:
        noise = standard_normal((5, 1, 8, 8), seeds(*range(5)), DEVICE, torch.float32)
    assert noise.device == DEVICE
    assert (len(counts.pinned), counts.unpinned, counts.waits) == (1, [], [])


def test_each_generator_is_called_once() -> None:
    with DeviceCounts("cpu") as counts:
        standard_normal((5, 1, 8, 8), seeds(*range(5)), CPU, torch.float32)
    assert dict(counts.kernels) == {"empty": 1, "normal_": 5}
