"""Models out of checkpoints: what a run that was stopped has learned.

    found = open_checkpoint("runs/photos")              the newest; or of a step, or its folder
    found.pipeline(batch_size=4)
    export_checkpoint("runs/photos", "model", step=500)

The weights are those of the average that was the best at the checkpoint, or the best weights so
far with ``keep="best"``, as in the model that the run itself saves.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file

from ddpm_pipeline.common import check_new_folder, written_aside
from ddpm_pipeline.data import TRAINING_IMAGES_NAME
from ddpm_pipeline.networks import check_network_config, network_of_config, plain_weights
from ddpm_pipeline.pipelines import DDPMPipeline
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.setup import (
    clamped_as_trained,
    make_scheduler,
    make_unet,
    restored_scheduler,
)
from ddpm_pipeline.training.storage.checkpoints import (
    check_whole,
    checkpoint_path,
    newest_checkpoint,
    read_state,
)
from ddpm_pipeline.training.storage.identity import saved_config, saved_identity
from ddpm_pipeline.training.storage.manifests import STATE_NAME, damage_named
from ddpm_pipeline.training.unfinished import check_has_checkpoint, is_checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from ddpm_pipeline.schedulers import DDPMScheduler

__all__ = [
    "CheckpointModel",
    "copy_known_images",
    "derived_in",
    "export_checkpoint",
    "network_of",
    "open_checkpoint",
    "run_scheduler",
]

logger = logging.getLogger(__name__)

_OPTIONS = "training_config.json"
_BEST = "best.safetensors"


@dataclass(frozen=True, eq=False)
class CheckpointModel:
    """The model of a checkpoint.

    Arguments:
        pipeline: With the weights of the best average, or those kept by ``keep="best"``.
        path: The checkpoint.
        step: Updates made.
        decay: Of the average; None for the weights themselves.
        config: Of the run, resolved.
        kept_step: The update whose weights were the best, where these are kept; None otherwise.
    """

    pipeline: DDPMPipeline
    path: Path
    step: int
    decay: float | None
    config: TrainingConfig
    kept_step: int | None = None

    def __str__(self) -> str:
        weights = "weights" if self.decay is None else f"average of decay {self.decay}"
        best = "" if self.kept_step is None else f", the best of which were after {self.kept_step}"
        return f"the {weights} of checkpoint {self.path}, after update {self.step}{best}"


def open_checkpoint(folder: str | Path, step: int | None = None) -> CheckpointModel:
    """Open the model of a checkpoint.

    Arguments:
        folder: Of a run, or of a checkpoint.
        step: Of the checkpoint, the newest whole one by default.
    Raises:
        FileNotFoundError: If there is none, or none of that step; names those there are.
        ValueError: If it is damaged, or does not say what its network is.
    """
    path = _find(Path(folder), step)
    check_whole(path)
    state = read_state(path)
    _check_own_network(state, path)
    with damage_named(path, STATE_NAME):
        config = saved_config(saved_identity(state, path)["config"])
        decay, kept = state["best_decay"], _kept(state, config, path)
        decay = decay if kept is None else kept["decay"]
    with damage_named(path, "model.safetensors"):
        weights = load_file(path / "model.safetensors")
    if decay is not None or kept is not None:
        name = f"average-{decay}.safetensors" if kept is None else _BEST
        with damage_named(path, name):
            weights |= load_file(path / name)
    with damage_named(path, STATE_NAME):
        unet = network_of(state.get("unet") or _config_of(config, weights), weights)
        scheduler = clamped_as_trained(_scheduler_of(state, config), unet)
    pipeline = DDPMPipeline(unet.eval(), scheduler)
    kept_step = None if kept is None else kept["step"]
    return CheckpointModel(pipeline, path, state["step"], decay, config, kept_step)


def _kept(
    state: Mapping[str, Any], config: TrainingConfig, path: Path
) -> Mapping[str, Any] | None:
    """Give what a checkpoint says of the best weights, where the run keeps these and has some."""
    kept = state.get("kept") if config.keep == "best" and (path / _BEST).is_file() else None
    return kept if kept is not None and kept["step"] is not None else None


def export_checkpoint(
    folder: str | Path, output: str | Path, step: int | None = None
) -> CheckpointModel:
    """Save the model of a checkpoint as a run saves its own, with the options of the run.

    Arguments:
        folder, step: As for ``open_checkpoint``.
        output: A new or empty folder.
    Raises:
        FileExistsError: If there is anything in output.
        OSError, ValueError: As ``open_checkpoint``, or if it cannot be written.
    """
    check_new_folder("output", output)
    output = Path(output)
    found = open_checkpoint(folder, step)
    with written_aside(output) as aside:
        found.pipeline.save_pretrained(aside)
        run = found.path.resolve().parent.parent
        found.config.save_json(aside / _OPTIONS, derived=derived_in(run))
        copy_known_images(run, aside)
    return found


def copy_known_images(run: Path, folder: Path) -> None:
    """Have a folder tell the images of a run, if the run does; it does once it has a model."""
    known = run / TRAINING_IMAGES_NAME
    if known.is_file():
        shutil.copyfile(known, folder / TRAINING_IMAGES_NAME)
    else:
        logger.info(
            "this model does not tell its training images, as the run keeps no hashes of them: it "
            "has saved no model yet, or was trained on a stream"
        )


def derived_in(run: Path) -> list[str]:
    """Name the options of a run that nobody gave, as far as the run is there."""
    options = run / _OPTIONS
    if not options.is_file():
        return []
    return json.loads(options.read_text(encoding="utf-8")).get("derived", [])


def _find(folder: Path, step: int | None) -> Path:
    """Find the checkpoint that is asked for."""
    if is_checkpoint(folder):
        if step is not None and read_state(folder)["step"] != step:
            raise FileNotFoundError(
                f"checkpoint={step} is not the one in {str(folder)!r}, of update "
                f"{read_state(folder)['step']}"
            )
        return folder
    check_has_checkpoint(folder, step)
    checkpoints = folder / "checkpoints"
    return newest_checkpoint(checkpoints) if step is None else checkpoint_path(checkpoints, step)


def _config_of(config: TrainingConfig, weights: Mapping[str, Tensor]) -> Mapping[str, Any]:
    """Give the config of the network of a checkpoint that does not have it, by its weights."""
    embeddings = weights.get("class_embedding.weight")
    num_classes = None if embeddings is None else len(embeddings) - 1
    with torch.device("meta"):
        return make_unet(config, weights["conv_in.weight"].shape[1], num_classes).config


def _check_own_network(state: Mapping[str, Any], path: Path) -> None:
    """Refuse the checkpoint of a network that only its owner can make again.

    Raises:
        ValueError: If it is one; says where its weights are.
    """
    kind = state.get("own_network", "UNet2DModel")
    if kind != "UNet2DModel":
        raise ValueError(
            f"the checkpoint {str(path)!r} is of a {kind}, a network that was given to train(): "
            "make one and have it load_state_dict of model.safetensors"
        )


def _scheduler_of(state: Mapping[str, Any], config: TrainingConfig) -> DDPMScheduler:
    """Make the scheduler of a run: that of the model it started from, or by its options."""
    start = state.get("start")
    return make_scheduler(config) if start is None else restored_scheduler(start)


def run_scheduler(run: Path, config: TrainingConfig) -> DDPMScheduler:
    """Make the scheduler of a run, as its newest checkpoint or its saved model says.

    Arguments:
        run: Its folder.
        config: Its options, which say all of it unless it started from a model.
    """
    if config.pretrained_model_name_or_path is None:
        return make_scheduler(config)
    if (newest := max((run / "checkpoints").glob("step-*"), default=None)) is not None:
        return _scheduler_of(read_state(newest), config)
    from ddpm_pipeline.schedulers import DDPMScheduler

    return DDPMScheduler.from_pretrained(run / "scheduler")


def network_of(
    config: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    kind: type[UNet2DModel] = UNet2DModel,
) -> UNet2DModel:
    """Make a network of these weights on the CPU, in plain memory order.

    What stands for augmentations is left out: samples show none.
    """
    check_network_config(config)
    return network_of_config(kind, config, plain_weights(weights))
