"""The options of ``ddpm edit``: a model, images, and what is done to them.

    EditConfig(model="model", task="inpaint", image=("photo.png",), mask="hole.png")

They are checked when they are made, as far as that needs neither the model nor the images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ddpm_pipeline.common import at_home, check_at_least, check_choice, expand_home
from ddpm_pipeline.diffusion import check_eta
from ddpm_pipeline.pipelines.config import check_guidance

__all__ = ["EditConfig", "EditTask"]


EditTask = Literal["vary", "inpaint", "interpolate", "invert", "restore"]
Covariance = Literal["jacobian", "calibrated"]
PosteriorName = Literal["mmps", "dps", "repaint"]
# Options that only some tasks have a use for.
_USES: dict[str, tuple[str, ...]] = {
    "mask": ("inpaint", "restore"),
    "strength": ("vary",),
    "operator": ("restore",),
    "noise_std": ("restore",),
    "method": ("inpaint", "restore"),
    "covariance": ("inpaint", "restore"),
    "iterations": ("inpaint", "restore"),
    "eta": ("vary", "inpaint", "restore"),
    "num_results": ("vary", "inpaint", "restore", "interpolate"),
}


@dataclass(frozen=True, kw_only=True)
class EditConfig:
    """Options of `edit_images`.

    Raises:
        ValueError: If a value is not allowed, or the task has no use for it; names it.
    """

    model: str
    """A model directory, or a model of the Hub."""
    task: EditTask
    """Vary images, fill a hole in them, walk from one to another, find their noise and come back,
    or undo what was done to them."""
    image: tuple[str, ...]
    """Files of images; two for interpolate, and for restore what was measured."""
    mask: str | None = None
    """A picture that is white where the hole is."""
    output: str = "edited"
    """A directory: a PNG file for each result, and sheet.png with images, mask and results."""
    overwrite: bool = False
    """Write into a directory that has files."""
    num_results: int | None = None
    """Results of each image, 4 unless given; of interpolate the images on the way, 8."""
    strength: float | None = None
    """Of vary: share of the chain that is drawn anew, 0 to 1; 0.5 unless given."""
    operator: str | None = None
    """Of restore: blur:SIGMA, downsample:FACTOR, or missing beside --mask; blur unless given."""
    noise_std: float | None = None
    """Of restore: standard deviation of the image's noise, in units of white; 0 unless given."""
    method: PosteriorName | None = None
    """Of inpaint and restore: mmps unless given, which is exact for Gaussian images."""
    covariance: Covariance | None = None
    """Of mmps: from the network's Jacobian unless given, or, faster, what a calibration says."""
    iterations: int | None = None
    """Of mmps: vector-Jacobian products at most, for each of the two parts of a step; 5 unless
    given."""
    resize: bool = False
    """Scale images of another size than the model's and keep the middle."""
    num_inference_steps: int | None = None
    """K, the number of reverse steps; 50 unless given, or all T if there are fewer."""
    eta: float | None = None
    """Steps of DDIM with this share of noise, 0 to 1."""
    class_labels: tuple[str | int, ...] | None = None
    """Classes of the results, by name or number, in turn."""
    guidance_scale: float = 1.0
    """Weight of guidance, by the null class or another model; 1 is none."""
    batch_size: int | None = None
    """Rows of one model call; 16 unless given."""
    seed: int = 0
    """Result i depends on (seed, i) alone."""
    guidance_model: str | None = None
    """A weaker model that guides: a model directory, or a model of the Hub."""
    guidance_interval: tuple[int, int] | None = None
    """Guide from the first of two timesteps to the second; everywhere unless given."""
    condition: tuple[str, ...] | None = None
    """Files of images that the model is given beside the noise: one for each image, or for all."""
    condition_numbers: tuple[float, ...] | None = None
    """Numbers that all results are conditioned on, as many as the model was trained with."""

    def __post_init__(self) -> None:
        check_choice("task", self.task, get_args(EditTask))
        for name in ("image", "condition"):
            paths = getattr(self, name)
            if paths is not None:
                paths = (paths,) if isinstance(paths, str) else paths
                found = tuple(at_home(name, path) for path in paths)
                object.__setattr__(self, name, found)  # the class is frozen
        expand_home(self, "model", "mask", "output", "guidance_model")
        check_at_least(self, num_results=1, num_inference_steps=1, batch_size=1, iterations=1)
        check_at_least(self, seed=0, noise_std=0)
        check_guidance(self.guidance_scale, self.guidance_model, self.guidance_interval)
        if self.eta is not None:
            check_eta(self.eta)
        if self.strength is not None and not 0 <= self.strength <= 1:
            raise ValueError(f"strength must lie in [0, 1], got {self.strength}")
        self._check_uses()
        self._check_images()

    @property
    def null_guidance(self) -> float:
        """Give the weight of guidance by the null class: none where another model guides."""
        return self.guidance_scale if self.guidance_model is None else 1.0

    def _check_uses(self) -> None:
        for name, tasks in _USES.items():
            if getattr(self, name) is not None and self.task not in tasks:
                raise ValueError(
                    f"{name} is for task {' and '.join(tasks)}, got task={self.task!r}"
                )
        if self.method not in (None, "mmps"):
            for name in ("covariance", "iterations"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is for method mmps, got method={self.method!r}")
        if self.task == "inpaint" and self.mask is None:
            raise ValueError("mask must be given for task inpaint")

    def _check_images(self) -> None:
        if not self.image:
            raise ValueError("image must name at least one file, got none")
        most = 1 if self.task == "interpolate" else len(self.image)
        if self.condition is not None and len(self.condition) not in (1, most):
            each = "" if most == 1 else f", or one for each of {most} images"
            raise ValueError(
                f"condition must name one file for all results{each}, got {len(self.condition)}"
            )
        if self.task == "interpolate":
            if len(self.image) != 2:
                raise ValueError(
                    f"image must name two files for task interpolate, got {len(self.image)}"
                )
            if self.num_results is not None and self.num_results < 2:
                raise ValueError(
                    f"num_results must be at least 2 for interpolate, got {self.num_results}"
                )
