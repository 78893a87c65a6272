"""Models of any average length, out of the snapshots that a run left.

    found = averaged_model("runs/photos", 0.15)             at its end; or as it was at any step
    found.pipeline(batch_size=4)
    save_average("runs/photos", "model-015", 0.15)

The weights are a mixture of those in the snapshots, summed in float64: see ``profiles``. A folder
that is saved says in average.json what it is.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ddpm_pipeline.common import check_integer, check_new_folder, write_json, written_aside
from ddpm_pipeline.pipelines import DDPMPipeline
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.lengths import gamma_of
from ddpm_pipeline.training.profiles import Mixture, Profile, mixture_of
from ddpm_pipeline.training.setup import clamped_as_trained
from ddpm_pipeline.training.storage.export import (
    copy_known_images,
    derived_in,
    network_of,
    run_scheduler,
)
from ddpm_pipeline.training.storage.snapshots import Snapshot, read_snapshots
from ddpm_pipeline.training.unfinished import SNAPSHOTS, check_has_snapshots

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["AveragedModel", "averaged_model", "save_average"]

logger = logging.getLogger(__name__)


AVERAGE_NAME = "average.json"
_OPTIONS, _RECORD = "training_config.json", "training_record.json"
_OF_OTHER_WEIGHTS = (
    "kept",
    "distances",
    "samples_step",
)  # in the record, of the model that the run saved
_FAR = 0.05  # of the wanted profile's norm, which is said


@dataclass(frozen=True, eq=False)
class AveragedModel:
    """A model whose weights are a power-function average.

    Arguments:
        pipeline: With these weights.
        sigma_rel: The length of the average, as a share of ``step``.
        step: The update up to which weights are averaged.
        error: How far the profile of the mixture is from the wanted one, as a share of its norm.
        num_snapshots: How many snapshots went into it.
        config: Of the run, resolved.
    """

    pipeline: DDPMPipeline
    sigma_rel: float
    step: int
    error: float
    num_snapshots: int
    config: TrainingConfig

    def __str__(self) -> str:
        return (
            f"the average of sigma_rel {self.sigma_rel:g} at update {self.step}, of "
            f"{self.num_snapshots} snapshots, its profile within {100 * self.error:.2g}%"
        )

    def to_dict(self) -> dict[str, Any]:
        """Give what the average is, as JSON values."""
        return {
            "sigma_rel": self.sigma_rel,
            "gamma": gamma_of(self.sigma_rel),
            "step": self.step,
            "profile_error": self.error,
            "num_snapshots": self.num_snapshots,
        }


def averaged_model(run: str | Path, sigma_rel: float, step: int | None = None) -> AveragedModel:
    """Make the model that an average of any length would have given.

    Arguments:
        run: The output_dir of a run with ``post_hoc_steps``, finished or not.
        sigma_rel: The length of the average, above 0 and at most 0.2887.
        step: The update at which it is taken; that of the last snapshot by default.
    Raises:
        FileNotFoundError: If there are no snapshots.
        ValueError: If the length or the step is not allowed, or a snapshot is damaged.
    """
    gamma_of(sigma_rel)  # refuses what is no length
    check_has_snapshots(run)
    snapshots = read_snapshots(Path(run) / SNAPSHOTS)
    step = _checked_step(step, snapshots[-1])
    used = _around(snapshots, step)
    mixture = mixture_of(
        [Profile(length, s.step) for s in used for length in s.sigma_rels],
        Profile(sigma_rel, step),
    )
    if mixture.error > _FAR:
        logger.warning(
            "the snapshots give the average of sigma_rel %g at update %d to %.0f%% only: those "
            "of a run with fewer post_hoc_steps come nearer",
            sigma_rel,
            step,
            100 * mixture.error,
        )
    config = TrainingConfig.from_json(Path(run) / _OPTIONS)
    unet = network_of(used[0].network, _mixed(used, mixture))
    pipeline = DDPMPipeline(
        unet.eval(), clamped_as_trained(run_scheduler(Path(run), config), unet)
    )
    return AveragedModel(pipeline, sigma_rel, step, mixture.error, len(used), config)


def save_average(
    run: str | Path,
    output: str | Path,
    sigma_rel: float,
    step: int | None = None,
    *,
    more: dict[str, Any] | None = None,
) -> AveragedModel:
    """Save the model of an average as a run saves its own, with the options of the run.

    Arguments:
        run, sigma_rel, step: As for ``averaged_model``.
        output: A new or empty folder.
        more: What average.json says beside.
    Raises:
        FileExistsError: If there is anything in output.
        OSError, ValueError: As ``averaged_model``, or if it cannot be written.
    """
    check_new_folder("output_dir", output)
    output = Path(output)
    found = averaged_model(run, sigma_rel, step)
    with written_aside(output) as aside:
        found.pipeline.save_pretrained(aside)
        found.config.save_json(aside / _OPTIONS, derived=derived_in(Path(run)))
        if (record := _record_of(Path(run))) is not None:
            write_json(aside / _RECORD, record)
        copy_known_images(Path(run), aside)
        write_json(aside / AVERAGE_NAME, {**found.to_dict(), **(more or {})})
    return found


def _record_of(run: Path) -> dict[str, Any] | None:
    """Read how the run was, for the card; None where it has saved no model yet."""
    path = run / _RECORD
    if not path.is_file():
        return None
    record = json.loads(path.read_bytes())
    return {name: value for name, value in record.items() if name not in _OF_OTHER_WEIGHTS}


def _checked_step(step: int | None, last: Snapshot) -> int:
    """Give the update at which to average; refuse one that the snapshots do not reach."""
    if step is None:
        return last.step
    check_integer("step", step, least=1)
    if step > last.step:
        raise ValueError(f"step must be at most {last.step}, of the last snapshot, got {step}")
    return step


def _around(snapshots: Sequence[Snapshot], step: int) -> list[Snapshot]:
    """Choose the snapshots up to an update, and the next, which has seen what was before it."""
    before = [snapshot for snapshot in snapshots if snapshot.step < step]
    return [*before, snapshots[len(before)]]


def _mixed(snapshots: Sequence[Snapshot], mixture: Mixture) -> dict[str, Tensor]:
    """Sum the averages of snapshots with the weights of a mixture, in float64."""
    weights, total, kinds = iter(mixture.weights.tolist()), {}, {}
    for snapshot in snapshots:
        for state in snapshot.averages().values():
            weight = next(weights)
            for name, tensor in state.items():
                kinds[name] = tensor.dtype
                total.setdefault(name, torch.zeros_like(tensor, dtype=torch.float64))
                total[name].add_(tensor.double(), alpha=weight)
    return {name: tensor.to(kinds[name]) for name, tensor in total.items()}
