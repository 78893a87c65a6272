"""``ddpm calibrate`` from a saved model to its tables, plots and scheduler."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from helpers.conditioned_models import (
    CLASSES,
    record_told,
    save_conditioned,
    write_conditioned,
)
from PIL import Image

from ddpm_pipeline import Calibration, DDPMPipeline, DDPMScheduler, TrainingConfig
from ddpm_pipeline.calibration import saved_model
from ddpm_pipeline.calibration.config import CalibrateConfig
from ddpm_pipeline.calibration.saved_model import calibrate_saved_model
from ddpm_pipeline.cards.tables import calibration_text
from ddpm_pipeline.cli.calibrate import run
from ddpm_pipeline.data.conditions import DataConditions
from ddpm_pipeline.diffusion.spacing import spaced_timesteps
from ddpm_pipeline.schedulers.optimal import chain_bits_per_dim
from ddpm_pipeline.training.resolving import resolve
from ddpm_pipeline.training.setup import make_scheduler

T = 20
FEATURES = """
import torch

def feature_extractor():
    class Means(torch.nn.Module):
        def forward(self, images):
            values = images.float().flatten(1)
            return torch.stack([values.mean(1), values.std(1)], 1)
    return Means()
"""


@pytest.fixture
def saved(tiny_unet: Callable[..., diffusers.UNet2DModel], tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=pixels)
    (tmp_path / "means.py").write_text(FEATURES)
    scheduler = DDPMScheduler(T, timestep_spacing="trailing")
    DDPMPipeline(tiny_unet(), scheduler).save_pretrained(tmp_path / "model")
    return tmp_path


def config(saved: Path, **options: object) -> CalibrateConfig:
    defaults = {
        "model": str(saved / "model"),
        "data": str(saved / "images.npz"),
        "num_forwards": 60,
        "num_inference_steps": (4,),
    }
    return CalibrateConfig(**(defaults | options))


def test_everything_is_measured_written_and_kept(saved: Path) -> None:
    report = calibrate_saved_model(
        config(
            saved,
            features=str(saved / "means.py"),
            num_images=20,
            samplers=("fixed_small", "analytic", "ddim"),
            spacings=("linspace", "optimal"),
            timestep_spacing="optimal",
            variance_type="analytic",
        )
    )
    model = saved / "model"
    written = json.loads((model / "calibration.json").read_text())
    calibration = Calibration.from_dict(written["calibration"])
    assert (calibration.num_forwards, calibration.num_images) == (60, 40)
    assert (written["measured"]["data"], written["measured"]["seed"]) == ("images.npz", 0)
    assert written["report"]["features"] == "means.py"
    assert str(saved) not in json.dumps(written)
    assert (report.solver, report.num_inference_steps) == ("ddpm", None)  # others were named
    assert {path.name for path in model.glob("*.png")} == {
        "progressive.png",
        *(
            f"calibration_{name}.png"
            for name in (
                "bits_per_dim", "frechet_distance", "moments", "rate_distortion", "steps",
                "variances",
            )
        ),
    }  # fmt: skip
    assert not list(model.glob("*.state*"))

    loaded = DDPMPipeline.from_pretrained(model)
    assert loaded.scheduler.calibration.to_dict() == calibration.to_dict()
    assert loaded.scheduler.variance_type == "analytic"
    assert loaded.scheduler.timestep_spacing == "optimal"
    loaded(1, num_inference_steps=2)
    stock = diffusers.DDPMPipeline.from_pretrained(model)
    assert stock.scheduler.config.variance_type == "fixed_small"

    rows = {f"{a} {b}" for a in ("fixed_small", "analytic") for b in ("linspace", "optimal")}
    assert report.bits_per_dim.keys() == rows
    assert report.frechet_distance.keys() == rows | {"ddim linspace", "ddim optimal"}
    for row in (*report.bits_per_dim.values(), *report.frechet_distance.values()):
        assert row.keys() == {4, T}
        assert all(np.isfinite(value) and value > 0 for value in row.values())
    expected = chain_bits_per_dim(
        calibration,
        loaded.scheduler.schedule,
        spaced_timesteps(T, 4, "linspace"),
        variance_type="fixed_small",
    )
    assert report.bits_per_dim["fixed_small linspace"][4] == pytest.approx(expected)
    same = [report.frechet_distance[f"analytic {name}"][T] for name in ("linspace", "optimal")]
    assert same[0] == same[1]
    strip = np.asarray(Image.open(model / "progressive.png"))
    assert strip.shape == (6 * 10, 11 * 10)


def test_rows_are_those_of_their_names_for_a_model_with_a_solver(saved: Path) -> None:
    rows = {"samplers": ("fixed_small", "analytic", "ddim"), "spacings": ("trailing", "optimal")}
    options = {"features": str(saved / "means.py"), "num_images": 20, **rows}
    plain = calibrate_saved_model(config(saved, save=False, **options))
    pipe = DDPMPipeline.from_pretrained(saved / "model")
    pipe.scheduler.set_solver("multistep", order=3)
    pipe.save_pretrained(saved / "model")
    report = calibrate_saved_model(config(saved, **options))
    assert report.frechet_distance == plain.frechet_distance
    kept = DDPMPipeline.from_pretrained(saved / "model").scheduler
    assert (kept.solver, kept.timestep_spacing) == (pipe.scheduler.solver, "trailing")


def test_solvers_without_a_bound_alone_have_distances_and_no_bits(saved: Path) -> None:
    rows = {"samplers": ("multistep",), "spacings": ("optimal_samples",)}
    features = {"features": str(saved / "means.py"), "num_images": 20, "num_forwards": 100}
    report = calibrate_saved_model(config(saved, **rows, **features))
    assert report.bits_per_dim == {}
    title, header, row = report.tables().splitlines()
    assert title.startswith("Fréchet distance (20 images; means.py)")
    assert header.split() == ["K", "=", "4"]
    assert row.startswith("multistep optimal_samples")
    written = json.loads((saved / "model/calibration.json").read_text())
    text = calibration_text(written)
    assert "Bits/dim" not in text
    assert "Fréchet distance of 20 samples to these images" in text


def test_solvers_that_take_more_steps_are_refused(saved: Path) -> None:
    options = {"samplers": ("multistep_3",), "features": str(saved / "means.py")}
    with pytest.raises(ValueError, match=r"at least 3 for samplers=multistep_3, got 2$"):
        config(saved, num_inference_steps=(1, 2), **options)
    config(saved, num_inference_steps=(2, 3), **options)


def test_a_saved_solver_is_told_with_its_share_of_noise(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = DDPMPipeline.from_pretrained(saved / "model")
    pipe.scheduler.set_solver("multistep", eta=0.25)
    pipe.save_pretrained(saved / "model")
    words = ["--data", str(saved / "images.npz"), "--num_forwards", "100"]
    run([str(saved / "model"), *words, "--num_inference_steps", "4"])
    said = "the model samples with solver multistep with eta = 0.25, variance_type"
    assert said in capsys.readouterr().out
    report = json.loads((saved / "model/calibration.json").read_text())["report"]
    assert (report["solver"], report["eta"]) == ("multistep", 0.25)


def test_usual_steps_are_those_that_the_model_allows(saved: Path) -> None:
    options = {"model": str(saved / "model"), "data": str(saved / "images.npz")}
    report = calibrate_saved_model(CalibrateConfig(**options, num_forwards=100, save=False))
    assert list(report.bits_per_dim["analytic linspace"]) == [5, 8, 10, T]
    given = CalibrateConfig(**options, num_inference_steps=(5, 25), num_forwards=100)
    with pytest.raises(ValueError, match=f"num_inference_steps must be .* 1 to {T} .*, got 25"):
        calibrate_saved_model(given)


def test_too_few_images_for_the_features_are_refused_before_any_is_calibrated_on(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved_model, "calibrate", lambda *_, **__: pytest.fail("calibrated"))
    features = {"features": str(saved / "means.py"), "num_forwards": 100}
    with pytest.raises(ValueError, match=r"more than 2 images in both sets, got 2 by num_images"):
        calibrate_saved_model(config(saved, **features, num_images=2))


def test_a_model_samples_with_the_spectral_variance_if_asked_to(saved: Path) -> None:
    report = calibrate_saved_model(config(saved, variance_type="spectral", num_forwards=200))
    for spacing in ("linspace", "trailing", "optimal"):
        spectral, analytic = (
            report.bits_per_dim[f"{name} {spacing}"][4] for name in ("spectral", "analytic")
        )
        assert spectral < analytic
    loaded = DDPMPipeline.from_pretrained(saved / "model")
    assert loaded.scheduler.variance_type == "spectral"
    images = loaded(2, num_inference_steps=3, generator=torch.Generator().manual_seed(0))
    analytic = DDPMPipeline(
        loaded.unet, loaded.scheduler.with_calibration(loaded.scheduler.calibration)
    )
    others = analytic(2, num_inference_steps=3, generator=torch.Generator().manual_seed(0))
    assert np.asarray(images.images[0]).shape == (8, 8)
    assert (np.asarray(images.images[0]) != np.asarray(others.images[0])).any()
    loaded.scheduler.set_solver("spectral")
    assert len(loaded(2, num_inference_steps=3).images) == 2
    stock = diffusers.DDPMPipeline.from_pretrained(saved / "model")
    assert stock.scheduler.config.variance_type == "fixed_small"


def test_the_spacing_that_training_writes_has_rows_by_default(saved: Path) -> None:
    trained = resolve(
        TrainingConfig(max_train_steps=1), length=None, world_size=1, device=torch.device("cpu")
    )
    assert make_scheduler(trained).timestep_spacing in config(saved).spacings


def test_the_table_is_printed(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data", str(saved / "images.npz"), "--num_forwards", "60", "--no-save"]
    run([str(saved / "model"), *arguments, "--num_inference_steps", "4", "10"])
    table = capsys.readouterr().out
    assert "60 forwards over 40 images" in table
    lines = {line.split("  ")[0]: line.split()[2:] for line in table.splitlines()}
    assert len(lines["analytic optimal_samples"]) == 3
    assert float(lines["analytic optimal"][0]) <= float(lines["analytic linspace"][0])
    assert DDPMPipeline.from_pretrained(saved / "model").scheduler.calibration is None
    assert "No bits/dim for ddim" in table
    assert "The model is as it was; calibration.json and plots are in" in table
    spacing = ["--timestep_spacing", "optimal_samples", "--samplers", "analytic"]
    few = [*arguments[:-1], "--num_inference_steps", "4"]
    run([str(saved / "model"), *few])
    said = "samples with 10 steps of solver multistep, variance_type fixed_small and timestep_"
    told = capsys.readouterr().out
    assert said in told or said.replace("10 steps", "20 steps") in told
    steps = DDPMPipeline.from_pretrained(saved / "model").scheduler.solver.num_inference_steps
    assert f"For this model {steps} steps of multistep on optimal_samples steps" in told
    run([str(saved / "model"), *few, "--solver", "as_saved"])
    run([str(saved / "model"), *few, *spacing, "--variance_type", "analytic"])
    assert (
        "samples with variance_type analytic and timestep_spacing optimal_samples, which --solver"
        in capsys.readouterr().out
    )


def test_the_chosen_solver_is_what_a_saved_model_draws_with(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = saved_model._distances

    def with_a_bad_full_chain(*args: object) -> dict[str, dict[int, float]]:
        rows = measured(*args)  # of a random network, whose full chain happens to be the best
        return {
            name: {K: d + 1e4 * (K == T) for K, d in row.items()} for name, row in rows.items()
        }

    monkeypatch.setattr(saved_model, "_distances", with_a_bad_full_chain)
    rows = {"samplers": ("fixed_small", "multistep"), "spacings": ("trailing", "optimal_samples")}
    features = {"features": str(saved / "means.py"), "num_images": 20, "num_forwards": 100}
    report = calibrate_saved_model(config(saved, **rows, **features))
    assert report.frechet_distance["multistep optimal_samples"].keys() == {4}
    assert "multistep trailing" not in report.frechet_distance
    best = min((row[4], name) for name, row in report.frechet_distance.items() if min(row) == 4)[1]
    assert f"For this model 4 steps of {best.split()[0]} on {best.split()[1]}" in report.table()
    loaded = DDPMPipeline.from_pretrained(saved / "model")
    assert loaded.scheduler.solver.num_inference_steps == report.num_inference_steps == 4
    assert loaded.scheduler.solver.name == report.solver
    seen = []
    loaded(1, callback_on_step_end=lambda _p, _i, t, _d: seen.append(int(t)))
    assert len(seen) == 4
    loaded(1, num_inference_steps=3, callback_on_step_end=lambda *_: seen.append(0))
    loaded(1, eta=0.0, callback_on_step_end=lambda *_: seen.append(0))
    assert len(seen) == 4 + 3 + T
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stock = diffusers.DDPMPipeline.from_pretrained(saved / "model")
    assert len(stock(batch_size=1, num_inference_steps=4).images) == 1


def test_features_of_another_size_are_refused_before_the_work(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (saved / "large.py").write_text(
        "import torch\n"
        "class Large(torch.nn.Module):\n"
        "    def forward(self, images):\n"
        "        raise ValueError(f'not for {tuple(images.shape)}')\n"
        "def feature_extractor():\n"
        "    return Large()\n"
    )
    monkeypatch.setattr("ddpm_pipeline.calibration.saved_model.calibrate", pytest.fail)
    with pytest.raises(ValueError, match=r"not for \(1, "):
        calibrate_saved_model(config(saved, features=str(saved / "large.py"), num_images=6))


def test_a_model_with_learned_variances_keeps_them(
    tiny_unet: Callable[..., diffusers.UNet2DModel], saved: Path
) -> None:
    scheduler = DDPMScheduler(T, variance_type="learned_range")
    DDPMPipeline(tiny_unet(out_channels=2), scheduler).save_pretrained(saved / "learned")
    options = {"model": str(saved / "learned"), "timestep_spacing": "optimal"}
    calibrate_saved_model(config(saved, **options))
    loaded = DDPMPipeline.from_pretrained(saved / "learned").scheduler
    assert (loaded.variance_type, loaded.timestep_spacing) == ("learned_range", "optimal")
    with pytest.raises(ValueError, match=r"features cannot be given for .* learned variances"):
        calibrate_saved_model(config(saved, **options, features=str(saved / "means.py")))


def test_a_class_conditional_model_sees_its_labels(
    tiny_unet: Callable[..., diffusers.UNet2DModel], saved: Path
) -> None:
    pixels = np.zeros((30, 8, 8), dtype=np.uint8)
    np.savez(saved / "labelled.npz", images=pixels, labels=np.arange(30) % 3)
    unet = tiny_unet(num_class_embeds=4)
    DDPMPipeline(unet, DDPMScheduler(T)).save_pretrained(saved / "classes")
    report = calibrate_saved_model(
        config(
            saved,
            model=str(saved / "classes"),
            data=str(saved / "labelled.npz"),
            features=str(saved / "means.py"),
            num_images=6,
            samplers=("ddim",),
            spacings=("optimal_samples",),
        )
    )
    assert report.bits_per_dim == {}
    assert report.frechet_distance["ddim optimal_samples"].keys() == {4, T}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samplers": ("plms",)}, "samplers must be among .*, got 'plms'"),
        ({"samplers": ()}, "samplers must be at least one, got none"),
        ({"samplers": ("ddim",)}, "samplers must hold one that has bits/dim, .* samplers=ddim"),
        ({"spacings": ("even",)}, "spacings must be among .*, got 'even'"),
        ({"num_inference_steps": (21,)}, "from 1 to 20 .*, got 21"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"model": "someone/model"}, "output_dir must be given and save be False"),
        ({"target_standard_error": 1e-6}, "about .* images"),
        ({"timestep_spacing": "log"}, "timestep_spacing must be one of .*got 'log'"),
    ],
)
def test_mistakes_are_named(saved: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibrate_saved_model(config(saved, **options))


def test_the_class_and_the_condition_of_a_sample_are_of_one_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_conditioned(tmp_path, classes=True)
    write_conditioned(tmp_path / "images.npz", 30)
    told, read = record_told(monkeypatch), []
    of = DataConditions.of

    def recording(self: DataConditions, rows: torch.Tensor, labels: object) -> object:
        read.append(len(rows))
        return of(self, rows, labels)

    monkeypatch.setattr(DataConditions, "of", recording)
    options = {
        "features": str(tmp_path / "pixels.py"),
        "num_images": 20,
        "samplers": ("fixed_small",),
        "spacings": ("linspace",),
    }
    calibrate_saved_model(config(tmp_path, **options))
    assert {label for label, _ in told} == set(range(CLASSES))
    assert all(label == shown for label, shown in told)
    assert 20 in read  # no more pictures are held than are drawn from
    with pytest.raises(ValueError, match="class_labels must be left out, for each image is drawn"):
        calibrate_saved_model(config(tmp_path, **options, class_labels=(1,)))
