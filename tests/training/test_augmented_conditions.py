"""Augmented runs with conditions: what moves, what the network is told, what is saved."""

from __future__ import annotations

from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch

from ddpm_pipeline.data import open_images
from ddpm_pipeline.diffusion import NoiseSchedule
from ddpm_pipeline.networks import facts_of, ready_for
from ddpm_pipeline.training.data import open_training_data
from ddpm_pipeline.training.draws import draw_update, inputs_of
from ddpm_pipeline.training.resolving import notices, resolve
from ddpm_pipeline.training.run import train
from ddpm_pipeline.training.setup import make_objective
from ddpm_pipeline.training.start import Start
from tests.training.test_conditions import KINDS, run_config, weights, write_data

PLACES = ("flip", "vertical_flip", "rotate90", "crop", "translate", "scale", "rotate")


def test_a_picture_moves_with_its_image_and_numbers_stay(tmp_path: Path) -> None:
    """Of a picture that is the image itself, which is the oracle."""
    write_data(tmp_path)
    options = {"augment": (*PLACES, "brightness"), "augment_probability": 0.5}
    config = run_config(tmp_path, "both", condition_on="images", **options)
    config = resolve(config, length=12, world_size=1, device=torch.device("cpu"))
    data = open_training_data(config)
    network = Start().unet(config, data).config
    objective = make_objective(config, NoiseSchedule.linear(), torch.device("cpu"))
    t, told = torch.zeros(1, 12, dtype=torch.int64), facts_of(network).conditioned_on
    (drawn,) = draw_update(config, objective, t, 0, 0, told)
    drawn = drawn._replace(without=torch.arange(12) == 3)
    batch = data.train.batch(range(12))
    x_0, given = inputs_of(batch, drawn, config, network)
    brighter = 0.2 * drawn.augmentation[:, -1].view(-1, 1, 1, 1)
    kept = [i for i in range(12) if i != 3]
    torch.testing.assert_close(given.picture[kept], (x_0 - brighter)[kept], atol=1e-5, rtol=0)
    assert not given.picture[3].any()
    plain = ready_for(network, batch.labels, (8, 8))
    assert not torch.allclose(given.picture[kept], plain.picture[kept], atol=1e-2)
    assert torch.equal(given.labels[:, :-13][kept], plain.labels[kept])
    assert torch.equal(given.labels[:, -13:], drawn.augmentation)


@pytest.mark.usefixtures("random_last_layers")
def test_what_is_saved_is_a_plain_model(tmp_path: Path) -> None:
    options = {"augment": PLACES, "augment_probability": 0.5, "max_train_steps": 1}
    train(run_config(tmp_path, "vector", validation_size=4, **options))
    stock = diffusers.UNet2DModel.from_pretrained(tmp_path / "model/unet")
    assert weights(tmp_path).keys() == stock.state_dict().keys()


@pytest.mark.usefixtures("random_last_layers")
def test_an_augmented_run_with_conditions_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    options = {"augment": PLACES, "augment_probability": 0.5, "checkpointing_steps": 1}
    options |= {"max_train_steps": 2}
    train(run_config(whole, "both", **options))
    train(run_config(cut, "both", **options), should_stop=lambda step: step == 1)
    assert train(run_config(cut, "both", **options)).finished
    other = weights(cut)
    assert all(torch.equal(value, other[name]) for name, value in weights(whole).items())


def test_classes_pictures_and_augmentations_are_told_at_once(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=images, low=images, labels=np.arange(6) % 3)
    data = open_images(
        tmp_path / "x.npz", resolution=8, labels=True, progress=False, **KINDS["picture"]
    )
    config = run_config(
        tmp_path,
        "picture",
        class_conditional=True,
        model_config_name_or_path=None,
        model_size="small",
        augment=("flip",),
        augment_probability=1.0,
        max_train_steps=1,
    )
    assert train(config.replace(train_data_dir=None), train_data=data).finished


def test_a_mirrored_image_keeps_its_numbers_which_is_said(tmp_path: Path) -> None:
    how = {"length": 12, "world_size": 1, "device": torch.device("cpu")}
    for kind, count in (("vector", 1), ("picture", 0)):
        config = resolve(run_config(tmp_path, kind, random_flip=True), **how)
        given = open_training_data(config).given
        said = [notice for notice in notices(config, given) if "leaves the numbers" in notice]
        assert len(said) == count
