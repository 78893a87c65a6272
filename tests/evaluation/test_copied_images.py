"""The test of copying in an evaluation: which images it takes, what it says, what it shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from helpers.conditioned_models import save_conditioned, write_conditioned
from helpers.processes import exit_codes, fork_ranks
from PIL import Image
from scipy import stats
from torch.testing import assert_close

from ddpm_pipeline import DDPMPipeline, DDPMScheduler
from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.data.training_images import TRAINING_IMAGES_NAME, KnownImages
from ddpm_pipeline.evaluation.config import EvaluateConfig
from ddpm_pipeline.evaluation.saved_model import evaluate

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusers import UNet2DModel

PIXELS = """
import torch

def feature_extractor():
    return torch.nn.Flatten()
"""
TRAIN, TEST, DRAWN = 50, 30, 80


def random_images(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 4), dtype=np.uint8)


@pytest.fixture
def setting(
    tiny_unet: Callable[..., UNet2DModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, object]:
    """Options of an evaluation of samples that are there already."""
    monkeypatch.setenv("DDPM_PIPELINE_CACHE", str(tmp_path / "cache"))
    unet = tiny_unet(sample_size=4)
    DDPMPipeline(unet, DDPMScheduler(20)).save_pretrained(tmp_path / "model")
    train, test = random_images(TRAIN, 0), random_images(TEST, 1)
    np.savez(tmp_path / "data.npz", images=train, images_test=test)
    (tmp_path / "pixels.py").write_text(PIXELS)
    return {
        "model": str(tmp_path / "model"),
        "data": str(tmp_path / "data.npz"),
        "features": str(tmp_path / "pixels.py"),
        "output_dir": str(tmp_path / "report"),
        "samples": str(tmp_path / "samples.npz"),
        "kid_subsets": 4,
        "num_nearest": 3,
        "bound_images": 0,
    }


def write_samples(folder: Path, images: np.ndarray) -> None:
    np.savez(folder / "samples.npz", images=images)


def copies(count: int) -> np.ndarray:
    """Training images, all but the first with a grey level changed."""
    images = np.resize(random_images(TRAIN, 0), (count, 4, 4)).copy()
    images[1:, 0, 0] ^= 1
    return images


def test_copies_are_flagged_and_shown_beside_what_they_copy(
    setting: dict[str, object], tmp_path: Path
) -> None:
    write_samples(tmp_path, copies(DRAWN))
    report = evaluate(EvaluateConfig(**setting, bound_split="test"))
    found = report.copying
    assert found["copies"]
    assert found["share"] == 1.0
    assert found["p_value"] == 1e-4
    assert (found["num_samples"], found["num_train"], found["num_held_out"]) == (
        DRAWN,
        TRAIN,
        TEST,
    )
    assert found["worst"][0]["identical"]
    assert not found["worst"][2]["identical"]
    for pair in found["worst"]:
        assert pair["train"] == pair["image"] % TRAIN
        assert pair["distance"] <= 1.0 < pair["distance_to_held_out"]
    # Three samples, the training images below the line, the held-out ones below these.
    sheet = np.asarray(Image.open(tmp_path / "report" / "copies.png"))
    assert sheet.shape == (4 + 4 + 4 + 4, 12)
    train = random_images(TRAIN, 0)[[pair["train"] for pair in found["worst"]]]
    assert np.array_equal(sheet[8:12], np.concatenate(list(train), 1))
    assert "copying" in report.table()
    assert "COPIES its training images: share 1.00" in report.table()
    assert json.loads((tmp_path / "report" / "evaluation.json").read_text())["copying"] == found


def test_fresh_images_are_not_flagged(setting: dict[str, object], tmp_path: Path) -> None:
    """Also against brute force: the distances that the ranks are made of."""
    drawn = random_images(DRAWN, 2)
    write_samples(tmp_path, drawn)
    found = evaluate(EvaluateConfig(**setting, bound_split="test")).copying
    assert not found["copies"]
    assert abs(found["share"]) < 4 * found["standard_error"]
    train, test, samples = (
        torch.from_numpy(images).flatten(1).double()
        for images in (random_images(TRAIN, 0), random_images(TEST, 1), drawn)
    )
    near, others = torch.cdist(samples, train).amin(1), torch.cdist(test, train).amin(1)
    expected = stats.mannwhitneyu(near, others, alternative="less", method="asymptotic").pvalue
    assert found["nearer_p_value"] == pytest.approx(expected, rel=1e-6)
    held_out = (torch.cdist(samples, test).amin(1) < near).sum().item()
    assert_close(found["share"], 1 - held_out / (DRAWN * TEST / (TRAIN + TEST)))


def test_the_sets_may_be_named_either_way(setting: dict[str, object], tmp_path: Path) -> None:
    write_samples(tmp_path, copies(DRAWN))
    ways = [{"bound_split": "test"}, {"split": "test", "training_data": setting["data"]}]
    found = [evaluate(EvaluateConfig(**setting, **way)).copying for way in ways]
    for name in ("share", "p_value", "train_fingerprint", "held_out_fingerprint", "worst"):
        assert found[0][name] == found[1][name]
    assert (found[1]["train_split"], found[1]["held_out_split"]) == (None, "test")


def test_without_held_out_images_it_says_what_to_give(
    setting: dict[str, object], tmp_path: Path
) -> None:
    write_samples(tmp_path, random_images(DRAWN, 2))
    report = evaluate(EvaluateConfig(**setting))
    assert "bound_split or bound_data" in report.copying["not_tested"]
    same = evaluate(EvaluateConfig(**setting, split=None, bound_data=setting["data"]))
    assert same.copying == report.copying
    assert "not tested: it takes images that the model was not trained on" in report.table()


def known(setting: dict[str, object], *splits: str) -> None:
    """Have the model remember that it was trained on the images of these splits."""
    arrays = np.load(setting["data"])
    images = np.concatenate([arrays[name] for name in splits])
    data = open_images(images, resolution=4, progress=False)
    KnownImages.of_training(data).save(Path(setting["model"], TRAINING_IMAGES_NAME))


def test_samples_with_the_conditions_of_real_images_are_not_tested(
    setting: dict[str, object], tmp_path: Path
) -> None:
    """They lie near these whatever the model is."""
    del setting["samples"]
    save_conditioned(tmp_path)
    for i, name in enumerate(("data.npz", "other.npz")):
        write_conditioned(tmp_path / name, 30, seed=i)
    options = setting | {"num_images": 20, "num_inference_steps": 2}
    report = evaluate(EvaluateConfig(**options, bound_data=str(tmp_path / "other.npz")))
    assert report.copying.keys() == {"not_tested"}
    assert report.pairs["num_images"] == 20
    table = report.table()
    assert "not tested: the model is conditioned on more than classes, and a sample lies" in table
    assert not (tmp_path / "report" / "copies.png").exists()


def test_hashes_tell_whether_the_sets_are_what_they_should_be(
    setting: dict[str, object], tmp_path: Path
) -> None:
    write_samples(tmp_path, random_images(DRAWN, 2))
    config = EvaluateConfig(**setting, bound_split="test")
    known(setting, "images")
    assert evaluate(config).copying["warnings"] == []
    known(setting, "images_test")
    assert "none of the 50 images" in evaluate(config).copying["not_tested"]
    known(setting, "images", "images_test")
    assert "all 30 held-out images are training" in evaluate(config).copying["not_tested"]


def test_the_gap_of_the_bound_has_an_error(setting: dict[str, object], tmp_path: Path) -> None:
    write_samples(tmp_path, random_images(DRAWN, 2))
    options = setting | {"bound_images": 8}
    found = evaluate(EvaluateConfig(**options, bound_split="test", bound_timesteps=3)).copying
    gap = found["bound_gap"]
    assert gap["bits_per_dim"] == pytest.approx(gap["held_out"] - gap["train"])
    assert gap["num_images"] == 8
    assert abs(gap["bits_per_dim"]) < 5 * gap["standard_error"]
    expected = stats.norm.sf(gap["bits_per_dim"] / gap["standard_error"])
    assert gap["p_value"] == pytest.approx(expected)


def test_a_model_with_classes_has_a_gap_too(
    setting: dict[str, object], tiny_unet: Callable[..., UNet2DModel], tmp_path: Path
) -> None:
    unet = tiny_unet(sample_size=4, num_class_embeds=4)
    DDPMPipeline(unet, DDPMScheduler(20)).save_pretrained(tmp_path / "model")
    arrays = dict(np.load(setting["data"]))
    for name in ("images", "images_test"):
        arrays[name.replace("images", "labels")] = np.arange(len(arrays[name])) % 3
    np.savez(setting["data"], **arrays)
    write_samples(tmp_path, random_images(DRAWN, 2))
    options = setting | {"bound_images": 8, "num_reference": 40}
    found = evaluate(EvaluateConfig(**options, bound_split="test", bound_timesteps=3)).copying
    assert found["bound_gap"]["num_images"] == 8
    assert found["num_train"] == 40
    without = evaluate(EvaluateConfig(**setting, num_reference=40, bound_split="test")).copying
    assert without["bound_gap"] is None
    assert without["share"] == found["share"]
    assert without["worst"] == found["worst"]


def test_two_processes_find_what_one_does(setting: dict[str, object], tmp_path: Path) -> None:
    write_samples(tmp_path, copies(DRAWN))
    config = EvaluateConfig(**setting, bound_split="test")
    assert exit_codes(fork_ranks(lambda: evaluate(config), 2)) == [0, 0]
    shared = json.loads((tmp_path / "report" / "evaluation.json").read_text())["copying"]
    assert shared == evaluate(config).copying
