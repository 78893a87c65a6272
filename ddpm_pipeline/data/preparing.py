"""Preparing all images of a source: two readings in threads, the first without decoding.

    preparer = Preparer(source, settings, strict=False, threads=8, progress=True)
    plan     = preparer.inspect()                     hashes of all files, the channels they need
    header   = preparer.write(plan, file.write)       decoded bytes, image after image
    pixels   = pixels_of(values, header)              those bytes, with what is known of them

The first reading finds the fingerprint of the content. Where the cache holds that, the second one,
which costs most, is left out; cache.py keeps the bytes.
"""

import hashlib
import io
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm.auto import tqdm

from ddpm_pipeline.common import key_of
from ddpm_pipeline.data.decoding import Preparation, RefusedImageError, decode
from ddpm_pipeline.data.sources.source import RawImage, Source, one_line

__all__ = ["CACHE_VERSION", "Pixels", "Plan", "Preparer", "describe_unreadable", "pixels_of"]

CACHE_VERSION = 1
"""Part of every fingerprint: it grows when the same files are decoded into other bytes."""

_CHUNK = 64
_NAMED = 5
_GREY = {"1", "L", "LA"}


@dataclass(frozen=True)
class Plan:
    """The findings of a first reading of all images.

    Arguments:
        fingerprint: Hash of the content of all images and of the settings.
        settings: The settings, with the channels found out.
        readable: Which images have a header that can be read.
    """

    fingerprint: str
    settings: Preparation
    readable: tuple[int, ...]


@dataclass(frozen=True)
class Pixels:
    """The prepared images of a source, and what preparing them found.

    Arguments:
        values: Bytes, (N, C, H, W); flat, one image after the other, if some are not square.
        sizes: Height and width of each image (N, 2) where `values` is flat, else None.
        channels: C.
        fingerprint: Hash of the content of the source and of the settings.
        dropped: Which of the source's images could not be read.
        errors: The first few of those, by name and reason.
        changes: How many images were "resized", "cropped", "padded", "requantized" (had values
            between the 256 levels) or converted, as in "RGBA to RGB".
    """

    values: np.ndarray
    sizes: np.ndarray | None
    channels: int
    fingerprint: str
    dropped: tuple[int, ...]
    errors: tuple[str, ...]
    changes: dict[str, int]


