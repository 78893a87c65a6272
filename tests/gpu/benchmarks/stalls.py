"""How long a checkpoint stops a run."""

from __future__ import annotations

import shutil
import statistics
import time
from typing import TYPE_CHECKING

from gpu.found import spread
from gpu.runs import a_trainer, run_options

from ddpm_pipeline import TrainingConfig

if TYPE_CHECKING:
    from gpu.found import Found
    from gpu.place import Place

EVERY = 500  # updates between two checkpoints, by default


def checkpoints(place: Place, found: Found) -> None:
    """With the device idle before: what is timed is the call, not the updates before it."""
    found.table("network", "ms of a checkpoint", "ms/update", "of the time of 500 updates")
    for size in place.pick(("small", "ddpm"), ("small",)):
        shutil.rmtree(place.folder / f"stall-{size}", ignore_errors=True)
        options = {"model_size": size} if not place.rehearses else {}
        if size == "ddpm":
            options |= {"resolution": 32, "train_batch_size": 128}
            options["train_data_dir"] = place.images(32, 3, 8_000)
        config = TrainingConfig(**run_options(place, f"stall-{size}", **options))
        stalls, update = _times(place, config)
        stall = statistics.median(stalls)
        share = stall / (EVERY * update)
        found.row(size, 1000 * stall, 1000 * update, share)
        found.speed_at_most(f"of the time of {EVERY} updates, {size}", share, 0.02)
        found.note(**{f"seconds, {size}": spread(stalls)})


def _times(place: Place, config: TrainingConfig) -> tuple[list[float], float]:
    """Seconds of each of some checkpoints, and of an update."""
    steps, stalls = place.pick(20, 2), []
    with a_trainer(config) as trainer:
        trainer.folder.lock()
        try:
            trainer._begin()
            done = 0
            for _ in range(4):
                place.wait()
                began = time.perf_counter()
                for _ in range(steps):
                    trainer.monitor.add(*trainer.learner.update(done, trainer.batches))
                    done += 1
                place.wait()
                update = (time.perf_counter() - began) / steps
                trainer.monitor.log(done)
                began = time.perf_counter()
                trainer.saver.save_checkpoint(done)
                stalls.append(time.perf_counter() - began)
        finally:
            trainer.folder.unlock()
    return stalls[1:], update
