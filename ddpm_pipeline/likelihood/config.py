"""The options of ``ddpm bound`` and ``ddpm score``.

    BoundConfig(model="model", data="photos/", split="test", target_standard_error=0.01)

They are checked when they are made, as far as that needs neither the model nor the images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ddpm_pipeline.common import (
    check_above_zero,
    check_at_least,
    check_choice,
    check_has_folder,
    expand_home,
)
from ddpm_pipeline.data import ReadingOptions
from ddpm_pipeline.diffusion import PROCESS_VARIANCES, Decoder

__all__ = ["BOUND_SAMPLERS", "BoundConfig", "BoundSampler", "MeasureConfig", "ScoreConfig"]

BoundSampler = Literal["rate", "low_discrepancy", "uniform"]
BOUND_SAMPLERS: tuple[str, ...] = get_args(BoundSampler)
"""How transitions are drawn: see transitions.py."""


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """A model, and the images that it is measured on."""

    model: str
    """A model's folder, or its name on the Hub; `--model` may be left out before it."""
    data: str
    """Images the model was not trained on: anything that `open_images` takes."""
    split: str | None = None
    """Which part of the data; "train" unless given, if there is one. Where training held images
    out by validation_size, "training" and "validation" are the parts it made."""
    dataset_config_name: str | None = None
    """Which configuration of a data set of the Hub."""
    num_images: int | None = None
    """How many images, drawn at random; all unless given."""


@dataclass(frozen=True, kw_only=True)
class MeasureConfig(ReadingOptions, _Measured):
    """What is measured, of which model, on which images, and how these are read.

    Raises:
        ValueError: If a value is not allowed; the message names it and what is.
    """

    cache_dir: str | None = None
    """Where decoded images are kept; $DDPM_PIPELINE_CACHE or below $HF_HOME unless given."""
    verify_cache: bool = False
    """Hold all decoded images that are kept against their checksums, rather than a sample."""
    num_timestep_samples: int = 8
    """Timesteps drawn for each image, beside the decoder's; 0 sums every term exactly."""
    timestep_sampler: BoundSampler = "rate"
    """How they are drawn: by what they carry, evenly, or independently."""
    num_inference_steps: int | None = None
    """The bound of a chain of so many steps, spaced as the model says; all T unless given."""
    variance_type: str | None = None
    """Another variance of the reverse moves than the model's: fixed_small, fixed_large, ..., or of
    its calibration analytic or spectral."""
    decoder: Decoder | None = None
    """The probability of levels, a density, or the approximation of published code; unless given
    the first for integers and the second for floating-point values."""
    clip_x_0: float | None = None
    """Clamp the predicted x_0 to plus and minus this; not at all unless given."""
    batch_size: int | None = None
    """Rows of one forward pass, over images and timesteps together."""
    output_dir: str | None = None
    """Where results are written; the model's folder unless given."""
    seed: int = 0
    """The images, timesteps and noise follow from this number."""

    def __post_init__(self) -> None:
        super().__post_init__()
        expand_home(self, "model", "data", "output_dir")
        check_at_least(self, num_images=1, num_timestep_samples=0, batch_size=1)
        check_at_least(self, num_inference_steps=1)
        check_above_zero(clip_x_0=self.clip_x_0)
        if self.variance_type is not None:
            check_choice("variance_type", self.variance_type, PROCESS_VARIANCES)
        if self.output_dir is None:
            check_has_folder(self.model, "output_dir must be given")


@dataclass(frozen=True, kw_only=True)
class BoundConfig(MeasureConfig):
    """Measure the variational bound of a saved model on images, in bits per dimension.

    Writes bound.json and bound.png, and continues a run that was stopped.
    """

    target_standard_error: float | None = None
    """Stop once the standard error is as small, in bits per dimension."""
    ode: bool = False
    """Also measure the likelihood of the flow without noise, which is slow; writes ode.json."""
    ode_images: int = 32
    """Images of --ode, the first of those that the bound is measured on."""
    ode_probes: int = 2
    """Of --ode: vectors for Hutchinson's trace, each a vector-Jacobian product at every call."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_above_zero(target_standard_error=self.target_standard_error)
        check_at_least(self, ode_images=1, ode_probes=1)
        if self.ode and self.decoder == "discretized_tanh":
            raise ValueError("decoder must be discretized or continuous with ode, got tanh's")


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(MeasureConfig):
    """Score every image by its bound in bits per dimension; the higher, the less likely.

    Writes scores.csv, and scores.png with the most and the least likely images.
    """

    num_timestep_samples: int = 32
    """Timesteps drawn for each image, beside the decoder's; 0 sums every term exactly."""
    num_shown: int = 16
    """Images of each kind in scores.png; 0 writes none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, num_shown=0)
