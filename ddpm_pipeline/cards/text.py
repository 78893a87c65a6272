"""The text of a model card: what the model is, how to use it and how it was trained.

    section_parts(facts)    {"": what it is, "Samples": ..., "Use": ..., ..., "Training": ...}

Each function writes one part of our section, or gives None where nothing is known. Names that come
from data or files go through ``plain`` or a shell's quotes, so that they cannot change the page.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from huggingface_hub import EvalResult

from ddpm_pipeline.cards.conditions import ToldCondition, conditioning_in
from ddpm_pipeline.cards.markdown import code, fenced, number, plain
from ddpm_pipeline.cards.measured import measured_lines
from ddpm_pipeline.cards.origin import origin_lines
from ddpm_pipeline.cards.tables import calibration_text, results_text
from ddpm_pipeline.cards.usage import usage_text
from ddpm_pipeline.common import PRIVATE_KEY, __version__, check_integer

__all__ = ["HEADINGS", "CardFacts", "section_parts"]


HEADINGS = ("", "Samples", "Use", "Results", "Fewer steps", "Training")
_COLORS = {1: "grey", 3: "RGB", 4: "RGBA"}
_SHOWN_CLASSES = 100


@dataclass(frozen=True)
class CardFacts:
    """All that a card is made of.

    Arguments:
        repo_id: Where the model is on the Hub.
        unet: The config of its network.
        scheduler: The config of its scheduler.
        num_parameters: How many numbers its network has.
        picture: Path of the sample grid in the repository, or None.
        training: The fields of its ``TrainingConfig``, or None.
        record: Where and how long it was trained, as ``training_record.json`` has it, or None.
        average: Which average the weights are, as ``average.json`` has it, or None.
        results: What was measured.
        calibration: The content of calibration.json, or None.
        data: What the training images are called, if not as the config says.
        diffusers_version: The version that saved it.
    """

    repo_id: str
    unet: dict[str, Any]
    scheduler: dict[str, Any]
    num_parameters: int
    picture: str | None
    training: dict[str, Any] | None
    record: dict[str, Any] | None
    average: dict[str, Any] | None
    results: Sequence[EvalResult]
    calibration: dict[str, Any] | None
    data: str | None
    diffusers_version: str

    @property
    def num_train_timesteps(self) -> int:
        """Give T."""
        return self.scheduler.get("num_train_timesteps", 1000)

    @property
    def image_size(self) -> tuple[int, int]:
        """Give height and width."""
        size = self.unet["sample_size"]
        return (size, size) if isinstance(size, int) else tuple(size)

    @property
    def num_classes(self) -> int | None:
        """Count the classes without the empty label; None for a model without classes."""
        embeddings = self.unet.get("num_class_embeds")
        return None if embeddings is None else max(embeddings - 1, 1)

    @property
    def class_names(self) -> list[str] | None:
        """Give the names of the classes, from the network's config; None if it knows none."""
        names = (self.unet.get(PRIVATE_KEY) or {}).get("class_names")
        return names if isinstance(names, list) and len(names) == self.num_classes else None

    @property
    def told(self) -> ToldCondition | None:
        """Give what the model is conditioned on beside classes; None of nothing."""
        return conditioning_in(self.unet)

    @property
    def channels(self) -> int:
        """Count the channels of its images."""
        return self.unet["in_channels"] - (0 if self.told is None else self.told.channels)

    @property
    def own_options(self) -> dict[str, dict[str, str]]:
        """Give the scheduler's options that stock diffusers does not know, with substitutes."""
        return self.scheduler.get(PRIVATE_KEY, {}).get("options", {})

    @property
    def lacks_command(self) -> bool:
        """Tell whether there was a run, but no record of the options that a command is made of."""
        return self.training is not None and "options" not in (self.record or {})


def section_parts(facts: CardFacts) -> dict[str, str]:
    """Write the parts of our section by their headings; "" is what stands before the first."""
    texts = (
        _description(facts),
        _samples(facts),
        usage_text(facts),
        results_text(facts.results),
        calibration_text(facts.calibration, facts.results),
        _training(facts),
    )
    parts = zip(HEADINGS, texts, strict=True)
    return {heading: text for heading, text in parts if text is not None}


# What it is.


def _description(facts: CardFacts) -> str:
    height, width = facts.image_size
    channels, told = facts.channels, facts.told
    color = _COLORS.get(channels, f"{channels}-channel")
    count = facts.num_classes
    classes = "" if count is None else f" of {count} classes"
    predicted = facts.scheduler.get("prediction_type", "epsilon")
    names = "" if facts.class_names is None else f" {_named_classes(facts.class_names)}"
    names += "" if told is None else f" {told.sentence}"
    return (
        f"A denoising diffusion model (DDPM) of {height}×{width} {color} images{classes}: a "
        f"{code(facts.unet['_class_name'])} of {facts.num_parameters:,} parameters that predicts "
        f"{code(predicted)}, with T = {facts.num_train_timesteps} steps. Saved with diffusers "
        f"{plain(facts.diffusers_version)}; this section is by ddpm_pipeline {__version__}.{names}"
    )


