"""What waits for the device: nothing in an update, nothing in a step of sampling."""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from gpu.runs import a_model, a_trainer, labelled_images, run_options, some_images, updates

from ddpm_pipeline import DDPMPipeline, TrainingConfig, variational_bound

if TYPE_CHECKING:
    from gpu.found import Found
    from gpu.place import Place

LEARNED = {"variance_type": "learned_range"}
UPDATES = {
    "simple": {},
    "simple, flips": {"random_flip": True},
    "hybrid": {"loss": "hybrid", **LEARNED},
    "vlb": {"loss": "vlb", **LEARNED},
    "importance": {"timestep_sampler": "low_discrepancy_importance"},
}


@contextlib.contextmanager
def waits(place: Place) -> Iterator[Counter]:
    """Count where the block waits for the device; always nowhere in a rehearsal."""
    places: Counter = Counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if place.on_gpu:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            if place.on_gpu:
                torch.cuda.set_sync_debug_mode("default")
    places.update(
        f"{Path(warning.filename).name}:{warning.lineno}"
        for warning in caught
        if "synchronizing CUDA operation" in str(warning.message)
    )


def no_synchronisation(place: Place, found: Found) -> None:
    labels = {"train_data_dir": labelled_images(place), "class_conditional": True}
    by_default = {"compile": TrainingConfig().compile}
    cases = UPDATES | {"labels": labels, "as by default": by_default}
    for name, options in cases.items():
        config = TrainingConfig(**run_options(place, "waiting", **options))
        with place.compiling(), a_trainer(config) as trainer:
            updates(trainer, 3)
            place.wait()
            with waits(place) as places:
                updates(trainer, 3, first=3)
        found.at_most(f"waits in 3 updates, {name}", places.total(), 0)
        found.note(**{f"where, {name}": dict(places)})


def synchronisation_counts(place: Place, found: Found) -> None:
    _sampling(place, found)
    _bound(place, found)


def _sampling(place: Place, found: Found) -> None:
    pipe = DDPMPipeline.from_pretrained(a_model(place)).to(place.device)
    pipe.set_progress_bar_config(disable=True)
    counts = {}
    for steps in (4, 4, 12):  # the first warms up
        with waits(place) as places:
            pipe(batch_size=8, num_inference_steps=steps, output_type="pt")
        counts[steps] = places.total()
        found.note(**{f"sampling, {steps} steps": dict(places)})
    found.at_most("waits of 8 more steps of sampling", counts[12] - counts[4], 0)
    found.at_most("waits of a chunk of sampling", counts[4], 1)


def _bound(place: Place, found: Found) -> None:
    """Blocks of eight calls: from one to three of them."""
    pipe = DDPMPipeline.from_pretrained(a_model(place)).to(place.device)
    counts = {}
    for blocks in (1, 1, 3):
        x_0 = some_images(place, 8 * blocks)
        options = {"timesteps": place.chain(333), "batch_size": 4}
        with waits(place) as places:
            variational_bound(pipe.unet, pipe.scheduler, x_0, **options)
        counts[blocks] = places.total()
        found.note(**{f"bound, {blocks} blocks": dict(places)})
    found.at_most("waits of a block of the bound", (counts[3] - counts[1]) / 2, 1)
