"""``ddpm bound`` on a saved model and a folder of images."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from helpers.conditioned_models import save_conditioned, write_conditioned
from helpers.image_samples import encoded, noise
from helpers.processes import exit_codes, fork_ranks
from PIL import Image

from ddpm_pipeline import DDPMPipeline, DDPMScheduler, variational_bound
from ddpm_pipeline.cli.bound import run
from ddpm_pipeline.cli.commands import main
from ddpm_pipeline.common.fingerprints import weights_hash
from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.data.pixels import to_model_range
from ddpm_pipeline.likelihood.config import BoundConfig
from ddpm_pipeline.likelihood.saved_model import bound_of_saved_model
from ddpm_pipeline.networks import ModelFacts, ValueScale, set_facts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ddpm_pipeline.likelihood.report import BoundReport


@pytest.fixture
def setting(tmp_path: Path, tiny_unet: Callable, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Arguments: the folders of a saved model of 12 steps and of 8 images of its size."""
    monkeypatch.setenv("DDPM_PIPELINE_CACHE", str(tmp_path / "cache"))
    pipeline = DDPMPipeline(tiny_unet(), DDPMScheduler(12, beta_end=0.3, clip_sample=True))
    pipeline.save_pretrained(tmp_path / "model")
    save_images(tmp_path / "images", 8, 8)
    return {"model": str(tmp_path / "model"), "data": str(tmp_path / "images")}


def save_images(folder: Path, count: int, side: int) -> None:
    folder.mkdir()
    for i, values in enumerate(noise(count, side, side)):
        (folder / f"{i}.png").write_bytes(encoded(values))