def _named_classes(names: Sequence[str]) -> str:
    """List the classes with their numbers, the first of many."""
    shown = [f"{number} {plain(name)}" for number, name in enumerate(names[:_SHOWN_CLASSES])]
    more = len(names) - len(shown)
    return f"Classes: {', '.join(shown)}" + (f" and {more:,} more." if more else ".")


def _samples(facts: CardFacts) -> str | None:
    if facts.picture is None:
        return None
    parts = [f"![Samples of this model]({quote(os.fsencode(facts.picture))})"]
    if facts.training is not None:
        parts.append(_caption(facts))
    return "\n\n".join(parts)


def _caption(facts: CardFacts) -> str:
    config, record = facts.training, facts.record or {}
    step = _step_in(facts.picture) or record.get("samples_step")
    after = "" if step is None else f" after {number(step)} updates"
    weights = "the averaged weights" if config["use_ema"] else "the weights"
    classes = _caption_of_classes(facts.num_classes, config["eval_batch_size"])
    K = number(config["ddpm_num_inference_steps"], "d")
    scale = config.get("preview_guidance_scale", 1.0)
    guided = "" if scale == 1 else f"guidance {number(scale, 'g')}, "
    return (
        f"{number(config['eval_batch_size'], 'd')} samples{after}, not selected: {weights}, "
        f"{plain(config['preview_scheduler'].upper())} with K = {K} steps, "
        f"{guided}seed {plain(config['seed'])}{classes}."
    )


def _caption_of_classes(num_classes: int | None, count: int) -> str:
    """Say of which class each image of a sample grid is."""
    if num_classes is None:
        return ""
    has_rows = num_classes <= count
    return ", a row for each class" if has_rows else f", image i of class i mod {num_classes}"


def _step_in(picture: str) -> int | None:
    found = re.fullmatch(r"step-(\d+)", PurePath(picture).stem)
    return None if found is None else int(found[1])


# How it was trained.


def _training(facts: CardFacts) -> str | None:
    config, record = facts.training, facts.record or {}
    if config is None:
        return None
    note = "[training_config.json](training_config.json) holds all options."
    parts = [_data_line(facts)]
    if "options" in record:
        parts.append(fenced(_command(record["options"], record["num_processes"]), "bash"))
        note = f"Paths are shortened to their last part; {note}"
    parts.append(note)
    if record:
        parts += [_record_line(config, record), *measured_lines(record)]
    parts += origin_lines(record, facts.average)
    return "\n\n".join(parts)


def _data_line(facts: CardFacts) -> str:
    config, record = facts.training, facts.record or {}
    name = facts.data or config["dataset_name"] or config["train_data_dir"]
    more = [config["dataset_config_name"]]
    more += [None if config["train_split"] is None else f"split {config['train_split']}"]
    named = ", ".join(plain(part) for part in (name, *more) if part)
    count = record.get("num_images")
    return f"Training images: {named or 'not named'}" + (
        f", {number(count)} of them." if count else "."
    )


def _command(options: dict[str, Any], num_processes: int) -> str:
    """Write the command that trains such a model, an option on each line.

    Raises:
        ValueError: If the record holds what is no option; readers run the command.
    """
    check_integer("num_processes in training_record.json", num_processes)
    for name in options:
        if not re.fullmatch("[a-z][a-z0-9_]*", name):
            raise ValueError(f"training_record.json holds an option {name!r}, which is none")
    launch = f"accelerate launch --num_processes {num_processes} examples/train.py"
    words = ["ddpm train" if num_processes == 1 else launch]
    words += [_option(name, value) for name, value in options.items()]
    return " \\\n  ".join(words)


def _option(name: str, value: object) -> str:
    """Write an option as the command line takes it, in the shell's quotes."""
    if isinstance(value, bool) and name != "rescale_betas_zero_snr":
        return f"--{name}" if value else f"--no_{name}"
    values = value if isinstance(value, list) else [value]
    return " ".join([f"--{name}", *(shlex.quote(" ".join(str(v).split())) for v in values)])


def _record_line(config: dict[str, Any], record: dict[str, Any]) -> str:
    batch = config["train_batch_size"] * config["gradient_accumulation_steps"]
    processes = record["num_processes"]
    threads = record.get("num_threads")
    plural = "" if threads == 1 else "s"
    device = plain(record["device"]) + (
        f", {plain(threads)} thread{plural} each" if threads else ""
    )
    versions = ", ".join(f"{plain(k)} {plain(v)}" for k, v in record["versions"].items())
    return (
        f"{number(record['steps'])} updates of {number(batch * processes)} images in "
        f"{_duration(record['seconds'])}, on {plain(processes)} × {device}; mixed precision: "
        f"{plain(config['mixed_precision'])}. Versions: {versions}."
    )


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
