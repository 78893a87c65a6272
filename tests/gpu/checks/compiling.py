"""torch.compile and CUDA graphs: one graph, compiled once, that computes what eager code does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from gpu.found import NotBuilt
from gpu.runs import a_trainer, run_options, updates

from ddpm_pipeline import TrainingConfig

if TYPE_CHECKING:
    from gpu.found import Found
    from gpu.place import Place


def graph_option() -> str:
    """The option of training that computes an update by a graph, which only a GPU takes."""
    if not torch.cuda.is_available():
        raise NotBuilt("CUDA graphs are for GPUs; tests/training/test_graphs.py rehearses them")
    return "cuda_graph"


def one_graph(place: Place, found: Found) -> None:
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    counters.clear()
    config = TrainingConfig(**run_options(place, "compiled", compile=True))
    with place.compiling(traces=True), a_trainer(config) as trainer:
        updates(trainer, 2)
        graphs = counters["stats"]["unique_graphs"]
        updates(trainer, 4, first=2)
        place.wait()
        again = counters["stats"]["unique_graphs"] - graphs
    found.note(graphs=graphs, breaks=dict(counters["graph_break"]))
    found.at_most("graphs of an update's forward pass", graphs, 1)
    found.at_least("graphs of an update's forward pass at all", graphs, 1)
    found.at_most("graphs that later updates add", again, 0)
    torch.compiler.reset()


def graph_is_eager(place: Place, found: Found) -> None:
    option, weights = graph_option(), {}
    for is_graph in (False, True):
        options = {option: is_graph, "deterministic": True, "compile": False, "dropout": 0.1}
        config = TrainingConfig(**run_options(place, f"graph-{is_graph}", **options))
        with a_trainer(config) as trainer:
            updates(trainer, place.pick(20, 3))
            state = trainer.learner.unet.state_dict()
            weights[is_graph] = {name: value.cpu().clone() for name, value in state.items()}
    differing = sum(not torch.equal(weights[True][k], v) for k, v in weights[False].items())
    found.at_most("tensors that differ after the updates", differing, 0)
