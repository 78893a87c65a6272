"""Runs of training for the items: their options, their parts, and a model that was trained."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from helpers.training_runs import TINY_UNET
from torch import nn

from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.data.pixels import to_model_range
from ddpm_pipeline.networks.unets import unet_config
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.learner import Learner
from ddpm_pipeline.training.processes import own_accelerator
from ddpm_pipeline.training.resolving import resolve
from ddpm_pipeline.training.run import _prepare, train
from ddpm_pipeline.training.setup import backend_options, make_scheduler, make_unet
from ddpm_pipeline.training.trainer import Trainer

if TYPE_CHECKING:
    from diffusers import UNet2DModel
    from gpu.place import Place
    from torch import Tensor

__all__ = [
    "a_learner",
    "a_model",
    "a_prepared",
    "a_trainer",
    "a_unet",
    "enliven",
    "labelled_images",
    "run_options",
    "some_images",
    "updates",
]


def run_options(place: Place, name: str, **changes: Any) -> dict[str, Any]:
    """Options of a run on grey images, in a folder of its own, that saves only what it must.

    It is not compiled unless asked for, which would take most of the time of a check.
    """
    options = {
        "train_data_dir": place.grey_images(),
        "resolution": place.side,
        "output_dir": str(place.folder / name),
        "cache_dir": str(place.folder / "cache"),
        "ddpm_num_steps": place.T,
        "train_batch_size": place.pick(64, 4),
        "max_train_steps": place.pick(200, 4),
        "checkpointing_steps": 0,
        "save_images_steps": 10**9,
        "save_model_steps": 10**9,
        "logging_steps": place.pick(50, 2),
        "eval_batch_size": 2,
        "ddpm_num_inference_steps": 2,
        "compile": False,
    }
    if place.rehearses:
        options["model_config_name_or_path"] = _tiny_config(place, {**options, **changes})
    return {**options, **changes}


def _tiny_config(place: Place, options: dict[str, Any]) -> str:
    """The config of a network of a few thousand weights, which fits the options of a run."""
    is_learned = "learned" in options.get("variance_type", "")
    classes = 4 if options.get("class_conditional") else None
    config = {**TINY_UNET, "out_channels": 1 + is_learned, "num_class_embeds": classes}
    path = place.folder / f"tiny-{is_learned}-{classes}.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return str(path)


def labelled_images(place: Place) -> str:
    """A file of grey images of three classes."""
    path = place.folder / "labelled.npz"
    if not path.exists():
        generator = np.random.default_rng(0)
        images = generator.integers(0, 256, (256, place.side, place.side), np.uint8)
        np.savez(path, images=images, labels=np.arange(256) % 3)
    return str(path)


@contextlib.contextmanager
def a_prepared(config: TrainingConfig) -> Iterator[tuple[Accelerator, Any]]:
    """The processes of a run, and its resolved config with its data."""
    AcceleratorState._reset_state(reset_partial_state=True)
    with own_accelerator(config) as accelerator:
        yield accelerator, _prepare(config, accelerator, None, None)


@contextlib.contextmanager
def a_trainer(config: TrainingConfig, *, switches: bool = True) -> Iterator[Trainer]:
    """All parts of a run, ready for updates.

    Arguments:
        config: Of the run.
        switches: Whether torch's switches are the run's for the length of the block.
    """
    with a_prepared(config) as (accelerator, ready), contextlib.ExitStack() as stack:
        if switches:
            stack.enter_context(backend_options(ready.config))
        trainer = Trainer(ready.config, accelerator, ready.data, derived=ready.derived)
        trainer.learner.unet.train()
        try:
            yield trainer
        finally:
            trainer.batches.close()
            trainer.learner.unwrap()


def updates(trainer: Trainer, count: int, *, first: int = 0) -> list[Tensor]:
    """Make so many updates; their losses, still on the device."""
    return [trainer.learner.update(first + i, trainer.batches)[0] for i in range(count)]


def a_learner(place: Place, device: torch.device, **changes: Any) -> Learner:
    """What makes the updates of a run, on any device; its weights are the same on all."""
    config = TrainingConfig(**run_options(place, "learner", **changes))
    config = resolve(config, length=256, world_size=1, device=device)
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no")
    torch.manual_seed(0)
    unet = enliven(make_unet(config, 1, None))
    learner = Learner(config, make_scheduler(config).schedule, unet, accelerator)
    learner.unet.train()
    return learner


def a_unet(place: Place) -> UNet2DModel:
    """The small network, in eval mode on the device, with weights that are nowhere zero."""
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    config = TINY_UNET if place.rehearses else unet_config("small", resolution=28, channels=1)
    unet = UNet2DModel(**config)
    return unet.eval().to(place.device)


def enliven(unet: UNet2DModel) -> UNet2DModel:
    """Draw the last layers, which start at zero, so that gradients reach every layer."""
    for parameter in unet.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return unet


def a_model(place: Place) -> str:
    """A folder with a model that was trained for some updates, made once."""
    options = run_options(place, "model", max_train_steps=place.pick(300, 3))
    folder = place.folder / "model"
    if not (folder / "model_index.json").exists():
        train(TrainingConfig(**options))
    return str(folder)


def some_images(place: Place, count: int) -> Tensor:
    """Images in [-1, 1], (N, 1, H, W), on the CPU."""
    data = open_images(
        place.grey_images(),
        resolution=place.side,
        progress=False,
        cache_dir=place.folder / "cache",
    )
    return to_model_range(data.batch(torch.arange(count)).images)
