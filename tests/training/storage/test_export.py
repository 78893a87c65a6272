"""Runs that were stopped: their checkpoints are sampled and exported, as the run saves itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.training_runs import tiny_config
from PIL import Image

from ddpm_pipeline import DDPMPipeline
from ddpm_pipeline.cli import main
from ddpm_pipeline.training.run import train
from ddpm_pipeline.training.storage.export import export_checkpoint, open_checkpoint


@pytest.fixture(scope="module")
def run(random_last_layers: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with checkpoints at 4, 8 and 10."""
    folder = tmp_path_factory.mktemp("run")
    config = tiny_config(
        folder, max_train_steps=10, checkpointing_steps=4, checkpoints_total_limit=None
    )
    return train(config).output_dir


@pytest.fixture
def stopped(run: Path, tmp_path: Path) -> Path:
    """What is left of the run if it is stopped before its first save."""
    names = ("checkpoints", "metrics.jsonl", "training_config.json")
    folder = tmp_path / "stopped"
    folder.mkdir()
    for name in names:
        copy = shutil.copytree if (run / name).is_dir() else shutil.copy
        copy(run / name, folder / name)
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return DDPMPipeline.from_pretrained(folder).unet.state_dict()


def test_the_model_of_the_last_checkpoint_is_the_one_the_run_saved(
    run: Path, stopped: Path, tmp_path: Path
) -> None:
    found = export_checkpoint(stopped, tmp_path / "model")
    assert found.step == 10
    expected, exported = weights(run), weights(tmp_path / "model")
    assert expected.keys() == exported.keys()
    assert all(torch.equal(expected[name], exported[name]) for name in expected)
    for name in ("unet/config.json", "scheduler/scheduler_config.json", "model_index.json"):
        assert (tmp_path / "model" / name).read_bytes() == (run / name).read_bytes()
    config = json.loads((tmp_path / "model/training_config.json").read_text())
    assert config == json.loads((run / "training_config.json").read_text())


def test_the_exported_model_tells_the_images_of_the_run(run: Path, tmp_path: Path) -> None:
    export_checkpoint(run, tmp_path / "model", 8)
    name = "training_images.safetensors"
    assert (tmp_path / "model" / name).read_bytes() == (run / name).read_bytes()


def test_a_checkpoint_without_the_networks_config_opens(stopped: Path) -> None:
    """As those of before, where the options of the run say what the network is."""
    path = stopped / "checkpoints/step-0000010"
    new = open_checkpoint(path)
    state = json.loads((path / "state.json").read_text())
    assert state.pop("unet")["sample_size"] == 8
    (path / "state.json").write_text(json.dumps(state))
    (path / "manifest.json").write_text("{}")
    options = state["identity"]["config"]
    if options["model_config_name_or_path"] is None:
        old = open_checkpoint(path)
        assert dict(old.pipeline.unet.config) == dict(new.pipeline.unet.config)


def test_a_checkpoint_is_chosen(stopped: Path, tmp_path: Path) -> None:
    four = open_checkpoint(stopped, 4)
    assert four.step == 4
    same = open_checkpoint(stopped / "checkpoints/step-0000004")
    pairs = zip(four.pipeline.unet.parameters(), same.pipeline.unet.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    with pytest.raises(FileNotFoundError, match=r"checkpoint=5 is not in .*, which has 4, 8, 10"):
        open_checkpoint(stopped, 5)
    with pytest.raises(FileNotFoundError, match="checkpoint=5 is not the one in"):
        open_checkpoint(stopped / "checkpoints/step-0000004", 5)
    with pytest.raises(FileNotFoundError, match="there is no checkpoint in"):
        open_checkpoint(tmp_path)


def test_a_damaged_checkpoint_is_passed_over_or_named(stopped: Path, tmp_path: Path) -> None:
    (stopped / "checkpoints/step-0000010/model.safetensors").write_bytes(b"cut")
    assert open_checkpoint(stopped).step == 8
    with pytest.raises(ValueError, match=r"is damaged: model.safetensors has changed"):
        export_checkpoint(stopped, tmp_path / "model", 10)
    assert not (tmp_path / "model").exists()


def test_the_commands_use_checkpoints_and_say_so(
    stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = ["--num_images", "2", "--num_inference_steps", "2"]
    for name, source in (("a", stopped), ("b", stopped / "checkpoints/step-0000008")):
        picture = tmp_path / f"{name}.png"
        assert main(["sample", str(source), *draw, "--output", str(picture)]) == 0
        said = capsys.readouterr()
        assert said.out.strip() == str(picture)
        assert f"after update {10 if name == 'a' else 8}" in said.err
        with Image.open(picture) as image:
            assert image.size == (19, 10)
    assert (
        main(["export", str(stopped), "--checkpoint", "8", "--output", str(tmp_path / "m")]) == 0
    )
    assert "after update 8" in capsys.readouterr().out
    again = tmp_path / "c.png"
    assert main(["sample", str(tmp_path / "m"), *draw, "--output", str(again)]) == 0
    assert again.read_bytes() == (tmp_path / "b.png").read_bytes()
    capsys.readouterr()
    assert main(["export", str(stopped), "--output", str(tmp_path / "m")]) == 2
    assert "is not empty; choose a new folder" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "no"), "--output", str(tmp_path / "n")]) == 2
    assert "run: there is no folder" in capsys.readouterr().err
    assert main(["bound", str(stopped), "--data", str(tmp_path)]) == 2
    assert f"`ddpm export {stopped} --output DIR` makes one" in capsys.readouterr().err


def test_before_the_first_save_it_is_said_when_that_will_be(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(stopped / "checkpoints")
    assert main(["sample", str(stopped)]) == 2
    said = capsys.readouterr().err
    assert f"there is no model in {str(stopped)!r} yet: its model is saved first after" in said
    assert "a checkpoint, which can be sampled too, after update 4; update 10 is the last" in said
