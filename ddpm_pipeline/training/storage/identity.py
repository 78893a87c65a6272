"""Which run a run is: what must be the same, and what may differ, where one goes on.

    identity = RunIdentity(config, num_processes, data.fingerprints)
    identity.check_continues(saved_identity(state, path), path, step=500)

A run goes on as another only if it would have made the same updates so far. So all options count
but those in FREE_OPTIONS, and the number of processes, and the images by their content.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddpm_pipeline.training.config import SOURCES, TrainingConfig
from ddpm_pipeline.training.optimizers import COOLDOWN, rates_depend_on_length

__all__ = [
    "FREE_OPTIONS",
    "RunIdentity",
    "differing_fields",
    "saved_config",
    "saved_identity",
]


FREE_OPTIONS = {
    # The data are compared by content, and may lie elsewhere.
    *(name for name in SOURCES if name != "pretrained_model_name_or_path"),
    "cache_dir",
    "verify_cache",
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
    "preview_guidance_scale",
    "preview_guidance_interval",
    "validate_bound_steps",
    "validate_bound_images",
    "validate_fid_steps",
    "validate_fid_images",
    "best_by",
    "keep",
    "early_stop",
    "save_images_epochs",
    "save_images_steps",
    "save_model_epochs",
    "save_model_steps",
    "num_epochs",
    "num_threads",  # the machine's own number counts for nothing either
    "push_to_hub",
    "hub_model_id",
    "hub_strategy",
    "hub_private",
    "hub_license",
    "hub_timeout",
}
"""What may differ between a run and its continuation: none of it touches the weights."""


@dataclass(frozen=True)
class RunIdentity:
    """All by which a run is known as the same, wherever it is kept.

    Arguments:
        config: Resolved.
        num_processes: How many processes train.
        data: Fingerprints of the images, by what they are for.
        derived: The options that nobody gave, which were settled when the config was resolved.
    """

    config: TrainingConfig
    num_processes: int
    data: dict[str, str]
    derived: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON values, for a checkpoint's state."""
        return {
            "config": self.config.to_dict(),
            "num_processes": self.num_processes,
            "data": self.data,
        }

    def check_continues(self, state: dict[str, Any], where: Path, *, step: int) -> None:
        """Refuse to go on from a run that this one is not.

        Arguments:
            state: ``to_dict`` of the run that was interrupted.
            where: Its checkpoint, for the message.
            step: The updates that it made.
        Raises:
            ValueError: If anything differs that may not; names it, with both values.
        """
        differing = self.differing(state, step=step)
        if not differing:
            return
        changes = ", ".join(f"{k}: {a!r} → {b!r}" for k, (a, b) in differing.items())
        remedy = "use the same options to continue it, or another output_dir"
        if "max_train_steps" in differing:
            changes += f"; the learning rates of its {step} updates depend on its length"
            if self.config.lr_scheduler == "constant_with_cooldown":
                changes += (
                    f", the last {float(COOLDOWN):.0%} of which cools down, and there is no "
                    "checkpoint from before"
                )
            remedy += ", which leaves this run as it is"
        raise ValueError(
            f"the run in {str(where)!r} has another configuration ({changes}); {remedy}"
        )

    def differing(self, state: dict[str, Any], *, step: int) -> dict[str, tuple[Any, Any]]:
        """Find what keeps this run from continuing one, with both values.

        Arguments:
            state: ``to_dict`` of the run that was interrupted.
            step: The updates that it made.
        """
        old = saved_config(state["config"])
        differing = differing_fields(old, self.config, step=step)
        if state["num_processes"] != self.num_processes:
            differing["num_processes"] = (state["num_processes"], self.num_processes)
        for name in sorted(state["data"].keys() | self.data.keys()):
            before, after = state["data"].get(name), self.data.get(name)
            if before != after:
                differing[name] = (before, after)
        return differing


def saved_config(values: Mapping[str, Any]) -> TrainingConfig:
    """Read the options of a run that was begun, where it does not matter where its logs are.

    Earlier versions let them lie anywhere in its folder.

    Raises:
        ValueError: As ``TrainingConfig.from_dict``.
    """
    return TrainingConfig.from_dict({**values, "logging_dir": "logs"})


def saved_identity(state: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """Find the identity in a checkpoint's state.

    Arguments:
        state: Of the checkpoint.
        where: The checkpoint, for the message.
    Raises:
        ValueError: If there is none, or it is no ``RunIdentity.to_dict``.
    """
    identity = state.get("identity")
    kinds = {"config": dict, "num_processes": int, "data": dict}
    is_whole = isinstance(identity, dict) and all(
        isinstance(identity.get(name), kind) for name, kind in kinds.items()
    )
    if not is_whole:
        raise ValueError(f"the checkpoint {str(where)!r} is damaged: state.json has no identity")
    return identity


def differing_fields(
    old: TrainingConfig, new: TrainingConfig, *, step: int
) -> dict[str, tuple[Any, Any]]:
    """Find the options, with both values, that keep ``new`` from continuing a run of ``old``.

    The length of the run counts only where the learning rates of the updates that were made
    depend on it.

    Arguments:
        old, new: Resolved.
        step: Updates made.
    """
    free = set(FREE_OPTIONS)
    shortest = min(old.max_train_steps, new.max_train_steps)
    if not rates_depend_on_length(new.lr_scheduler, step, shortest=shortest):
        free.add("max_train_steps")
    before, after = old.to_dict(), new.to_dict()
    return {
        name: (before[name], after[name])
        for name in before
        if name not in free and before[name] != after[name]
    }
