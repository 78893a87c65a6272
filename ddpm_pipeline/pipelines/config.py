"""The options of sampling: what determines an image, and how many are written where.

    SampleConfig(model="model", num_images=50_000, output="samples.npz")

They are checked when they are made, as far as that does not need the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ddpm_pipeline.common import check_at_least, check_choice, expand_home
from ddpm_pipeline.diffusion import check_eta
from ddpm_pipeline.schedulers import SOLVERS, SolverName, check_solver_eta

__all__ = [
    "Format",
    "NumberType",
    "SampleConfig",
    "SamplingOptions",
    "SchedulerName",
    "check_guidance",
]


Format = Literal["png", "npz", "webdataset"]
NumberType = Literal["float32", "bfloat16", "float16"]
SchedulerName = Literal["as_saved", "ddpm", "ddim"]


def check_guidance(scale: float, model: str | None, interval: tuple[int, int] | None) -> None:
    """Refuse options of guidance that do nothing, or mean nothing.

    Arguments:
        scale, model, interval: The guidance_scale, guidance_model and guidance_interval.
    Raises:
        ValueError: If one is not allowed; names it.
    """
    if not math.isfinite(scale):
        raise ValueError(f"guidance_scale must be finite, got {scale}")
    for name, value in (("guidance_model", model), ("guidance_interval", interval)):
        if value is not None and scale == 1:
            raise ValueError(f"{name} needs a guidance_scale other than 1, which is none")
    low, high = interval or (0, 0)
    if not 0 <= low <= high:
        raise ValueError(
            f"guidance_interval must be two timesteps from 0 on, the lower first, got {interval}"
        )


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """The options that determine image i.

    Raises:
        ValueError: If a value is not allowed; the message names it and what is.
    """

    model: str
    """A model directory, or a model of the Hub."""
    seed: int = 0
    """Image i depends on (seed, i) alone."""
    scheduler: SchedulerName | None = None
    """The scheduler: stock's for DDIM, DDPM with the model's variances, or as the model was saved.
    Unless given as it was saved with a solver, else stock's for DDIM."""
    solver: SolverName | None = None
    """How the model's scheduler takes its steps, on its own spacing: ddpm, ddim, or multistep,
    which is best with few steps."""
    num_inference_steps: int | None = None
    """K, the number of reverse steps; unless given what the model's solver was saved with, or else
    50, or all T if there are fewer."""
    eta: float | None = None
    """Share of the noise in DDIM or in solver multistep, 0 to 1; unless given 0, or of the model's
    own solver what it was saved with. Without scheduler and solver it asks for DDIM."""
    class_labels: tuple[str | int, ...] | None = None
    """Classes, by name or number, in turn: image i is of class i mod their count."""
    guidance_scale: float = 1.0
    """Weight of guidance, by the null class or by guidance_model; 1 is none."""
    guidance_model: str | None = None
    """A weaker model that guides: a model directory or one of the Hub, such as an earlier one."""
    guidance_interval: tuple[int, int] | None = None
    """The lowest and the highest timestep that is guided; all unless given."""
    batch_size: int | None = None
    """Rows of one model call; 16 on CPUs and what the GPU is best at unless given. Another number
    changes images by rounding errors only."""
    precision: NumberType = "float32"
    """Number type of the network."""

    def __post_init__(self) -> None:
        expand_home(self, "model", "guidance_model")
        check_at_least(self, seed=0, batch_size=1, num_inference_steps=1)
        if self.eta is not None:
            check_eta(self.eta)
        check_guidance(self.guidance_scale, self.guidance_model, self.guidance_interval)
        self._check_solver()
        if isinstance(self.class_labels, str | int):
            object.__setattr__(self, "class_labels", (self.class_labels,))  # the class is frozen
        if self.class_labels is not None and len(self.class_labels) == 0:
            raise ValueError("class_labels must hold at least one class, got none")

    @property
    def null_guidance(self) -> float:
        """Give the weight of guidance by the null class: none where another model guides."""
        return self.guidance_scale if self.guidance_model is None else 1.0

    def _check_solver(self) -> None:
        if self.eta is not None and self.scheduler == "ddpm":
            raise ValueError(
                f"eta is for scheduler 'ddim' and for solvers, got eta={self.eta} and "
                "scheduler='ddpm'"
            )
        if self.solver is None:
            return
        check_choice("solver", self.solver, SOLVERS)
        if self.scheduler not in (None, "as_saved"):
            raise ValueError(
                "scheduler must be as_saved or left out beside solver, which is of the model's "
                f"scheduler, got {self.scheduler!r} and solver={self.solver!r}"
            )
        check_solver_eta(self.solver, self.eta)


@dataclass(frozen=True, kw_only=True)
class SampleConfig(SamplingOptions):
    """Options of `sample_images`."""

    num_images: int = 16
    """How many images."""
    output: str = "samples"
    """A directory, or a .npz file."""
    format: Format | None = None
    """PNG files, one .npz file or webdataset's .tar shards; by the name of output unless given."""
    shard_size: int = 256
    """Images per shard: what is held in memory, and what a killed run loses at most, unless a
    model call has more rows."""

    condition: str | None = None
    """Images that the images are conditioned on in turn: a folder, or a file of them."""
    condition_numbers: tuple[float, ...] | None = None
    """Numbers that all images are conditioned on, as many as the model was trained with."""
    picture_bands: tuple[int, ...] | None = None
    """Channels that pictures show, one or three, counted from 0; unless given those that the model
    was trained with, or all of up to four."""

    def __post_init__(self) -> None:
        super().__post_init__()
        expand_home(self, "output", "condition")
        check_at_least(self, num_images=1, shard_size=1)
        if (Path(self.output).suffix == ".npz") != (self.resolved_format == "npz"):
            raise ValueError(
                f"output must end in .npz for format npz and for no other, got {self.output!r} "
                f"with format={self.resolved_format!r}"
            )

    @property
    def resolved_format(self) -> Format:
        """Give the format, from the name of output if none was given."""
        return self.format or ("npz" if Path(self.output).suffix == ".npz" else "png")
