"""A task of the pipeline as an iterator over its steps, which can be left after any of them.

    for progress in in_steps(pipe, lambda own, show: own.inpaint(..., callback_on_step_end=show)):
        progress.done, progress.total, progress.images

The task is done by a thread of its own, by a copy of the pipeline that tells of its steps. Leaving
the iterator, or closing it, ends the task at its next step. ``views_of`` makes of it what is seen.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, Self

from PIL import Image
from torch import Tensor

from ddpm_pipeline.app.drawing import VIEWS_A_SECOND, View
from ddpm_pipeline.pipelines import DDPMPipeline

__all__ = ["Progress", "Show", "in_steps", "views_of"]

Show = Callable[..., dict[str, Tensor]]


@dataclass(frozen=True, eq=False)
class Progress:
    """How far a task is.

    Arguments:
        stage: 0 for its first walk along the chain, 1 for its second.
        done, total: Steps of that walk.
        images: What x_t says of x_0, float (N, C, H, W); None if it was not shown.
        result: What the task gave; None until it is done.
    """

    stage: int = 0
    done: int = 0
    total: int = 0
    images: Tensor | None = None
    result: Any = None


class _LeftError(Exception):
    """Nobody waits for the task any more."""


class _Teller:
    """What a pipeline's copy has in place of a progress bar."""

    def __init__(self) -> None:
        self.told: SimpleQueue[Progress | Exception] = SimpleQueue()
        self.left = Event()
        self._stage, self._done, self._total = -1, 0, 0
        self._images: Tensor | None = None

    def bar(self, total: int) -> _Teller:
        """Begin a walk along the chain, as ``progress_bar`` does."""
        self._stage, self._done, self._total, self._images = self._stage + 1, 0, total, None
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, _: object, __: int, ___: object, tensors: dict[str, Tensor]) -> dict:
        """Note the images of a step, as a callback."""
        self._images = tensors.get("pred_original_sample", tensors["image"])
        return {}

    def update(self) -> None:
        """Tell of a step.

        Raises:
            _LeftError: If nobody listens.
        """
        if self.left.is_set():
            raise _LeftError
        self._done += 1
        self.told.put(Progress(self._stage, self._done, self._total, self._images))


def in_steps(pipe: DDPMPipeline, work: Callable[[DDPMPipeline, Show], Any]) -> Iterator[Progress]:
    """Do a task and tell of it after every step.

    Arguments:
        pipe: The pipeline, which stays as it is.
        work: Does the task by the pipeline that it is given, with ``callback_on_step_end`` the
            function that it is given, if the task has one.
    Yields:
        How far it is; the last has its result.
    Raises:
        Exception: As the task.
    """
    teller = _Teller()
    own = copy.copy(pipe)
    own.progress_bar = teller.bar

    def run() -> None:
        try:
            teller.told.put(Progress(result=work(own, teller.show)))
        except _LeftError:
            pass
        except Exception as error:  # noqa: BLE001 (raised again by the thread that listens)
            teller.told.put(error)

    Thread(target=run, daemon=True).start()
    try:
        while True:
            progress = teller.told.get()
            if isinstance(progress, Exception):
                raise progress
            yield progress
            if progress.result is not None:
                return
    finally:
        teller.left.set()


def views_of(
    steps: Iterator[Progress],
    picture: Callable[[Tensor], Image.Image],
    last: Callable[[Any], tuple[Tensor, str]],
    walks: Sequence[str] = ("",),
) -> Iterator[View]:
    """Show how far a task is, a few times a second, and what it gave.

    Arguments:
        steps: Of ``in_steps``.
        picture: Makes a picture of images in [0, 1], (N, C, H, W).
        last: Gives such images, and words, of the task's result.
        walks: What its walks along the chain are for, in words.
    """
    begun = shown = time.perf_counter()
    with closing(steps):
        for step in steps:
            now = time.perf_counter()
            seconds = f"{now - begun:.1f} s"
            if step.result is not None:
                images, words = last(step.result)
                said = f"{seconds}: {words}" if words else seconds
                yield View(picture(images), said, is_last=True, images=images)
            elif now - shown >= 1 / VIEWS_A_SECOND:
                shown = now
                images = step.images
                seen = None if images is None else picture(images.clamp(-1, 1) / 2 + 0.5)
                said = f"{walks[step.stage]}step {step.done:,} of {step.total:,}, {seconds}"
                yield View(seen, said, is_last=False)
