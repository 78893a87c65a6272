"""What a pipeline does with given images: methods that are each a task on its one loop.

    pipe.image_to_image(picture, strength=0.5)          tasks/variation.py
    pipe.interpolate(one, other, 8)                     tasks/interpolation.py
    noise = pipe.invert(picture); pipe.revert(noise)    tasks/inversion.py
    pipe.inpaint(picture, mask)                         tasks/conditioned.py, and moments.py
    pipe.restore(blurred, "blur:1.5", noise_std=0.02)   the same, with tasks/operators.py

Images are what ``given.py`` takes and are given back as a call of the pipeline gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Unpack

import torch
from diffusers import ImagePipelineOutput
from torch import Tensor

from ddpm_pipeline.common import check_integer
from ddpm_pipeline.networks import Condition
from ddpm_pipeline.pipelines.calls import Call
from ddpm_pipeline.pipelines.conditions import given_condition
from ddpm_pipeline.pipelines.denoising import Step
from ddpm_pipeline.pipelines.inputs import Share
from ddpm_pipeline.pipelines.tasks.conditioned import PosteriorMethod, posterior_steps
from ddpm_pipeline.pipelines.tasks.given import GivenImages
from ddpm_pipeline.pipelines.tasks.interpolation import shares_of_way, spherical
from ddpm_pipeline.pipelines.tasks.inversion import deterministic, invert, walk_back
from ddpm_pipeline.pipelines.tasks.moments import Measurement
from ddpm_pipeline.pipelines.tasks.operators import LinearOperator, missing
from ddpm_pipeline.pipelines.tasks.restoring import Known
from ddpm_pipeline.pipelines.tasks.task import Edit, Task, TaskOptions
from ddpm_pipeline.pipelines.tasks.variation import check_strength, kept_steps, vary
from ddpm_pipeline.schedulers import standard_normal

__all__ = ["ImageTasks"]


_Result = ImagePipelineOutput | tuple[Any]
_OF_DRAWING = ("eta", "solver")
_OF_RESULTS = ("output_type", "return_dict", "callback_on_step_end")


class ImageTasks:
    """The part of ``DDPMPipeline`` that works on images that are given."""

    @torch.no_grad()
    def image_to_image(
        self, image: GivenImages, strength: float = 0.5, **options: Unpack[TaskOptions]
    ) -> _Result:
        r"""Vary images: put noise on them, and take it away from there on.

        Arguments:
            image: One image or several.
            strength: Share of the chain, in [0, 1]: at 0 the image comes back, at 1 the result is
                a plain sample of the same generator.
            options: As in ``TaskOptions``.
        Returns:
            As a call of the pipeline does.
        Raises:
            TypeError, ValueError: If an argument is not allowed.
        Source: Meng et al. 2022 (arXiv:2108.01073).
        """
        check_strength(strength)
        task = Task(self, options)

        def walk(call: Call, share: Share, parts: list[Tensor], edit: Edit) -> Iterator[Step]:
            how = {"generator": share.generator, "eta": call.eta, "edit": edit}
            return vary(*call.parts(share), parts[0], strength, **how)

        images = task.images(image, "image")
        return task.run([images], walk, lambda scheduler: kept_steps(scheduler, strength))

    @torch.no_grad()
    def invert(
        self, image: GivenImages, *, calls_per_step: int = 10, **options: Unpack[TaskOptions]
    ) -> Tensor:
        """Find the noise from which DDIM's steps without noise draw given images.

        ``pipe.revert(noise)`` with the same steps, labels and guidance comes back to them, as does
        ``pipe(noise=noise, eta=0)`` unless a calibrated variance adds noise there.

        Arguments:
            image: One image or several.
            calls_per_step: Calls of the network that the inverse of a step may take, at least 1;
                it ends as soon as it is exact to a hundredth of a grey level. 1 is the usual
                inversion of DDIM.
            options: As in ``TaskOptions``, but eta, solver and what is for results. Nothing is
                drawn: generators, one for each image, only fix the rows of calls.
        Returns:
            The noise, float32 (N, C, H, W), on the model's device.
        Raises:
            TypeError, ValueError: If an argument is not allowed, or the scheduler's steps are not
                those of DDIM.
        Source: Song et al. 2020 (arXiv:2010.02502), section 4.3.
        """
        task = Task(self, options, refused=_OF_DRAWING + _OF_RESULTS)
        return _inverted(task, task.images(image, "image"), calls_per_step)

    @torch.no_grad()
    def revert(self, noise: Tensor, **options: Unpack[TaskOptions]) -> _Result:
        """Draw the images of given noise by DDIM's steps without noise; undoes ``invert``.

        Arguments:
            noise: Standard normal noise, or that of ``invert``, (N, C, H, W).
            options: As in ``TaskOptions``, but eta and solver.
        Returns:
            As a call of the pipeline does.
        Raises:
            TypeError, ValueError: As ``invert``.
        """
        if not isinstance(noise, Tensor):
            raise TypeError(f"noise must be a tensor, got {type(noise).__name__}")
        return Task(self, options, refused=(*_OF_DRAWING, "resize")).run([noise], _walk_back)

    @torch.no_grad()
    def interpolate(
        self,
        a: GivenImages,
        b: GivenImages,
        n: int = 8,
        *,
        calls_per_step: int = 10,
        **options: Unpack[TaskOptions],
    ) -> _Result:
        """Walk from one image to another, on the great circle between their noise.

        Arguments:
            a, b: One image each.
            n: How many images, at least 2, the two ends among them.
            calls_per_step: As in ``invert``, by which their noise is found.
            options: As in ``TaskOptions``, but batch_size, eta and solver; class_labels and
                conditions are one or n of them. Nothing is drawn.
        Returns:
            n images, as a call of the pipeline gives them.
        Raises:
            TypeError, ValueError: If an argument is not allowed.
        Source: Song et al. 2020 (arXiv:2010.02502), section 5.3.
        """
        check_integer("n", n, least=2)
        task = Task(self, options, refused=(*_OF_DRAWING, "batch_size"))
        if "condition" in options:
            options["condition"] = given_condition(self.unet, options["condition"])
        at_ends = ("generator", "class_labels", "condition")
        of_ends = {k: _ends(options[k], n, k) for k in at_ends if options.get(k) is not None}
        how = {k: v for k, v in (options | of_ends).items() if k not in _OF_RESULTS}
        found = Task(self, how, refused=_OF_DRAWING)
        ends = [found.one_image(image, name) for image, name in ((a, "a"), (b, "b"))]
        z_a, z_b = _inverted(found, torch.cat(ends), calls_per_step).split(1)
        return task.run([spherical(z_a, z_b, shares_of_way(n, z_a))], _walk_back)

    @torch.no_grad()
    def inpaint(
        self,
        image: GivenImages,
        mask: GivenImages,
        *,
        method: str | PosteriorMethod = "mmps",
        **options: Unpack[TaskOptions],
    ) -> _Result:
        """Fill a hole in images with what the model thinks is there, given the rest.

        Arguments:
            image: One image or several.
            mask: One for all images or for each; its hole is where it is at least half of white,
                or True. It has the size of the images that are given.
            method: "mmps", "dps", "repaint", or a ``PosteriorMethod`` with options.
            options: As in ``TaskOptions``, but solver: steps are DDPM's, or DDIM's with eta.
        Returns:
            As a call of the pipeline does; around the hole the images are those that were given.
        Raises:
            TypeError, ValueError: If an argument is not allowed.
        """
        method = PosteriorMethod.of(method)
        task = Task(self, options, refused=("solver",))
        images, hole = task.images_and_hole(image, mask)

        def walk(call: Call, share: Share, parts: list[Tensor], edit: Edit) -> Iterator[Step]:
            x_0, hole = parts
            operator = missing(hole)
            measured = Measurement(operator, operator(x_0), 0.0)
            for step in _conditioned(call, share, x_0, measured, method, edit):
                yield replace(step, image=torch.where(hole > 0, step.image, x_0))

        return task.run([images, hole], walk, method.count)

    @torch.no_grad()
    def restore(
        self,
        y: GivenImages,
        operator: str | LinearOperator | tuple[Callable, Callable],
        noise_std: float = 0.0,
        *,
        mask: GivenImages | None = None,
        method: str | PosteriorMethod = "mmps",
        **options: Unpack[TaskOptions],
    ) -> _Result:
        r"""Draw images from what was measured of them, :math:`y = A x + \sigma n`.

        Arguments:
            y: What was measured of images in [0, 1]: pictures or arrays, of the size that A
                gives; or floats in a tensor (N, *) of any shape that A gives.
            operator: A: "blur:SIGMA", "downsample:FACTOR", "missing" beside a mask, a
                ``LinearOperator``, or a pair (forward, adjoint) of functions of tensors
                (B, C, H, W) and (B, *).
            noise_std: sigma, the standard deviation of y's noise, in its units, at least 0.
            mask: Of "missing": as in ``inpaint``; y is 0 in its holes, or not looked at.
            method: As in ``inpaint``; "repaint" is for "missing" without noise.
            options: As in ``TaskOptions``, but solver and resize.
        Returns:
            As a call of the pipeline does.
        Raises:
            TypeError, ValueError: If an argument is not allowed, or the operator is not linear or
                its adjoint not its own.
        """
        method = PosteriorMethod.of(method)
        task = Task(self, options, refused=("solver", "resize"))
        known = Known.of(self.unet, y, operator, noise_std, mask)
        method.check_measurement(known.operator, noise_std)
        tensors = [task.repeated(tensor, "y") for tensor in known.tensors()]

        def walk(call: Call, share: Share, parts: list[Tensor], edit: Edit) -> Iterator[Step]:
            return _conditioned(call, share, parts[0], known.measured(*parts), method, edit)

        return task.run(tensors, walk, method.count)


def _conditioned(
    call: Call,
    share: Share,
    like: Tensor,
    measured: Measurement,
    method: PosteriorMethod,
    edit: Edit,
) -> Iterator[Step]:
    """Take noise of the shape of images down the chain, to images that fit a measurement."""
    network, scheduler = call.parts(share)
    noise = standard_normal(like.shape, share.generator, like.device, torch.float32)
    how = {"generator": share.generator, "eta": call.eta, "edit": edit}
    return posterior_steps(network, scheduler, noise, measured, method, **how)


def _inverted(task: Task, images: Tensor, calls_per_step: int) -> Tensor:
    """Give the noise of images in [-1, 1]."""

    def walk(call: Call, share: Share, part: Tensor) -> Iterator[Tensor]:
        network, scheduler = call.parts(share)
        return invert(network, deterministic(scheduler), part, calls_per_step)

    return torch.cat(task.last_of(images, walk, task.begin(images)))


def _walk_back(call: Call, share: Share, parts: list[Tensor], edit: Edit) -> Iterator[Step]:
    network, scheduler = call.parts(share)
    return walk_back(network, deterministic(scheduler), parts[0], edit)


def _ends(values: Any, n: int, name: str) -> Any:  # noqa: ANN401 (labels, generators, conditions)
    """Give the first and the last of n values; one value is that of both ends.

    Raises:
        ValueError: If there are others than one or n.
    """
    if isinstance(values, str) or not hasattr(values, "__len__"):
        return values
    is_condition = isinstance(values, Condition)
    if is_condition and len(values) == 1:
        return values
    if len(values) != n:
        raise ValueError(f"{name} must be one or n={n} of them, got {len(values)}")
    return values[[0, -1]] if is_condition else [values[0], values[-1]]
