"""Muon on stacks of matrices: torch's own, matrix by matrix, is the oracle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from diffusers import UNet2DModel
from helpers.device_counts import DeviceCounts

from ddpm_pipeline.networks import unet_config
from ddpm_pipeline.training.muon import PADDING, Muon
from ddpm_pipeline.training.optimizers import hidden_kernels, set_learning_rate

if TYPE_CHECKING:
    from torch import Tensor, nn


def an_adamw(*parameters: torch.nn.Parameter) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1, fused=True)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_kernel_moves_as_the_matrix_of_its_rows(layout: torch.memory_format) -> None:
    kernel = torch.nn.Parameter(torch.randn(6, 4, 3, 3).to(memory_format=layout))
    other = torch.nn.Parameter(torch.randn(6))
    matrix = torch.nn.Parameter(kernel.detach().reshape(6, 36).clone())
    alone = torch.nn.Parameter(other.detach().clone())
    muon = Muon([kernel], an_adamw(other), weight_decay=0.1, momentum=0.9)
    oracles = (
        torch.optim.Muon(
            [matrix], lr=1e-2, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw"
        ),
        an_adamw(alone),
    )
    for update in range(5):
        for optimizer in (muon, *oracles):
            set_learning_rate(optimizer, 0.1 / (update + 1))
        kernel.grad = torch.randn_like(kernel)
        matrix.grad = kernel.grad.reshape(6, 36).clone()
        other.grad = torch.randn(6)
        alone.grad = other.grad.clone()
        for optimizer in (muon, *oracles):
            optimizer.step()
    # Newton and Schulz's iteration is in bfloat16, and columns may stand in another order.
    torch.testing.assert_close(kernel.reshape(6, 36), matrix, rtol=0, atol=2e-3)
    assert torch.equal(other, alone)
    assert set(muon.state[kernel]) == {"momentum_buffer"}
    assert {"exp_avg", "exp_avg_sq"} < set(muon.state[other])


def test_steps_of_muon_are_those_of_an_orthogonal_matrix() -> None:
    kernel = torch.nn.Parameter(torch.zeros(16, 8, 3, 3))
    muon = Muon([kernel], an_adamw(torch.nn.Parameter(torch.zeros(1))), weight_decay=0, momentum=0)
    kernel.grad = torch.randn_like(kernel)
    muon.step()
    step = -kernel.detach().flatten(1) / (1e-2 * 0.2 * 72**0.5)
    left, _, right = torch.linalg.svd(kernel.grad.flatten(1), full_matrices=False)
    singular = torch.linalg.svdvals(step)
    assert 0.6 < singular.min() < singular.max() < 1.3
    cosine = torch.nn.functional.cosine_similarity(step.flatten(), (left @ right).flatten(), 0)
    assert cosine > 0.97


def kernels_of(size: str, resolution: int) -> list[nn.Parameter]:
    """The kernels that a UNet's updates move."""
    config = unet_config(
        size, resolution=resolution, channels=1, out_channels=1, num_classes=None, dropout=0.0
    )
    return hidden_kernels(dict(UNet2DModel(**config).named_parameters()))


def copies(kernels: list[nn.Parameter]) -> list[nn.Parameter]:
    return [torch.nn.Parameter(k.detach().clone()) for k in kernels]


def stock_muon(matrices: list[nn.Parameter], weight_decay: float) -> torch.optim.Muon:
    return torch.optim.Muon(
        matrices,
        lr=1e-2,
        weight_decay=weight_decay,
        momentum=0.95,
        adjust_lr_fn="match_rms_adamw",
    )


def our_muon(
    kernels: list[nn.Parameter], weight_decay: float = 0.0, padding: float | None = None
) -> Muon:
    adamw = an_adamw(torch.nn.Parameter(torch.zeros(1)))
    return Muon(kernels, adamw, weight_decay=weight_decay, momentum=0.95, padding=padding)


