"""``train`` from the config to the model, and ``dry_run``.

Each defect of diffusers' training example has a test named after it, ``test_stock_...``, beside
the tests of the module that does better.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline as StockPipeline
from helpers.training_runs import TINY_UNET, a_learner, metrics, outcome, tiny_config
from PIL import Image

from ddpm_pipeline import DDPMPipeline
from ddpm_pipeline.evaluation.config import EvaluateConfig
from ddpm_pipeline.evaluation.saved_model import evaluate
from ddpm_pipeline.evaluation.small_features import SmallFeatures, SmallFeaturesConfig
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.run import dry_run, train

pytestmark = pytest.mark.usefixtures("random_last_layers")


def test_a_run_leaves_a_model_that_stock_diffusers_opens(a_run: Path) -> None:
    stock = StockPipeline.from_pretrained(a_run)
    ours = DDPMPipeline.from_pretrained(a_run)
    assert ours.scheduler.config.timestep_spacing == "trailing"
    assert ours.scheduler.config.rescale_betas_zero_snr
    for a, b in zip(ours.unet.parameters(), stock.unet.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_run_leaves_its_options_grids_metrics_and_logs(a_run: Path) -> None:
    config = TrainingConfig.from_json(a_run / "training_config.json")
    assert config.max_train_steps == 10
    assert [entry["step"] for entry in metrics(a_run)] == [5, 8, 10, 10]
    with Image.open(a_run / "samples" / "step-0000010.png") as grid:
        assert grid.mode == "L"
        assert grid.size == (19, 10)  # two images of 8, three gaps of 1
    assert list((a_run / "logs").rglob("events.out.tfevents.*"))
    hidden = [path.name for path in a_run.iterdir() if path.name.startswith(".")]
    assert hidden == [".written.jsonl"]  # what --overwrite_output_dir may delete


def test_no_local_path_is_in_what_a_run_leaves(a_run: Path) -> None:
    for path in [*a_run.glob("*.json*"), *a_run.glob("*/*.json"), *a_run.rglob("state.json")]:
        assert str(a_run.parent) not in path.read_text(), path
        assert str(Path.home()) + "/" not in path.read_text(), path


def test_training_learns_the_data(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        max_train_steps=60,
        train_batch_size=8,
        learning_rate=1e-2,
        logging_steps=20,
        save_images_steps=0,
        checkpointing_steps=0,
    )
    train(config)
    first, *_, last = metrics(tmp_path / "run")
    assert last["loss"] < 0.7 * first["loss"]


def test_stock_has_no_seed(tmp_path: Path) -> None:
    options = {"max_train_steps": 4, "save_images_steps": 0}
    seeds = enumerate([3, 3, 4])
    runs = [tiny_config(tmp_path / str(i), seed=seed, **options) for i, seed in seeds]
    for config in runs:
        train(config)
    a, b, c = (outcome(Path(config.output_dir))["model"] for config in runs)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not any(torch.equal(a[name], c[name]) for name in a if a[name].ndim > 1)


def test_stock_has_no_fid(a_run: Path, tmp_path: Path) -> None:
    """What a run leaves is measured as it is, in features of one's choice."""
    SmallFeatures(SmallFeaturesConfig(size=8, widths=(4, 4, 4), dim=5)).save_pretrained(tmp_path)
    config = EvaluateConfig(
        model=str(a_run),
        data=str(a_run.parent / "images.npy"),
        features=str(tmp_path),
        num_images=20,
        num_inference_steps=2,
        kid_subsets=2,
        bound_images=0,
    )
    report = evaluate(config)
    assert (report.num_images, report.num_reference) == (20, 40)
    assert 0 < report.frechet_distance < float("inf")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_stock_has_no_compile(tmp_path: Path) -> None:
    losses = []
    for name, compiled in [("a", False), ("b", True)]:
        config = tiny_config(tmp_path / name, max_train_steps=3, compile=compiled)
        # Compiled dropout draws other numbers.
        (tmp_path / name / "unet.json").write_text(json.dumps({**TINY_UNET, "dropout": 0.0}))
        losses.append(train(config).loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_stock_has_no_v_prediction(tmp_path: Path, prediction: str) -> None:
    train(tiny_config(tmp_path, max_train_steps=2, prediction_type=prediction))
    config = DDPMPipeline.from_pretrained(tmp_path / "run").scheduler.config
    assert config.prediction_type == prediction
    assert config.rescale_betas_zero_snr == (prediction != "epsilon")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"train_batch_size": 41}, ValueError, "batch_size=41 .* larger than the data: 40"),
        ({"validation_size": 40.0}, ValueError, "leaves 0 for training"),
        ({"validation_size": 0.001}, ValueError, "0 for validation"),
        ({"mixed_precision": "fp16"}, ValueError, "'fp16' needs a GPU"),
        ({"resume_from_checkpoint": "nowhere"}, FileNotFoundError, "no folder 'nowhere'"),
        ({"resolution": 16}, ValueError, "sample_size=8, but training needs 16"),
        ({"train_data_dir": "nope"}, FileNotFoundError, "train_data_dir='nope' does not exist"),
        (
            {"validation_data_dir": "nope"},
            FileNotFoundError,
            "validation_data_dir='nope' does not",
        ),
        (
            {"validation_data_dir": "nope", "streaming": True, "max_train_steps": 1},
            FileNotFoundError,
            "validation_data_dir='nope' does not exist",
        ),
        ({"train_data_dir": None}, ValueError, "give train_data_dir or dataset_name"),
        ({"logger": "trackio"}, ImportError, "pip install trackio"),
    ],
)
def test_mistakes_are_named(
    tmp_path: Path, options: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train(tiny_config(tmp_path).replace(**options))
    assert not (tmp_path / "run" / "training_config.json").exists()


def test_a_resolution_that_costs_much_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dry_run(
        tiny_config(tmp_path, train_batch_size=1).replace(
            resolution=33, model_config_name_or_path=None
        )
    )
    assert "attends at 33 x 33 places" in caplog.text


def test_a_dry_run_refuses_a_batch_that_is_larger_than_the_data(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"batch_size=41 .* larger than the data: 40"):
        dry_run(tiny_config(tmp_path, train_batch_size=41))


def test_a_dry_run_counts_and_writes_nothing(tmp_path: Path) -> None:
    numbers = dry_run(tiny_config(tmp_path, max_train_steps=None, num_epochs=3))
    unet = a_learner(tmp_path).unet
    assert numbers.num_parameters == sum(p.numel() for p in unet.parameters())
    assert numbers.num_images == 40
    assert numbers.images_per_update == 4
    assert numbers.config.max_train_steps == 30
    assert numbers.memory["weights"] == 4 * numbers.num_parameters
    # The first convolution alone: 4 maps of 8 x 8 from 3 x 3 numbers, twice, forth and back.
    assert numbers.flops_per_image > 2 * 4 * 64 * 9 * 2
    assert "updates            30" in str(numbers)
    assert not (tmp_path / "run").exists()
