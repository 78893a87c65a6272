"""An update by a graph is the update, rehearsed on the CPU by a stand-in that runs what it got."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from helpers.training_runs import a_learner, batches

from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.graphs import CapturedGradients
from ddpm_pipeline.training.resolving import resolve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ddpm_pipeline.training.learner import Learner

pytestmark = pytest.mark.usefixtures("random_last_layers")

CPU = torch.device("cpu")


def rehearsed(work: Callable[[], None], _: torch.device) -> Callable[[], None]:
    """What CUDA's capture does, but that each launch runs the work again."""
    for _ in range(3):
        work()
    return work


def captured(learner: Learner) -> Learner:
    learner._captured = CapturedGradients(
        learner._mean_loss, list(learner.parameters.values()), CPU, rehearsed
    )
    return learner


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "classes": {"class_conditional": True, "embeddings": 4},
    "weighted": {"loss_weighting": "min_snr", "timestep_sampler": "uniform"},
    "muon": {"optimizer": "muon", "mixed_precision": "bf16"},
    "channels last": {"channels_last": True},
}


@pytest.mark.parametrize("case", CASES)
def test_updates_by_a_graph_are_updates_to_the_bit(tmp_path: Path, case: str) -> None:
    options = CASES[case]
    labels = [i % 3 for i in range(40)] if "embeddings" in options else None
    plain = a_learner(tmp_path / "plain", **options)
    graphed = captured(a_learner(tmp_path / "graphed", **options))
    ends = []
    for learner in (plain, graphed):
        learner.unet.train()  # with dropout
        source = batches(learner, labels)
        losses = [torch.stack(learner.update(step, source)) for step in range(5)]
        ends.append((torch.stack(losses), learner.state()))
    (a_losses, a_state), (b_losses, b_state) = ends
    assert torch.equal(a_losses, b_losses)
    for name, group in a_state.items():
        assert all(torch.equal(value, b_state[name][key]) for key, value in group.items()), name


def test_making_a_graph_changes_nothing_that_is_trained(tmp_path: Path) -> None:
    """So that a run that goes on computes each update as one that was not interrupted."""
    learner = captured(a_learner(tmp_path))
    before = {k: v.clone() for k, v in learner.unet.state_dict().items()}
    x_0, eps = torch.randn(2, 4, 1, 8, 8)
    learner._captured(x_0, eps, torch.arange(4))
    assert all(torch.equal(v, before[k]) for k, v in learner.unet.state_dict().items())


def test_a_graph_reads_and_writes_the_same_memory_each_time() -> None:
    weight = torch.nn.Parameter(torch.tensor([3.0]))
    seen = []

    def loss_of(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.data_ptr())
        return (weight * x).sum()

    gradients = CapturedGradients(loss_of, [weight], CPU, rehearsed)
    assert gradients(torch.tensor([2.0])).item() == 6
    place = weight.grad.data_ptr()
    weight.grad = None
    assert gradients(torch.tensor([5.0])).item() == 15
    assert weight.grad.item() == 5
    assert weight.grad.data_ptr() == place
    assert len(set(seen)) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "vlb"}, "cuda_graph needs loss simple .* got loss 'vlb' and"),
        ({"timestep_sampler": "importance"}, "importance: .* and timestep_sampler 'importance'"),
        ({"gradient_accumulation_steps": 2}, "cuda_graph needs gradient_accum.*, got 2"),
        ({"gradient_checkpointing": True}, "neither .*gradient_checkpointing=True"),
        ({"fsdp": True, "compile": False}, "cuda_graph works neither with fsdp .* got fsdp=True"),
        ({"mixed_precision": "fp16"}, "cuda_graph works neither .* mixed_precision='fp16'"),
    ],
)
def test_what_a_graph_cannot_hold_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig(cuda_graph=True, **options)


@pytest.mark.parametrize(("device", "processes"), [("cpu", 1), ("cuda", 2)])
def test_a_graph_is_for_one_process_on_cuda(device: str, processes: int) -> None:
    config = TrainingConfig(cuda_graph=True, max_train_steps=1, mixed_precision="no")
    with pytest.raises(ValueError, match=f"one process on CUDA, got {processes} on {device}"):
        resolve(config, length=None, world_size=processes, device=torch.device(device))