class Preparer:
    """The two readings of a source, in threads, in order and in bounded memory.

    Arguments:
        source: The raw images.
        settings: How they are decoded.
        strict: Whether an image that cannot be read is an error; it is left out otherwise.
        threads: How many read and decode.
        progress: Whether to show progress bars.
    """

    def __init__(
        self, source: Source, settings: Preparation, strict: bool, threads: int, progress: bool
    ) -> None:
        self.source, self.settings, self.strict = source, settings, strict
        self.threads, self.progress = threads, progress
        self.failures: dict[int, str] = {}

    def inspect(self) -> Plan:
        """Hash every image and read its header.

        Raises:
            ValueError: If none can be read, or one cannot and that is not allowed.
        """
        digest, channels, readable = hashlib.sha256(), 1, []
        for i, found in self._map(_inspect, range(self.source.length), "Reading images"):
            if found is None:
                continue
            digest.update(found[0])
            channels = max(channels, found[1])
            readable.append(i)
        self._check(len(readable))
        settings = replace(self.settings, channels=self.settings.channels or channels)
        fingerprint = key_of(digest.hexdigest(), asdict(settings), CACHE_VERSION)
        return Plan(fingerprint, settings, tuple(readable))

    def write(self, plan: Plan, write: Callable[[memoryview], object]) -> dict[str, Any]:
        """Decode every readable image.

        Arguments:
            plan: The findings of ``inspect``.
            write: Given the bytes of each image, in order.
        Returns:
            What is known of them, as JSON values: the header of ``pixels_of``.
        Raises:
            ValueError: As ``inspect``, or if an image does not fit the settings.
        """
        changes: Counter[str] = Counter()
        sizes: list[tuple[int, int]] = []
        decoder = partial(decode, settings=plan.settings)
        for _, found in self._map(decoder, plan.readable, "Decoding images"):
            if found is None:
                continue
            values, changed = found
            write(np.ascontiguousarray(values).data)
            changes.update(changed)
            sizes.append(values.shape[1:])
        self._check(len(sizes))
        side = plan.settings.resolution
        square = all(size == (side, side) for size in sizes)
        return {
            "shape": [len(sizes), plan.settings.channels, side, side] if square else None,
            "sizes": None if square else sizes,
            "channels": plan.settings.channels,
            "fingerprint": plan.fingerprint,
            "dropped": sorted(self.failures),
            "errors": self._first_failures(),
            "changes": dict(changes),
        }

    def in_memory(self) -> Pixels:
        """Read and decode all images into memory."""
        buffer = bytearray()
        header = self.write(self.inspect(), buffer.extend)
        return pixels_of(np.frombuffer(buffer, np.uint8), header)

    def _map(
        self, function: Callable[[RawImage], Any], indices: Sequence[int], text: str
    ) -> Iterator[tuple[int, Any]]:
        """Give (i, function(image i)) in order, with None for what cannot be read."""
        chunks = [indices[k : k + _CHUNK] for k in range(0, len(indices), _CHUNK)]
        bar = tqdm(total=len(indices), desc=text, unit=" images", disable=not self.progress)
        pending: deque[Future] = deque()
        with bar, ThreadPoolExecutor(self.threads) as pool:
            for chunk in chunks:
                pending.append(pool.submit(self._try, function, chunk))
                if len(pending) > 4 * self.threads:
                    bar.update(len(done := pending.popleft().result()))
                    yield from done
            for future in pending:
                bar.update(len(done := future.result()))
                yield from done

    def _try(
        self, function: Callable[[RawImage], Any], chunk: Sequence[int]
    ) -> list[tuple[int, Any]]:
        return [(i, self._try_one(function, i)) for i in chunk]

    def _try_one(self, function: Callable[[RawImage], Any], i: int) -> Any:  # noqa: ANN401
        name = self.source.name(i)
        try:
            return function(self.source.read(i))
        except RefusedImageError as error:
            raise ValueError(f"{name}: {error}") from error
        except MemoryError:
            raise
        except Exception as error:  # Pillow's decoders raise many types
            reason = f"{name} ({_reason(error)})"
            if self.strict:
                raise ValueError(f"{reason} cannot be read; strict refuses that") from error
            self.failures[i] = reason
            return None

    def _check(self, readable: int) -> None:
        if readable == 0:
            count = self.source.length
            raise ValueError(describe_unreadable(count, count, self._first_failures()))

    def _first_failures(self) -> list[str]:
        return [self.failures[i] for i in sorted(self.failures)[:_NAMED]]


def _inspect(raw: RawImage) -> tuple[bytes, int]:
    """Hash one raw image, and tell how many channels it asks for."""
    if isinstance(raw, np.ndarray):
        values = np.ascontiguousarray(raw if raw.ndim == 3 else raw[:, :, None])
        digest = hashlib.sha256(f"{values.shape}{values.dtype}".encode())
        digest.update(values.data)
        return digest.digest(), values.shape[2]
    with Image.open(io.BytesIO(raw)) as image:
        grey = image.mode in _GREY or image.mode[0] == "I"
    return hashlib.sha256(raw).digest(), 1 if grey else 3


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return one_line(error)


def describe_unreadable(count: int, length: int, errors: Sequence[str]) -> str:
    """Say how many of a source's images cannot be read, and why the first few cannot."""
    more = ", ..." if count > len(errors) else ""
    return f"{count} of {length} images cannot be read: {'; '.join(errors)}{more}"


def pixels_of(values: np.ndarray, header: dict[str, Any]) -> Pixels:
    """Join the bytes of all images with the header that ``Preparer.write`` gave.

    Raises:
        ValueError: If there are more or fewer bytes than the header says.
    """
    sizes = None if header["sizes"] is None else np.array(header["sizes"], np.int64)
    if sizes is None:
        expected = np.prod(header["shape"], dtype=np.int64)
    else:
        expected = sizes.prod(1).sum() * header["channels"]
    if values.size != expected:
        raise ValueError(f"it holds {values.size} bytes, not what its header says")
    return Pixels(
        values=values if sizes is not None else values.reshape(header["shape"]),
        sizes=sizes,
        channels=header["channels"],
        fingerprint=header["fingerprint"],
        dropped=tuple(header["dropped"]),
        errors=tuple(header["errors"]),
        changes=header["changes"],
    )
