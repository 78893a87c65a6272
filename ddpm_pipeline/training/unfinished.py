"""Runs that have no saved model yet, told apart before torch is imported.

has_checkpoints_only("runs/photos")                         it was stopped before its first save
has_checkpoints_only("runs/photos/checkpoints/step-0000500")
"""

from __future__ import annotations

import json
from pathlib import Path

from ddpm_pipeline.common import MODEL_INDEX
from ddpm_pipeline.training.config import TrainingConfig

__all__ = [
    "CHECKPOINT_PATTERN",
    "SNAPSHOTS",
    "check_has_checkpoint",
    "check_has_snapshots",
    "has_checkpoints_only",
    "is_checkpoint",
]


CHECKPOINT_PATTERN = "step-*"
SNAPSHOTS = "post-hoc"
"""The folder in a run's folder with snapshots of averages."""
_CHECKPOINT_FILES = ("manifest.json", "state.json")


def is_checkpoint(folder: str | Path) -> bool:
    """Tell whether a folder is a checkpoint of a run."""
    return all(Path(folder, name).is_file() for name in _CHECKPOINT_FILES)


def check_has_checkpoint(folder: str | Path, step: int | None) -> None:
    """Refuse a folder that is no checkpoint and no run with the checkpoint that is asked for.

    Arguments:
        folder: Of a run, or of a checkpoint.
        step: Of the checkpoint; None for any.
    Raises:
        FileNotFoundError: If there is none, or none of that step; names those there are.
    """
    path = Path(folder)
    if is_checkpoint(path):
        return
    names = [found.name for found in path.glob(f"checkpoints/{CHECKPOINT_PATTERN}")]
    steps = sorted(int(name.rpartition("-")[2]) for name in names)
    if not steps:
        raise FileNotFoundError(f"there is no checkpoint in {str(folder)!r}")
    if step is not None and step not in steps:
        there = ", ".join(map(str, steps))
        raise FileNotFoundError(f"checkpoint={step} is not in {str(folder)!r}, which has {there}")


def check_has_snapshots(run: str | Path) -> None:
    """Refuse a run that kept no snapshots of averages.

    Raises:
        FileNotFoundError: If there are none; says what keeps them.
    """
    if not any(Path(run, SNAPSHOTS).glob("step-*.safetensors")):
        raise FileNotFoundError(
            f"there are no snapshots of averages in {str(run)!r}: `ddpm train --post_hoc_steps N` "
            "keeps them"
        )


def has_checkpoints_only(folder: str | Path) -> bool:
    """Tell whether a folder is a checkpoint, or a run that has some and no saved model.

    Raises:
        FileNotFoundError: If it is a run with neither; says when the first will be there.
    """
    path = Path(folder)
    if not path.is_dir() or (path / MODEL_INDEX).exists():
        return False
    if is_checkpoint(path) or any((path / "checkpoints").glob(CHECKPOINT_PATTERN)):
        return True
    if (path / "training_config.json").is_file():
        raise FileNotFoundError(f"there is no model in {str(folder)!r} yet{_first_saves(path)}")
    return False


def _first_saves(run: Path) -> str:
    """Say when a run saves first, and where it is."""
    try:
        config = TrainingConfig.from_json(run / "training_config.json")
    except (OSError, ValueError):  # of another version
        return ""
    last = config.max_train_steps
    model = min(n for n in (config.save_model_steps, last, float("inf")) if n)
    saves = [f"its model is saved first after update {model}"]
    if config.checkpointing_steps and config.checkpointing_steps < model:
        saves.append(
            f"a checkpoint, which can be sampled too, after update {config.checkpointing_steps}"
        )
    return f": {', and '.join(saves)}; {_progress(run)}"


def _progress(run: Path) -> str:
    """Say which update was logged last."""
    try:
        *_, line = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return f"update {json.loads(line)['step']} is the last that was logged"
    except (OSError, ValueError, KeyError):
        return "no update was logged so far"
