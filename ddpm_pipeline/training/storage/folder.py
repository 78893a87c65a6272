"""The folder of a run: what lies where, whether a run may use it, and where the run goes on.

output_dir/  model_index.json, unet/, scheduler/     the model, as DDPMPipeline saves it
             training_record.json, samples.png       how it was trained; the newest sample grid
             training_images.safetensors             hashes, by which those images are known again
             training_config.json, metrics.jsonl
             samples/step-0000500.png
             checkpoints/step-0000500/               see longer.py for what lies beside them
             post-hoc/step-0000500.safetensors       see snapshots.py
             logs/
             .written.jsonl                          what runs wrote, see written.py
"""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from PIL import Image
from safetensors.torch import save

from ddpm_pipeline.common import (
    discard_unfinished,
    printable,
    write_aside,
    write_json,
    write_picture,
)
from ddpm_pipeline.data import TRAINING_IMAGES_NAME
from ddpm_pipeline.hub import parse_hub_checkpoint
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.paths import check_given_checkpoint, refuse_used_folder
from ddpm_pipeline.training.storage.checkpoints import (
    adopt_checkpoint,
    check_whole,
    newest_checkpoint,
    read_state,
)
from ddpm_pipeline.training.storage.identity import (
    RunIdentity,
    differing_fields,
    saved_config,
    saved_identity,
)
from ddpm_pipeline.training.storage.longer import SHORTER, earlier_start, set_aside_later
from ddpm_pipeline.training.storage.written import WrittenFiles
from ddpm_pipeline.training.unfinished import SNAPSHOTS

if TYPE_CHECKING:
    from torch import Tensor

    from ddpm_pipeline.pipelines import DDPMPipeline
    from ddpm_pipeline.schedulers import DDPMScheduler

__all__ = ["RunFolder"]

logger = logging.getLogger(__name__)


_GRID = "step-"
_NETWORK = "network.safetensors"
_SIDE = 512  # of samples.png, up to which small grids are enlarged


