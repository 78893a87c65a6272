"""What a run measures and shows: logs, validation, sample grids."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.training_runs import (
    TINY_UNET,
    a_learner,
    image_data,
    metrics,
    outcome,
    run_forked,
    tiny_config,
)
from PIL import Image

from ddpm_pipeline import DDPMPipeline
from ddpm_pipeline.training.learner import Learner
from ddpm_pipeline.training.run import train

pytestmark = pytest.mark.usefixtures("random_last_layers")


def test_tensorboard_has_the_losses_and_the_grid(a_run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(a_run / "logs" / "ddpm"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [5, 10]
    assert [event.step for event in events.Scalars("validation_loss")] == [8, 10]
    assert [event.step for event in events.Images("samples")] == [6, 10]


def test_stock_logs_the_loss_of_one_micro_batch(tmp_path: Path) -> None:
    """The logged loss and gradients are those of the whole global batch, however it is cut."""
    options = {
        "max_train_steps": 3,
        "logging_steps": 3,
        "random_flip": False,
        "save_images_steps": 0,
        "checkpointing_steps": 0,
    }
    unet = {**TINY_UNET, "dropout": 0.0}
    cuts = {"whole": (8, 1, 1), "micro": (2, 4, 1), "processes": (4, 1, 2)}
    logged = {}
    for name, (size, accumulation, processes) in cuts.items():
        config = tiny_config(
            tmp_path / name,
            train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            **options,
        )
        (tmp_path / name / "unet.json").write_text(json.dumps(unet))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "randn", _noise_of_the_image)
            assert run_forked(config, processes=processes) == [0] * processes
        logged[name] = metrics(tmp_path / name / "run")[0]
    for name in ("micro", "processes"):
        for value in ("loss", "grad_norm"):
            assert logged[name][value] == pytest.approx(logged["whole"][value], rel=1e-4)


def _noise_of_the_image(shape: tuple[int, ...], **_: object) -> torch.Tensor:
    """The same noise for every image, so that how a batch is cut does not matter."""
    row = torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8)
    return row.expand(shape).clone()


def test_stock_has_no_validation(a_run: Path) -> None:
    losses = [entry["validation_loss"] for entry in metrics(a_run) if "validation_loss" in entry]
    assert len(losses) == 2  # one an epoch of 8 steps, and one at the end
    assert all(0 < loss < 2 for loss in losses)


def test_validation_compares_between_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fixed (t, noise): another seed of training gives the same loss for the same weights."""
    unet = a_learner(tmp_path / "weights").unet
    monkeypatch.setattr("ddpm_pipeline.training.start.make_unet", lambda *_: copy.deepcopy(unet))
    losses = []
    for seed in (0, 1):
        config = tiny_config(
            tmp_path / str(seed), max_train_steps=1, seed=seed, learning_rate=1e-12
        )
        result = train(config, train_data=image_data(), validation_data=image_data(24))
        losses.append(result.validation_loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_the_best_of_several_averages_is_saved(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        ema_decay=(0.0, 0.9999),
        ema_power=0.0,
        max_train_steps=6,
        learning_rate=1e-2,
        validation_size=8,
    )
    result = train(config)
    last = metrics(tmp_path / "run")[-1]
    # A decay of 0.9999 without warm-up is still at the first weights: the other must win.
    assert last["validation_loss_0.0"] < last["validation_loss_0.9999"]
    assert result.validation_loss == last["validation_loss"] == last["validation_loss_0.0"]
    saved = outcome(tmp_path / "run")
    name = "conv_in.weight"
    assert torch.equal(saved["model"][name], saved["tensors"][f"average-0.0/{name}"])
    assert torch.equal(saved["model"][name], saved["tensors"][f"model/{name}"])


def test_stock_previews_with_dropout_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    call = DDPMPipeline.__call__

    def noting(self: DDPMPipeline, *args: object, **kwargs: object) -> object:
        modes.append(self.unet.training)
        return call(self, *args, **kwargs)

    monkeypatch.setattr(DDPMPipeline, "__call__", noting)
    trained = []
    update = Learner.update
    monkeypatch.setattr(
        Learner,
        "update",
        lambda self, *a: (trained.append(self.unet.training), update(self, *a))[1],
    )
    train(tiny_config(tmp_path))
    assert modes == [False, False]
    assert trained == [True] * 12


def test_stock_previews_on_one_process_with_all_steps(tmp_path: Path) -> None:
    """Two processes draw the grid of one, in ddpm_num_inference_steps."""
    alone, shared = tiny_config(tmp_path / "a"), tiny_config(tmp_path / "b", train_batch_size=2)
    for config, processes in [(alone, 1), (shared, 2)]:
        options = {"max_train_steps": 1, "learning_rate": 1e-12, "eval_batch_size": 3}
        assert run_forked(config.replace(**options), processes=processes) == [0] * processes
    a, b = (
        np.asarray(Image.open(Path(config.output_dir) / "samples" / "step-0000001.png")).astype(
            int
        )
        for config in (alone, shared)
    )
    assert abs(a - b).max() <= 1
