"""What a run starts from: fresh weights, a pretrained model, or a checkpoint of such a run.

    start = open_start(config, state)
    config = start.settled(config)              options that the model answers
    data = start.renumbered(config, data)       classes by the model's numbers
    unet, scheduler = start.unet(config, data), start.scheduler(config)

A run that goes on from a checkpoint needs the pretrained model no more: the checkpoint has its
weights, its network's config and its scheduler's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers.configuration_utils import FrozenDict

from ddpm_pipeline.common import on_main, stream_generator
from ddpm_pipeline.data import source_name
from ddpm_pipeline.hub import parse_hub_checkpoint
from ddpm_pipeline.networks import check_network_config, facts_of, image_channels, set_facts
from ddpm_pipeline.training.conditions import fitted_conditions
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.fitting import (
    Fitted,
    check_fit,
    fitted_scheduler,
    fitted_unet,
    taken_options,
)
from ddpm_pipeline.training.matching import ClassPlan, match_classes
from ddpm_pipeline.training.parts import train_only
from ddpm_pipeline.training.pretrained import Pretrained, open_pretrained
from ddpm_pipeline.training.setup import make_scheduler, make_unet, restored_scheduler
from ddpm_pipeline.training.storage.folder import RunFolder
from ddpm_pipeline.training.units import fitted_values

if TYPE_CHECKING:
    from accelerate import Accelerator
    from diffusers import UNet2DModel

    from ddpm_pipeline.networks import ValueScale
    from ddpm_pipeline.schedulers import DDPMScheduler
    from ddpm_pipeline.training.data import TrainingData

__all__ = ["PretrainedStart", "RestoredStart", "Start", "open_start"]


_READING = (
    "fit",
    "center_crop",
    "value_range",
    "background",
    "depth",
    "outside_range",
    "tiff_bands",
    "stack_pattern",
    "condition_on",
    "condition_vector",
    "condition_upsampling",
)
_ANSWERED = (
    *_READING,
    "channels",
    "resolution",
    "class_conditional",
    "prediction_type",
    "ddpm_num_steps",
    "ddpm_beta_schedule",
    "ddpm_reference_side",
    "rescale_betas_zero_snr",
    "variance_type",
    "loss",
)
"""Options that a pretrained model answers where nobody gives them."""


class Start:
    """Fresh weights, which is how a run starts unless it is told otherwise."""

    @property
    def taken(self) -> tuple[str, ...]:
        """The options that were taken from a model."""
        return ()

    def settled(self, config: TrainingConfig) -> TrainingConfig:
        """Give the options of the run, with those that nobody gave as the model says."""
        return config

    def renumbered(self, config: TrainingConfig, data: TrainingData) -> TrainingData:  # noqa: ARG002
        """Give the images, with their classes numbered as the model's are."""
        return data

    def unet(self, config: TrainingConfig, data: TrainingData) -> UNet2DModel:
        """Make the network to train; what is drawn follows from the seed."""
        _seed(config)
        unet = make_unet(config, data.channels, data.num_classes, data.conditioning(config))
        set_facts(unet, data.facts(config))
        return unet

    def scheduler(self, config: TrainingConfig) -> DDPMScheduler:
        """Make the scheduler that is trained for and saved with the model."""
        return make_scheduler(config)

    def state(self) -> dict[str, Any]:
        """Give what a checkpoint must hold of this, as JSON values."""
        return {}

    def describe(self, config: TrainingConfig, data: TrainingData) -> dict[str, str]:  # noqa: ARG002
        """Say what was taken and what was changed, as lines with headings."""
        if config.model_config_name_or_path is None:
            return {}
        name = config.model_config_name_or_path
        return {
            "network": f"the config of {name}, with weights that are drawn afresh; "
            "pretrained_model_name_or_path takes the weights too"
        }


def _seed(config: TrainingConfig) -> None:
    torch.manual_seed(stream_generator("init", config.seed).initial_seed())


