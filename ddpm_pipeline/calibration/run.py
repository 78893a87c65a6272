r"""The forward passes of a calibration: over any batches, on any processes, resumable.

Row i of the data, counted on over repeated passes, is forward number i on whatever process it
runs. Its noise belongs to (seed, i, t), so the sums are those of a single uninterrupted process
but for the order of their rounding.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ddpm_pipeline.calibration.moments import (
    MomentSums,
    stratified_timesteps,
    timestep_shares,
)
from ddpm_pipeline.calibration.spectrum import SpectrumSums, has_spectrum
from ddpm_pipeline.calibration.value_decoder import ValueSums, has_value_classes
from ddpm_pipeline.common import StateFile, float32_arithmetic, moved
from ddpm_pipeline.data import Batches, between_levels, checked_batch, split_batch
from ddpm_pipeline.diffusion import NoiseSchedule, PredictionType, VarianceType, split_output
from ddpm_pipeline.networks import (
    Denoiser,
    Told,
    device_of,
    evaluating,
    image_channels,
    run_denoiser,
)

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["CalibrationRun", "Measured", "NumberedBatch", "Sums", "own_state_file"]


_BATCHES_PER_SAVE = 50


class Measured(NamedTuple):
    """Sums over all forwards, the number of different images, and the shape of one.

    There are none for the spectrum if the images have no axes or too many channels for one, none
    by value if they have no axes or a density, and neither if a part of the forwards was made by a
    version that did not know them.
    """

    sums: MomentSums
    spectrum: SpectrumSums | None
    values: ValueSums | None
    num_images: int
    image_shape: tuple[int, ...]


class Sums(NamedTuple):
    """What every forward is added to."""

    moments: MomentSums
    spectrum: SpectrumSums | None
    values: ValueSums | None = None


class NumberedBatch(NamedTuple):
    """A batch, the number of its first row, and the number of the pass over the data."""

    start: int
    turn: int
    x_0: Tensor
    labels: Told

    @property
    def stop(self) -> int:
        """The number of the row that comes next."""
        return self.start + len(self.x_0)


@dataclass(frozen=True)
class CalibrationRun:
    """The settings of a calibration's forward passes, which ``sum_forwards`` makes.

    Arguments:
        schedule, prediction_type, variance_type: The scheduler's.
        num_forwards: Rows of data to use in all.
        is_discrete: Whether the data are 8-bit, so that residuals are kept for the decoder.
        seed: Of all noise and timesteps, in [0, 2⁶³).
        weights: Hash of the model's weights, if any, which a run that goes on must have too.
    """

    schedule: NoiseSchedule
    prediction_type: PredictionType
    variance_type: VarianceType
    num_forwards: int
    is_discrete: bool
    seed: int
    weights: str | None = None

    def sum_forwards(
        self,
        model: Denoiser,
        batches: Batches,
        *,
        accelerator: Accelerator | None = None,
        state: StateFile | None = None,
        progress: bool = False,
    ) -> Measured:
        """Make all forwards, and sum what they give.

        Arguments:
            model: Called as model(x_t, t), or with class_labels where a batch has them.
            batches: Data (B, C, *) or pairs of data and labels, the same on every process.
            accelerator: Share the rows of every batch among its processes.
            state: Kept up to date, continued from if it exists, deleted at the end.
            progress: Whether to show a progress bar.
        Raises:
            ValueError: If there are too few data, or they do not fit the model or each other.
            TypeError: If the batches are something else.
        """
        state = StateFile(None) if state is None else state
        numbered = self._numbered(batches)
        first = next(numbered)
        shape = first.x_0.shape[1:]
        _check_resolution(model, shape)
        device = accelerator.device if accelerator else device_of(model, first.x_0.device)
        sums = Sums(
            MomentSums.zeros(len(self.schedule), shape, device, histogram=self.is_discrete),
            SpectrumSums.zeros(shape, device) if has_spectrum(shape) else None,
            ValueSums.zeros(device)
            if has_value_classes(shape, is_discrete=self.is_discrete)
            else None,
        )
        done, sums = self._restore(sums, state, shape)
        num_images = 0
        rank = accelerator.process_index if accelerator else 0
        mine = slice(rank, None, accelerator.num_processes if accelerator else 1)
        arithmetic = float32_arithmetic(tf32=False)
        with arithmetic, evaluating(model), self._progress_bar(progress and rank == 0) as bar:
            for i, batch in enumerate(chain([first], numbered), start=1):
                num_images += len(batch.x_0) if batch.turn == 0 else 0
                bar.update(len(batch.x_0))
                if batch.stop <= done:
                    continue
                self.add(sums, model, batch, mine)
                if i % _BATCHES_PER_SAVE == 0:
                    self._save(sums, state, shape, batch.stop)
        if accelerator is not None:
            for part in filter(None, sums):
                for name, value in part.tensors().items():
                    setattr(part, name, accelerator.reduce(value, "sum"))
        state.delete()
        return Measured(*sums, num_images, (*shape,))

    def _progress_bar(self, shown: bool) -> tqdm:
        return tqdm(
            total=self.num_forwards, desc="calibrating", unit=" forwards", disable=not shown
        )

    def add(self, sums: Sums, model: Denoiser, batch: NumberedBatch, mine: slice) -> None:
        """Add the forwards of this process's rows of a batch, without waiting for the device."""
        forwards = torch.arange(batch.start, batch.stop)[mine]
        if not len(forwards):
            return
        device = sums.moments.count.device
        labels = None if batch.labels is None else moved(batch.labels[mine], device)
        t = stratified_timesteps(self._shares, forwards, self.seed / 2**63)
        forwards, t = moved(torch.stack([forwards, t]), device)

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            return split_output(run_denoiser(model, x_t, t, labels), x_t, self.variance_type)[0]

        x_0 = moved(batch.x_0[mine], device)
        residual = sums.moments.add(
            denoise,
            self.schedule,
            self.prediction_type,
            x_0,
            t,
            seed=self.seed,
            forwards=forwards,
        )
        for part in filter(None, sums[1:]):
            part.add(self.schedule, x_0, residual, t)

    @cached_property
    def _shares(self) -> Tensor:
        return timestep_shares(self.schedule)

    def _numbered(self, batches: Batches) -> Iterator[NumberedBatch]:
        """Give all batches up to num_forwards rows, again and again if they can be read again."""
        if isinstance(batches, Tensor):
            raise TypeError("x_0_batches must be batches, such as [x_0], got a Tensor")
        start, shape = 0, None
        for turn in count():
            for item in batches:
                x_0, labels = checked_batch("x_0_batches", *split_batch(item), shape=shape)
                shape = x_0.shape[1:]
                if self.is_discrete:
                    _check_levels(x_0)
                x_0 = x_0[: self.num_forwards - start]
                labels = None if labels is None else labels[: len(x_0)]
                yield NumberedBatch(start, turn, x_0, labels)
                start += len(x_0)
                if start == self.num_forwards:
                    return
            if start == 0:
                raise ValueError("x_0_batches must hold at least one image, got none")
            if iter(batches) is batches:
                raise ValueError(
                    f"x_0_batches held {start} images and cannot be read again, but num_forwards "
                    f"is {self.num_forwards}; pass a list, a DataLoader, or more images"
                )

    def _restore(self, sums: Sums, state: StateFile, shape: torch.Size) -> tuple[int, Sums]:
        """Fill in the sums of an interrupted run; give how many rows they hold, and the sums."""
        saved = state.load()
        if saved is None:
            return 0, sums
        if saved["settings"] != self._settings(shape):
            raise ValueError(
                f"state_file {state.path} is of a calibration with other settings, another "
                "schedule, seed or shape of images, or of another version of ddpm_pipeline; "
                "delete it, or repeat them"
            )
        sums = sums._replace(**{name: None for name in sums._fields[1:] if name not in saved})
        for part, name in zip(sums, ("sums", *sums._fields[1:]), strict=True):
            for key, value in ({} if part is None else part.tensors()).items():
                value.copy_(saved[name][key])
        return saved["done"], sums

    def _save(self, sums: Sums, state: StateFile, shape: torch.Size, done: int) -> None:
        own = {"settings": self._settings(shape), "seed": self.seed, "done": done}
        for name, part in sums._asdict().items():
            if name != "moments" and part is not None:
                own[name] = part.tensors()
        state.save({**own, "sums": sums.moments.tensors()})

    def _settings(self, shape: torch.Size) -> str:
        """Describe all that the sums depend on; a run goes on only from the same."""
        table = self.schedule.log_alpha_bar.tolist()
        sums = [field.name for field in fields(MomentSums)]
        return repr((replace(self, schedule=None), table, tuple(shape), sums))


