"""Runs with conditions that start from a trained model, which has them or has none."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.training_runs import SHORT_RUN
from helpers.unets import make_tiny_unet

from ddpm_pipeline import DDPMPipeline, DDPMScheduler
from ddpm_pipeline.data import open_images
from ddpm_pipeline.networks import (
    Conditioning,
    ModelFacts,
    facts_of,
    image_channels,
    run_denoiser,
    set_facts,
)
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.run import dry_run, train
from tests.training.test_conditions import KINDS, run_config, weights, write_data

T = torch.tensor([3, 900])
X_T = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def further(folder: Path, model: Path, **options: object) -> TrainingConfig:
    """A short run in a folder from a model."""
    given = {
        "pretrained_model_name_or_path": str(model),
        "train_data_dir": str(folder / "x.npz"),
        "output_dir": str(folder / "model"),
        "cache_dir": str(folder / "cache"),
        "max_train_steps": 0,
        **SHORT_RUN,
    }
    return TrainingConfig(**given | options)


def unet_of(folder: Path) -> torch.nn.Module:
    return DDPMPipeline.from_pretrained(folder / "model").unet.eval()


@pytest.fixture(scope="module")
def plain(random_last_layers: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without conditions."""
    folder = tmp_path_factory.mktemp("plain")
    DDPMPipeline(make_tiny_unet(), DDPMScheduler()).save_pretrained(folder / "model")
    return folder


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def conditioned(
    kind: str, random_last_layers: None, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A model with conditions, and its data."""
    folder = tmp_path_factory.mktemp(kind)
    train(run_config(folder, kind))
    return folder


@torch.no_grad()
def test_a_model_without_conditions_begins_as_it_was(
    plain: Path, kind: str, tmp_path: Path
) -> None:
    """By any picture, and told nothing where there are numbers."""
    write_data(tmp_path)
    train(further(tmp_path, plain / "model", **KINDS[kind]))
    old, new = unet_of(plain), unet_of(tmp_path)
    data = open_images(tmp_path / "x.npz", resolution=8, progress=False, **KINDS[kind])
    told = data.batch([0, 1]).labels
    nothing = told.without(torch.ones(2, dtype=torch.bool))
    wanted = old(X_T, T).sample
    torch.testing.assert_close(run_denoiser(new, X_T, T, nothing), wanted, atol=1e-6, rtol=0)
    with_it = run_denoiser(new, X_T, T, told)
    if kind == "picture":
        torch.testing.assert_close(with_it, wanted, atol=1e-6, rtol=0)
    else:
        assert not torch.allclose(with_it, wanted, atol=1e-3)  # no weight is theirs alone
    assert facts_of(new).conditioned_on.trains_null
    assert image_channels(new) == 1


@pytest.mark.usefixtures("random_last_layers")
@pytest.mark.parametrize("kind", ["vector", "both"], indirect=True)
def test_what_is_new_is_trained(plain: Path, kind: str, tmp_path: Path) -> None:
    write_data(tmp_path)
    config = further(tmp_path, plain / "model", max_train_steps=2, **KINDS[kind])
    train(config.replace(condition_dropout=0.0, train_only="decoder"))
    old, new = unet_of(plain).conv_in.weight, unet_of(tmp_path).conv_in.weight
    if kind == "vector":
        assert torch.equal(old, new)
    else:
        assert new[:, 1:].abs().max() > 0
    assert not facts_of(unet_of(tmp_path)).conditioned_on.trains_null
    assert dry_run(config, measure=False).num_parameters == sum(
        p.numel() for p in unet_of(tmp_path).parameters()
    )


def test_a_model_keeps_its_conditions(conditioned: Path, kind: str, tmp_path: Path) -> None:
    """Columns are remembered by name, and so is the column of the pictures."""
    write_data(tmp_path)
    train(further(tmp_path, conditioned / "model"))
    before, after = weights(conditioned), weights(tmp_path)
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    old, new = (facts_of(unet_of(folder)).conditioning for folder in (conditioned, tmp_path))
    assert old == new
    assert kind


@pytest.mark.usefixtures("random_last_layers")
@pytest.mark.parametrize("kind", ["both"], indirect=True)
def test_a_run_from_a_model_with_conditions_goes_on_bit_for_bit(
    conditioned: Path, kind: str, tmp_path: Path
) -> None:
    """Also where the model is gone."""
    base = shutil.copytree(conditioned / "model", tmp_path / "base")
    folders = [tmp_path / "whole", tmp_path / "cut"]
    configs = []
    for folder in folders:
        folder.mkdir()
        write_data(folder)
        options = {"max_train_steps": 4, "checkpointing_steps": 2, "random_flip": True}
        configs.append(further(folder, base, **options))
    train(configs[0])
    train(configs[1], should_stop=lambda step: step == 2)
    shutil.rmtree(base)
    assert train(configs[1]).finished
    first, second = map(weights, folders)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert any(not torch.equal(value, first[n]) for n, value in weights(conditioned).items())
    old, new = (facts_of(unet_of(folder)).conditioning for folder in (conditioned, folders[1]))
    assert (old, kind) == (new, "both")


@pytest.mark.parametrize("kind", ["both"], indirect=True)
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"condition_on": "nowhere"}, "condition_on='nowhere' must be one of"),
        ({"condition_on": "images"}, "condition_on must be given, and is images of 1 channel"),
        ({"condition_vector": ("x",)}, "condition_vector must name 3 columns"),
        ({"condition_vector": ("v", "x")}, "the columns .* x, v.0., v.1.; got v.0., v.1., x"),
        ({"condition_upsampling": "nearest"}, "is not its 'bicubic'; leave it out"),
        ({"class_conditional": True}, "give either condition_vector or class_conditional"),
    ],
)
def test_other_conditions_are_refused(
    conditioned: Path, kind: str, options: dict, said: str, tmp_path: Path
) -> None:
    write_data(tmp_path)
    with pytest.raises(ValueError, match=said) as caught:
        train(further(tmp_path, conditioned / "model", **options))
    assert "\n" not in str(caught.value)
    assert kind
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("kind", ["vector", "picture"], indirect=True)
def test_a_condition_more_is_another(conditioned: Path, kind: str, tmp_path: Path) -> None:
    write_data(tmp_path)
    more = KINDS["picture" if kind == "vector" else "vector"]
    (name,) = more
    with pytest.raises(ValueError, match=f"{name}=.* must be left out, it is conditioned on"):
        train(further(tmp_path, conditioned / "model", **more))


@pytest.mark.parametrize("kind", ["vector"], indirect=True)
def test_ranges_stay_those_of_the_model(
    conditioned: Path, kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What a number means to the weights must not move with the new images."""
    with np.load(conditioned / "x.npz") as archive:
        content = dict(archive)
    np.savez(tmp_path / "x.npz", **content | {"x": content["x"] + 1})
    with caplog.at_level(logging.WARNING, "ddpm_pipeline"):
        train(further(tmp_path, conditioned / "model"))
    told = facts_of(unet_of(tmp_path)).conditioned_on
    assert (told.low[0], told.high[0]) == (content["x"].min(), content["x"].max())
    assert "numbers outside the ranges of the pretrained model, which it keeps: x is 1" in (
        caplog.text
    )
    assert kind


@pytest.mark.parametrize("kind", ["picture"], indirect=True)
def test_missing_pictures_are_named_before_images_are_read(
    conditioned: Path, kind: str, tmp_path: Path
) -> None:
    """A path is not remembered, and so must be given."""
    write_data(tmp_path)
    base = shutil.copytree(conditioned / "model", tmp_path / "base")
    config = (base / "unet/config.json").read_text()
    (base / "unet/config.json").write_text(config.replace('"condition_on": "low"', '"x": 0'))
    said = "condition_on must be given, it is conditioned on images 4×4, 1 channel"
    with pytest.raises(ValueError, match=said):
        train(further(tmp_path, base))
    assert kind


def test_classes_leave_no_place_for_numbers(plain: Path, tmp_path: Path) -> None:
    write_data(tmp_path)
    unet = make_tiny_unet(num_class_embeds=4)
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError, match="has one embedding, for them or for condition_vector"):
        train(further(tmp_path, tmp_path / "base", condition_vector=("x",)))
    assert plain