class PretrainedStart(Start):
    """The weights of a trained model, fitted to the images by the rules of ``fitting``.

    Arguments:
        found: The model.
        given: The options as they were given.
    Raises:
        ValueError: If options contradict the model.
    """

    def __init__(self, found: Pretrained, given: TrainingConfig) -> None:
        self._found, self._taken = found, taken_options(found, given)
        self._base, self._scale = _base_of(given), facts_of(found.unet).scale
        self._plan: ClassPlan | None = None
        self._fitted: Fitted | None = None
        self._scheduler: DDPMScheduler | None = None
        self._notes: tuple[str, ...] = ()

    @property
    def taken(self) -> tuple[str, ...]:
        """The options that the model answered."""
        return tuple(self._taken)

    def settled(self, config: TrainingConfig) -> TrainingConfig:
        """Give the options with those of the model, as far as nobody gave others."""
        settled = config.replace(**self._taken)
        check_fit(self._found, settled, config.given)
        return settled

    def renumbered(self, config: TrainingConfig, data: TrainingData) -> TrainingData:
        """Give the images, with the numbers of the model's classes first."""
        unet = self._found.unet
        data = fitted_values(data, facts_of(unet).scale, config)
        if data.num_classes is None:
            if unet.config.num_class_embeds is not None and config.class_conditional:
                raise ValueError(
                    "class_conditional: the pretrained model has classes and the images have no "
                    "labels; give labels, or class_conditional=False"
                )
        else:
            self._plan = match_classes(facts_of(unet), unet.config.num_class_embeds, data)
            data = self._plan.renumbered(config, data)
        return fitted_conditions(data, unet, config)

    def unet(self, config: TrainingConfig, data: TrainingData) -> UNet2DModel:
        """Make the network, fitted to the images."""
        _seed(config)
        conditioning = data.conditioning(config)
        self._fitted = fitted_unet(self._found, config, data.channels, self._plan, conditioning)
        unet, facts = self._fitted.unet, data.facts(config)
        if self._plan is not None:
            facts = self._plan.facts(facts, trained=config.max_train_steps > 0)
        before = facts_of(self._found.unet)
        if config.picture_bands is None and data.channels == image_channels(self._found.unet):
            facts = replace(facts, picture_bands=before.picture_bands)
        set_facts(unet, facts)
        train_only(unet, config.train_only, self._fitted.changed)
        return unet

    def scheduler(self, config: TrainingConfig) -> DDPMScheduler:
        """Give the model's scheduler, or one with what options change."""
        is_same = config.max_train_steps == 0 and self._fitted.is_same
        self._scheduler, self._notes = fitted_scheduler(self._found, config, is_same=is_same)
        return self._scheduler

    def state(self) -> dict[str, Any]:
        """Give the scheduler's config, and the names of what is new and what was taken."""
        return {
            "start": {
                "changed": sorted(self._fitted.changed),
                "taken": list(self._taken),
                "base": self._base,
                "scheduler": _saved(self._scheduler),
            }
        }

    def describe(self, config: TrainingConfig, data: TrainingData) -> dict[str, str]:
        """Say what was taken, what was changed, and what is trained."""
        unet = self._fitted.unet
        count = sum(parameter.numel() for parameter in unet.parameters())
        zero = " with zero terminal SNR" if self._scheduler.config.rescale_betas_zero_snr else ""
        side = config.ddpm_reference_side
        zero += "" if side is None else f", log SNR shifted from side {side:g}"
        taken = (
            f"{count:,} weights, {config.prediction_type}, {config.ddpm_beta_schedule}{zero}, "
            f"T = {config.ddpm_num_steps}, {config.variance_type}"
        )
        obeyed = [n for n in _READING if getattr(data.reading, n, ...) is not None]
        read = [f"{n}={getattr(config, n)!r}" for n in obeyed if n in self._taken]
        notes = [*self._fitted.notes, *self._notes]
        if self._plan is not None:
            notes.append(f"classes: {self._plan.describe(data)}")
        if data.scale is not None and self._scale is None:
            notes.append(f"values: bytes → {data.scale}, {_ends_of(data.scale)}")
        lines = {"start": self._found.origin, "takes": ", ".join([taken, *read])}
        lines["changes"] = "; ".join(notes) or "nothing"
        if config.train_only != "all":
            trained = sum(p.numel() for p in unet.parameters() if p.requires_grad)
            lines["trains"] = f"{config.train_only}, {trained:,} of the weights"
        return lines


