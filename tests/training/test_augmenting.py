"""Runs with augmentations: what they save, what they resume, what they refuse, what they learn."""

from __future__ import annotations

import signal
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from helpers.training_runs import (
    a_learner,
    assert_same,
    batches,
    image_data,
    metrics,
    outcome,
    run_forked,
    tiny_config,
)
from safetensors.torch import load_file

from ddpm_pipeline import DDPMPipeline, train
from ddpm_pipeline.data import to_model_range
from ddpm_pipeline.data.augmentation import AUGMENTATIONS, augmented
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.few_images import AUGMENTATION_NAMES
from ddpm_pipeline.training.run import dry_run
from ddpm_pipeline.training.storage.export import open_checkpoint

GREY = tuple(name for name in AUGMENTATION_NAMES if name != "saturation")

pytestmark = pytest.mark.usefixtures("random_last_layers")


def config_of(folder: Path, **options: object) -> TrainingConfig:
    defaults = {"augment": GREY, "augment_probability": 0.5, "random_flip": False}
    return tiny_config(folder, **defaults | options)


def test_the_options_name_what_there_is() -> None:
    assert set(AUGMENTATION_NAMES) == set(AUGMENTATIONS)


@pytest.mark.parametrize("classes", [False, True])
def test_the_model_is_a_plain_one_that_stock_opens(tmp_path: Path, classes: bool) -> None:
    options = {"class_conditional": True, "embeddings": 3} if classes else {}
    labels = [i % 2 for i in range(40)] if classes else None
    config = config_of(tmp_path, validation_size=0.0, **options)
    result = train(config, train_data=image_data(labels=labels))
    stock = diffusers.UNet2DModel.from_pretrained(result.output_dir / "unet")
    plain = diffusers.UNet2DModel.from_config(stock.config).state_dict()
    saved = load_file(result.output_dir / "unet" / "diffusion_pytorch_model.safetensors")
    assert saved.keys() == plain.keys()
    checkpoint = load_file(
        max((tmp_path / "run" / "checkpoints").iterdir()) / "average-0.999.safetensors"
    )
    extra = checkpoint.keys() - saved.keys()
    assert extra == {f"class_embedding.augmentation.{i}.weight" for i in (0, 2)}
    assert checkpoint["class_embedding.augmentation.2.weight"].abs().max() > 0  # it has learned
    assert all(torch.equal(saved[name], checkpoint[name]) for name in saved)
    DDPMPipeline.from_pretrained(result.output_dir)(
        batch_size=1, num_inference_steps=2, **({"class_labels": 0} if classes else {})
    )
    exported = open_checkpoint(tmp_path / "run").pipeline.unet.state_dict()
    assert all(torch.equal(exported[name], saved[name]) for name in saved)


def test_a_killed_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole = config_of(tmp_path / "whole", validation_size=0.2, gradient_accumulation_steps=2)
    train(whole)
    config = config_of(tmp_path / "killed", validation_size=0.2, gradient_accumulation_steps=2)
    run = Path(config.output_dir)
    when = lambda: any(run.glob("checkpoints/step-*"))  # noqa: E731
    assert run_forked(config, when) == [-signal.SIGKILL]
    assert run_forked(config) == [0]
    assert_same(outcome(run), outcome(Path(whole.output_dir)))


def test_two_processes_augment_differently_and_learn_together(tmp_path: Path) -> None:
    config = config_of(tmp_path, validation_size=0.2)
    assert run_forked(config, processes=2) == [0, 0]
    assert metrics(Path(config.output_dir))[-1]["step"] == 12


def test_the_network_is_told_what_is_done_to_its_images(tmp_path: Path) -> None:
    learner, told = a_learner(tmp_path, augment=("brightness",), random_flip=False), []

    def note(x_t: torch.Tensor, t: torch.Tensor, given: torch.Tensor, **_: object) -> tuple:
        told.append(given)
        return (torch.zeros_like(x_t),)

    seen = []
    factor = torch.nn.Parameter(torch.ones(()))
    learner.objective.losses = lambda _chosen, _output, x_0, *_: (
        seen.append(x_0) or factor * x_0.flatten(1).mean(1)
    )
    learner.forward = note
    learner.config = learner.config.replace(augment_probability=0.5)
    stream = iter(batches(learner))
    originals = [next(iter(batches(learner))).images]
    learner.update(0, stream)
    change = (seen[0] - to_model_range(originals[0])).mean((1, 2, 3))
    torch.testing.assert_close(change, 0.2 * told[0][:, 0], atol=1e-5, rtol=0)
    expected = augmented(to_model_range(originals[0]), ("brightness",), told[0])
    assert torch.equal(seen[0], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"augment": ("mirror",)},
            r"augment must be different names of flip, .* got \('mirror',\)",
        ),
        ({"augment": ("flip", "flip")}, r"augment must be different names"),
        ({"augment": ("flip",), "random_flip": True}, "either random_flip, .* or augment flip"),
        ({"augment": ("saturation",), "channels": 1}, "saturation needs images of 3 channels"),
        ({"augment_probability": 0.0}, "augment_probability must be above 0 and at most 1, got 0"),
    ],
)
def test_mistakes_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig(train_data_dir="photos", **options)


def test_colours_that_the_images_have_not_are_refused_before_the_run(tmp_path: Path) -> None:
    config = config_of(tmp_path, augment=("saturation",))
    with pytest.raises(ValueError, match=r"saturation needs images of 3 channels or 4, got .* 1"):
        dry_run(config, measure=False)


@pytest.mark.slow
def test_samples_show_no_augmentation(tmp_path: Path) -> None:
    """Images that are dark above and bright below, upside down in half of the batches."""
    images = np.repeat(np.linspace(0, 255, 8).astype(np.uint8)[:, None], 8, 1)
    np.save(tmp_path / "data.npy", np.stack([images] * 64))

    def upside_down(name: str, **options: object) -> float:
        config = tiny_config(
            tmp_path / name,
            train_data_dir=str(tmp_path / "data.npy"),
            model_config_name_or_path=None,
            model_size="small",
            max_train_steps=150,
            train_batch_size=16,
            save_images_steps=0,
            checkpointing_steps=0,
            random_flip=False,
            **options,
        )
        train(config)
        pipe = DDPMPipeline.from_pretrained(config.output_dir)
        drawn = pipe(
            batch_size=64,
            num_inference_steps=10,
            output_type="np",
            generator=torch.Generator().manual_seed(0),
        ).images
        return float((drawn[:, :4].mean((1, 2, 3)) > drawn[:, 4:].mean((1, 2, 3))).mean())

    assert upside_down("told", augment=("vertical_flip",), augment_probability=1.0) < 0.02
