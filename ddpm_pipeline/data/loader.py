"""Endless batches that can be resumed, from images in memory and ahead of an accelerator.

    loader = ImageLoader(data, batch_size=64, seed=0)
    for images, labels in Prefetcher(loader, device): ...      bytes (B, C, H, W) on the device

`ImageLoader`, `ImageStream` (streams.py) and `Prefetcher` have the same `state_dict` and
`load_state_dict`: what follows after loading a state is, byte for byte, what would have followed
without the interruption.
"""

from collections.abc import Callable
from queue import Full, Queue
from threading import Event, Thread
from types import TracebackType
from typing import Any, Protocol, Self

import torch

from ddpm_pipeline.common import check_integer, stream_generator
from ddpm_pipeline.data.images import Batch, ImageData
from ddpm_pipeline.data.order import batch_indices

__all__ = ["BatchSource", "ImageLoader", "Prefetcher", "check_same_run"]


class BatchSource(Protocol):
    """Anything that gives batches without end and can be resumed."""

    def __next__(self) -> Batch:
        """Give the next batch, as bytes on the CPU."""

    def state_dict(self) -> dict[str, Any]:
        """Give its place, as JSON values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a place."""


def check_same_run(state: dict[str, Any], own: dict[str, Any]) -> None:
    """Refuse a state that another configuration saved.

    Raises:
        ValueError: If any value of `own` is another one in `state`; names the first.
    """
    for name, value in own.items():
        if state.get(name) != value:
            raise ValueError(
                f"the state was saved with {name}={state.get(name)!r}, but here {name}={value!r}"
            )


class ImageLoader:
    """Batches of an `ImageData` in the order of `batch_indices`; its only state is the step.

    Arguments:
        data: The images.
        batch_size: How many images this process takes at a time.
        seed: What the order and the random crops follow from, with the rank and the step.
        rank, world_size: This process among all that train together.

    Raises:
        ValueError: At once, if `batch_indices` refuses these numbers.
    """

    def __init__(
        self,
        data: ImageData,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.data, self.step = data, 0
        self._order = {
            "length": len(data),
            "batch_size": batch_size,
            "seed": seed,
            "rank": rank,
            "world_size": world_size,
        }
        batch_indices(0, **self._order)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        indices = batch_indices(self.step, **self._order)
        generator = None
        if self.data.windows is not None:
            place = (self._order["seed"], self._order["rank"], self.step)
            generator = stream_generator("crops", *place)
        self.step += 1
        return self.data.batch(indices, generator)

    def state_dict(self) -> dict[str, Any]:
        """Give the step that comes next, and what it counts."""
        return {"step": self.step, "fingerprint": self.data.fingerprint, **self._order}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on at the step of a state.

        Raises:
            ValueError: If the state is of other data or another order.
        """
        check_same_run(state, {"fingerprint": self.data.fingerprint, **self._order})
        self.step = state["step"]


class Prefetcher:
    """Batches on a device, made ahead by a thread where that is not the CPU.

    For CUDA the thread also pins the memory, so that the copy runs while the device computes. On
    the CPU it passes batches on as they are asked for: the processors are busy as it is.

    Arguments:
        loader: Where batches come from. It belongs to the prefetcher from then on.
        device: Where they go.
        depth: How many batches to keep ready.
        background: Whether to use the thread; None is whether the device is not the CPU.
    """

    def __init__(
        self,
        loader: BatchSource,
        device: torch.device | str,
        *,
        depth: int = 2,
        background: bool | None = None,
    ) -> None:
        check_integer("depth", depth)
        self.loader, self.device, self.depth = loader, torch.device(device), depth
        self.background = self.device.type != "cpu" if background is None else background
        self._state = loader.state_dict()
        self._thread: Thread | None = None
        self._is_ahead = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        if not self.background:
            batch = next(self.loader)
            self._state = self.loader.state_dict()
        else:
            if self._thread is None:
                self._start()
            batch, state = self._ready.get()
            if isinstance(batch, BaseException):
                self.close()
                raise batch
            self._state = state
        return self._move(batch, lambda t: t.to(self.device, non_blocking=True))

    def state_dict(self) -> dict[str, Any]:
        """Give the loader's state after the batch last handed out, not after those made ahead."""
        return self._state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Drop what was made ahead and go on from a state.

        Raises:
            ValueError: If the loader refuses it.
        """
        self.close()
        self.loader.load_state_dict(state)
        self._state, self._is_ahead = state, False

    def close(self) -> None:
        """Stop the thread; what it made ahead is lost, the state is not."""
        if self._thread is None:
            return
        self._stop.set()
        self._thread.join()
        self._thread = None
        self._is_ahead = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self) -> None:
        if self._is_ahead:
            self.loader.load_state_dict(self._state)
        self._ready: Queue = Queue(self.depth)
        self._stop = Event()
        self._thread = Thread(target=self._run, name="prefetch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                batch = next(self.loader)
                if self.device.type == "cuda":
                    batch = self._move(batch, lambda part: part.pin_memory())
                self._put((batch, self.loader.state_dict()))
            except BaseException as error:  # noqa: BLE001 (it is raised again where it is awaited)
                self._put((error, None))
                return

    def _put(self, item: tuple[Any, Any]) -> None:
        while not self._stop.is_set():
            try:
                self._ready.put(item, timeout=0.05)
            except Full:
                continue
            return

    @staticmethod
    def _move(batch: Batch, move: Callable[[Any], Any]) -> Batch:
        return Batch(*(None if part is None else move(part) for part in batch))
