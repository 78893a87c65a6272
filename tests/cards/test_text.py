"""The parts of a card: samples, code that runs, and how the model was trained."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from helpers.cards import REPO, command_on, retrain, run_code, saved, snippets
from helpers.training_runs import tiny_config
from huggingface_hub import ModelCard
from PIL import Image

from ddpm_pipeline import DDPMScheduler, TrainingConfig
from ddpm_pipeline.cards.card import card_picture, renew_card
from ddpm_pipeline.cli.train import parse_arguments
from ddpm_pipeline.networks import Conditioning, ModelFacts, ValueScale, set_facts

if TYPE_CHECKING:
    from collections.abc import Callable


def test_training_is_told_without_paths(run: Path, measured: Path) -> None:
    text = renew_card(run, repo_id=REPO)
    record = json.loads((run / "training_record.json").read_text())
    assert "Training images: images.npy, 40 of them." in text
    assert f"4 updates of 4 images in {record['seconds']:.1f} s, on 1 × CPU" in text
    assert str(measured) not in text
    assert "secret-place" not in text
    named = parse_arguments(command_on(text)).training
    ours = tiny_config(measured.parent / "again", max_train_steps=4)
    for option in ("resolution", "train_batch_size", "max_train_steps", "random_flip", "seed"):
        assert getattr(named, option) == getattr(ours, option)
    assert "Training images: handwritten digits, 40" in renew_card(
        run, repo_id=REPO, data="handwritten digits"
    )


def test_the_newest_grid_is_shown_with_how_it_was_drawn(run: Path) -> None:
    assert card_picture(run) == "samples.png"
    with (
        Image.open(run / "samples.png") as shown,
        Image.open(run / "samples" / "step-0000004.png") as grid,
    ):
        times = math.ceil(512 / grid.width)
        assert max(shown.size) >= 512
        assert shown.size == (times * grid.width, times * grid.height)
        assert np.array_equal(np.asarray(shown)[::times, ::times], np.asarray(grid))
    text = renew_card(run, repo_id=REPO)
    assert "![Samples of this model](samples.png)" in text
    assert "2 samples after 4 updates, not selected: the averaged weights, DDIM with K = 2" in text
    (run / "samples.png").unlink()
    assert "](samples/step-0000004.png)" in renew_card(run, repo_id=REPO)
    shutil.rmtree(run / "samples")
    assert "![" not in renew_card(run, repo_id=REPO)


def test_a_bare_model_has_a_card(tiny_unet: Callable, tmp_path: Path) -> None:
    folder = saved(tiny_unet(), DDPMScheduler(12), tmp_path / "model")
    text = renew_card(folder, repo_id=REPO)
    assert "8×8 grey images" in text
    assert "## Results" not in text
    assert "## Training" not in text
    assert ModelCard(text).data.to_dict().keys() == {"library_name", "pipeline_tag", "tags"}
    with pytest.raises(ValueError, match="holds no saved pipeline with a U-Net"):
        renew_card(tmp_path, repo_id=REPO)


@pytest.mark.parametrize(
    ("options", "unet"),
    [
        ({}, {}),
        ({"variance_type": "learned_range"}, {"channels": 3, "out_channels": 6}),
        ({"variance_type": "learned"}, {"out_channels": 2, "num_class_embeds": 4}),
    ],
    ids=["plain", "learned_range", "learned-classes"],
)
def test_the_code_on_the_card_runs(
    tiny_unet: Callable, tmp_path: Path, options: dict[str, Any], unet: dict[str, Any]
) -> None:
    folder = saved(tiny_unet(**unet), DDPMScheduler(20, **options), tmp_path / "model")
    text = renew_card(folder, repo_id=REPO)
    ours, stock = snippets(text, folder)
    run_code(ours, tmp_path)
    with Image.open(tmp_path / "sample.png") as picture:
        assert picture.size == (8, 8)
    (tmp_path / "sample.png").unlink()
    run_code(stock, tmp_path, stock_only=True)
    with Image.open(tmp_path / "sample.png") as picture:
        assert np.asarray(picture).std() > 0
    assert ("passes no class labels" in text) == ("num_class_embeds" in unet)


@pytest.mark.parametrize("variance_type", ["fixed_small", "learned", "learned_range"])
def test_the_code_on_the_card_of_a_conditioned_model_runs(
    tiny_unet: Callable, tmp_path: Path, variance_type: str
) -> None:
    unet = tiny_unet(channels=2, out_channels=1 if variance_type == "fixed_small" else 2)
    told = Conditioning(channels=1, sides=(4, 4), trains_null=True).to_dict()
    set_facts(unet, ModelFacts(conditioning=told))
    scheduler = DDPMScheduler(20, variance_type=variance_type)
    folder = saved(unet, scheduler, tmp_path / "model")
    Image.new("L", (4, 4), 90).save(tmp_path / "small.png")
    ours, stock = snippets(renew_card(folder, repo_id=REPO), folder)
    for code, stock_only in ((ours, False), (stock, True)):
        run_code(code, tmp_path, stock_only=stock_only)
        with Image.open(tmp_path / "sample.png") as picture:
            assert (picture.size, picture.mode) == ((8, 8), "L")
        (tmp_path / "sample.png").unlink()


def test_an_image_of_exact_values_is_opened_as_such(tiny_unet: Callable, tmp_path: Path) -> None:
    unet = tiny_unet(2, out_channels=1)
    scale = ValueScale("uint16", (2047.5,), (2047.5,), 0, 4095, 1)
    conditioning = Conditioning(channels=1, sides=(4, 4), values=scale.to_dict())
    set_facts(unet, ModelFacts(conditioning=conditioning.to_dict()))
    folder = saved(unet, DDPMScheduler(20), tmp_path / "model")
    text = renew_card(folder, repo_id=REPO)
    assert "# yours: uint16, (C, H, W)" in text
    np.save(tmp_path / "small.npy", np.full((1, 4, 4), 4000, np.uint16))
    run_code(snippets(text, folder)[0], tmp_path)
    with Image.open(tmp_path / "sample.png") as picture:
        assert picture.size == (8, 8)


def test_what_stock_does_otherwise_is_said(tiny_unet: Callable, tmp_path: Path) -> None:
    scheduler = DDPMScheduler(12, timestep_spacing="quadratic")
    text = renew_card(saved(tiny_unet(), scheduler, tmp_path / "model"), repo_id=REPO)
    assert "`timestep_spacing` is `quadratic`, which stock diffusers does not know" in text
    assert "it samples with `trailing`" in text


def test_classes_are_named(tiny_unet: Callable, tmp_path: Path) -> None:
    unet = tiny_unet(num_class_embeds=3)
    folder = saved(unet, DDPMScheduler(12), tmp_path / "model")
    assert "Classes:" not in renew_card(folder, repo_id=REPO)
    unet.register_to_config(_ddpm_pipeline={"class_names": ["cat", "d_g"]})
    folder = saved(unet, DDPMScheduler(12), tmp_path / "named")
    assert "Classes: 0 cat, 1 d\\_g." in renew_card(folder, repo_id=REPO)


@pytest.mark.parametrize("given", ["push", "training", "card"])
def test_the_licence_is_the_one_that_was_given(
    tiny_unet: Callable, tmp_path: Path, given: str
) -> None:
    folder = saved(tiny_unet(), DDPMScheduler(12), tmp_path / "model")
    license_name = None
    if given == "training":
        TrainingConfig(hub_license="mit").save_json(folder / "training_config.json")
    elif given == "card":
        (folder / "README.md").write_text("---\nlicense: mit\n---\n")
        TrainingConfig(hub_license="gpl-3.0").save_json(folder / "training_config.json")
    else:
        license_name = "mit"
    text = renew_card(folder, repo_id=REPO, license=license_name)
    assert ModelCard(text).data.license == "mit"


def without_options(run: Path) -> None:
    """Make a run's record one that was written before records held the options."""
    record = json.loads((run / "training_record.json").read_text())
    del record["options"]
    (run / "training_record.json").write_text(json.dumps(record))


def test_a_record_without_options_gives_the_note_and_no_command(run: Path) -> None:
    without_options(run)
    text = renew_card(run, repo_id=REPO)
    assert "## Training\n\nTraining images: images.npy, 40 of them." in text
    assert "[training_config.json](training_config.json) holds all options." in text
    assert "Paths are shortened" not in text
    assert "ddpm train" not in text
    assert "```bash" not in text
    assert "4 updates of 4 images" in text


def test_a_command_that_was_written_stays_where_the_record_has_none(run: Path) -> None:
    card = renew_card(run, repo_id=REPO)
    without_options(run)
    assert renew_card(run, repo_id=REPO, existing=card) == card
    named = renew_card(run, repo_id=REPO, existing=card, data="handwritten digits")
    assert "Training images: handwritten digits, 40" in named
    retrain(run)
    assert "ddpm train" not in renew_card(run, repo_id=REPO, existing=card)
