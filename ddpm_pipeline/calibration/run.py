r"""The forward passes of a calibration: over any batches, on any processes, resumable.

Row i of the data, counted on over repeated passes, is forward number i on whatever process it
runs. Its noise belongs to (seed, i, t), so the sums are those of a single uninterrupted process
but for the order of their rounding.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ddpm_pipeline.calibration.moments import MomentSums, stratified_timesteps
from ddpm_pipeline.common import StateFile
from ddpm_pipeline.diffusion import NoiseSchedule, PredictionType, VarianceType, split_output
from ddpm_pipeline.networks import Denoiser, device_of, evaluating, run_denoiser

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Batches", "CalibrationRun", "Measured", "own_state_file"]


Batches = Iterable[Tensor | tuple[Tensor, Tensor | None]]

# How far from its level, in levels, a value may be by rounding.
_LEVEL_TOLERANCE = 1e-2
_BATCHES_PER_SAVE = 50


class Measured(NamedTuple):
    """Sums over all forwards, the number of different images, and the shape of one."""

    sums: MomentSums
    num_images: int
    image_shape: tuple[int, ...]


class _Rows(NamedTuple):
    """A batch: the number of its first row, which pass over the data it is of, and the rows."""

    start: int
    turn: int
    x_0: Tensor
    labels: Tensor | None


@dataclass(frozen=True)
class CalibrationRun:
    """What is measured, and with how many forwards.

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

    def measure(
        self,
        model: Denoiser,
        batches: Batches,
        *,
        accelerator: Accelerator | None = None,
        state: StateFile | None = None,
        progress: bool = False,
    ) -> Measured:
        """Make all forwards.

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
        rank = accelerator.process_index if accelerator else 0
        world = accelerator.num_processes if accelerator else 1
        rows = self._rows(batches)
        first = next(rows)
        shape = first.x_0.shape[1:]
        _check_resolution(model, shape)
        device = accelerator.device if accelerator else device_of(model, first.x_0.device)
        sums = MomentSums.zeros(len(self.schedule), shape, device, histogram=self.is_discrete)
        state = StateFile(None) if state is None else state
        settings = self._settings(shape)
        done, num_images = self._restore(sums, state, settings), 0
        bar = tqdm(
            total=self.num_forwards,
            desc="calibrating",
            unit=" forwards",
            disable=not progress or rank > 0,
        )
        with evaluating(model), bar:
            for i, batch in enumerate(chain([first], rows), start=1):
                stop = batch.start + len(batch.x_0)
                num_images += len(batch.x_0) if batch.turn == 0 else 0
                bar.update(len(batch.x_0))
                if stop <= done:
                    continue
                if batch.x_0.shape[1:] != shape:
                    raise ValueError(
                        "x_0_batches must hold images of one shape, got "
                        f"{(*shape,)} and {(*batch.x_0.shape[1:],)}"
                    )
                self._add(sums, model, batch, slice(rank, None, world))
                if i % _BATCHES_PER_SAVE == 0:
                    own = {"settings": settings, "seed": self.seed, "done": stop}
                    state.save({**own, "sums": sums.tensors()})
        if accelerator is not None:
            for name, value in sums.tensors().items():
                setattr(sums, name, accelerator.reduce(value, "sum"))
        state.delete()
        return Measured(sums, num_images, (*shape,))

    def _add(self, sums: MomentSums, model: Denoiser, batch: _Rows, mine: slice) -> None:
        forwards = torch.arange(batch.start, batch.start + len(batch.x_0))[mine]
        if not len(forwards):
            return
        device = sums.count.device
        labels = None if batch.labels is None else batch.labels[mine].to(device)
        t = stratified_timesteps(self.schedule, forwards, self.seed / 2**63)

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            return split_output(run_denoiser(model, x_t, t, labels), x_t, self.variance_type)[0]

        sums.add(
            denoise,
            self.schedule,
            self.prediction_type,
            batch.x_0[mine].to(device),
            t.to(device),
            seed=self.seed,
            forwards=forwards.to(device),
        )

    def _rows(self, batches: Batches) -> Iterator[_Rows]:
        """All batches up to num_forwards rows, again and again if they can be read again."""
        if isinstance(batches, Tensor):
            raise TypeError("x_0_batches must be batches, such as [x_0], got a Tensor")
        start = 0
        for turn in count():
            for batch in batches:
                x_0, labels = _checked(batch, is_discrete=self.is_discrete)
                x_0 = x_0[: self.num_forwards - start]
                yield _Rows(start, turn, x_0, None if labels is None else labels[: len(x_0)])
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

    @staticmethod
    def _restore(sums: MomentSums, state: StateFile, settings: str) -> int:
        """Fill in the sums of an interrupted run; how many rows they hold."""
        saved = state.load()
        if saved is None:
            return 0
        if saved["settings"] != settings:
            raise ValueError(
                f"state_file {state.path} is of a calibration with other settings, another "
                "schedule, seed or shape of images, or of another version of ddpm_pipeline; "
                "delete it, or repeat them"
            )
        for name, value in sums.tensors().items():
            value.copy_(saved["sums"][name])
        return saved["done"]

    def _settings(self, shape: torch.Size) -> str:
        table = self.schedule.log_alpha_bar.tolist()
        sums = [field.name for field in fields(MomentSums)]
        return repr((replace(self, schedule=None), table, tuple(shape), sums))


def own_state_file(
    state_file: str | os.PathLike | None, accelerator: Accelerator | None
) -> StateFile:
    """The file that this process goes on from; every process has one of its own."""
    path = None if state_file is None else Path(state_file)
    if path is not None and accelerator is not None and accelerator.num_processes > 1:
        rank, world = accelerator.process_index, accelerator.num_processes
        path = path.with_name(f"{path.name}.{rank}-of-{world}")
    return StateFile(path)


def _checked(batch: object, *, is_discrete: bool) -> tuple[Tensor, Tensor | None]:
    """The data, at least float32, and labels of a batch."""
    x_0, labels = batch if isinstance(batch, tuple | list) else (batch, None)
    if not isinstance(x_0, Tensor) or not x_0.is_floating_point() or x_0.ndim < 2:
        kind = x_0.dtype if isinstance(x_0, Tensor) else type(x_0).__name__
        raise TypeError(
            "x_0_batches must hold floating-point tensors (B, C, *), or pairs of one and its "
            f"labels, got {kind}"
        )
    x_0 = x_0 if x_0.dtype == torch.float64 else x_0.float()
    if is_discrete:
        levels = (x_0 + 1) * 127.5
        if x_0.abs().max() > 1 or (levels - levels.round()).abs().max() > _LEVEL_TOLERANCE:
            raise ValueError(
                "x_0_batches must hold 8-bit images, 2 k/255 - 1 with k = 0, ..., 255, for "
                f"decoder='discretized', got values from {x_0.min():.4g} to {x_0.max():.4g} "
                "beside the levels; pass decoder='continuous' for other data"
            )
    return x_0, labels


def _check_resolution(model: Denoiser, shape: torch.Size) -> None:
    """ValueError if a diffusers model says that it is for images of another shape."""
    config = getattr(model, "config", None)
    size, channels = getattr(config, "sample_size", None), getattr(config, "in_channels", None)
    if size is None or channels is None or len(shape) != 3:
        return
    expected = (channels, *((size, size) if isinstance(size, int) else size))
    if tuple(shape) != expected:
        raise ValueError(f"x_0_batches must hold images of shape {expected}, got {(*shape,)}")
