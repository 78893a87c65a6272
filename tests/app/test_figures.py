"""What the page says of a model and of a run by numbers."""

from __future__ import annotations

import json
from pathlib import Path

from helpers.pipelines import pipeline
from helpers.unets import make_tiny_unet
from PIL import Image

from ddpm_pipeline.app.figures import card_of, losses_of, pictures_of


def test_the_card_is_shown_without_its_metadata(tmp_path: Path) -> None:
    pipeline(make_tiny_unet(), num_train_timesteps=10).save_pretrained(tmp_path / "pets")
    text = card_of(str(tmp_path / "pets"))
    assert text.startswith("# pets")
    assert "library_name" not in text
    assert "from_pretrained" in text


def test_folders_without_a_model_are_said_to_have_none(tmp_path: Path) -> None:
    assert "no saved model yet" in card_of(str(tmp_path))
    assert "of the Hub" in card_of("somebody/pets")
    (tmp_path / "model_index.json").write_text("{")
    assert "model_index.json is not JSON" in card_of(str(tmp_path))


def test_curves_are_read_while_a_line_is_written(tmp_path: Path) -> None:
    rows = [{"step": 1, "loss": 0.5}, {"step": 2, "validation_loss": 0.25}, {"step": 3, "loss": 2}]
    text = "\n".join(map(json.dumps, rows)) + '\n{"step": 4, "lo'
    (tmp_path / "metrics.jsonl").write_text(text)
    assert losses_of(str(tmp_path)) == {
        "loss": [(1, 0.5), (3, 2)],
        "validation loss": [(2, 0.25)],
    }
    assert losses_of(str(tmp_path / "none")) == {}


def test_samples_come_before_plots(tmp_path: Path) -> None:
    Image.new("L", (3, 3)).save(tmp_path / "calibration_spectrum.png")
    Image.new("L", (5, 5)).save(tmp_path / "samples.png")
    assert [picture.size for picture in pictures_of(str(tmp_path))] == [(5, 5), (3, 3)]
    assert pictures_of("somebody/pets") == []