def own_state_file(
    state_file: str | os.PathLike | None, accelerator: Accelerator | None
) -> StateFile:
    """Give the file that this process goes on from; every process has one of its own."""
    path = None if state_file is None else Path(state_file)
    if path is not None and accelerator is not None and accelerator.num_processes > 1:
        rank, world = accelerator.process_index, accelerator.num_processes
        path = path.with_name(f"{path.name}.{rank}-of-{world}")
    return StateFile(path)


def _check_levels(x_0: Tensor) -> None:
    """Refuse data that are no 8-bit images."""
    if x_0.abs().max() > 1 or between_levels(x_0).any():
        raise ValueError(
            "x_0_batches must hold 8-bit images, 2 k/255 - 1 with k = 0, ..., 255, for "
            f"decoder='discretized', got values from {x_0.min():.4g} to {x_0.max():.4g} "
            "beside the levels; pass decoder='continuous' for other data"
        )


def _check_resolution(model: Denoiser, shape: torch.Size) -> None:
    """Refuse images of another shape than a diffusers model says that it is for."""
    config = getattr(model, "config", None)
    size = getattr(config, "sample_size", None)
    if size is None or getattr(config, "in_channels", None) is None or len(shape) != 3:
        return
    channels = image_channels(model)
    expected = (channels, *((size, size) if isinstance(size, int) else size))
    if tuple(shape) != expected:
        raise ValueError(f"x_0_batches must hold images of shape {expected}, got {(*shape,)}")
