"""How many images a call computes: what fits into a GPU, and a CPU's own number."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from ddpm_pipeline.networks.rows import bytes_per_row, rows_per_call

GPU = torch.device("cuda", 0)
FLOAT = 4


class Chain(nn.Module):
    """Three layers of 10, 30 and 5 outputs, with all but two of them forgotten at once."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(4, 10), nn.Linear(10, 30), nn.Linear(30, 5)
        )

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        del t
        return self.layers(x_t)


def test_the_bytes_are_those_of_the_worst_moment() -> None:
    # The outputs of 30 and 10, or of 30 and 5; x_t is made before.
    assert bytes_per_row(Chain(), (1, 2, 2)) == (10 + 30) * FLOAT


def test_a_real_network_takes_what_its_calls_take(tiny_unet: Callable[..., UNet2DModel]) -> None:
    plain, classes = (tiny_unet(num_class_embeds=n) for n in (None, 4))
    before = [parameter.clone() for parameter in plain.parameters()]
    each = bytes_per_row(plain, (1, 8, 8))
    assert each > 64 * FLOAT * plain.config.block_out_channels[0]
    assert bytes_per_row(classes, (1, 8, 8)) >= each
    assert bytes_per_row(plain.to(torch.bfloat16), (1, 8, 8)) < each
    assert all(p.device.type == "cpu" for p in plain.parameters())
    assert [p.shape for p in plain.parameters()] == [p.shape for p in before]


def test_what_tells_nothing_is_no_limit() -> None:
    class NeedsData(Chain):
        def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
            return super().forward(x_t, t) * float(t[0])

    class NeedsLabels(Chain):
        def forward(self, x_t: Tensor, t: Tensor, class_labels: Tensor) -> Tensor:
            return super().forward(x_t, t) + class_labels

    class ChecksItsDevice(Chain):
        def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
            if x_t.device.type not in ("cpu", "cuda"):
                raise ValueError(x_t.device)
            return super().forward(x_t, t)

    assert bytes_per_row(lambda x_t, _: x_t, (1, 2, 2)) is None
    for network in (NeedsData(), NeedsLabels(), ChecksItsDevice()):
        assert bytes_per_row(network, (1, 2, 2)) is None


@pytest.mark.parametrize("kind", ["cpu", "mps"])
def test_a_cpu_has_its_own_number(kind: str) -> None:
    device = torch.device(kind)
    assert rows_per_call(Chain(), (1, 2, 2), device, on_cpu=16, elements=2**20) == 16


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 2, 2), (3, 2048, 2048)])
@pytest.mark.parametrize("gibibytes", [80, 1, 1e-5])
def test_a_gpu_gets_a_million_elements_or_what_fits(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], gibibytes: float
) -> None:
    properties = SimpleNamespace(total_memory=int(gibibytes * 2**30))
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: properties)
    network = nn.Sequential()
    monkeypatch.setattr(network, "forward", lambda x_t, _: torch.relu(x_t + 1))
    rows = rows_per_call(network, shape, GPU, on_cpu=16, elements=2**20)
    size = math.prod(shape)
    fits = 2 * size * FLOAT * rows <= properties.total_memory / 2 or rows == 1
    assert fits
    assert rows == 1 or math.log2(rows).is_integer()
    is_enough = rows * size >= 2**20
    assert is_enough or 2 * size * FLOAT * 2 * rows > properties.total_memory / 2
    assert rows == 1 or rows * size < 2**21
