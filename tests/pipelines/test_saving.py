"""Saved models: they open anywhere, with the new weights alone and no trace of their origin."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from helpers.old_layout import save_old_layout
from helpers.pipelines import pipeline, quiet, seeds
from safetensors.torch import load_file

from ddpm_pipeline import DDPMPipeline, DDPMScheduler

MakeUNet = Callable[..., diffusers.UNet2DModel]
SHARDED: dict[str, Any] = {"max_shard_size": "20KB"}


OPEN_IN_STOCK = """
import sys
sys.modules["ddpm_pipeline"] = None  # cannot be imported
import diffusers, numpy, torch
directory = sys.argv[1]
for name in ("DiffusionPipeline", "DDPMPipeline", "DDIMPipeline"):
    pipe = getattr(diffusers, name).from_pretrained(directory)
    generator = torch.Generator().manual_seed(0)
    images = pipe(2, generator=generator, num_inference_steps=10, output_type="np").images
    numpy.save(f"{directory}/{name}.npy", images)
assert not [module for module in sys.modules if module.startswith("ddpm_pipeline.")]
"""


def test_saved_models_open_without_this_package(tiny_unet: MakeUNet, tmp_path: Path) -> None:
    pipe = pipeline(tiny_unet(3), timestep_spacing="quadratic", prediction_type="v_prediction")
    pipe.save_pretrained(tmp_path)
    command = [sys.executable, "-W", "error::UserWarning", "-c", OPEN_IN_STOCK, tmp_path]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "not expected" not in run.stderr
    assert "ignored" not in run.stderr
    nearest = pipeline(pipe.unet, timestep_spacing="trailing", prediction_type="v_prediction")
    ours = nearest(2, seeds(0)[0], 10, "np").images
    for name in ("DiffusionPipeline", "DDPMPipeline"):
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), ours, rtol=0, atol=1e-4)
    assert np.isfinite(np.load(tmp_path / "DDIMPipeline.npy")).all()


def test_saved_index_names_only_diffusers(tiny_unet: MakeUNet, tmp_path: Path) -> None:
    pipeline(tiny_unet()).save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"] == "DDPMPipeline"
    assert index["scheduler"] == ["diffusers", "DDPMScheduler"]
    assert index["unet"] == ["diffusers", "UNet2DModel"]
    assert not list(tmp_path.rglob("*.bin"))


def test_save_and_load_are_the_identity(tiny_unet: MakeUNet, tmp_path: Path) -> None:
    pipe = pipeline(tiny_unet(3), timestep_spacing="quadratic")
    pipe.save_pretrained(tmp_path / "a")
    loaded = quiet(DDPMPipeline.from_pretrained(tmp_path / "a"))
    assert type(loaded.scheduler) is DDPMScheduler
    assert loaded.scheduler.timestep_spacing == "quadratic"
    expected = pipe(2, seeds(0)[0], 5, "np").images
    assert np.array_equal(loaded(2, seeds(0)[0], 5, "np").images, expected)
    loaded.save_pretrained(tmp_path / "b")
    for file in (p for p in (tmp_path / "a").rglob("*") if p.is_file()):
        copy = tmp_path / "b" / file.relative_to(tmp_path / "a")
        assert copy.read_bytes() == file.read_bytes()


def test_no_path_gets_into_a_saved_model(tiny_unet: MakeUNet, tmp_path: Path) -> None:
    pipeline(tiny_unet()).save_pretrained(tmp_path / "a")
    DDPMPipeline.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    for file in (tmp_path / "b").rglob("*"):
        assert file.is_dir() or str(tmp_path).encode() not in file.read_bytes()


def test_what_stock_saves_opens_here(tiny_unet: MakeUNet, tmp_path: Path) -> None:
    unet = tiny_unet(3)
    stock = quiet(
        diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(variance_type="fixed_large"))
    )
    stock.save_pretrained(tmp_path)
    loaded = quiet(DDPMPipeline.from_pretrained(tmp_path))
    assert type(loaded.scheduler) is DDPMScheduler
    theirs = stock(2, seeds(0)[0], 20, output_type="np").images
    np.testing.assert_allclose(loaded(2, seeds(0)[0], 20, "np").images, theirs, rtol=0, atol=1e-4)


def test_save_here_save_in_stock_load_here(tiny_unet: MakeUNet, tmp_path: Path) -> None:
    pipeline(tiny_unet(), timestep_spacing="quadratic").save_pretrained(tmp_path / "a")
    diffusers.DDPMPipeline.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    loaded = DDPMPipeline.from_pretrained(tmp_path / "b")
    assert loaded.scheduler.timestep_spacing == "quadratic"


def test_the_old_flat_layout_opens(tiny_unet: MakeUNet, tmp_path: Path) -> None:
    unet = tiny_unet(3)
    save_old_layout(unet, tmp_path / "old", "safetensors")
    loaded = quiet(DDPMPipeline.from_pretrained(tmp_path / "old"))
    for name, tensor in unet.state_dict().items():
        assert torch.equal(loaded.unet.state_dict()[name], tensor)
    assert loaded.scheduler.variance_type == "fixed_large"
    expected = pipeline(unet, variance_type="fixed_large")(1, seeds(0)[0], 5, "np").images
    # Kernels round by where tensors lie in memory, and those read from a file lie elsewhere.
    np.testing.assert_allclose(loaded(1, seeds(0)[0], 5, "np").images, expected, atol=1e-5)


def test_pickled_weights_are_refused_unless_asked_for(tiny_unet: MakeUNet, tmp_path: Path) -> None:
    save_old_layout(tiny_unet(), tmp_path / "old", "bin")
    with pytest.raises(OSError, match=r"only pickled weights .*use_safetensors=False\).save_pre"):
        DDPMPipeline.from_pretrained(tmp_path / "old")
    logging.disable(logging.WARNING)
    try:
        loaded = DDPMPipeline.from_pretrained(tmp_path / "old", use_safetensors=False)
    finally:
        logging.disable(logging.NOTSET)
    loaded.save_pretrained(tmp_path / "new")
    assert load_file(tmp_path / "new" / "unet" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(ValueError, match="safe_serialization must be True"):
        loaded.save_pretrained(tmp_path / "new", safe_serialization=False)


def test_missing_directory_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises((OSError, ValueError)):
        DDPMPipeline.from_pretrained(os.fspath(tmp_path / "nothing"))


# Weights over weights in another layout.


@pytest.mark.parametrize("variant", [{}, {"variant": "fp16"}])
@pytest.mark.parametrize("layouts", [({}, SHARDED), (SHARDED, {}), (SHARDED, SHARDED)])
def test_the_new_weights_are_all_there_is(
    tiny_unet: MakeUNet,
    tmp_path: Path,
    layouts: tuple[dict[str, Any], dict[str, Any]],
    variant: dict[str, str],
) -> None:
    new = DDPMPipeline(tiny_unet(seed=2), DDPMScheduler())
    new.save_pretrained(tmp_path / "alone", **layouts[1], **variant)
    old = DDPMPipeline(tiny_unet(seed=1, block_out_channels=(8, 24)), DDPMScheduler())
    old.save_pretrained(tmp_path / "over", **layouts[0], **variant)
    new.save_pretrained(tmp_path / "over", **layouts[1], **variant)
    alone, over = (
        {p.name: p.read_bytes() for p in (tmp_path / name / "unet").iterdir()}
        for name in ("alone", "over")
    )
    assert over == alone
    stock = diffusers.DDPMPipeline.from_pretrained(tmp_path / "over", **variant).unet.state_dict()
    expected = new.unet.state_dict()
    assert all(stock[name].equal(expected[name]) for name in expected)


def test_weights_of_another_variant_stay(tiny_unet: MakeUNet, tmp_path: Path) -> None:
    pipe = DDPMPipeline(tiny_unet(), DDPMScheduler())
    pipe.save_pretrained(tmp_path, variant="fp16")
    pipe.save_pretrained(tmp_path, **SHARDED)
    assert (tmp_path / "unet/diffusion_pytorch_model.fp16.safetensors").is_file()
    pipe.save_pretrained(tmp_path)
    names = sorted(path.name for path in (tmp_path / "unet").iterdir())
    assert names == [
        "config.json",
        "diffusion_pytorch_model.fp16.safetensors",
        "diffusion_pytorch_model.safetensors",
    ]
