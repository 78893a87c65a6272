"""Every mistake in `ddpm train` is answered by the option that was typed, and by what to do."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm_pipeline.cli.commands import main

SMALL = "--resolution 8 --output_dir m --max_train_steps 1"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with all kinds of data, good and bad."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDPM_PIPELINE_CACHE", "cache")
    np.save("x.npy", np.zeros((16, 8, 8), np.uint8))
    np.save("f.npy", np.zeros((16, 8, 8), np.float32))
    np.save("flat.npy", np.zeros(16, np.uint8))
    np.savez("half.npz", images=np.zeros((4, 8, 8), np.uint8), labels=np.array([0.0, 1.5, 0, 1]))
    np.savez("bare.npz", images=np.zeros((4, 8, 8), np.uint8))
    for name in ("shards", "empty", "photos", "broken", "used"):
        Path(name).mkdir()
    with tarfile.open("shards/a.tar", "w"):
        pass
    for i in range(3):
        Image.new("RGB", (8, 8)).save(f"photos/{i}.png")
    Path("broken/0.png").write_bytes(b"no image")
    Image.new("RGB", (8, 8)).save("broken/1.png")
    Path("unet.json").write_text(json.dumps({"sample_size": 64}))
    Path("notes.json").write_text("[]")
    Path("odd.json").write_text('{"batch": 3}')
    Path("used/model_index.json").write_text("{}")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", ["--train_data_dir", "--dataset_name"]),
        ("--train_data_dir nowhere", ["--train_data_dir", "'nowhere'", "--dataset_name"]),
        ("--train_data_dir x.npy", ["--train_batch_size=64", "16 images", "=16 or less"]),
        ("--train_data_dir x.npy --train_batch_size 0", ["--train_batch_size", "at least 1"]),
        ("--train_data_dir x.npy --validation_size 16", ["--validation_size=16", "1 to 15"]),
        ("--train_data_dir x.npy --validation_size 0.01", ["_size=0.01", "0 for validation"]),
        ("--train_data_dir shards", ["--train_data_dir", "--streaming and --max_train_steps"]),
        ("--train_data_dir shards/a.tar", ["--streaming and --max_train_steps"]),
        ("--train_data_dir empty", ["--train_data_dir", "holds no images"]),
        ("--train_data_dir notes.json", ["--train_data_dir", "none of .npy"]),
        ("--train_data_dir f.npy", ["--value_range"]),
        ("--train_data_dir flat.npy", ["--train_data_dir", "shape"]),
        ("--train_data_dir x.npy --train_split b", ["--train_split='b'"]),
        ("--train_data_dir photos --train_split b", ["--train_split='b'"]),
        ("--train_data_dir photos --validation_split b", ["--validation_split='b'"]),
        ("--train_data_dir x.npy --validation_data_dir no", ["--validation_data_dir='no'"]),
        ("--train_data_dir x.npy --image_column a", ["--image_column='a'"]),
        ("--train_data_dir x.npy --num_classes 3", ["--num_classes=3", "--class_conditional"]),
        ("--train_data_dir photos --class_conditional", ["--class_conditional", "labels missing"]),
        ("--train_data_dir bare.npz --class_conditional", ["--class_conditional", "labels"]),
        ("--train_data_dir half.npz --class_conditional", ["--train_data_dir", "labels"]),
        ("--train_data_dir broken --strict_data", ["--strict_data", "0.png"]),
        ("--train_data_dir x.npy --streaming", ["--streaming"]),
        ("--train_data_dir x.npy --model_config_name_or_path unet.json --train_batch_size 4",
         ["--model_config_name_or_path", "sample_size=64"]),
        ("--train_data_dir x.npy --model_config_name_or_path no.json",
         ["--model_config_name_or_path='no.json'"]),
        ("--train_data_dir x.npy --output_dir used", ["--output_dir 'used'", "another folder"]),
        ("--train_data_dir x.npy --output_dir x.npy", ["--output_dir"]),
        ("--train_data_dir x.npy --resume_from_checkpoint no", ["--resume_from_checkpoint", "no"]),
        ("--train_data_dir x.npy --config no.json", ["--config='no.json'"]),
        ("--train_data_dir x.npy --config notes.json", ["--config='notes.json'"]),
        ("--train_data_dir x.npy --config odd.json", ["--config='odd.json'", "batch"]),
        ("--train_data_dir x.npy --config empty", ["--config='empty'"]),
        ("--train_data_dir x.npy --loss hybrid", ["variance_type"]),
        ("--train_data_dir x.npy --mixed_precision fp16", ["--mixed_precision 'fp16'", "bf16"]),
        ("--train_data_dir x.npy --prediction_type epsilon --rescale_betas_zero_snr True",
         ["--prediction_type 'epsilon'", "--rescale_betas_zero_snr"]),
        ("--train_data_dir x.npy --push_to_hub", ["--push_to_hub", "--hub_model_id"]),
        ("--train_data_dir x.npy --validate_bound_steps 5", ["--validate_bound_steps"]),
        ("--train_data_dir x.npy --save_model_steps 5 --save_model_epochs 1",
         ["--save_model_steps", "--save_model_epochs"]),
        ("--train_data_dir x.npy --dataset_config_name a", ["--dataset_config_name"]),
        ("--train_data_dir x.npy --logging_dir /logs", ["--logging_dir", "--output_dir"]),
    ],
)  # fmt: skip
def test_an_error_names_what_was_typed(
    capsys: pytest.CaptureFixture[str], words: str, expected: list[str]
) -> None:
    small = [
        w for w in SMALL.split() if "--output_dir" not in words or w not in {"--output_dir", "m"}
    ]
    try:
        code = main(["train", *words.split(), *small])
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr().err.splitlines()[-1]
    assert code == 2
    assert printed.startswith("ddpm train: error: ")
    for part in expected:
        assert part in printed, printed
    assert not Path("m/model_index.json").exists()
