"""The evaluation of a model: its numbers, what it says about them, and what it refuses."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from helpers.conditioned_models import (
    CLASSES,
    record_told,
    save_conditioned,
    write_conditioned,
)
from helpers.processes import exit_codes, fork_ranks
from PIL import Image
from torch.testing import assert_close

from ddpm_pipeline import DDPMPipeline, DDPMScheduler, variational_bound
from ddpm_pipeline.common.distributed import process_state
from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.evaluation.config import EvaluateConfig
from ddpm_pipeline.evaluation.features import load_features
from ddpm_pipeline.evaluation.metrics import Moments, frechet_distance
from ddpm_pipeline.evaluation.saved_model import evaluate
from ddpm_pipeline.evaluation.small_features import SmallFeatures, SmallFeaturesConfig
from ddpm_pipeline.pipelines.config import SampleConfig
from ddpm_pipeline.pipelines.sampling import load_image_sampler, sample_images

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusers import UNet2DModel


@pytest.fixture
def setting(
    tiny_unet: Callable[..., UNet2DModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, object]:
    """Options of an evaluation of a tiny model, with its data and features."""
    monkeypatch.setenv("DDPM_PIPELINE_CACHE", str(tmp_path / "cache"))
    DDPMPipeline(tiny_unet(), DDPMScheduler(50)).save_pretrained(tmp_path / "model")
    config = SmallFeaturesConfig(size=8, widths=(4, 4, 4), dim=5, num_classes=2)
    SmallFeatures(config).save_pretrained(tmp_path / "features")
    images = np.random.default_rng(0).integers(0, 256, (90, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=images)
    return {
        "model": str(tmp_path / "model"),
        "data": str(tmp_path / "data.npz"),
        "features": str(tmp_path / "features"),
        "output_dir": str(tmp_path / "report"),
        "num_images": 40,
        "num_inference_steps": 2,
        "kid_subsets": 4,
        "num_nearest": 3,
        "bound_images": 0,
    }


def moments_of(images: torch.Tensor, features: str) -> Moments:
    moments = Moments(5)
    moments.update(load_features(features)(images))
    return moments


def test_the_report_states_the_numbers_and_what_they_depend_on(
    setting: dict[str, object], tmp_path: Path
) -> None:
    config = EvaluateConfig(**setting, seed=7)
    report = evaluate(config)
    drawn = torch.from_numpy(load_image_sampler(config)(range(40))).permute(0, 3, 1, 2)
    real = open_images(setting["data"], resolution=8, progress=False)
    expected = frechet_distance(
        moments_of(drawn, setting["features"]),
        moments_of(real.batch(range(90)).images, setting["features"]),
    )
    assert_close(report.frechet_distance, expected, rtol=1e-6, atol=1e-9)
    assert report.kid_standard_error > 0
    assert report.seconds_per_image > 0
    assert (report.num_images, report.num_reference, report.feature_dim) == (40, 90, 5)
    assert report.reference == real.fingerprint
    assert (report.reference_data, report.reference_split) == ("data.npz", None)
    assert report.sampler["seed"] == 7
    assert report.sampler["num_inference_steps"] == 2
    assert report.bound is None
    table = report.table()
    for text in ("Fréchet distance", "KID", "±", "precision", "recall", "40 against 90"):
        assert text in table
    for text in ("SmallFeatures 5", "5 dimensions", "DDIMScheduler, K = 2, seed 7", "none"):
        assert text in table
    written = (tmp_path / "report" / "evaluation.json").read_text()
    assert json.loads(written) == report.to_dict()
    assert str(tmp_path) not in written


def test_few_images_are_warned_of(
    setting: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    table = evaluate(EvaluateConfig(**setting)).table()
    said = "biased upwards by about 1 / N, and 40 drawn images are under 10,000"
    assert (table.count(said), caplog.text.count(said)) == (1, 0)


def test_the_reference_itself_is_perfect(setting: dict[str, object], tmp_path: Path) -> None:
    report = evaluate(EvaluateConfig(**setting, samples=setting["data"]))
    assert report.frechet_distance < 1e-9
    assert (report.precision, report.recall) == (1.0, 1.0)
    assert abs(report.kid) < 4 * report.kid_standard_error
    assert report.seconds_per_image is None
    assert report.num_images == 90
    assert [entry["nearest"][0] for entry in report.nearest] == [0, 1, 2]
    assert [entry["distances"][0] for entry in report.nearest] == [0.0] * 3
    picture = np.array(Image.open(tmp_path / "report" / "nearest.png"))
    assert np.array_equal(picture[:8], picture[12:20])
    assert "unknown" in report.table()


@pytest.mark.parametrize("output", ["samples", "samples.npz", "shards"])
def test_images_drawn_before_give_the_same_numbers(
    setting: dict[str, object], tmp_path: Path, output: str
) -> None:
    expected = evaluate(EvaluateConfig(**setting))
    path = sample_images(
        SampleConfig(
            model=setting["model"],
            num_inference_steps=2,
            num_images=40,
            output=str(tmp_path / output),
            format="webdataset" if output == "shards" else None,
            shard_size=16,
        )
    )
    found = evaluate(EvaluateConfig(**setting, samples=str(path)))
    assert_close(found.frechet_distance, expected.frechet_distance, rtol=1e-6, atol=1e-9)
    assert_close(found.kid, expected.kid)
    assert (found.precision, found.recall) == (expected.precision, expected.recall)
    assert found.nearest == expected.nearest
    assert found.sampler["weights"] == expected.sampler["weights"]


def test_bits_per_dim_are_those_of_the_bound(setting: dict[str, object]) -> None:
    setting |= {"bound_images": 90, "bound_timesteps": 49}
    report = evaluate(EvaluateConfig(**setting))
    pipe = DDPMPipeline.from_pretrained(setting["model"])
    real = open_images(setting["data"], resolution=8, progress=False).batch(range(90)).images
    expected = variational_bound(pipe.unet, pipe.scheduler, real / 127.5 - 1)
    error = math.hypot(expected.standard_error, report.bound["standard_error"])
    assert abs(report.bound["bits_per_dim"] - expected.bits_per_dim) < 4 * error
    assert error < 0.1 * expected.bits_per_dim
    assert report.bound["num_images"] == 90
    assert "on 90 images of data.npz" in report.table()


def test_two_processes_report_what_one_does(setting: dict[str, object], tmp_path: Path) -> None:
    two = {**setting, "bound_images": 4}
    two |= {"output_dir": str(tmp_path / "two"), "statistics_dir": str(tmp_path / "statistics")}

    def run() -> None:
        report = evaluate(EvaluateConfig(**two))
        assert process_state().num_processes == 2
        (tmp_path / f"{process_state().process_index}.json").write_text(
            json.dumps(report.to_dict())
        )

    assert exit_codes(fork_ranks(run, 2)) == [0, 0]
    first, second = (json.loads((tmp_path / f"{r}.json").read_text()) for r in range(2))
    assert first == second
    one = evaluate(EvaluateConfig(**{**setting, "bound_images": 4})).to_dict()
    for report in (first, one):
        report.pop("seconds_per_image")
    for name in ("frechet_distance", "kid", "kid_standard_error"):
        assert_close(first.pop(name), one.pop(name), rtol=1e-6, atol=1e-9)
    bounds = [report.pop("bound")["bits_per_dim"] for report in (first, one)]
    assert_close(bounds[0], bounds[1], rtol=1e-5, atol=0.0)
    assert first == one


# Classes.


@pytest.fixture
def classes(
    setting: dict[str, object], tiny_unet: Callable[..., UNet2DModel], tmp_path: Path
) -> dict[str, object]:
    """Options of an evaluation of a model of three classes, on data that have two of them."""
    unet = tiny_unet(num_class_embeds=4)
    DDPMPipeline(unet, DDPMScheduler(50)).save_pretrained(tmp_path / "classes")
    images = np.random.default_rng(0).integers(0, 256, (80, 8, 8), dtype=np.uint8)
    labels = np.array([0] * 60 + [2] * 20)
    np.savez(tmp_path / "labelled.npz", images=images, labels=labels)
    return setting | {
        "model": str(tmp_path / "classes"),
        "data": str(tmp_path / "labelled.npz"),
    }


def test_classes_are_drawn_as_often_as_the_data_have_them(
    classes: dict[str, object], tmp_path: Path
) -> None:
    report = evaluate(EvaluateConfig(**classes, seed=3))
    assert report.class_counts == {"0": 29, "2": 11}
    assert report.sampler["class_labels"] == "as often as in the data"
    assert re.search(
        "^classes +as often as in the data: 0 29, 2 11$", report.table(), re.MULTILINE
    )
    assert evaluate(EvaluateConfig(**classes, seed=3)).frechet_distance == report.frechet_distance
    drawn = sample_images(
        SampleConfig(
            model=classes["model"],
            class_labels=(0, 0, 0, 2),
            num_inference_steps=2,
            num_images=40,
            output=str(tmp_path / "samples.npz"),
        )
    )
    before = evaluate(EvaluateConfig(**classes, samples=str(drawn)))
    assert before.class_counts is None
    chosen = evaluate(EvaluateConfig(**classes, class_labels=(1,)))
    assert (chosen.class_counts, chosen.sampler["class_labels"]) == (None, [1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data": "data.npz"},
            r"class_labels must be given: how often each class .*: labels missing",
        ),
        ({"class_labels": (0, 7)}, r"class_labels must lie in \[0, 3\]"),
        ({"eta": 2.0}, "eta"),
        ({"bound_images": 81}, "bound_images must be an integer from 1 to 80"),
        ({"num_images": 5, "kid_subsets": 2, "num_nearest": 0}, "needs more than 5"),
    ],
)
def test_what_must_be_refused_is_refused_before_the_reference_statistics(
    classes: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
    message: str,
) -> None:
    monkeypatch.setattr("ddpm_pipeline.evaluation.saved_model.reference_statistics", pytest.fail)
    if "data" in changes:
        changes = {"data": str(tmp_path / changes["data"])}
    with pytest.raises(ValueError, match=message):
        evaluate(EvaluateConfig(**(classes | changes)))
    assert not (tmp_path / "report").exists()


# What is refused.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"num_images": 5, "kid_subsets": 2, "num_nearest": 0},
            "5 features needs more than 5 .*, got 5 by num_images",
        ),
        ({"num_reference": 5, "kid_subsets": 2}, "needs more than 5 .*, got 5 by num_reference"),
        ({"num_reference": 91}, "num_reference must be an integer from 1 to 90, .* got 91"),
        ({"kid_subsets": 21}, "kid_subsets=21 needs 42 images or more in both sets, got 40"),
        ({"neighbors": 40}, "neighbors must be below the 40 images, got 40"),
        ({"num_nearest": 41}, "num_nearest must be at most the 40 images, got 41"),
        ({"bound_images": 91}, "bound_images must be an integer from 1 to 90, .* got 91"),
        (
            {"num_inference_steps": 51},
            "num_inference_steps must be an integer from 1 to 50",
        ),
    ],
)
def test_numbers_that_do_not_fit_are_refused(
    setting: dict[str, object], changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(EvaluateConfig(**(setting | changes)))


def test_a_reference_of_other_channels_is_converted_and_that_is_said(
    setting: dict[str, object], tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (90, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "other.npz", images=images)
    report = evaluate(EvaluateConfig(**{**setting, "data": str(tmp_path / "other.npz")}))
    assert report.reference_changes == {"RGB to L": 90}
    said = "the reference images were changed to those that the model could make (90 RGB to L)"
    assert said in report.warnings
    assert said in report.table()


def test_a_reference_of_another_size_is_refused(
    setting: dict[str, object], tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (90, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "other.npz", images=images)
    message = "another size than the model's 8×8; fit='resize' scales and crops them"
    with pytest.raises(ValueError, match=message):
        evaluate(EvaluateConfig(**{**setting, "data": str(tmp_path / "other.npz")}))


def test_a_reference_of_another_size_is_resized_if_asked(
    setting: dict[str, object], tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (90, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "other.npz", images=images)
    setting |= {"data": str(tmp_path / "other.npz"), "fit": "resize"}
    assert evaluate(EvaluateConfig(**setting)).reference_changes == {"resized": 90}


@pytest.mark.parametrize("webdataset", [False, True])
def test_samples_cut_short_by_a_crash_are_refused(
    setting: dict[str, object], tmp_path: Path, webdataset: bool
) -> None:
    config = SampleConfig(
        model=setting["model"],
        num_inference_steps=1,
        num_images=20,
        shard_size=8,
        output=str(tmp_path / "samples"),
        format="webdataset" if webdataset else "png",
    )
    folder = sample_images(config)
    last = max(folder.glob("*.tar" if webdataset else "*.png"))
    evaluation = EvaluateConfig(**setting, samples=str(folder))
    last.write_bytes(b"")
    message = "is empty, as a crash leaves it" if webdataset else r"000019\.png.*cannot be read"
    with pytest.raises(ValueError, match=message):
        evaluate(evaluation)
    last.unlink()
    count = 16 if webdataset else 19
    with pytest.raises(ValueError, match=f"holds {count} of 20 images; run `ddpm sample` again"):
        evaluate(evaluation)


def test_samples_of_another_shape_are_refused(setting: dict[str, object], tmp_path: Path) -> None:
    np.savez(tmp_path / "large.npz", images=np.zeros((30, 16, 16), np.uint8))
    with pytest.raises(ValueError, match=r"samples='.*' has images of another size than"):
        evaluate(EvaluateConfig(**setting, samples=str(tmp_path / "large.npz")))
    np.savez(tmp_path / "rgb.npz", images=np.zeros((30, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"images of 3 channel\(s\), the reference of 1"):
        evaluate(EvaluateConfig(**setting, samples=str(tmp_path / "rgb.npz")))


def test_the_class_and_the_condition_of_a_sample_are_of_one_image(
    setting: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_conditioned(tmp_path, classes=True)
    write_conditioned(tmp_path / "data.npz", 30)
    options = setting | {"features": str(tmp_path / "pixels.py")}
    told = record_told(monkeypatch)
    report = evaluate(EvaluateConfig(**options))
    assert len(told) > options["num_images"]
    assert {label for label, _ in told} == set(range(CLASSES))
    assert all(label == shown for label, shown in told)
    counts = np.bincount(np.load(tmp_path / "data.npz")["labels"])
    assert sum(report.class_counts.values()) == 40
    for label, count in enumerate(counts):  # 40 of 30 images: each once, and ten of them again
        assert count <= report.class_counts[str(label)] <= count + 10
    with pytest.raises(ValueError, match=r"class_labels must be left out, .*; got 1, 2$"):
        evaluate(EvaluateConfig(**options, class_labels=(1, 2)))
