"""TODO training.storage.identity."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from ddpm_pipeline.training.config import TrainingConfig

__all__ = ["COOLDOWN", "FREE_OPTIONS", "RunIdentity", "differing_fields"]


# What may differ between a run and its continuation: none of it touches the weights. The data are
# compared by content, so the paths to them may change.
FREE_OPTIONS = {
    "train_data_dir",
    "dataset_name",
    "validation_data_dir",
    "model_config_name_or_path",
    "cache_dir",
    "output_dir",
    "overwrite_output_dir",
    "logger",
    "logging_dir",
    "checkpointing_steps",
    "checkpoints_total_limit",
    "resume_from_checkpoint",
    "logging_steps",
    "validation_steps",
    "eval_batch_size",
    "ddpm_num_inference_steps",
    "preview_scheduler",
    "validate_bound_steps",
    "validate_bound_images",
    "save_images_epochs",
    "save_images_steps",
    "save_model_epochs",
    "save_model_steps",
    "num_epochs",
    "push_to_hub",
    "hub_model_id",
    "hub_strategy",
    "hub_private",
    "hub_timeout",
}


COOLDOWN = Fraction(1, 5)
"""The share of a run in which constant_with_cooldown cools."""


def differing_fields(
    old: TrainingConfig, new: TrainingConfig, *, step: int
) -> dict[str, tuple[Any, Any]]:
    """The fields, with both values, that keep ``new`` from continuing a run of ``old``.

    Both are resolved. The length of the run counts only where the learning rates of the updates
    that are done, ``step`` of them, depend on it.
    """
    any_length = new.lr_scheduler in {"constant", "constant_with_warmup"}
    if new.lr_scheduler == "constant_with_cooldown":
        shorter = min(old.max_train_steps, new.max_train_steps)
        any_length = step - 1 <= (1 - COOLDOWN) * shorter  # the newest update is step - 1
    free = FREE_OPTIONS | ({"max_train_steps"} if any_length else set())
    before, after = old.to_dict(), new.to_dict()
    return {
        name: (before[name], after[name])
        for name in before
        if name not in free and before[name] != after[name]
    }


@dataclass(frozen=True)
class RunIdentity:
    """What makes two runs the same run, beside where they are kept.

    Arguments:
        config: Resolved.
        num_processes: How many processes train.
        data: Fingerprints of the images, by what they are for.
    """

    config: TrainingConfig
    num_processes: int
    data: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "config": self.config.to_dict(),
            "num_processes": self.num_processes,
            "data": self.data,
        }

    def check_continues(self, state: dict[str, Any], where: Path, *, step: int) -> None:
        """ValueError, with what differs, unless a run with this state may go on as this one.

        It has done ``step`` updates.
        """
        old = TrainingConfig.from_dict(state["config"])
        differing: dict[str, Any] = dict(differing_fields(old, self.config, step=step))
        if state["num_processes"] != self.num_processes:
            differing["num_processes"] = (state["num_processes"], self.num_processes)
        for name in sorted(state["data"].keys() | self.data.keys()):
            before, after = state["data"].get(name), self.data.get(name)
            if before != after:
                differing[name] = (before, after)
        if differing:
            changes = ", ".join(f"{k}: {a!r} → {b!r}" for k, (a, b) in differing.items())
            if "max_train_steps" in differing:
                changes += f"; the learning rates of its {step} updates depend on its length"
                if self.config.lr_scheduler == "constant_with_cooldown":
                    changes += f", the last {float(COOLDOWN):.0%} of which cools down"
            raise ValueError(
                f"the run in {str(where)!r} has another configuration ({changes}); use the same "
                "options to continue it, another output_dir, or overwrite_output_dir"
            )
