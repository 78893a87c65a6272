"""One update of the weights."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.training_runs import TINY_UNET, a_learner, batches, metrics, tiny_config
from torch.utils._python_dispatch import TorchDispatchMode

from ddpm_pipeline import DDPMPipeline
from ddpm_pipeline.training.learner import Learner
from ddpm_pipeline.training.run import train

pytestmark = pytest.mark.usefixtures("random_last_layers")


def test_stock_adds_no_noise_in_half_precision(tmp_path: Path) -> None:
    """At t = 0 a network of bf16 sees noise of the right size."""
    learner, seen = a_learner(tmp_path, mixed_precision="bf16"), []

    def network(x_t: torch.Tensor, *_: object, **__: object) -> tuple[torch.Tensor]:
        seen.append(x_t)
        return (x_t.bfloat16(),)

    x_0 = torch.full((64, 1, 8, 8), 0.5)
    eps = torch.randn(64, 1, 8, 8)
    t = torch.zeros(64, dtype=torch.int64)
    learner.losses(x_0, None, eps, t, network)
    alpha_bar = learner.schedule.alpha_bar(0).item()
    noise = seen[0] - alpha_bar**0.5 * x_0
    torch.testing.assert_close(noise, (1 - alpha_bar) ** 0.5 * eps, rtol=1e-2, atol=1e-4)


class CountSynchronisations(TorchDispatchMode):
    """Operations that wait for the device and hand a value to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: object, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        name = func.overloadpacket.__name__
        self.count += name in {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero"}
        return func(*args, **(kwargs or {}))


def test_stock_synchronises_at_every_step(tmp_path: Path) -> None:
    learner = a_learner(tmp_path, gradient_accumulation_steps=2)
    source = batches(learner)
    learner.update(0, source)
    ready = [next(source) for _ in range(2)]
    with CountSynchronisations() as counter:
        learner.update(1, iter(ready))
    assert counter.count == 0


def test_labels_are_dropped_to_the_null_class_at_the_asked_rate(tmp_path: Path) -> None:
    learner = a_learner(
        tmp_path,
        class_conditional=True,
        embeddings=4,
        label_dropout=0.3,
        train_batch_size=40,
        gradient_accumulation_steps=50,
    )
    seen: list[torch.Tensor] = []
    weight = learner.parameters["conv_in.weight"]
    learner.forward = lambda x_t, _, labels, **__: seen.append(labels) or (x_t * weight.mean(),)
    learner.update(0, batches(learner, labels=[i % 3 for i in range(40)]))
    labels = torch.cat(seen)
    assert len(labels) == 50 * 40
    dropped = (labels == 3).float().mean().item()
    assert dropped == pytest.approx(0.3, abs=0.04)
    assert labels.max() == 3  # three classes, and the null class


def test_gradients_are_clipped_to_the_norm(tmp_path: Path) -> None:
    learner = a_learner(tmp_path, max_grad_norm=0.01, use_ema=False)
    norms = []
    step = learner.optimizer.step

    def noting(*args: object, **kwargs: object) -> object:
        grads = [p.grad.flatten() for p in learner.parameters.values()]
        norms.append(torch.cat(grads).norm().item())
        return step(*args, **kwargs)

    learner.optimizer.step = noting
    _, before = learner.update(0, batches(learner))
    assert before > 0.1
    assert norms == [pytest.approx(0.01, rel=1e-3)]


def test_recomputing_activations_changes_no_gradient(tmp_path: Path) -> None:
    plain = a_learner(tmp_path)
    less_memory = a_learner(tmp_path, gradient_checkpointing=True)
    assert less_memory.unet.is_gradient_checkpointing
    gradients = []

    def noting(learner: Learner) -> None:
        gradients.append({name: p.grad.clone() for name, p in learner.parameters.items()})

    for learner in (plain, less_memory):
        learner.unet.train()
        learner.optimizer.step = partial(noting, learner)
        learner.update(0, batches(learner))
    a, b = gradients
    assert all(gradient.count_nonzero() > 0 for gradient in a.values())
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_channels_last_is_a_matter_of_memory_order(tmp_path: Path) -> None:
    for name, last in [("a", False), ("b", True)]:
        config = tiny_config(tmp_path / name, max_train_steps=3, channels_last=last)
        # Dropout draws in memory order.
        (tmp_path / name / "unet.json").write_text(json.dumps({**TINY_UNET, "dropout": 0.0}))
        train(config)
    (a, *_), (b, *_) = (metrics(tmp_path / name / "run") for name in "ab")
    assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
    weights = DDPMPipeline.from_pretrained(tmp_path / "b" / "run").unet.conv_in.weight
    assert weights.is_contiguous()
