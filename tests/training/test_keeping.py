"""Runs that keep their best weights or stop early: what is saved, what is resumed, who decides."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import PartialState
from helpers.training_runs import (
    assert_same,
    image_data,
    metrics,
    outcome,
    run_forked,
    tiny_config,
)
from safetensors.torch import load_file

from ddpm_pipeline import train
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.keeping import Keeper
from ddpm_pipeline.training.learner import Learner
from ddpm_pipeline.training.run import dry_run
from ddpm_pipeline.training.storage.export import open_checkpoint

pytestmark = pytest.mark.usefixtures("random_last_layers")


def config_of(folder: Path, **options: Any) -> TrainingConfig:
    """A run whose held-out loss falls and then rises: its learning rate is far too large."""
    defaults = {
        "keep": "best",
        "validation_size": 0.2,
        "validation_steps": 2,
        "learning_rate": 0.05,
        "lr_warmup_steps": 8,
        "lr_scheduler": "constant_with_warmup",
        "ema_decay": (0.5,),
        "checkpointing_steps": 2,
        "checkpoints_total_limit": None,
    }
    return tiny_config(folder, **defaults | options)


def model_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "unet" / "diffusion_pytorch_model.safetensors")


def weights_after(run: Path, step: int) -> dict[str, torch.Tensor]:
    return open_checkpoint(run, step).pipeline.unet.state_dict()


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def measured(run: Path, name: str = "validation_loss") -> dict[int, float]:
    return {entry["step"]: entry[name] for entry in metrics(run) if name in entry}


def record_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "training_record.json").read_text())


def test_the_model_is_that_of_the_best_validation(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    result = train(config)
    run, losses = result.output_dir, measured(result.output_dir)
    best = min(losses, key=losses.get)
    assert sorted(losses) == [2, 4, 6, 8, 10, 12]
    assert best < 12, "the run must end past its best"
    assert result.best_step == best
    assert equal(model_of(run), weights_after(run, best))
    last = load_file(run / "checkpoints" / "step-0000012" / "model.safetensors")
    assert not equal(model_of(run), last)
    # A checkpoint gives what the run would save.
    found = open_checkpoint(run, 12)
    assert equal(model_of(run), found.pipeline.unet.state_dict())
    assert (found.step, found.kept_step) == (12, best)
    assert str(found).endswith(f"after update 12, the best of which were after {best}")
    expected = {"step": best, "by": "validation_loss", "value": losses[best], "measurements": 6}
    assert record_of(run)["kept"] == expected
    # The options of the record are a config by themselves, and say which weights are kept.
    options = record_of(run)["options"]
    assert (options["keep"], options["validation_steps"]) == ("best", 2)
    assert TrainingConfig.from_dict(options).keep == "best"
    # Its picture shows samples of these weights.
    assert record_of(run)["samples_step"] == best
    assert (run / "samples" / f"step-{best:07d}.png").exists()


def test_the_last_weights_are_kept_unless_asked_otherwise(tmp_path: Path) -> None:
    result = train(config_of(tmp_path, keep="last"))
    assert equal(model_of(result.output_dir), weights_after(result.output_dir, 12))
    assert "kept" not in record_of(result.output_dir)


def test_it_says_of_how_many_measurements_the_model_is_the_best(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        train(config_of(tmp_path, max_train_steps=2))
        assert "the model is that of step 2, by validation_loss" in caplog.text
        assert caplog.text.rstrip().endswith("of 1 measurement")
        train(config_of(tmp_path, max_train_steps=4, output_dir=str(tmp_path / "longer")))
    assert caplog.text.rstrip().endswith("of 2 measurements")


def test_the_bound_may_tell_too(tmp_path: Path) -> None:
    config = config_of(tmp_path, best_by="bound", validate_bound_steps=5, validate_bound_images=4)
    run = train(config).output_dir
    values = measured(run, "bound_bits_per_dim")
    assert sorted(values) == [5, 10, 12]
    best = min(values, key=values.get)
    assert record_of(run)["kept"]["step"] == best
    assert record_of(run)["kept"]["value"] == values[best]


def test_a_run_stops_when_nothing_better_is_found(tmp_path: Path) -> None:
    config = config_of(tmp_path, early_stop=2, max_train_steps=40)
    result = train(config)
    losses = measured(result.output_dir)
    best = min(losses, key=losses.get)
    assert result.finished
    assert result.global_step == best + 4 == max(losses)
    assert equal(model_of(result.output_dir), weights_after(result.output_dir, best))
    # Given again, it is finished; with more patience it goes on.
    assert train(config).global_step == result.global_step
    longer = train(config.replace(early_stop=4))
    assert longer.global_step > result.global_step


def test_early_stop_without_keep_best_leaves_the_last(tmp_path: Path) -> None:
    result = train(config_of(tmp_path, early_stop=1, keep="last", max_train_steps=40))
    run = result.output_dir
    assert equal(model_of(run), weights_after(run, result.global_step))


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_run_keeps_and_stops_as_one_that_was_not(tmp_path: Path, processes: int) -> None:
    options = {"early_stop": 2, "max_train_steps": 30, "checkpoints_total_limit": 2}
    options |= {"checkpointing_steps": 3, "train_batch_size": 4 // processes}
    whole = config_of(tmp_path / "whole", **options)
    assert run_forked(whole, processes=processes) == [0] * processes
    config = config_of(tmp_path / "killed", **options)
    run = Path(config.output_dir)
    for step in (3, 6):
        when = (run / "checkpoints" / f"step-{step:07d}" / "manifest.json").exists
        run_forked(config, when, processes=processes)
    assert run_forked(config, processes=processes) == [0] * processes
    assert_same(outcome(run), outcome(Path(whole.output_dir)))
    kept = [record_of(Path(c.output_dir))["kept"] for c in (whole, config)]
    assert kept[0] == kept[1]


def test_a_signal_leaves_a_checkpoint_with_the_best_weights(tmp_path: Path) -> None:
    config = config_of(tmp_path, max_train_steps=60)
    run = Path(config.output_dir)
    code = run_forked(config, lambda: len(measured_so_far(run)) >= 3, send=signal.SIGTERM)
    assert code == [0]
    newest = max(run.glob("checkpoints/step-*"))
    assert (newest / "best.safetensors").exists()


def test_a_measurement_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    config = config_of(tmp_path, early_stop=1, checkpointing_steps=0)
    keeper = Keeper(config, SimpleNamespace(accelerator=PartialState()))
    for value in (math.nan, math.inf):
        with pytest.raises(FloatingPointError, match=f"validation_loss is {value} at step 2: try"):
            keeper.note(2, "validation_loss", value, None)


def test_a_run_that_stops_early_has_no_loss_that_is_no_number(tmp_path: Path) -> None:
    config = config_of(
        tmp_path, keep="last", early_stop=1, checkpointing_steps=0, logging_steps=50
    )
    update = Learner.update

    def poisoned(self: Learner, step: int, source: Any) -> tuple:
        loss, norm = update(self, step, source)
        return (loss * math.nan if step == 0 else loss), norm

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "update", poisoned)
        patch.setattr(Keeper, "stops", property(lambda keeper: keeper.measurements > 0))
        with pytest.raises(FloatingPointError, match=r"loss is nan .* at step 1"):
            train(config)
    assert not (tmp_path / "run" / "model_index.json").exists()


def measured_so_far(run: Path) -> list[bytes]:
    path = run / "metrics.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [line for line in lines if b"validation_loss" in line]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": "best"}, "keep best and early_stop by validation_loss need held-out images"),
        ({"early_stop": 3}, "keep best and early_stop by validation_loss need held-out images"),
        ({"early_stop": -1}, "early_stop must be an integer of at least 0|early_stop must be"),
        ({"keep": "first"}, "keep must be one of|keep must be"),
        (
            {"keep": "best", "validation_size": 9, "validation_steps": 0},
            "validation_steps above 0",
        ),
        ({"keep": "best", "validation_size": 9, "best_by": "bound"}, "validate_bound_steps above"),
        ({"keep": "best", "best_by": "distance"}, "distance need validate_fid_steps above 0"),
        ({"best_by": "bound"}, "best_by='bound' has no meaning without keep best or early_stop"),
        ({"validate_fid_steps": 5}, "validate_fid_steps=5 needs validate_fid_features"),
        ({"validate_fid_features": "f"}, "no meaning without validate_fid_steps above 0"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig(train_data_dir="photos", **options)


def test_open_images_without_held_out_ones_are_refused(tmp_path: Path) -> None:
    config = config_of(tmp_path, validation_size=0.0, train_data_dir=None)
    with pytest.raises(ValueError, match="need held-out images; give them, or best_by distance"):
        dry_run(config, train_data=image_data(), measure=False)


def test_a_dry_run_says_what_is_kept_and_when_it_ends(tmp_path: Path) -> None:
    numbers = dry_run(config_of(tmp_path, early_stop=3), measure=False)
    assert "kept weights       the best by validation_loss" in str(numbers)
    assert "after 3 measurements of validation_loss without a better one" in str(numbers)
    assert numbers.memory["best weights"] == numbers.memory["weights"]
    plain = dry_run(config_of(tmp_path, keep="last"), measure=False)
    assert "kept weights" not in str(plain)
    assert "best weights" not in plain.memory
