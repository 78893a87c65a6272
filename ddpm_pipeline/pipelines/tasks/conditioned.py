r"""Images of a model that fit a measurement, by the method that is asked for.

====================  ===========================================================================
method                how x_t → x_s knows of y
====================  ===========================================================================
``mmps``              x_0 is drawn given y with matched moments (``moments``); exact for Gaussians
``dps``               :math:`x_s \leftarrow x_s - \zeta\, \nabla_{x_t} \lVert y - A \hat x_0(x_t)
                      \rVert`, Chung et al. 2023 (arXiv:2209.14687), algorithm 1
``repaint``           known pixels of x_s are drawn from :math:`q(x_s \mid x_0)`, and every stretch
                      of steps is gone again, Lugmayr et al. 2022 (arXiv:2201.09865), algorithm 1
====================  ===========================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from diffusers import SchedulerMixin
from torch import Tensor

from ddpm_pipeline.common import check_choice, check_integer
from ddpm_pipeline.diffusion import broadcast, marginal, predict_x_0
from ddpm_pipeline.pipelines.denoising import Step, denoise
from ddpm_pipeline.pipelines.tasks.moments import (
    COVARIANCES,
    MatchedMoments,
    Measurement,
    Precision,
)
from ddpm_pipeline.pipelines.tasks.operators import LinearOperator
from ddpm_pipeline.schedulers import DDPMScheduler, Generators, standard_normal

__all__ = ["METHODS", "PosteriorMethod", "ancestral", "posterior_steps"]


METHODS = ("mmps", "dps", "repaint")
Edit = Callable[[Step], Tensor | None] | None
Network = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class PosteriorMethod:
    """How images that fit a measurement are drawn: a name, and what belongs to it.

    Arguments:
        name: One of METHODS.
        covariance: Of "mmps": V from the network's "jacobian", or what a calibration says of it
            ("calibrated"), which needs no more calls of the network than a plain sample.
        iterations: Of "mmps": products with V at most, for each of the two parts of a draw.
        tolerance: Of "mmps": where they end, relative.
        step_size: Of "dps": zeta.
        jump_length: Of "repaint": steps of a stretch.
        resamples: Of "repaint": how often each stretch is gone.
    Raises:
        ValueError: If a value is not allowed.
    """

    name: str = "mmps"
    covariance: str = "jacobian"
    iterations: int = 50
    tolerance: float = 1e-3
    step_size: float = 1.0
    jump_length: int = 10
    resamples: int = 10

    def __post_init__(self) -> None:
        check_choice("method", self.name, METHODS)
        check_choice("covariance", self.covariance, COVARIANCES)
        for name in ("iterations", "jump_length", "resamples"):
            check_integer(name, getattr(self, name))
        for name in ("tolerance", "step_size"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")

    @classmethod
    def of(cls, method: str | PosteriorMethod) -> PosteriorMethod:
        """Make a method of its name, or give one back."""
        return method if isinstance(method, cls) else cls(method)

    def check_measurement(self, operator: LinearOperator, noise_std: float) -> None:
        """Refuse a measurement that the method cannot use.

        Raises:
            ValueError: If it is "repaint", and not of known pixels without noise.
        """
        if self.name == "repaint" and (operator.name != "missing" or noise_std > 0):
            raise ValueError(
                "method 'repaint' is for known pixels without noise, got operator "
                f"{operator.name!r} and noise_std={noise_std}; use 'mmps' or 'dps'"
            )

    def count(self, scheduler: SchedulerMixin) -> int:
        """Count the steps of a chain, those that are gone again too."""
        return len(_chain(scheduler)) * (self.resamples if self.name == "repaint" else 1)


def ancestral(scheduler: SchedulerMixin, **config: object) -> DDPMScheduler:
    """Make ours of any scheduler of the pipeline, with DDPM's steps on the same chain.

    Arguments:
        scheduler: With its chain.
        config: Keys to change.
    """
    if not isinstance(scheduler, DDPMScheduler):
        config = {"variance_type": "fixed_small", **config}
    own = DDPMScheduler.from_config(scheduler.config, solver="ddpm", **config)
    own.set_timesteps(timesteps=_chain(scheduler))
    return own


def _chain(scheduler: SchedulerMixin) -> list[int]:
    """Give the whole timesteps of a chain, each once."""
    return list(dict.fromkeys(int(t) for t in scheduler.timesteps))


def posterior_steps(
    network: Network,
    scheduler: SchedulerMixin,
    noise: Tensor,
    measured: Measurement,
    method: PosteriorMethod,
    *,
    generator: Generators,
    eta: float | None = None,
    edit: Edit = None,
) -> Iterator[Step]:
    """Take noise down a chain to images that fit what was measured of them.

    Arguments:
        network, generator, eta, edit: As for ``denoise``.
        scheduler: The pipeline's, with its chain.
        noise: What the chain starts from, (B, C, H, W).
        measured: What is known.
        method: How it comes in; "repaint" takes a measurement of known pixels without noise.
    Raises:
        ValueError: If the scheduler has no calibration that the method needs.
    """
    own = ancestral(scheduler)
    how = {"generator": generator, "eta": eta}
    if method.name == "repaint":
        return _repaint(network, own, noise, measured, method, edit=edit, **how)
    if method.name == "dps":
        guided = _GuidedSteps(network, own, measured, method.step_size, edit)
        return denoise(guided, own, noise, own.timesteps, edit=guided.edited, **how)
    if method.covariance == "calibrated" and own.calibration is None:
        raise ValueError("covariance 'calibrated' needs a calibration; calibrate the model first")
    draws = MatchedMoments(
        network,
        own,
        measured,
        generator,
        method.covariance,
        Precision(method.iterations, method.tolerance),
        int(own.timesteps[-1]),
    )
    # What is drawn is a draw of x_0 and no mean: clamped, it would be another one.
    of_x_0 = ancestral(
        scheduler,
        prediction_type="sample",
        variance_type="fixed_small",
        clip_sample=False,
        thresholding=False,
    )
    return denoise(draws, of_x_0, noise, of_x_0.timesteps, edit=edit, **how)


@dataclass(eq=False)
class _GuidedSteps:
    """DPS: a network that also finds the gradient by which its step is then moved."""

    network: Network
    scheduler: DDPMScheduler
    measured: Measurement
    step_size: float
    edit: Edit
    gradient: Tensor | None = field(default=None, init=False)

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        operator, y, _ = self.measured
        kind = self.scheduler.config.prediction_type
        with torch.enable_grad():
            point = x_t.detach().requires_grad_()
            output = self.network(point, t)
            known = output[:, : x_t.shape[1]]
            x_0 = predict_x_0(self.scheduler.schedule, known, point, t, prediction_type=kind)
            distance = (y - operator(x_0)).flatten(1).norm(dim=1)
            self.gradient = torch.autograd.grad(distance.sum(), point)[0]
        return output.detach()

    def edited(self, step: Step) -> Tensor:
        moved = step.image - self.step_size * self.gradient
        return _edited(step, moved, self.edit)


def _repaint(
    network: Network,
    scheduler: DDPMScheduler,
    x: Tensor,
    measured: Measurement,
    method: PosteriorMethod,
    *,
    generator: Generators,
    eta: float | None,
    edit: Edit,
) -> Iterator[Step]:
    """Go every stretch of the chain several times, with known pixels drawn anew at each step."""
    schedule, chain = scheduler.schedule, scheduler.timesteps
    operator, x_0, _ = measured

    def normal() -> Tensor:
        return standard_normal(x_0.shape, generator, x_0.device, x_0.dtype)

    def joined(step: Step) -> Tensor:
        s = scheduler.previous_timestep(int(step.t))
        known = x_0 if s < 0 else marginal(schedule, x_0, s).reparameterize(normal())
        image = step.image - operator(step.image) + operator(known)
        return _edited(Step(index, step.t, image, step.predicted_x_0), image, edit)

    index = 0
    for stretch in chain.split(method.jump_length):
        for time in range(method.resamples):
            for step in denoise(
                network, scheduler, x, stretch, generator=generator, eta=eta, edit=joined
            ):
                yield Step(index, step.t, step.image, step.predicted_x_0)
                x, index = step.image, index + 1
            if time + 1 < method.resamples:
                s, t = scheduler.previous_timestep(int(stretch[-1])), int(stretch[0])
                kept, added = schedule.alpha(t, s).sqrt(), schedule.beta(t, s).sqrt()
                x = broadcast(kept, x) * x + broadcast(added, x) * normal()


def _edited(step: Step, image: Tensor, edit: Edit) -> Tensor:
    """Give what a caller's own edit makes of an image, or the image."""
    changed = None if edit is None else edit(Step(step.index, step.t, image, step.predicted_x_0))
    return image if changed is None else changed