@pytest.mark.parametrize("embeddings", [None, 4, "fresh"])
def test_labels_and_numbers_of_open_images_are_refused(
    embeddings: int | str | None, tmp_path: Path
) -> None:
    """Before a network is made: it has one embedding."""
    write_data(tmp_path)
    with np.load(tmp_path / "x.npz") as archive:
        content = dict(archive)
    np.savez(tmp_path / "x.npz", labels=np.arange(len(content["x"])) % 3, **content)
    data = open_images(
        tmp_path / "x.npz", resolution=8, labels=True, progress=False, condition_vector=("x",)
    )
    base, given = tmp_path / "base", {"train_data_dir": None}
    if embeddings == "fresh":
        given |= {"pretrained_model_name_or_path": None, "max_train_steps": 1, "resolution": 8}
    else:
        unet = make_tiny_unet(num_class_embeds=embeddings)
        DDPMPipeline(unet, DDPMScheduler()).save_pretrained(base)
    said = "labels or condition_vector, got both, 3 classes and x: a UNet2DModel has one embedding"
    with pytest.raises(ValueError, match=said) as caught:
        train(further(tmp_path, base, **given), train_data=data)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_open_images_say_what_guides_and_what_a_mirror_leaves(
    plain: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And not the config, which names none of it."""
    write_data(tmp_path)
    how = {"resolution": 8, "progress": False}
    numbers = open_images(tmp_path / "x.npz", condition_vector=("x",), **how)
    options = {"train_data_dir": None, "preview_guidance_scale": 2.0, "random_flip": True}
    config = further(tmp_path, plain / "model", **options)
    with caplog.at_level(logging.WARNING, "ddpm_pipeline"):
        dry_run(config, train_data=numbers, measure=False)
    assert "random_flip mirrors images and leaves the numbers of condition_vector" in caplog.text
    for images, changes in (
        (open_images(tmp_path / "x.npz", **how), {}),
        (numbers, {"condition_dropout": 0.0}),
    ):
        with pytest.raises(ValueError, match=r"preview_guidance_scale=2\.0 needs"):
            train(config.replace(**changes), train_data=images)
    bound = further(tmp_path, plain / "model", train_data_dir=None, validate_bound_steps=1)
    dry_run(bound, train_data=numbers, validation_data=numbers, measure=False)
    with pytest.raises(ValueError, match="validate_bound_steps=1 needs held-out images: give val"):
        train(bound, train_data=numbers)
    assert not (tmp_path / "model").exists()


def test_a_model_with_conditions_takes_no_stream(
    conditioned: Path, kind: str, tmp_path: Path
) -> None:
    config = further(tmp_path, conditioned / "model", streaming=True, max_train_steps=1)
    with pytest.raises(ValueError, match="and streams have no conditions: leave streaming out"):
        train(config)
    assert kind


@pytest.mark.parametrize("kind", ["picture"], indirect=True)
def test_pictures_of_another_resolution_are_named_with_both(
    conditioned: Path, kind: str, tmp_path: Path
) -> None:
    write_data(tmp_path)
    with np.load(tmp_path / "x.npz") as archive:
        content = dict(archive)
    large = content["images"].repeat(2, 1).repeat(2, 2)
    np.savez(tmp_path / "x.npz", images=large, low=content["low"])
    said = "1 channel: 4×4 at resolution 8×8, which is 8×8 at resolution 16×16"
    with pytest.raises(ValueError, match=said):
        train(further(tmp_path, conditioned / "model", resolution=16))
    np.savez(tmp_path / "x.npz", images=large, low=content["images"])
    train(further(tmp_path, conditioned / "model", resolution=16))
    assert facts_of(unet_of(tmp_path)).conditioned_on.sides == (8, 8)
    assert kind


def test_a_resolution_has_whole_pictures(tmp_path: Path) -> None:
    """A third of 24 is 8; a third of 16 is no whole number."""
    write_data(tmp_path)
    unet = make_tiny_unet(2, out_channels=1, sample_size=24)
    told = Conditioning(channels=1, sides=(8, 8)).to_dict()
    reading = {"condition_on": "low"}
    set_facts(unet, ModelFacts(conditioning=told, reading=reading))
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(tmp_path / "base")
    said = "resolution=16 must keep the share .* have: 8×8 at resolution 24×24"
    with pytest.raises(ValueError, match=said):
        train(further(tmp_path, tmp_path / "base", condition_on="low", resolution=16))
