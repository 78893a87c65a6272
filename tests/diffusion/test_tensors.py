"""The shapes and precisions of the operations that formulas are written with."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers.device_counts import DEVICE, DeviceCounts

from ddpm_pipeline.diffusion.tensors import (
    add_rows_,
    add_sorted_rows_,
    broadcast,
    combine,
    sum_elements,
)


def test_broadcast_puts_the_batch_first() -> None:
    x = torch.zeros(4, 3, 2, 2)
    assert broadcast(torch.arange(4).double(), x).shape == (4, 1, 1, 1)
    assert broadcast(torch.ones(()).double(), x).shape == ()
    assert broadcast(torch.ones(4).double(), x).dtype == torch.float32


def test_combine_is_the_weighted_sum_in_the_precision_of_the_weights() -> None:
    x, y = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 4.0], dtype=torch.float64)
    found = combine(torch.tensor(3.0), x, torch.tensor(2.0), y)
    assert found.dtype == torch.float32
    assert found.tolist() == [7.0, 5.0]
    assert combine(3.0, x, 2.0, y.float()).tolist() == [7.0, 5.0]


def test_elements_are_summed_in_float64() -> None:
    x = torch.full((2, 3, 1), 2.0**-30) + torch.tensor([0.0, 1.0]).reshape(2, 1, 1)
    x[1, 1:] = 2.0**-30
    assert sum_elements(x).dtype == torch.float64
    assert sum_elements(x).tolist() == [3 * 2.0**-30, 1 + 2 * 2.0**-30]


@pytest.mark.parametrize("add", [add_rows_, add_sorted_rows_])
@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_values_are_added_where_they_belong(add: Callable[..., None], shape: tuple) -> None:
    t, values = torch.randint(5, (200,)), torch.randn(200, *shape, dtype=torch.float64)
    sums = torch.full((6, *shape), 7.0, dtype=torch.float64)
    add(sums, t, values)
    expected = np.stack([7 + values[t == row].numpy().sum(0) for row in range(6)])
    np.testing.assert_allclose(sums.numpy(), expected, rtol=0, atol=1e-12)


def test_a_gpu_sorts_and_never_adds_in_any_order() -> None:
    t = torch.zeros(9, dtype=torch.int64, device=DEVICE)
    sums, values = (torch.zeros(n, dtype=torch.float64, device=DEVICE) for n in (5, 9))
    with DeviceCounts() as counts:
        add_rows_(sums, t, values)
    assert dict(counts.kernels) == {"index_put_": 1}
    assert counts.waits == []