def test_a_flow_of_exact_values_is_refused_before_the_bound(
    setting: dict, tmp_path: Path, tiny_unet: Callable, capsys: pytest.CaptureFixture
) -> None:
    unet, scale = tiny_unet(), ValueScale("uint8", (127.5,), (127.5,), 0, 255, 1)
    set_facts(unet, ModelFacts(values=scale.to_dict()))
    DDPMPipeline(unet, DDPMScheduler(12)).save_pretrained(setting["model"])
    assert main(["bound", setting["model"], "--data", setting["data"], "--ode"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "ode is for models of bytes; this one is of exact uint8" in said
    assert not (tmp_path / "model" / "bound.json").exists()


def test_it_writes_what_the_function_measures(setting: dict, tmp_path: Path) -> None:
    report = bound_of_saved_model(BoundConfig(**setting, num_timestep_samples=0))
    images = open_images(setting["data"], resolution=8).batch(range(8)).images
    pipeline = DDPMPipeline.from_pretrained(setting["model"])
    direct = variational_bound(
        pipeline.unet,
        pipeline.scheduler,
        to_model_range(images),
        generator=torch.Generator().manual_seed(0),
    )
    assert report.num_images == 8
    assert report.settings.is_exact
    assert report.settings.clip_x_0 is None
    # Other noise, and images in another order.
    error = 5 * (report.standard_error**2 + direct.standard_error**2) ** 0.5
    assert abs(report.bits_per_dim - direct.bits_per_dim) < error
    written = json.loads((tmp_path / "model" / "bound.json").read_text())
    expected = report.to_dict()
    assert (written["seed"], written["noise_seed"]) == (0, expected.pop("seed"))
    assert {key: written[key] for key in expected} == expected
    assert (written["data"]["name"], written["data"]["split"]) == ("images", None)
    assert written["weights"] == weights_hash(pipeline.unet)
    assert str(tmp_path) not in json.dumps(written)
    with Image.open(tmp_path / "model" / "bound.png") as picture:
        assert picture.width > 500
    assert not list((tmp_path / "model").glob("*.state"))


def test_the_command_prints_the_table_and_is_repeatable(
    setting: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    argv = [setting["model"], "--data", setting["data"], "--output_dir", str(tmp_path / "out")]
    assert main(["bound", *argv, "--num_images", "5", "--num_inference_steps", "4"]) == 0
    first = capsys.readouterr().out
    assert "bits/dim" in first
    assert "5 of 64 dimensions" in first
    assert "4 of 12 steps" in first
    run([*argv, "--num-images", "5", "--num-inference-steps", "4"])
    assert capsys.readouterr().out == first
    run([*argv, "--num_images", "5", "--num_inference_steps", "4", "--seed", "1"])
    assert capsys.readouterr().out != first


def test_a_calibrated_model_is_measured_with_a_variance_for_each_frequency(setting: dict) -> None:
    few = ["--num_forwards", "24", "--num_inference_steps", "4", "--solver", "as_saved"]
    assert main(["calibrate", setting["model"], "--data", setting["data"], *few]) == 0
    pipeline = DDPMPipeline.from_pretrained(setting["model"])
    asked = {"num_timestep_samples": 0, "decoder": "continuous", "variance_type": "spectral"}
    report = bound_of_saved_model(BoundConfig(**setting, **asked))
    assert pipeline.scheduler.variance_type == "fixed_small"
    direct = variational_bound(
        pipeline.unet,
        pipeline.scheduler.with_calibration(
            pipeline.scheduler.calibration, variance_type="spectral"
        ),
        to_model_range(open_images(setting["data"], resolution=8).batch(range(8)).images),
        generator=torch.Generator().manual_seed(0),
        decoder="continuous",
    )
    error = 5 * (report.standard_error**2 + direct.standard_error**2) ** 0.5
    assert report.settings.variance_type == "spectral"
    assert abs(report.bits_per_dim - direct.bits_per_dim) < error


def test_options_reach_the_bound(setting: dict) -> None:
    report = bound_of_saved_model(
        BoundConfig(
            **setting,
            variance_type="fixed_large",
            decoder="continuous",
            clip_x_0=1.0,
            num_timestep_samples=2,
            timestep_sampler="uniform",
            batch_size=3,
        )
    )
    settings = report.settings
    assert (settings.variance_type, settings.clip_x_0) == ("fixed_large", 1.0)
    assert (settings.num_timestep_samples, settings.timestep_sampler) == (2, "uniform")
    assert report.forwards == 24


def test_images_of_another_size_are_measured_with_a_warning(setting: dict, tmp_path: Path) -> None:
    save_images(tmp_path / "large", 3, 12)
    report = bound_of_saved_model(BoundConfig(**{**setting, "data": str(tmp_path / "large")}))
    warning, unknown = report.warnings
    assert unknown.startswith("it could not be checked whether the model was trained on these")
    assert "changed before they were measured (3 resized)" in warning
    assert "scaling smooths noise away" in warning
    assert "as the model sees them and not of the files" in str(report)
    save_images(tmp_path / "small", 2, 5)
    small = {**setting, "data": str(tmp_path / "small"), "fit": "pad"}
    warning, _ = bound_of_saved_model(BoundConfig(**small)).warnings
    assert "(2 padded)" in warning
    assert "a border of one colour costs almost nothing" in warning


def test_a_conditional_model_is_given_the_labels_of_its_images(
    setting: dict, tmp_path: Path, tiny_unet: Callable
) -> None:
    pipeline = DDPMPipeline(tiny_unet(num_class_embeds=3), DDPMScheduler(12))
    pipeline.save_pretrained(tmp_path / "conditional")
    for name in ("cat", "dog"):
        save_images(tmp_path / name, 2, 8)
        (tmp_path / "classes").mkdir(exist_ok=True)
        (tmp_path / name).rename(tmp_path / "classes" / name)
    config = {"model": str(tmp_path / "conditional"), "data": str(tmp_path / "classes")}
    assert bound_of_saved_model(BoundConfig(**config)).num_images == 4


def test_two_processes_write_the_report_of_one(setting: dict, tmp_path: Path) -> None:
    def measure(name: str) -> None:
        bound_of_saved_model(BoundConfig(**setting, output_dir=str(tmp_path / name)))

    assert exit_codes(fork_ranks(lambda: measure("two"), 2)) == [0, 0]
    measure("one")
    two, one = (json.loads((tmp_path / n / "bound.json").read_text()) for n in ("two", "one"))
    assert two["bits_per_dim"] == pytest.approx(one["bits_per_dim"], rel=1e-7)
    assert two["per_example"] == pytest.approx(one["per_example"], rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num_images", "9"], "num_images must be at most 8"),
        (["--num_images", "0"], "num_images must be at least 1, got 0"),
        (["--num_timestep_samples", "-1"], "num_timestep_samples must be at least 0, got -1"),
        (["--num_inference_steps", "13"], "an integer from 1 to 12"),
        (["--variance_type", "learned"], "must have 2 channels for --variance_type 'learned'"),
        (["--variance_type", "big"], "variance_type must be one of fixed_small"),
        (["--variance_type", "spectral"], "variance_type 'spectral' needs a calibration"),
        (
            ["--data", "nowhere"],
            "--data='nowhere' is no path here, and the Hub could not",
        ),
        (["--model", "someone/model"], "--output_dir must be given for --model='someone/model'"),
    ],
)
def test_mistakes_are_named_in_one_line(
    setting: dict, options: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    argv = ["--model", setting["model"], "--data", setting["data"], *options]
    try:
        code = main(["bound", *argv])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert message in lines[-1]


def test_the_flow_is_measured_beside_the_bound(
    setting: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    argv = [word for key, value in setting.items() for word in (f"--{key}", str(value))]
    options = ["--ode", "--ode_images", "2", "--num_timestep_samples", "2"]
    assert main(["bound", *argv, *options]) == 0
    printed = capsys.readouterr().out
    assert "bits/dim of the flow" in printed
    assert "bound less flow" in printed
    written = json.loads((tmp_path / "model" / "ode.json").read_text())
    bound = json.loads((tmp_path / "model" / "bound.json").read_text())
    assert written["num_images"] == 2
    assert written["bound"] == pytest.approx(sum(bound["per_example"][:2]) / 2)
    # The same noise at t = 0, and the same decoder.
    assert written["decoder"] == pytest.approx(sum(bound["decoder_per_example"][:2]) / 2, rel=1e-4)
    assert written["weights"] == bound["weights"]
    assert written["forwards"] == 2 * written["calls_per_image"]


def test_the_bound_without_the_condition_is_of_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDPM_PIPELINE_CACHE", str(tmp_path / "cache"))
    write_conditioned(tmp_path / "x.npz", 64)
    model, reports, targets = save_conditioned(tmp_path), [], []

    def recording(*arguments: Any, **options: Any) -> BoundReport:
        targets.append(options["target_standard_error"])
        reports.append(variational_bound(*arguments, **options))
        return reports[-1]

    monkeypatch.setattr("ddpm_pipeline.likelihood.saved_model.variational_bound", recording)
    report = bound_of_saved_model(
        BoundConfig(
            model=str(model),
            data=str(tmp_path / "x.npz"),
            condition_on="low",
            num_timestep_samples=2,
            batch_size=3,
            target_standard_error=100,
        )
    )
    given, without = reports
    assert targets == [100, None]  # the second does not stop by itself
    # KL(q(x_T | x_0) || N(0, I)) is an image's own, without noise and without the network.
    assert torch.equal(without.prior_per_example, given.prior_per_example)
    assert given.num_images == 32
    assert report.without_condition == without.bits_per_dim != report.bits_per_dim
