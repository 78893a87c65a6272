"""Images of the page are those of ``ddpm sample``, and what is asked for has limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from diffusers import HeunDiscreteScheduler
from helpers.pipelines import pipeline
from helpers.training_runs import tiny_config
from helpers.unets import make_tiny_unet
from PIL import Image

from ddpm_pipeline import train
from ddpm_pipeline.app.drawing import Wish, draw
from ddpm_pipeline.app.models import Models
from ddpm_pipeline.cli.commands import main
from ddpm_pipeline.schedulers import Solver

LIMITS = {"most_images": 4, "most_steps": 8}


def test_the_last_view_is_what_the_command_draws(model: str, tmp_path: Path) -> None:
    *before, last = draw(
        Models((model,)), Wish(model=model, num_images=4, seed=7, num_steps=5), **LIMITS
    )
    assert all(not view.is_last for view in before)
    assert last.said.startswith("step 5, ")
    path = tmp_path / "grid.png"
    options = ["--num_images", "4", "--seed", "7", "--num_inference_steps", "5"]
    assert main(["sample", model, *options, "--scheduler", "as_saved", "--output", str(path)]) == 0
    with Image.open(path) as grid:
        times = last.picture.width // grid.width
        expected = np.repeat(np.repeat(np.asarray(grid), times, 0), times, 1).astype(int)
    assert times > 1
    assert np.abs(np.asarray(last.picture).astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"num_images": 5}, "images must be from 1 to 4 here, got 5"),
        ({"num_images": 0}, "images must be from 1 to 4 here, got 0"),
        ({"num_steps": 9}, "steps must be from 1 to 8 here, got 9"),
        ({"seed": -1}, "seed"),
        ({"class_label": "cat"}, "class_labels=.* needs a class-conditional model"),
        ({"solver": "euler"}, "solver must be one of"),
        ({"model": "/etc"}, "model must be one of .*, got '/etc'"),
    ],
)
def test_what_is_not_allowed_is_refused(model: str, wish: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(draw(Models((model,)), Wish(**{"model": model, "num_steps": 2, **wish}), **LIMITS))


def test_a_run_is_shown_from_its_newest_checkpoint(tmp_path: Path) -> None:
    train(tiny_config(tmp_path))
    run = tmp_path / "run"
    (run / "model_index.json").unlink()
    models = Models((str(run),))
    opened = models.open(str(run))
    assert "12" in opened.source
    assert models.open(str(run)) is opened
    *_, last = draw(models, Wish(model=str(run), num_images=1, num_steps=2), **LIMITS)
    assert last.said.endswith(f"; from {opened.source}")


def test_a_model_that_is_saved_again_is_opened_again(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    pipeline(make_tiny_unet(1), num_train_timesteps=10).save_pretrained(folder)
    models = Models((str(folder),))
    first = models.open(str(folder))
    pipeline(make_tiny_unet(1, seed=1), num_train_timesteps=12).save_pretrained(folder)
    assert models.open(str(folder)).most_steps == 12
    assert first.most_steps == 10


def test_a_model_that_is_calibrated_is_opened_again(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    pipe = pipeline(make_tiny_unet(1), num_train_timesteps=10)
    pipe.save_pretrained(folder)
    models = Models((str(folder),))
    assert models.open(str(folder)).num_steps == 10
    solver = Solver("multistep", num_inference_steps=4)
    type(pipe.scheduler).from_config(pipe.scheduler.config, solver=solver).save_pretrained(
        folder / "scheduler"
    )
    assert models.open(str(folder)).num_steps == 4


def test_a_sampler_of_two_calls_a_step_ends_with_its_images(model: str) -> None:
    models = Models((model,))
    pipe = models.open(model).pipe
    pipe.scheduler = HeunDiscreteScheduler.from_config(pipe.scheduler.config)
    *_, last = draw(models, Wish(model=model, num_images=1, num_steps=4), **LIMITS)
    assert last.said.startswith("step 7, ")