def give_gradients(*parameters: list[nn.Parameter]) -> None:
    """The same to each list."""
    for same in zip(*parameters, strict=True):
        grad = torch.randn(same[0].shape)
        for parameter in same:
            parameter.grad = grad.reshape(parameter.shape).clone()


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_moves_of_a_unet_are_torchs_to_the_bit_on_cpus(weight_decay: float) -> None:
    kernels = kernels_of("small", 28)
    matrices = [torch.nn.Parameter(k.detach().flatten(1).clone()) for k in kernels]
    ours, stock = our_muon(kernels, weight_decay), stock_muon(matrices, weight_decay)
    for update in range(3):
        give_gradients(kernels, matrices)
        for optimizer in (ours, stock):
            set_learning_rate(optimizer, 0.01 / (update + 1))
            optimizer.step()
    assert all(torch.equal(k.flatten(1), m) for k, m in zip(kernels, matrices, strict=True))
    buffers = [ours.state[k]["momentum_buffer"] for k in kernels]
    expected = [stock.state[m]["momentum_buffer"] for m in matrices]
    assert all(map(torch.equal, buffers, expected))


def test_moves_of_tiny_matrices_are_torchs_to_the_bit_on_cpus() -> None:
    """Some matrix products of stacks of these are summed in another order than of each alone."""
    for _ in range(150):
        kernels = [torch.nn.Parameter(torch.zeros(4, m, 1, 1)) for m in (8, 8, 8, 12, 12, 12)]
        matrices = [torch.nn.Parameter(k.detach().flatten(1).clone()) for k in kernels]
        ours, stock = our_muon(kernels), stock_muon(matrices, 0.0)
        give_gradients(kernels, matrices)
        ours.step()
        stock.step()
        assert all(torch.equal(k.flatten(1), m) for k, m in zip(kernels, matrices, strict=True))


def test_padded_stacks_move_kernels_as_stacks_of_one_shape_do() -> None:
    kernels = kernels_of("small", 28)
    others = copies(kernels)
    exact, padded = our_muon(kernels), our_muon(others, padding=PADDING)
    for _ in range(3):
        give_gradients(kernels, others)
        exact.step()
        padded.step()
    for kernel, other in zip(kernels, others, strict=True):
        step = 1e-2 * 0.2 * max(kernel.flatten(1).shape) ** 0.5
        torch.testing.assert_close(kernel, other, rtol=0, atol=2**-7 * step)


def test_a_kernel_without_a_gradient_stays() -> None:
    kernels = copies(kernels_of("small", 28)[:3])
    muon, before = our_muon(kernels, padding=PADDING), [k.detach().clone() for k in kernels]
    give_gradients(kernels)
    kernels[1].grad = None
    muon.step()
    moved = [not torch.equal(k, b) for k, b in zip(kernels, before, strict=True)]
    assert moved == [True, False, True]


@pytest.mark.parametrize(("size", "resolution"), [("small", 28), ("ddpm", 32)])
def test_operators_of_an_update_are_a_twentieth_of_torchs(size: str, resolution: int) -> None:
    with torch.device("meta"):
        kernels = kernels_of(size, resolution)
        matrices = [torch.nn.Parameter(k.detach().flatten(1)) for k in kernels]
        optimizers = (our_muon(kernels, padding=PADDING), stock_muon(matrices, 0.0))
        give_gradients(kernels, matrices)
    counts = []
    for optimizer in optimizers:
        optimizer.step()
        with DeviceCounts() as counted:
            optimizer.step()
        counts.append(counted.kernels.total())
        assert not counted.waits
    assert counts[0] <= counts[1] / 20, counts


def work_of(matrix: Tensor) -> int:
    """Multiply-adds of X Xᵀ, A A and (bA + cA²) X."""
    n, m = sorted(matrix.shape)
    return n * n * m + n * n * n + n * n * m


@pytest.mark.parametrize(
    ("size", "resolution"), [("small", 28), ("small", 64), ("base", 64), ("ddpm", 32)]
)
def test_padding_keeps_within_its_limit(size: str, resolution: int) -> None:
    with torch.device("meta"):
        kernels = kernels_of(size, resolution)
        muon = our_muon(kernels, padding=PADDING)
        stacks = muon._stacks_of(list(muon._matrices.values()))
    held = sorted(place for stack in stacks for place in stack._places)
    assert held == list(range(len(kernels)))  # each kernel in one stack
    padded = sum(size[0] * work_of(torch.empty(size[1:])) for size in (s._size for s in stacks))
    assert padded <= PADDING * sum(work_of(k.flatten(1)) for k in kernels)
    assert len(stacks) <= 3
