"""The shapes and precisions of the operations that formulas are written with."""

import torch

from ddpm_pipeline.diffusion.tensors import broadcast, combine, sum_elements


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
