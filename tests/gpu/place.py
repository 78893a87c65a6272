"""Where items run: the device, a folder, the images; real sizes or those of a rehearsal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from unittest import mock

import numpy as np
import torch

__all__ = ["CPU", "Place"]

CPU = torch.device("cpu")
T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """What items are given.

    Arguments:
        device: CUDA, or the CPU in a rehearsal.
        rehearses: Whether sizes are tiny, and speeds are not judged.
        folder: For whatever an item writes; one for all items, and kept between them.
        data: IDX files of Fashion-MNIST; None for random images.
    """

    device: torch.device
    rehearses: bool
    folder: Path
    data: str | None = None

    def pick(self, real: T, tiny: T) -> T:
        """A size, or the one for a rehearsal."""
        return tiny if self.rehearses else real

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def wait(self) -> None:
        """Until the device has done all that it was told."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def images(self, side: int, channels: int, count: int) -> str:
        """A file of smooth random images, (N, side, side, channels), made once."""
        path = self.folder / f"images-{side}-{channels}-{count}.npy"
        if not path.exists():
            generator = np.random.default_rng(0)
            coarse = generator.integers(0, 256, (count, side // 4, side // 4, channels), np.uint8)
            values = coarse.repeat(4, axis=1).repeat(4, axis=2)
            np.save(path, values[..., 0] if channels == 1 else values)
        return str(path)

    def grey_images(self) -> str:
        """Fashion-MNIST where it is, or random images of its shape; tiny ones in a rehearsal."""
        if self.rehearses:
            return self.images(8, 1, 96)
        return self.data or self.images(28, 1, 20_000)

    @property
    def side(self) -> int:
        """Of ``grey_images``."""
        return self.pick(28, 8)

    @property
    def T(self) -> int:
        """Steps of the noise schedule."""
        return self.pick(1000, 100)

    def chain(self, every: int) -> list[int]:
        """Timesteps from the last to 0, about so far apart where T = 1000."""
        return [*range(self.T - 1, 0, -max(1, every * self.T // 1000)), 0]

    @contextlib.contextmanager
    def compiling(self, *, traces: bool = False) -> Iterator[None]:
        """In a rehearsal, compile nothing, which takes a minute on a CPU, or only trace.

        On a GPU, let one process compile many networks: past a limit torch would run them eagerly.
        """
        if not self.rehearses:
            import torch._dynamo.config as limits

            with limits.patch(recompile_limit=100):
                yield
            return
        real = torch.compile

        def quick(network: Callable, **_: object) -> Callable:
            return real(network, backend="eager") if traces else network

        with mock.patch.object(torch, "compile", quick):
            yield
