"""``ddpm average``: what it makes, what it finds, and what it refuses."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import torch
from helpers.training_runs import tiny_config

from ddpm_pipeline import DDPMPipeline
from ddpm_pipeline.cli import main
from ddpm_pipeline.data import KnownImages
from ddpm_pipeline.evaluation.small_features import SmallFeatures, SmallFeaturesConfig
from ddpm_pipeline.training import averaged_model, train

pytestmark = pytest.mark.usefixtures("random_last_layers")


@pytest.fixture(scope="module")
def run(random_last_layers: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = {"max_train_steps": 6, "post_hoc_steps": 1, "save_images_steps": 0}
    folder = tmp_path_factory.mktemp("run")
    return train(tiny_config(folder, checkpointing_steps=0, **options)).output_dir


def test_it_makes_the_model_of_an_average(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model = tmp_path / "model"
    assert main(["average", str(run), "--sigma_rel", "0.1", "--output_dir", str(model)]) == 0
    assert f"{model}: the average of sigma_rel 0.1 at update 6, of 6" in capsys.readouterr().out
    made = DDPMPipeline.from_pretrained(model).unet.state_dict()
    expected = averaged_model(run, 0.1).pipeline.unet.state_dict()
    assert all(torch.equal(made[name], expected[name]) for name in expected)


@pytest.mark.parametrize("measure", ["bits/dim", "Fréchet distance"])
def test_it_finds_the_best_length(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, measure: str
) -> None:
    words = ["--find", "--data", str(run.parent / "images.npy"), "--num_images", "20"]
    words += ["--sigma_rels", "0.05", "0.2", "--output_dir", str(tmp_path / "model")]
    if measure != "bits/dim":
        features = SmallFeatures(SmallFeaturesConfig(size=8, widths=(4, 4, 4), dim=5))
        features.save_pretrained(tmp_path / "features")
        words += ["--features", str(tmp_path / "features"), "--num_inference_steps", "2"]
    assert main(["average", str(run), *words]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"sigma_rel  {measure}"
    found = json.loads((tmp_path / "model/average.json").read_text())
    assert found["measured"] == measure
    values = {tried["sigma_rel"]: tried["value"] for tried in found["tried"]}
    assert list(values) == [0.05, 0.2]
    assert found["sigma_rel"] == min(values, key=values.get)
    (best,) = [line for line in said if line.endswith("best")]
    assert best.startswith(f"{found['sigma_rel']:g} ")


def test_it_measures_on_what_training_held_out(
    random_last_layers: None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = {"max_train_steps": 2, "post_hoc_steps": 1, "validation_size": 0.2}
    run = train(tiny_config(tmp_path, checkpointing_steps=0, **options)).output_dir
    held_out = ["--data", str(tmp_path / "images.npy"), "--split", "validation"]
    words = ["--find", *held_out, "--sigma_rels", "0.2", "--output_dir", str(tmp_path / "model")]
    assert main(["average", str(run), *words]) == 0
    assert main(["bound", str(tmp_path / "model"), *held_out]) == 0
    known = KnownImages.of_model(tmp_path / "model")
    report = json.loads((tmp_path / "model/bound.json").read_text())
    assert report["num_images"] == known.validation.count > 0
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give either --sigma_rel or --find, got none"),
        (["--find", "--sigma_rel", "0.1", "--data", "x"], "--sigma_rel or --find, got both"),
        (["--find"], "--find needs data"),
        (["--sigma_rel", "0.1", "--data", "x"], "--data is for --find"),
        (["--sigma_rel", "0.3"], "--sigma_rel must be above 0 and at most 0.2887, got 0.3"),
        (["--sigma_rel", "0.1", "--step", "7"], "--step must be at most 6, of the last snapshot"),
        (["--sigma_rel", "0.1", "--step", "0"], "--step must be"),
        (["--find", "--data", "nowhere"], "'nowhere'"),
    ],
)
def test_mistakes_are_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, words: list[str], message: str
) -> None:
    with contextlib.suppress(SystemExit):
        assert main(["average", str(run), "--output_dir", str(tmp_path / "m"), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ddpm average: error: ")
    assert message in line
    assert not (tmp_path / "m").exists()


def test_a_run_without_snapshots_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "run").mkdir()
    words = ["--sigma_rel", "0.1", "--output_dir", str(tmp_path / "m")]
    assert main(["average", str(tmp_path / "run"), *words]) == 2
    assert "`ddpm train --post_hoc_steps N` keeps them" in capsys.readouterr().err
    assert main(["average", str(tmp_path / "no"), *words]) == 2
    assert "there is no folder" in capsys.readouterr().err