class RunFolder:
    """An output_dir: the paths in it, and what is done with all of it.

    Arguments:
        output_dir: The folder.
    """

    def __init__(self, output_dir: str | Path) -> None:
        self.path = Path(output_dir).expanduser()
        self.samples = self.path / "samples"
        self.checkpoints = self.path / "checkpoints"
        self.snapshots = self.path / SNAPSHOTS
        self.metrics = self.path / "metrics.jsonl"
        self.identity = self.path / "training_config.json"
        self.model = self.path / "model_index.json"
        self.record = self.path / "training_record.json"
        self.picture = self.path / "samples.png"
        self.images = self.path / TRAINING_IMAGES_NAME
        self.written = WrittenFiles(self.path)
        self._lock = FileLock(self.path / ".lock", timeout=0)

    def grid_path(self, step: int) -> Path:
        """Name the place of a step's sample grid."""
        return self.samples / f"{_GRID}{step:07d}.png"

    def newest_grid(self) -> Path | None:
        """Find the newest sample grid; give None if there is none."""
        return max(self.samples.glob(f"{_GRID}*.png"), default=None)

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
        for folder in (self.path, self.samples, self.snapshots):
            discard_unfinished(folder)

    def unlock(self) -> None:
        """Let other runs in."""
        if self._lock.is_locked:
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()

    def begin(self, identity: RunIdentity, fetched: Path | None = None) -> Path | None:
        """Make the folder ready for a run.

        Arguments:
            identity: Of the run.
            fetched: The checkpoint that resume_from_checkpoint="hub" stands for. One that was
                downloaded is moved to the folder's checkpoints.
        Returns:
            The checkpoint to go on from; None if the run starts from nothing.
        Raises:
            ValueError: If it holds a run of another configuration, or damaged checkpoints only.
            FileExistsError: If it holds a run or a model that must not be overwritten.
        """
        config = identity.config
        if config.overwrite_output_dir:
            self.written.begin(config.logging_dir)
            self.written.delete()
        path = self._find(config) if fetched is None else fetched
        if path is None:
            self._check_unused(identity)
        else:
            path = self._earlier(path, identity) or path
            state = read_state(path)
            identity.check_continues(saved_identity(state, path), path, step=state["step"])
            if state["step"] > config.max_train_steps:
                raise ValueError(
                    f"max_train_steps={config.max_train_steps} is below step {state['step']} of "
                    f"the checkpoint {str(path)!r}"
                )
            if fetched is not None and path.parent != self.checkpoints:
                path = adopt_checkpoint(path, self.checkpoints)
            logger.info("going on from %s", printable(str(path)))
        self.samples.mkdir(parents=True, exist_ok=True)
        self.written.begin(config.logging_dir)
        self.written.note(self.identity, self.metrics)
        if path is not None and path.parent == self.checkpoints:
            self.written.note_checkpoint(path)
        identity.config.save_json(self.identity, derived=identity.derived)
        return path

    def _earlier(self, newest: Path, identity: RunIdentity) -> Path | None:
        """Find where a longer run goes on, if that is not the newest checkpoint of this folder.

        What the shorter run made after that is moved aside.
        """
        if newest.parent != self.checkpoints:
            return None
        path = earlier_start(self.checkpoints, newest, identity)
        if path is not None:
            logger.info(
                "max_train_steps=%d is longer than the run: going back to before its cooldown",
                identity.config.max_train_steps,
            )
            self.written.delete(SHORTER)
            step, folders = read_state(path)["step"], (self.samples, self.snapshots)
            moved = set_aside_later(step, self.checkpoints, *folders)
            self.written.note(*(path for path in moved if not path.is_dir()))
            self.written.note_checkpoint(*(path for path in moved if path.is_dir()))
        return path

    def last_state(self, config: TrainingConfig) -> dict[str, Any] | None:
        """Read the state of the checkpoint that a run would go on from; None if it is not here."""
        if config.overwrite_output_dir:
            return None
        resume = config.resume_from_checkpoint
        named = Path(resume).expanduser()
        if resume in {"latest", "none"} or not named.is_dir():
            named = max(self.checkpoints.glob("step-*"), default=None)
        if resume == "none" or named is None:
            return None
        try:
            return read_state(named)
        except (OSError, ValueError):  # damaged; what looks for a whole one says so
            return None

    def _find(self, config: TrainingConfig) -> Path | None:
        """Find the checkpoint that resume_from_checkpoint names, unless the Hub has it."""
        resume = config.resume_from_checkpoint
        if resume == "latest":
            return newest_checkpoint(self.checkpoints)
        if resume == "none" or parse_hub_checkpoint(resume, config.hub_model_id) is not None:
            return None
        check_given_checkpoint(resume)
        check_whole(Path(resume).expanduser())
        return Path(resume).expanduser()

    def _check_unused(self, identity: RunIdentity) -> None:
        """Refuse to start from nothing in a folder that holds more than the start of this run.

        A run that was killed before its first checkpoint leaves such a start.
        """
        in_the_way = [p.name for p in (self.model, self.metrics) if p.exists()]
        in_the_way += sorted(p.name for p in self.checkpoints.glob("step-*"))
        if not in_the_way:
            return
        only_a_start = in_the_way == [self.metrics.name] and self.identity.exists()
        if only_a_start and identity.config.resume_from_checkpoint in {"latest", "hub"}:
            values = json.loads(self.identity.read_text(encoding="utf-8"))
            old = saved_config({k: v for k, v in values.items() if k != "derived"})
            if not differing_fields(old, identity.config, step=0):
                return
        refuse_used_folder(self.path, in_the_way)

    def holds_model_of(self, checkpoint: Path | None, step: int) -> bool:
        """Tell whether the folder holds the whole model of one of its checkpoints.

        What the user did to that model since, such as a calibration, is then theirs to keep.

        Arguments:
            checkpoint: The checkpoint, which may lie elsewhere, or None.
            step: The checkpoint's step.
        """
        parts = [self.model, self.record, *(self.path / n for n in ("unet", "scheduler"))]
        if checkpoint is None or checkpoint.parent != self.checkpoints:
            return False
        if not all(part.exists() for part in parts):
            return False
        # It is written last, so that it tells of a model that was replaced in all its parts.
        return json.loads(self.record.read_text(encoding="utf-8")).get("steps") == step

    def save_model(self, pipeline: DDPMPipeline, record: dict[str, Any]) -> None:
        """Save a pipeline and the record of its training in place of older ones.

        The newest sample grid becomes the model's picture, or that of the weights that are kept.
        The record is written last. What else lies in the model's folders stays.
        """
        pipeline.save_pretrained(self.path)
        self.written.note_model()
        self.written.note(self.picture, self.record, self.images)
        kept = self.grid_path(record["kept"]["step"]) if "kept" in record else None
        grid = kept if kept is not None and kept.exists() else self.newest_grid()
        if grid is not None:
            _save_enlarged(grid, self.picture)
            record = {**record, "samples_step": int(grid.stem.removeprefix(_GRID))}
        write_json(self.record, record)

    def save_network(
        self, weights: dict[str, Tensor], scheduler: DDPMScheduler, record: dict[str, Any]
    ) -> None:
        """Save the weights of a network that no pipeline can hold, and what it was trained for."""
        path = self.path / _NETWORK
        own = {name.removeprefix("network."): w.cpu().contiguous() for name, w in weights.items()}
        with write_aside(path) as file:
            file.write(save(own))
        scheduler.save_pretrained(self.path / "scheduler")
        self.written.note(path, self.picture, self.record, self.images)
        write_json(self.record, record)


def _save_enlarged(picture: Path, path: Path) -> None:
    """Copy a picture, with its pixels repeated if it is too small to look at."""
    with Image.open(picture) as small:
        times = math.ceil(_SIDE / max(small.size))
        large = small.resize((times * small.width, times * small.height), Image.Resampling.NEAREST)
        write_picture(path, large)
