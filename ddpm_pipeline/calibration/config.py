"""The options of ``ddpm calibrate``, and the rows of its tables.

    CalibrateConfig(model="model", data="photos/", num_inference_steps=(10, 25), save=False)

They are checked when they are made, as far as that needs neither the model nor the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ddpm_pipeline.common import (
    check_above_zero,
    check_at_least,
    check_choice,
    check_has_folder,
    check_integer,
    expand_home,
)
from ddpm_pipeline.data import ReadingOptions
from ddpm_pipeline.diffusion import SPACINGS
from ddpm_pipeline.schedulers import CALIBRATED_SPACINGS, Solver, VarianceEstimate

__all__ = [
    "DEFAULT_STEPS",
    "SAMPLERS",
    "CalibrateConfig",
    "SamplerChoice",
    "check_rows",
    "without_bound",
]


class SamplerChoice(NamedTuple):
    """A variance type, and eta for DDIM, or a solver that uses earlier predictions again."""

    variance_type: str
    eta: float | None = None
    solver: Solver | None = None

    @property
    def has_bound(self) -> bool:
        """Whether there are bits/dim: a bound is known of DDPM's steps alone."""
        return self.eta is None and self.solver is None

    @property
    def fewest_steps(self) -> int:
        """The fewest that it takes."""
        return 1 if self.solver is None or self.solver.order is None else self.solver.order


SAMPLERS = {
    "fixed_large": SamplerChoice("fixed_large"),
    "fixed_small": SamplerChoice("fixed_small"),
    "analytic": SamplerChoice("analytic"),
    "spectral": SamplerChoice("spectral"),
    "ddim": SamplerChoice("fixed_small", 0.0),
    "analytic_ddim": SamplerChoice("analytic", 0.0),
    "spectral_ddim": SamplerChoice("spectral", 0.0),
    "multistep": SamplerChoice("fixed_small", solver=Solver("multistep")),
    "multistep_3": SamplerChoice("fixed_small", solver=Solver("multistep", order=3)),
    "multistep_sde": SamplerChoice("fixed_small", solver=Solver("multistep", eta=0.5)),
    "spectral_steps": SamplerChoice("fixed_small", solver=Solver("spectral")),
}
DEFAULT_STEPS = (5, 8, 10, 25, 50, 100)
"""Values of K, where T allows them."""
_ALL_SPACINGS = (*SPACINGS, *CALIBRATED_SPACINGS)


def check_rows(samplers: Sequence[str], spacings: Sequence[str]) -> None:
    """Refuse samplers and spacings that there are not.

    Raises:
        ValueError: For the first of them; names those that there are.
    """
    known = (("samplers", samplers, tuple(SAMPLERS)), ("spacings", spacings, _ALL_SPACINGS))
    for name, values, allowed in known:
        for value in values:
            if value not in allowed:
                raise ValueError(f"{name} must be among {', '.join(allowed)}, got {value!r}")


def without_bound(samplers: Sequence[str]) -> list[str]:
    """List the samplers that have no bits/dim: a bound is known of DDPM's steps alone."""
    return [sampler for sampler in samplers if not SAMPLERS[sampler].has_bound]


@dataclass(frozen=True, kw_only=True)
class _Calibrated:
    """A model, and the images that it is calibrated on."""

    model: str
    """A model's folder, or its name on the Hub; `--model` may be left out before it."""
    data: str
    """Images: anything that `open_images` takes. Those the model was not trained on are best."""
    split: str | None = None
    """Which part of the data; "train" unless given, if there is one. Where training held images
    out by validation_size, "training" and "validation" are the parts it made."""
    dataset_config_name: str | None = None
    """Which configuration of a data set of the Hub."""


