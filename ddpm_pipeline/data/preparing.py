"""Preparing all images of a source: two readings in threads, the first without decoding.

    preparer = Preparer(source, settings, strict=False, threads=8, progress=True)
    plan     = preparer.inspect()                     hashes of all files, the channels they need
    header   = preparer.write(plan, file.write)       decoded bytes, image after image
    pixels   = pixels_of(values, header, source, plan.inspection)

The first reading finds the fingerprint of the content. Where the cache holds that, the second one,
which costs most, is left out; cache.py keeps the bytes. The header says nothing that the content
and the settings do not determine.
"""

import hashlib
import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from PIL import __version__ as pillow_version
from tqdm.auto import tqdm

from ddpm_pipeline.common import key_of
from ddpm_pipeline.data.bands import PICTURE_CHANNELS
from ddpm_pipeline.data.bounds import READING
from ddpm_pipeline.data.decoding import Preparation, RefusedImageError, decode
from ddpm_pipeline.data.findings import printable
from ddpm_pipeline.data.inspection import (
    Inspection,
    ReadingPlan,
    common_counts,
    describe_refused,
    inspect_image,
    reason_of,
)
from ddpm_pipeline.data.moments import ValueMeter
from ddpm_pipeline.data.prepared import NAMED, Pixels, describe_unreadable, first_errors, pixels_of
from ddpm_pipeline.data.sources.source import DamagedSourceError, RawImage, Source

__all__ = [
    "CACHE_VERSION",
    "Preparer",
]

CACHE_VERSION = 1
"""Part of every fingerprint: it grows when the same files are decoded into other bytes."""

