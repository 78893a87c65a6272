"""One task on given images: its options checked, its images split into shares, its loop run.

task = Task(pipe, options, refused=("eta",))
x_0 = task.images(picture, "image")
task.run([x_0], walk)           where walk(call, share, [x_0], edit) yields a share's steps
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict

from diffusers import ImagePipelineOutput, SchedulerMixin
from torch import Tensor

from ddpm_pipeline.common import check_integer, moved
from ddpm_pipeline.data import concatenated
from ddpm_pipeline.networks import image_channels
from ddpm_pipeline.pipelines.calls import Call, GuidanceModel, OutputType, Request, asked_image
from ddpm_pipeline.pipelines.conditions import GivenCondition
from ddpm_pipeline.pipelines.denoising import Step
from ddpm_pipeline.pipelines.inputs import ClassLabels, Share
from ddpm_pipeline.pipelines.outputs import output_of
from ddpm_pipeline.pipelines.tasks.given import (
    GivenImages,
    check_bytes,
    fitted,
    given_hole,
    given_images,
    image_size,
    unit_images,
)
from ddpm_pipeline.schedulers import Generators

if TYPE_CHECKING:
    from ddpm_pipeline.pipelines.pipeline import DDPMPipeline
    from ddpm_pipeline.schedulers import Solver

__all__ = ["Edit", "Task", "TaskOptions", "Walk"]


Edit = Callable[[Step], Tensor | None] | None
Walk = Callable[[Call, Share, list[Tensor], Edit], Iterator[Step]]


class TaskOptions(TypedDict, total=False):
    """Options of every task: those of a call of the pipeline, and ``resize``.

    Arguments:
        batch_size: How many results of one image that is given; one of each image by default.
        generator, num_inference_steps, output_type, return_dict, timesteps, max_batch_size,
        class_labels, condition, guidance_scale, guidance_model, guidance_interval, eta, solver,
        callback_on_step_end: As in a call.
        resize: Scale images of another size than the model's and keep the middle; they are
            refused unless it is True.
    """

    batch_size: int | None
    generator: Generators
    num_inference_steps: int | None
    output_type: OutputType
    return_dict: bool
    timesteps: Sequence[int] | None
    max_batch_size: int | None
    class_labels: ClassLabels
    condition: GivenCondition
    guidance_scale: float
    guidance_model: GuidanceModel
    guidance_interval: tuple[int, int] | None
    eta: float | None
    solver: str | Solver | None
    callback_on_step_end: Callable[..., dict[str, Tensor] | None] | None
    resize: bool


_OF_A_CALL: dict[str, Any] = {
    "generator": None,
    "num_inference_steps": None,
    "output_type": "pil",
    "timesteps": None,
    "max_batch_size": None,
    "class_labels": None,
    "condition": None,
    "guidance_scale": 1.0,
    "guidance_model": None,
    "guidance_interval": None,
    "eta": None,
    "solver": None,
}
_OTHERS = {"batch_size": None, "return_dict": True, "callback_on_step_end": None, "resize": False}


class Task:
    """A task with its options.

    Arguments:
        pipe: The ``DDPMPipeline``.
        options: As in ``TaskOptions``.
        refused: Names of those that the task has no use for; without "solver" it has none for the
            number of steps either that the model's solver was chosen for.
    Raises:
        TypeError: If there is no such option.
    """

    def __init__(
        self,
        pipe: DDPMPipeline,
        options: TaskOptions,
        *,
        refused: Sequence[str] = (),
    ) -> None:
        known = [name for name in (_OF_A_CALL | _OTHERS) if name not in refused]
        for name in options:
            if name not in known:
                raise TypeError(f"there is no option {name!r} here; there are {', '.join(known)}")
        self._pipe, self._takes_solver = pipe, "solver" in known
        self._given = _OF_A_CALL | _OTHERS | options

    def images(self, image: GivenImages, name: str) -> Tensor:
        """Bring what is given into the range of models, as often as ``batch_size`` says.

        Raises:
            TypeError, ValueError: As ``given_images``, or if batch_size does not fit.
        """
        return self.repeated(
            given_images(self._pipe.unet, image, name, resize=self._given["resize"]), name
        )

    def one_image(self, image: GivenImages, name: str) -> Tensor:
        """Bring an image into the range of models, (1, C, H, W).

        Raises:
            TypeError, ValueError: As ``given_images``, or if there are several.
        """
        images = given_images(self._pipe.unet, image, name, resize=self._given["resize"])
        if len(images) != 1:
            raise ValueError(f"{name} must be one image, got {len(images)}")
        return images

    def images_and_hole(self, image: GivenImages, mask: GivenImages) -> tuple[Tensor, Tensor]:
        """Bring images and their holes into form, which are scaled and cut alike.

        Raises:
            TypeError, ValueError: As ``images`` and ``given_hole``.
        """
        unet, resize = self._pipe.unet, self._given["resize"]
        check_bytes(unet)
        found = unit_images(image, "image", image_channels(unet))
        hole = given_hole(mask, tuple(found.shape[2:]), len(found))
        images = fitted(found, image_size(unet), "image", resize=resize) * 2 - 1
        if resize:
            hole = (fitted(hole, image_size(unet), "mask", resize=True) >= 0.5).float()
        count = max(len(images), len(hole))
        images = self.repeated(images.expand(count, *images.shape[1:]), "image")
        return images, hole.expand(len(images), *hole.shape[1:])

    def repeated(self, tensor: Tensor, name: str) -> Tensor:
        """Repeat one image ``batch_size`` times, or as often as there are generators.

        Raises:
            ValueError: If several images are given, and another number of results asked for.
        """
        wanted, generator = self._given["batch_size"], self._given["generator"]
        if wanted is None:
            is_list = isinstance(generator, list | tuple) and len(tensor) == 1
            wanted = len(generator) if is_list else len(tensor)
        check_integer("batch_size", wanted)
        if len(tensor) not in (1, wanted):
            raise ValueError(f"{name} must be one image or batch_size={wanted}, got {len(tensor)}")
        return tensor.expand(wanted, *tensor.shape[1:])

    def begin(self, images: Tensor, **changes: object) -> Call:
        """Check a call for images of this shape, (N, C, H, W).

        Arguments:
            images: Of which the call has a share at a time, as its shares' ``noise``.
            changes: Options to replace.
        Raises:
            ValueError: If an option is not allowed.
        """
        given = {name: self._given[name] for name in _OF_A_CALL} | changes
        given |= {"batch_size": len(images), "takes_solver": self._takes_solver}
        return self._pipe._begin(Request(noise=images, **given))  # noqa: SLF001

    def run(
        self,
        tensors: Sequence[Tensor],
        walk: Walk,
        count: Callable[[SchedulerMixin], int] | None = None,
        **changes: object,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Take all shares down their chains, and give the images as they were asked for.

        Arguments:
            tensors: What is split among the shares; the first of the images' shape.
            walk: Yields the steps of a share; without any, the first of its tensors is the result.
            count: Counts the steps that a share takes, by a scheduler with its chain; all of the
                chain by default.
            changes: As for ``begin``.
        """
        call = self.begin(tensors[0], **changes)
        finish = output_of(self._pipe.unet, self._given["output_type"])
        steps = call.num_steps if count is None else count(call.scheduler)
        finished, callback = [], self._given["callback_on_step_end"]
        edit = partial(asked_image, callback, self._pipe)
        with self._bar(call, steps) as bar, call.keeping_casts():
            for share, parts in _split(call, tensors):
                image = parts[0]
                for step in walk(call, share, parts, edit):
                    image = step.image
                    bar.update()
                finished.append(finish(image))
        self._pipe.maybe_free_model_hooks()
        images = concatenated(finished)
        return ImagePipelineOutput(images=images) if self._given["return_dict"] else (images,)

    def last_of(self, images: Tensor, walk: Callable[..., Iterator[Tensor]], call: Call) -> list:
        """Give the last tensor of every share's walk, one for each step of its chain."""
        found = []
        with self._bar(call, call.num_steps) as bar, call.keeping_casts():
            for share, (part,) in _split(call, [images]):
                for state in walk(call, share, part):
                    last = state
                    bar.update()
                found.append(last)
        self._pipe.maybe_free_model_hooks()
        return found

    def _bar(self, call: Call, steps: int) -> Any:  # noqa: ANN401 (tqdm's)
        return self._pipe.progress_bar(total=len(call.shares) * steps)


def _split(call: Call, tensors: Sequence[Tensor]) -> Iterator[tuple[Share, list[Tensor]]]:
    """Give every share with its part of each tensor, on the network's device."""
    start = 0
    for share in call.shares:
        rows = slice(start, start + share.size)
        yield share, [moved(tensor[rows], call.device) for tensor in tensors]
        start += share.size