@dataclass(frozen=True, kw_only=True)
class CalibrateConfig(ReadingOptions, _Calibrated):
    """Measure what a model's best reverse variances and best steps follow from, and keep it.

    Prints bits per dimension over K, and Fréchet distances if features are given. Writes
    calibration.json and plots, and puts the calibration into the model's scheduler.
    """

    cache_dir: str | None = None
    """Where decoded images are kept; $DDPM_PIPELINE_CACHE or below $HF_HOME unless given."""
    verify_cache: bool = False
    """Hold all decoded images that are kept against their checksums, rather than a sample."""
    num_forwards: int | None = None
    """Forward passes of one image each; 10 T unless given."""
    target_standard_error: float | None = None
    """Largest standard error of the bits per dimension; fail if there are too few images."""
    estimate: VarianceEstimate = "error"
    """What the variances are made of: the error of x_0, or the paper's moment of the noise."""
    batch_size: int | None = None
    """Images of one forward pass; 64 on CPUs and what the GPU is best at unless given."""
    num_inference_steps: tuple[int, ...] = DEFAULT_STEPS
    """Values of K in the tables, beside T; of the usual ones those up to T."""
    samplers: tuple[str, ...] = (
        "fixed_large",
        "fixed_small",
        "analytic",
        "spectral",
        "ddim",
        "multistep",
        "multistep_3",
        "multistep_sde",
        "spectral_steps",
    )
    """Rows: fixed_large, fixed_small, analytic, spectral, ddim, analytic_ddim, spectral_ddim; of
    distances also multistep, multistep_3, multistep_sde and spectral_steps, on optimal_samples if
    it is among the spacings."""
    spacings: tuple[str, ...] = (
        "linspace",
        "trailing",
        "optimal",
        "optimal_samples",
        "quadratic",
    )
    """Rows: leading, trailing, linspace, quadratic, optimal, optimal_samples."""
    features: str | None = None
    """Features of Fréchet distances, as for `ddpm evaluate`; no distances unless given."""
    num_images: int = 10_000
    """Images to draw for each distance."""
    class_labels: tuple[str | int, ...] | None = None
    """Classes of these images, by name or number, in turn; all that were trained unless given."""
    variance_type: Literal["auto", "analytic", "spectral", "as_saved"] = "auto"
    """What the model samples with from now on; models with learned variances keep theirs.

    "auto" changes it, and the spacing, with the solver, or else to what features find better at
    every K: variances that are best for bits/dim can be worse for images."""
    timestep_spacing: str | None = None
    """The model's spacing from now on; unless given, as for variance_type "auto"."""
    solver: Literal["auto", "as_saved"] = "auto"
    """What `ddpm sample` and pipe() draw with from now on, and in how many steps.

    "auto" takes the fewest steps that are as good as T, by distances where features are given and
    else by a closed form, unless a variance_type or timestep_spacing is named, or the model was
    saved with a solver without a number of steps."""
    save: bool = True
    """Put the calibration into the model's scheduler, or write it to calibration.json alone."""
    output_dir: str | None = None
    """Where results are written; the model's folder unless given."""
    seed: int = 0
    """The images, timesteps and noise follow from this number."""

    def __post_init__(self) -> None:
        super().__post_init__()
        expand_home(self, "model", "data", "features", "output_dir")
        check_rows(self.samplers, self.spacings)
        check_above_zero(target_standard_error=self.target_standard_error)
        if self.timestep_spacing is not None:
            check_choice("timestep_spacing", self.timestep_spacing, _ALL_SPACINGS)
        for name in ("samplers", "spacings"):
            if not getattr(self, name):
                raise ValueError(f"{name} must be at least one, got none")
        if self.features is None and without_bound(self.samplers) == [*self.samplers]:
            raise ValueError(
                "samplers must hold one that has bits/dim, which DDIM has not, or features must "
                f"be given, got samplers={', '.join(self.samplers)}"
            )
        check_at_least(self, batch_size=1, num_images=1, num_forwards=1)
        for K in self.num_inference_steps:
            check_integer("num_inference_steps", K)
        fewest = min(SAMPLERS[name].fewest_steps for name in self.samplers)
        if max(self.num_inference_steps, default=fewest) < fewest:
            raise ValueError(
                f"num_inference_steps must hold a number of at least {fewest} for samplers="
                f"{', '.join(self.samplers)}, got {max(self.num_inference_steps)}"
            )
        if self.output_dir is None or self.save:
            check_has_folder(self.model, "output_dir must be given and save be False")
