"""Calls as CUDA graphs, rehearsed with graphs that compute again when they are replayed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from unittest.mock import MagicMock

import pytest
import torch
from diffusers import UNet2DModel

from ddpm_pipeline import DDPMPipeline, DDPMScheduler
from ddpm_pipeline.networks import FastForward
from ddpm_pipeline.networks.graphs import GraphedNetwork

CPU = torch.device("cpu")


class StandIn:
    """A graph of the CPU: it computes anew, from where its inputs are to where its output was."""

    def __init__(self) -> None:
        self.network: GraphedNetwork
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        [recording] = [r for r in self.network._recordings.values() if r.launch == self.replay]
        recording.output.copy_(self.network._output(recording.inputs))


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[StandIn]:
    made: list[StandIn] = []
    monkeypatch.setattr(torch.cuda, "current_stream", MagicMock())
    monkeypatch.setattr(torch.cuda, "Event", MagicMock)

    def capture(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
        assert device == CPU
        made.append(StandIn())
        work()
        return made[-1].replay

    monkeypatch.setattr("ddpm_pipeline.networks.graphs.capture_on_cuda", capture)
    return made


def called(network: GraphedNetwork, made: list[StandIn], *inputs: torch.Tensor) -> torch.Tensor:
    """Call it; a new stand-in is told whose graph it is before it is replayed."""
    known, record = len(made), network._record

    def recorded(held: list[torch.Tensor]) -> object:
        found = record(held)
        for graph in made[known:]:
            graph.network = network
        return found

    network._record = recorded
    try:
        with torch.no_grad():
            return network(*inputs)
    finally:
        network._record = record


def test_a_call_is_recorded_once_for_each_shape(
    tiny_unet: Callable[..., UNet2DModel], graphs: list[StandIn]
) -> None:
    unet = tiny_unet(num_class_embeds=4)
    network = GraphedNetwork(unet, unet)
    for rows, t in ((3, 10), (3, 900), (2, 10), (3, 10)):
        inputs = torch.randn(rows, 1, 8, 8), torch.tensor(t), torch.arange(rows)
        with torch.no_grad():
            expected = unet(*inputs[:2], class_labels=inputs[2]).sample
        found = called(network, graphs, *inputs)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert [graph.replays for graph in graphs] == [3, 1]


def test_an_output_stays_when_the_graph_is_replayed(
    tiny_unet: Callable[..., UNet2DModel], graphs: list[StandIn]
) -> None:
    unet = tiny_unet()
    network, image = GraphedNetwork(unet, unet), torch.randn(2, 1, 8, 8)
    first = called(network, graphs, image, torch.tensor(1))
    kept = first.clone()
    called(network, graphs, image + 1, torch.tensor(1))
    assert torch.equal(first, kept)


def test_streams_take_turns_at_a_graph(
    tiny_unet: Callable[..., UNet2DModel], graphs: list[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU may begin a call on one stream before that of another stream is done."""
    unet, order = tiny_unet(), []
    network, inputs = GraphedNetwork(unet, unet), (torch.randn(2, 1, 8, 8), torch.tensor(1))
    unet.register_forward_pre_hook(lambda *_: order.append("computes"))

    def stream(name: str) -> MagicMock:
        return MagicMock(
            wait_event=lambda event: order.append((name, "waits", event)),
            record_event=lambda event: order.append((name, "is done", event)),
        )

    called(network, graphs, *inputs)
    order.clear()
    for name in "ab":
        monkeypatch.setattr(torch.cuda, "current_stream", lambda _, name=name: stream(name))
        called(network, graphs, *inputs)
    [recording] = network._recordings.values()
    first, second = (
        [(name, "waits", recording.is_read), "computes", (name, "is done", recording.is_read)]
        for name in "ab"
    )
    assert order == first + second


def test_weights_are_read_where_they_are_and_recorded_anew_when_moved(
    tiny_unet: Callable[..., UNet2DModel], graphs: list[StandIn]
) -> None:
    unet, other = tiny_unet(seed=0), tiny_unet(seed=1)
    network, inputs = GraphedNetwork(unet, unet), (torch.randn(2, 1, 8, 8), torch.tensor(1))
    called(network, graphs, *inputs)
    unet.load_state_dict(other.state_dict())
    with torch.no_grad():
        expected = other(*inputs).sample
    assert torch.equal(called(network, graphs, *inputs), expected)
    assert len(graphs) == 1
    unet.load_state_dict(copy.deepcopy(other.state_dict()), assign=True)
    assert torch.equal(called(network, graphs, *inputs), expected)
    assert len(graphs) == 2


def test_a_copy_has_a_network_and_recordings_of_its_own(
    tiny_unet: Callable[..., UNet2DModel], graphs: list[StandIn]
) -> None:
    unet = tiny_unet()
    network, inputs = GraphedNetwork(unet, unet), (torch.randn(2, 1, 8, 8), torch.tensor(1))
    before = called(network, graphs, *inputs)
    other = copy.deepcopy(network)
    torch.nn.init.zeros_(other._network.conv_out.weight)
    assert not torch.equal(called(other, graphs, *inputs), before)
    assert torch.equal(called(network, graphs, *inputs), before)


def test_only_gpus_have_graphs(tiny_unet: Callable[..., UNet2DModel]) -> None:
    pipe = DDPMPipeline(tiny_unet(), DDPMScheduler())
    with pytest.raises(ValueError, match="cuda_graph needs a GPU with CUDA, got device cpu"):
        pipe.optimize(cuda_graph=True)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_graph_has_a_precision_and_casts_of_its_own(
    tiny_unet: Callable[..., UNet2DModel], dtype: torch.dtype | None
) -> None:
    """Casts that autocast keeps are freed with its block, and the graph would read them on."""
    unet, seen = tiny_unet(), []

    def note(*_: object) -> None:
        on = torch.is_autocast_enabled("cpu")
        precision = torch.get_autocast_dtype("cpu") if on else None
        seen.append((precision, torch.is_autocast_cache_enabled()))

    unet.register_forward_hook(note)
    forward = FastForward(GraphedNetwork(unet, unet), dtype)
    forward.network._record = lambda inputs: lambda _: forward.network._output(inputs)
    with torch.no_grad(), torch.autocast("cpu", torch.float16), forward.keeping_casts(CPU):
        forward(torch.randn(2, 1, 8, 8), torch.tensor(1))
    assert seen == [(dtype, False)]
