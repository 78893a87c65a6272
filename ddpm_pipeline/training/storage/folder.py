"""The folder of a run: what is in it, whether a run may use it, and where the run goes on.

output_dir/  model_index.json, unet/, scheduler/     the model, as DDPMPipeline saves it
             training_record.json, samples.png       how it was trained; the newest sample grid
             training_config.json, metrics.jsonl
             samples/step-0000500.png
             checkpoints/step-0000500/
             logs/
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from PIL import Image

from ddpm_pipeline.common import write_text
from ddpm_pipeline.hub import parse_hub_checkpoint
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.paths import check_given_checkpoint, refuse_used_folder
from ddpm_pipeline.training.storage.checkpoints import (
    adopt_checkpoint,
    check_whole,
    newest_checkpoint,
    read_state,
)
from ddpm_pipeline.training.storage.identity import RunIdentity, differing_fields

if TYPE_CHECKING:
    from ddpm_pipeline.pipelines import DDPMPipeline

__all__ = ["RunFolder"]

logger = logging.getLogger(__name__)


_WIDTH = 320  # of samples.png, which small grids do not exceed


class RunFolder:
    """Paths in an output_dir, and what is done with it as a whole."""

    def __init__(self, output_dir: str | Path) -> None:
        self.path = Path(output_dir)
        self.samples = self.path / "samples"
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"
        self.identity = self.path / "training_config.json"
        self.model = self.path / "model_index.json"
        self.record = self.path / "training_record.json"
        self.picture = self.path / "samples.png"
        self._lock = FileLock(self.path / ".lock", timeout=0)

    def lock(self) -> None:
        """Keep other runs out of the folder.

        Raises:
            FileExistsError: If another run is in it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise FileExistsError(
                f"another process is training in output_dir {str(self.path)!r}"
            ) from None

    def unlock(self) -> None:
        """Let other runs in."""
        if self._lock.is_locked:
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()

    def begin(self, identity: RunIdentity, fetched: Path | None = None) -> Path | None:
        """Make the folder ready for a run; where the checkpoint to continue from is, if any.

        Arguments:
            identity: Of the run.
            fetched: The checkpoint that resume_from_checkpoint="hub" stands for; one that was
                downloaded becomes one of the run's own.
        Raises:
            ValueError: If it holds a run of another configuration, or damaged checkpoints only.
            FileExistsError: If it holds a run or a model that must not be overwritten.
        """
        config = identity.config
        if config.overwrite_output_dir:
            self._clear(config.logging_dir)
        path = self._find(config) if fetched is None else fetched
        if path is None:
            self._check_unused(identity)
        else:
            state = read_state(path)
            identity.check_continues(state["identity"], path, step=state["step"])
            if state["step"] > config.max_train_steps:
                raise ValueError(
                    f"max_train_steps={config.max_train_steps} is below step {state['step']} of "
                    f"the checkpoint {str(path)!r}"
                )
            if fetched is not None and path.parent != self.checkpoints:
                path = adopt_checkpoint(path, self.checkpoints)
            logger.info("going on from %s", path)
        self.samples.mkdir(parents=True, exist_ok=True)
        identity.config.save_json(self.identity)
        return path

    def _find(self, config: TrainingConfig) -> Path | None:
        resume = config.resume_from_checkpoint
        if resume == "latest":
            return newest_checkpoint(self.checkpoints)
        if resume == "none" or parse_hub_checkpoint(resume, config.hub_model_id) is not None:
            return None
        check_given_checkpoint(resume)
        check_whole(Path(resume))
        return Path(resume)

    def _check_unused(self, identity: RunIdentity) -> None:
        """A run may start from nothing in a folder where nothing, or only its own start, is."""
        in_the_way = [p.name for p in (self.model, self.metrics) if p.exists()]
        in_the_way += sorted(p.name for p in self.checkpoints.glob("step-*"))
        if not in_the_way:
            return
        own_start = in_the_way == [self.metrics.name] and self.identity.exists()
        if own_start and identity.config.resume_from_checkpoint in {"latest", "hub"}:
            old = TrainingConfig.from_json(self.identity)
            if not differing_fields(old, identity.config, step=0):
                return
        refuse_used_folder(self.path, in_the_way)

    def _clear(self, logging_dir: str) -> None:
        """Delete a run's files, and no others."""
        if not self.identity.exists():
            return
        folders = [self.samples, self.checkpoints, self.path / logging_dir]
        folders += [self.path / name for name in ("unet", "scheduler")]
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.model, self.metrics, self.identity, self.record, self.picture):
            file.unlink(missing_ok=True)

    def holds_model_of(self, checkpoint: Path | None, step: int) -> bool:
        """Whether the model of a checkpoint of this folder, at its step, is saved and whole.

        What the user did to it since, such as a calibration, is then theirs to keep.
        """
        parts = [self.model, self.record, *(self.path / n for n in ("unet", "scheduler"))]
        if checkpoint is None or checkpoint.parent != self.checkpoints:
            return False
        if not all(part.exists() for part in parts):
            return False
        # It is written last, so that it tells of a model that was replaced in all its parts.
        return json.loads(self.record.read_text(encoding="utf-8")).get("steps") == step

    def save_model(self, pipeline: DDPMPipeline, record: dict[str, Any]) -> None:
        """Save a pipeline and the record of its training, replacing older ones part by part."""
        aside = self.path / ".model.aside"
        shutil.rmtree(aside, ignore_errors=True)
        pipeline.save_pretrained(aside)
        for part in aside.iterdir():
            target = self.path / part.name
            if target.is_dir():
                shutil.rmtree(target)
            part.replace(target)
        aside.rmdir()
        grids = sorted(self.samples.glob("step-*.png"))
        if grids:
            aside = self.path / ".samples.aside"
            _save_enlarged(grids[-1], aside)
            aside.replace(self.picture)
            record = {**record, "samples_step": int(grids[-1].stem.removeprefix("step-"))}
        write_text(self.record, json.dumps(record, indent=2) + "\n")


def _save_enlarged(picture: Path, path: Path) -> None:
    """Copy a picture, its pixels repeated if it is too small to be looked at."""
    with Image.open(picture) as small:
        times = max(1, _WIDTH // small.width)
        large = small.resize((times * small.width, times * small.height), Image.Resampling.NEAREST)
        large.save(path, "png")