class RestoredStart(Start):
    """A run that began from a pretrained model, as one of its checkpoints knows it.

    Arguments:
        state: Of the checkpoint.
        config: As it was given.
    """

    def __init__(self, state: Mapping[str, Any], config: TrainingConfig) -> None:
        old = TrainingConfig.from_dict(state["identity"]["config"])
        names = [name for name in _ANSWERED if name not in config.given]
        self._taken = {name: getattr(old, name) for name in names}
        self._unet, self._start = state["unet"], state["start"]

    @property
    def taken(self) -> tuple[str, ...]:
        """The options that the model answered."""
        named = self._start.get("taken", self._taken)
        return tuple(name for name in named if name in self._taken)

    def settled(self, config: TrainingConfig) -> TrainingConfig:
        """Give the options with those of the model, as far as nobody gave others."""
        return config.replace(**self._taken)

    def renumbered(self, config: TrainingConfig, data: TrainingData) -> TrainingData:
        """Give the images, with the numbers of the model's classes first."""
        facts, embeddings = facts_of(FrozenDict(self._unet)), self._unet.get("num_class_embeds")
        data = fitted_values(data, facts.scale, config)
        if data.num_classes is not None and embeddings is not None:
            plan = ClassPlan(facts.class_names, embeddings - 1, None, None, knew_null=True)
            data = plan.renumbered(config, data)
        return fitted_conditions(data, FrozenDict(self._unet), config)

    def unet(self, config: TrainingConfig, data: TrainingData) -> UNet2DModel:  # noqa: ARG002
        """Make the network, fitted to the images."""
        from diffusers import UNet2DModel

        check_network_config(self._unet)
        unet = UNet2DModel.from_config(self._unet)
        train_only(unet, config.train_only, self._start["changed"])
        return unet

    def scheduler(self, config: TrainingConfig) -> DDPMScheduler:  # noqa: ARG002
        """Give the model's scheduler, or one with what options change."""
        return restored_scheduler(self._start)

    def state(self) -> dict[str, Any]:
        """Give the scheduler's config, and the names of what is new and what was taken."""
        return {"start": self._start}

    def describe(self, config: TrainingConfig, data: TrainingData) -> dict[str, str]:  # noqa: ARG002
        """Say what was taken, what was changed, and what is trained."""
        return {}


def _ends_of(scale: ValueScale) -> str:
    """Say which values the model sees as -1 and 1, of the channels that differ."""
    pairs = zip(scale.center, scale.unit, strict=True)
    return ", ".join(dict.fromkeys(f"-1 is {c - u:g} and 1 is {c + u:g}" for c, u in pairs))


def _base_of(config: TrainingConfig) -> dict[str, Any]:
    """Give what a card says of the model, which was found here or else on the Hub."""
    name = config.pretrained_model_name_or_path
    is_on_hub = not Path(name).expanduser().exists()
    base = {"name": source_name(name), "hub": is_on_hub, "revision": config.pretrained_revision}
    return {key: value for key, value in base.items() if value is not None}


def _saved(scheduler: DDPMScheduler) -> dict[str, Any]:
    """Give a scheduler's config as JSON values."""
    return json.loads(scheduler.to_json_string())


def open_start(
    config: TrainingConfig,
    accelerator: Accelerator,
    state: Mapping[str, Any] | None = None,
) -> Start:
    """Find what a run starts from, and open it.

    Arguments:
        config: As it was given.
        accelerator: The processes; one of them fetches what is on the Hub.
        state: Of the checkpoint that the run goes on from, if there is one.
    Raises:
        ValueError, OSError: As ``open_pretrained``, or if options contradict the model.
    """
    name = config.pretrained_model_name_or_path
    if name is None:
        return Start()
    if state is not None and "start" in state and (state["step"] or config.max_train_steps == 0):
        return RestoredStart(state, config)
    try:
        found = _open_everywhere(name, config.pretrained_revision, accelerator)
    except OSError:
        on_hub = on_main(lambda: _state_on_hub(config), accelerator)
        if on_hub is None:
            raise
        return RestoredStart(on_hub, config)
    return PretrainedStart(found, config)


def _open_everywhere(name: str, revision: str | None, accelerator: Accelerator) -> Pretrained:
    """Open a model on the main process, which fetches it, and then on all others."""
    found: list[Pretrained] = []
    on_main(lambda: found.append(open_pretrained(name, revision)), accelerator)
    return found[0] if found else open_pretrained(name, revision)


def _state_on_hub(config: TrainingConfig) -> dict[str, Any] | None:
    """Read the state of the Hub's checkpoint that a run will go on from; None if there is none."""
    source = parse_hub_checkpoint(config.resume_from_checkpoint, config.hub_model_id)
    if source is None:
        return None
    from ddpm_pipeline.training.storage.hub_checkpoint import read_hub_state

    state = read_hub_state(source, RunFolder(config.output_dir).checkpoints)
    return state if state is not None and "start" in state else None
