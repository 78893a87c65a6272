"""One name for one thing: the options of all commands, side by side."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import fields
from typing import get_args, get_type_hints

from ddpm_pipeline.calibration import CalibrateConfig
from ddpm_pipeline.cli.push import PushArguments
from ddpm_pipeline.cli.sample import SampleArguments
from ddpm_pipeline.evaluation import EvaluateConfig
from ddpm_pipeline.likelihood import BoundConfig, ScoreConfig
from ddpm_pipeline.training import TrainingConfig

COMMANDS = {
    "train": TrainingConfig,
    "sample": SampleArguments,
    "bound": BoundConfig,
    "score": ScoreConfig,
    "calibrate": CalibrateConfig,
    "evaluate": EvaluateConfig,
    "push": PushArguments,
}
# What options mean that more than one command has; all of them mean it by that name alone.
SHARED = {
    "background": "the colour for transparency and padding",
    "batch_size": "rows of one call of the network",
    "cache_dir": "where decoded images are kept",
    "center_crop": "where the longer side is cut",
    "channels": "of the images",
    "class_labels": "the classes that are drawn",
    "data": "the images that are measured, or compared with",
    "eta": "the share of noise in DDIM",
    "features": "what Fréchet distances are measured in",
    "fit": "what becomes of images of another size",
    "guidance_scale": "of classifier-free guidance",
    "image_column": "of a data set",
    "label_column": "of a data set",
    "guidance_interval": "the timesteps that are guided",
    "guidance_model": "a weaker model that guides",
    "max_pixels": "of an image that is read",
    "model": "the saved model",
    "num_images": "how many images are drawn or measured",
    "num_inference_steps": "K",
    "num_timestep_samples": "timesteps drawn for each image",
    "checkpoint": "of a run",
    "depth": "whether values are kept as deep as they are stored",
    "outside_range": "what becomes of values beyond value_range",
    "condition_on": "images that go with each image",
    "condition_vector": "columns of numbers that go with each image",
    "clip_x_0": "where the predicted x_0 is clamped",
    "dataset_config_name": "which configuration of a data set",
    "decoder": "of the bound",
    "output_dir": "the folder of results",
    "picture_bands": "the channels that pictures show",
    "precision": "the number type of the network",
    "scheduler": "how steps are taken",
    "seed": "what all randomness follows from",
    "solver": "how the model's own scheduler takes steps",
    "split": "which part of the data",
    "tiff_bands": "what is read of TIFF files with several pages or more bands",
    "stack_pattern": "how files are called that are one image together",
    "strict_data": "refuse what cannot be read",
    "target_standard_error": "how sure bits/dim are to be",
    "timestep_sampler": "how timesteps are drawn",
    "value_range": "what becomes black and white",
    "verify_cache": "check all of what is kept of decoded images",
    "variance_type": "of the reverse moves",
}
# Options of `ddpm train`, with diffusers' names, for what others call otherwise.
STOCK = {
    "train_data_dir": "data",
    "train_split": "split",
    "train_batch_size": "batch_size",
    "ddpm_num_inference_steps": "num_inference_steps",
    "preview_scheduler": "scheduler",
    "hub_model_id": "repo_id",
    "hub_private": "private",
    "hub_license": "license",
    "overwrite_output_dir": "overwrite",
}


def options() -> dict[str, dict[str, type]]:
    """The annotation of every option, by its name and command."""
    found: dict[str, dict[str, type]] = defaultdict(dict)
    for command, config in COMMANDS.items():
        for field in fields(config):
            found[field.name][command] = get_type_hints(config)[field.name]
    return found


def test_an_option_of_several_commands_means_one_thing() -> None:
    several = {name for name, commands in options().items() if len(commands) > 1}
    assert several - SHARED.keys() == set(), "say in SHARED what they mean"


def test_one_name_has_one_type() -> None:
    """Words here and numbers there are two things, as `precision` was."""
    for name, commands in options().items():
        kinds = {_kind(hint) for hint in commands.values()}
        assert len(kinds) == 1, (name, commands)


def _kind(hint: object) -> str:
    text = str(hint)
    parts = {str(part) for part in get_args(hint)} | {text}
    numbers = any(word in text for word in ("int", "float"))
    words = "Literal" in text or any("str" in part for part in parts)
    return "words" if words else "numbers" if numbers else "switch"


def test_one_thing_has_one_name() -> None:
    """Names that differ in a word only are two names of one thing, unless they are diffusers'."""
    names = options()
    for stock, ours in STOCK.items():
        assert set(names[stock]) == {"train"}
        assert "train" not in names.get(ours, {})
    assert set(names["output"]) == {"sample"}
    assert set(names["precision"]) == {"sample", "evaluate"}
