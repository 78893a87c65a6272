"""Runs that start from a trained model."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from helpers.old_layout import save_old_layout
from helpers.training_runs import assert_same, blobs, outcome, run_forked, tiny_config
from helpers.unets import make_tiny_unet

from ddpm_pipeline import DDPMPipeline, DDPMScheduler, TrainingConfig
from ddpm_pipeline.training.run import dry_run, train
from ddpm_pipeline.training.start import open_start
from ddpm_pipeline.training.storage.checkpoints import read_state
from ddpm_pipeline.training.storage.export import open_checkpoint

pytestmark = pytest.mark.usefixtures("random_last_layers")

SAME = ("cache_dir", "train_batch_size", "logging_steps", "checkpointing_steps", "mixed_precision")


@pytest.fixture(scope="module")
def base(random_last_layers: None, tmp_path_factory: pytest.TempPathFactory) -> TrainingConfig:
    """A finished run on grey images of two classes, with its options."""
    folder = tmp_path_factory.mktemp("base")
    config = tiny_config(folder, class_conditional=True, embeddings=3)
    config = config.replace(train_data_dir=str(labelled(folder, "bee", "cat")))
    train(config)
    return config


def labelled(folder: Path, *names: str) -> Path:
    """Twenty images of each class, in one file."""
    path = folder / f"{'-'.join(names)}.npz"
    labels = np.repeat(np.array(names), 20)
    np.savez(path, images=blobs(len(labels)), labels=labels)
    return path


def going_on(base: TrainingConfig, folder: Path, **options: Any) -> TrainingConfig:
    """A short run from the finished one, by what it says itself."""
    kept = {name: getattr(base, name) for name in SAME}
    defaults = {
        "pretrained_model_name_or_path": base.output_dir,
        "train_data_dir": base.train_data_dir,
        "output_dir": str(folder / "run"),
        "max_train_steps": 4,
        "eval_batch_size": 2,
        "ddpm_num_inference_steps": 2,
    }
    return TrainingConfig(**{**kept, **defaults, **options})


def digest(network: torch.nn.Module) -> str:
    """A hash of all weights, with their names."""
    parts = sorted(network.state_dict().items())
    content = b"".join(n.encode() + v.detach().contiguous().numpy().tobytes() for n, v in parts)
    return hashlib.sha256(content).hexdigest()


def images_of(pipe: DDPMPipeline, **options: Any) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    return pipe(2, generator, 3, "np", **options).images


def test_no_update_saves_the_model_as_it_is(base: TrainingConfig, tmp_path: Path) -> None:
    result = train(going_on(base, tmp_path, max_train_steps=0))
    assert (result.finished, result.global_step) == (True, 0)
    before = DDPMPipeline.from_pretrained(base.output_dir)
    after = DDPMPipeline.from_pretrained(tmp_path / "run")
    assert digest(before.unet) == digest(after.unet)
    assert dict(before.scheduler.config) == dict(after.scheduler.config)
    configs = [dict(pipe.unet.config) for pipe in (before, after)]
    for config in configs:
        del config["_name_or_path"]
        config["_ddpm_pipeline"]["reading"].pop("channels", None)  # known where it was given
    assert configs[0] == configs[1]
    drawn = [images_of(pipe, class_labels="cat") for pipe in (before, after)]
    assert np.array_equal(*drawn)
    assert (tmp_path / "run" / "samples.png").is_file()
    again = train(going_on(base, tmp_path, max_train_steps=0))  # is finished already
    assert again.finished


def test_no_update_saves_a_model_of_the_oldest_layout(tmp_path: Path) -> None:
    unet = make_tiny_unet(1)
    save_old_layout(unet, tmp_path / "old", "safetensors")
    np.save(tmp_path / "images.npy", blobs())
    config = TrainingConfig(
        pretrained_model_name_or_path=str(tmp_path / "old"),
        train_data_dir=str(tmp_path / "images.npy"),
        output_dir=str(tmp_path / "run"),
        cache_dir=str(tmp_path / "cache"),
        max_train_steps=0,
        train_batch_size=4,
        eval_batch_size=1,
        ddpm_num_inference_steps=1,
        mixed_precision="no",
    )
    train(config)
    after = DDPMPipeline.from_pretrained(tmp_path / "run")
    assert digest(after.unet) == digest(unet)
    old = DDPMPipeline.from_pretrained(tmp_path / "old")
    assert after.scheduler.config.variance_type == "fixed_large"
    assert torch.equal(after.scheduler.betas, old.scheduler.betas)
    np.testing.assert_allclose(images_of(after), images_of(old), atol=1e-6)
    stock = diffusers.DDPMPipeline.from_pretrained(tmp_path / "run")
    assert digest(stock.unet) == digest(unet)


@pytest.mark.parametrize("kind", ["checkpoint", "run without a model", "unet"])
def test_other_places_of_a_model(base: TrainingConfig, tmp_path: Path, kind: str) -> None:
    run = Path(base.output_dir)
    if kind == "checkpoint":
        place = run / "checkpoints" / "step-0000008"
        wanted, more = open_checkpoint(place).pipeline.unet, {}
    elif kind == "run without a model":
        place = tmp_path / "killed"
        shutil.copytree(run / "checkpoints", place / "checkpoints")
        wanted, more = open_checkpoint(place).pipeline.unet, {}
    else:
        place = run / "unet"
        wanted = DDPMPipeline.from_pretrained(run).unet
        more = {"prediction_type": "v_prediction", "ddpm_beta_schedule": "squaredcos_cap_v2"}
    options = {"pretrained_model_name_or_path": str(place), "max_train_steps": 0}
    train(going_on(base, tmp_path, **options, **more))
    assert digest(DDPMPipeline.from_pretrained(tmp_path / "run").unet) == digest(wanted)


def test_it_says_what_it_took_and_what_it_changed(
    base: TrainingConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = str(labelled(tmp_path, "ant", "cat"))
    config = going_on(
        base, tmp_path, train_data_dir=data, channels=3, resolution=16,
        variance_type="learned_range", train_only="decoder",
    )  # fmt: skip
    with caplog.at_level(logging.INFO, "ddpm_pipeline"):
        numbers = str(dry_run(config, measure=False))
    assert "start       " + base.output_dir in caplog.text
    assert "v_prediction, squaredcos_cap_v2 with zero terminal SNR, T = 20" in caplog.text
    for words in (
        "variance: fixed_small → learned_range",
        "channels: 1 → 3",
        "resolution: 8 → 16",
        "1 of the model (cat); 1 drawn anew (ant); 1 kept without images (bee)",
        "trains      decoder",
    ):
        assert words in caplog.text
    assert '"loss": "hybrid"' in numbers
    assert not (tmp_path / "run").exists()
    caplog.clear()
    with caplog.at_level(logging.INFO, "ddpm_pipeline"):
        dry_run(base.replace(output_dir=str(tmp_path / "fresh")), measure=False)
    assert "weights that are drawn afresh" in caplog.text


def test_the_unit_of_exact_values_is_said_where_the_model_is_one_of_bytes(
    base: TrainingConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.save(tmp_path / "deep.npy", blobs().astype(np.uint16) * 200)
    options = {"train_data_dir": str(tmp_path / "deep.npy"), "class_conditional": False}
    with caplog.at_level(logging.INFO):
        dry_run(going_on(base, tmp_path, depth="exact", **options), measure=False)
    (changes,) = [line for line in caplog.text.splitlines() if line.startswith("changes")]
    assert "values: bytes → uint16 of" in changes
    assert " and 1 is " in changes


def test_classes_go_on_by_name(base: TrainingConfig, tmp_path: Path) -> None:
    data = str(labelled(tmp_path, "ant", "cat"))
    train(going_on(base, tmp_path, train_data_dir=data, label_dropout=0.0))
    pipe = DDPMPipeline.from_pretrained(tmp_path / "run")
    assert pipe.unet.config.num_class_embeds == 4
    for name in ("bee", "cat", "ant"):  # the bee had no images now, and had them before
        assert images_of(pipe, class_labels=name).shape == (2, 8, 8, 1)
    images_of(pipe, class_labels="ant", guidance_scale=2.0)  # its null class was trained before

    train(going_on(base, tmp_path / "none", train_data_dir=data, max_train_steps=0))
    pipe = DDPMPipeline.from_pretrained(tmp_path / "none" / "run")
    images_of(pipe, class_labels="cat")
    with pytest.raises(ValueError, match="held no images of class 'ant'"):
        images_of(pipe, class_labels="ant")


def test_a_model_goes_on_without_classes(base: TrainingConfig, tmp_path: Path) -> None:
    config = going_on(base, tmp_path, class_conditional=False, max_train_steps=0)
    train(config)
    before = DDPMPipeline.from_pretrained(base.output_dir)
    after = DDPMPipeline.from_pretrained(tmp_path / "run")
    null = before.unet.config.num_class_embeds - 1
    wanted = images_of(before, class_labels=null)
    np.testing.assert_allclose(images_of(after), wanted, atol=1e-5)


def test_the_averages_start_from_the_weights(base: TrainingConfig, tmp_path: Path) -> None:
    train(going_on(base, tmp_path, max_train_steps=0, ema_decay=(0.9, 0.999)))
    tensors = outcome(tmp_path / "run")["tensors"]
    weights = DDPMPipeline.from_pretrained(base.output_dir).unet.state_dict()
    for decay in (0.9, 0.999):
        assert all(torch.equal(tensors[f"average-{decay}/{n}"], v) for n, v in weights.items())


def test_a_calibration_goes_with_the_weights_and_only_with_them(
    base: TrainingConfig, tmp_path: Path
) -> None:
    from helpers.calibrations import calibration_from_errors

    pipe = DDPMPipeline.from_pretrained(base.output_dir)
    plain = pipe.scheduler
    errors = plain.schedule.one_minus_alpha_bar(torch.arange(len(plain))) / 4
    known = calibration_from_errors(plain.schedule, errors)
    pipe.scheduler = plain.with_calibration(known)
    pipe.save_pretrained(tmp_path / "calibrated")
    start = {"pretrained_model_name_or_path": str(tmp_path / "calibrated")}
    for steps in (0, 4):
        folder = tmp_path / str(steps)
        train(going_on(base, folder, max_train_steps=steps, **start))
        saved = DDPMScheduler.from_pretrained(folder / "run" / "scheduler")
        assert (saved.calibration is None) is (steps > 0)
        assert saved.variance_type == ("analytic" if steps == 0 else "fixed_small")
    train(going_on(base, tmp_path / "large", max_train_steps=0, resolution=16, **start))
    saved = DDPMScheduler.from_pretrained(tmp_path / "large" / "run" / "scheduler")
    assert saved.calibration is None  # it was measured on images of 8 pixels
    assert saved.variance_type == "fixed_small"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prediction_type": "epsilon"}, "prediction_type='epsilon' cannot be made of its 'v_pr"),
        ({"ddpm_beta_schedule": "linear"}, "is another noise schedule than its own"),
        ({"ddpm_num_steps": 10}, "ddpm_num_steps=10 is another noise schedule"),
        ({"rescale_betas_zero_snr": False}, "rescale_betas_zero_snr=False is another noise"),
        ({"resolution": 9}, "resolution=9 must be a multiple of 2"),
        ({"channels": 4}, "channels=4 cannot be made of its 1"),
        (
            {"variance_type": "learned", "loss": "vlb"},
            "variance_type='learned' is a variance",
        ),
        ({"resolution": 9, "channels": 4}, "resolution=9 .*; channels=4"),
        ({"pretrained_revision": "v1"}, "pretrained_revision='v1' is of models on the Hub"),
        ({"model_size": "base"}, "give either pretrained_model_name_or_path or model_size"),
        ({"loss": "hybrid"}, "hybrid"),
    ],
)
def test_what_no_rule_covers_is_refused(
    base: TrainingConfig, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(going_on(base, tmp_path, **options))
    assert not (tmp_path / "run").exists()


def test_the_same_schedule_under_its_name_is_no_change(
    base: TrainingConfig, tmp_path: Path
) -> None:
    options = {"ddpm_beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}
    dry_run(going_on(base, tmp_path, **options, rescale_betas_zero_snr=True), measure=False)


def test_learned_variances_under_a_fixed_type_are_refused(
    base: TrainingConfig, tmp_path: Path
) -> None:
    config = going_on(base, tmp_path, variance_type="learned_range")
    train(config)
    learned = {"pretrained_model_name_or_path": config.output_dir}
    with pytest.raises(ValueError, match="variance_type='fixed_small' would leave half of its"):
        train(going_on(base, tmp_path / "b", variance_type="fixed_small", **learned))
    again = going_on(base, tmp_path / "b", **learned)
    assert '"variance_type": "learned_range"' in str(dry_run(again, measure=False))


@pytest.mark.parametrize("case", ["parts", "latents", "network", "json", "empty", "surplus"])
def test_other_models_are_refused(base: TrainingConfig, tmp_path: Path, case: str) -> None:
    model = tmp_path / "model"
    shutil.copytree(base.output_dir, model, ignore=shutil.ignore_patterns("checkpoints"))
    index = json.loads((model / "model_index.json").read_text())
    message = {
        "parts": "has no unet, a UNet2DModel, to start from; it is a DDPMPipeline of scheduler",
        "latents": "draws in the latent space of its AutoencoderKL",
        "network": "its unet is a UNet2DConditionModel",
        "json": "is damaged: model_index.json is no JSON",
        "empty": "there is no model in",
        "surplus": "holds 1 that the network has not",
    }[case]
    if case == "parts":
        del index["unet"]
    elif case == "latents":
        index["vae"] = ["diffusers", "AutoencoderKL"]
    elif case == "network":
        index["unet"][1] = "UNet2DConditionModel"
    (model / "model_index.json").write_text(json.dumps(index) if case != "json" else "{")
    if case == "empty":
        shutil.rmtree(model)
        model.mkdir()
    elif case == "surplus":
        from safetensors.torch import load_file, save_file

        file = model / "unet" / "diffusion_pytorch_model.safetensors"
        save_file(load_file(file) | {"more": torch.zeros(1)}, file)
    with pytest.raises((ValueError, OSError), match=message) as caught:
        train(going_on(base, tmp_path, pretrained_model_name_or_path=str(model)))
    assert "\n" not in str(caught.value)


def test_a_killed_run_goes_on_without_the_model(base: TrainingConfig, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(base.output_dir, model, ignore=shutil.ignore_patterns("checkpoints"))
    options = {
        "pretrained_model_name_or_path": str(model),
        "train_data_dir": str(labelled(tmp_path, "ant", "cat")),
        "channels": 3,
        "variance_type": "learned_range",
        "train_only": "decoder",
        "layer_decay": 0.8,
        "ema_decay": (0.9, 0.999),
        "max_train_steps": 10,
        "checkpointing_steps": 2,
        "random_flip": True,
    }
    train(going_on(base, tmp_path / "whole", **options))
    config = going_on(base, tmp_path / "killed", **options)
    run, wait = Path(config.output_dir), random.Random(0).uniform(0, 0.1)

    def has_begun() -> bool:
        begun = any((run / "checkpoints").glob("step-*/manifest.json"))
        time.sleep(wait if begun else 0)
        return begun

    assert run_forked(config, has_begun) == [-signal.SIGKILL]
    shutil.rmtree(model)
    assert train(config).finished
    assert_same(outcome(tmp_path / "whole" / "run"), outcome(run))
    for name in ("scheduler/scheduler_config.json", "unet/config.json"):
        assert (run / name).read_bytes() == (tmp_path / "whole" / "run" / name).read_bytes()
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        train(config.replace(output_dir=str(tmp_path / "other")))


def test_a_checkpoint_of_the_hub_needs_the_model_no_more(
    base: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(going_on(base, tmp_path, channels=3))
    states = [read_state(tmp_path / "run" / "checkpoints" / "step-0000004"), None]

    def is_gone(*_: object) -> None:
        raise OSError("cannot load 'alice/gone'")

    monkeypatch.setattr("ddpm_pipeline.training.start.open_pretrained", is_gone)
    place = "ddpm_pipeline.training.storage.hub_checkpoint.read_hub_state"
    monkeypatch.setattr(place, lambda *_: states.pop(0))
    config = going_on(
        base,
        tmp_path / "elsewhere",
        pretrained_model_name_or_path="alice/gone",
        resume_from_checkpoint="hub:alice/run",
    )
    start = open_start(config, Accelerator(cpu=True))
    assert start.settled(config).channels == 3
    assert start.settled(config).resolution == 8
    with pytest.raises(OSError, match="cannot load 'alice/gone'"):
        open_start(config, Accelerator(cpu=True))