_CHUNK = 64
_CHUNK_BYTES, _IN_FLIGHT = 2**22, 2**28
"""Decoded images that wait to be written, of one task and of all: 256 MiB for any threads."""


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
        self._failures: dict[int, str] = {}
        self._refused: dict[int, str] = {}
        self._lasting = True

    def inspect(self) -> ReadingPlan:
        """Hash every image and read its header.

        Raises:
            ValueError: If none can be read, one cannot and that is not allowed, or some do not fit
                the settings.
        """
        digest, readable = hashlib.sha256(), []
        channels: dict[int | None, list[int]] = {}
        modes: Counter[str] = Counter()
        types: dict[str, list[int]] = {}
        sizes: Counter[str] = Counter()
        self._failures, self._refused, ratio = {}, {}, 1.0
        inspector = partial(inspect_image, settings=self.settings)
        for i, found in self._map(inspector, range(self.source.length), "Reading images"):
            if found is None:
                continue
            digest.update(found.digest)
            channels.setdefault(found.channels, []).append(i)
            types.setdefault(found.dtype, []).append(i)
            modes[found.mode] += 1
            if found.size not in sizes:
                ratio = max(ratio, found.ratio(self.settings.sides))
            sizes[found.size] += 1
            readable.append(i)
        self._check(len(readable), self._failures)
        self._check_one_depth(types)
        wanted = self.settings.channels or self._find_channels(channels)
        settings = replace(self.settings, channels=wanted)
        fingerprint = key_of(digest.hexdigest(), settings.identity(), CACHE_VERSION)
        inspection = Inspection(
            self._failures,
            common_counts(sizes, "other sizes"),
            common_counts(modes, "other modes"),
        )
        whole = wanted * math.prod(settings.sides)
        dtype = np.dtype(next(iter(types)))
        largest = dtype.itemsize * math.ceil(whole * (ratio if settings.crop == "random" else 1))
        return ReadingPlan(
            fingerprint, settings, tuple(readable), inspection, self._lasting, largest, dtype.name
        )

    def _check_one_depth(self, types: dict[str, list[int]]) -> None:
        """Refuse images of different types, which have no scale in common."""
        if len(types) > 1:
            found = [
                f"{len(numbers):,} of {dtype} ({printable(self.source.name(numbers[0]))})"
                for dtype, numbers in sorted(types.items())
            ]
            raise ValueError(
                f"depth='exact' needs images of one type, got {', '.join(found)}; depth='bytes' "
                "brings all to 256 levels"
            )

    def _find_channels(self, by_channels: dict[int | None, list[int]]) -> int:
        """Find how many channels the images need that will be kept.

        Colours count where an image can be decoded, and those of a palette where they are used.
        """
        self._check_alike(by_channels)
        arrays = max((c for c in by_channels if c not in {None, 3}), default=1)
        settings = replace(self.settings, channels=3)
        colored = (self._pixels(i, settings) for i in by_channels.get(3, ()))
        if any(pixels is not None for pixels in colored):
            return max(3, arrays)
        palettes = (self._pixels(i, settings) for i in by_channels.get(None, ()))
        if any(pixels is not None and (pixels != pixels[:1]).any() for pixels in palettes):
            return max(3, arrays)
        return arrays

    def _check_alike(self, by_channels: dict[int | None, list[int]]) -> None:
        """Refuse images of different channels between which nothing is converted."""
        if len(by_channels) > 1 and not set(by_channels) <= {None, *PICTURE_CHANNELS}:
            found = [
                f"{len(numbers)} of {count or 'few'} ({printable(self.source.name(numbers[0]))})"
                for count, numbers in sorted(by_channels.items(), key=lambda item: item[0] or 0)
            ]
            raise ValueError(
                f"images must have equally many channels, got {', '.join(found)}; only 1, 3 and 4 "
                "are converted into each other"
            )

    def _pixels(self, i: int, settings: Preparation) -> np.ndarray | None:
        """Decode one image; None if it will not be kept."""
        try:
            return decode(self.source.read(i), settings)[0]
        except RefusedImageError:
            return np.arange(3)  # it is not left out, but refused with its reason later
        except (MemoryError, DamagedSourceError):
            raise
        except Exception:  # noqa: BLE001 (Pillow's decoders raise many types)
            return None

    def write(self, plan: ReadingPlan, write: Callable[[memoryview], object]) -> dict[str, Any]:
        """Decode every readable image.

        Arguments:
            plan: The findings of ``inspect``.
            write: Given the bytes of each image, in order.
        Returns:
            What the content says of them, as JSON values: the header of ``pixels_of``. Images that
            cannot be decoded are known by their place among the readable ones.
        Raises:
            ValueError: As ``inspect``.
        """
        changes: Counter[str] = Counter()
        sizes: list[tuple[int, int]] = []
        self._failures, self._refused = {}, {}
        decoder = partial(decode, settings=plan.settings)
        meter = ValueMeter(decoder, plan.dtype) if plan.settings.is_exact else None
        images = self._map(meter or decoder, plan.readable, "Decoding images", True, plan.largest)
        for _, found in images:
            if found is None:
                continue
            values, changed, *measured = found
            if meter is not None:
                meter.add(*measured)
            write(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
            changes.update(changed)
            sizes.append(values.shape[1:])
        self._check(len(sizes), self._failures | dict(plan.inspection.unreadable))
        sides = plan.settings.sides
        alike = all(size == sides for size in sizes)
        header = {
            "shape": [len(sizes), plan.settings.channels, *sides] if alike else None,
            "sizes": None if alike else sizes,
            "channels": plan.settings.channels,
            "fingerprint": plan.fingerprint,
            "dropped": [],  # earlier versions kept facts of one source here and below
            "errors": [],
            "changes": dict(changes),
        }
        if meter is not None:
            header |= {"dtype": plan.dtype, **meter.to_json()}
        if self._failures:
            failures = (self._failures.get(i) for i in plan.readable)
            header["undecodable"] = [[k, why] for k, why in enumerate(failures) if why is not None]
            header["pillow"] = pillow_version
        return header

    def in_memory(self) -> Pixels:
        """Read and decode all images into memory."""
        buffer = bytearray()
        plan = self.inspect()
        header = self.write(plan, buffer.extend)
        values = np.frombuffer(buffer, header.get("dtype", "uint8"))
        return pixels_of(values, header, self.source, plan.inspection)

    def _map(
        self,
        function: Callable[[RawImage], Any],
        indices: Sequence[int],
        text: str,
        again: bool = False,
        each: int = 0,
    ) -> Iterator[tuple[int, Any]]:
        """Give (i, function(image i)) in order, with None for what cannot be read.

        Arguments:
            each: Bytes of a result, at most.
        """
        chunk = max(1, min(_CHUNK, _CHUNK_BYTES // max(1, each)))
        ahead = max(1, min(4 * self.threads, _IN_FLIGHT // max(1, chunk * each) - 2))
        bar = tqdm(total=len(indices), desc=text, unit=" images", disable=not self.progress)
        pending: deque[Future] = deque()
        with bar, ThreadPoolExecutor(self.threads) as pool:
            for k in range(0, len(indices), chunk):
                pending.append(pool.submit(self._try, function, indices[k : k + chunk], again))
                if len(pending) > ahead:
                    bar.update(len(done := pending.popleft().result()))
                    yield from done
            for future in pending:
                bar.update(len(done := future.result()))
                yield from done

    def _try(
        self, function: Callable[[RawImage], Any], chunk: Sequence[int], again: bool
    ) -> list[tuple[int, Any]]:
        return [(i, self._try_one(function, i, again)) for i in chunk]

    def _try_one(self, function: Callable[[RawImage], Any], i: int, again: bool) -> Any:  # noqa: ANN401
        try:
            with READING.hold(self.source.size_of(i) if self.source.size_of else 0):
                return function(self._read(i, again))
        except RefusedImageError as error:
            self._refused[i] = str(error)
        except (MemoryError, DamagedSourceError):
            raise
        except _LostImageError as error:
            name = printable(self.source.name(i))
            raise ValueError(
                f"{name} could be read at first and then no longer: {error}"
            ) from error
        except Exception as error:  # Pillow's decoders raise many types
            reason = reason_of(error)
            if self.strict:
                name = f"{printable(self.source.name(i))} ({reason})"
                raise ValueError(f"{name} cannot be read; strict refuses that") from error
            self._failures[i] = reason
        return None

    def _read(self, i: int, again: bool) -> RawImage:
        """Read one raw image; what was there a moment ago and is no longer is an error.

        It would go into the cache as a fact of the content otherwise.
        """
        try:
            return self.source.read(i)
        except OSError as error:
            if again:
                raise _LostImageError(reason_of(error)) from error
            # A link to nothing has another size when it leads somewhere; all else may pass.
            self._lasting &= isinstance(error, FileNotFoundError)
            raise

    def _check(self, readable: int, failures: dict[int, str]) -> None:
        """Refuse a source with images that do not fit, or with none that can be read."""
        length = self.source.length
        if self._refused:
            names = [printable(self.source.name(i)) for i in sorted(self._refused)[:NAMED]]
            raise ValueError(describe_refused(self._refused, names, length))
        if readable == 0:
            first = first_errors(self.source, failures)
            raise ValueError(describe_unreadable(length, length, first))


class _LostImageError(Exception):
    """An image that could be read the first time, but not the second."""
