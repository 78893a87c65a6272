"""Images decoded once, into a memory-mapped file of bytes that later runs open at once.

    key          = hash(names, sizes and times of the files, settings)      (quick)
    fingerprint  = hash(sha256 of every file in order, settings)            (content)

    <cache>/<key>.json            says which fingerprint these files had
    <cache>/<fingerprint>/        pixels.u8, (N, C, H, W) one after the other, and header.json

The fingerprint holds no path: the same files give the same one on any machine, and touching or
moving them costs reading, not decoding. An entry is built aside, synced to disk and renamed, under
a file lock, so that it is either whole or absent and two processes that start at once build it
once.
"""

import hashlib
import io
import json
import logging
import os
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from huggingface_hub.constants import HF_HOME
from PIL import Image, UnidentifiedImageError
from tqdm.auto import tqdm

from ddpm_pipeline.image_decoding import Preparation, RefusedImageError, decode
from ddpm_pipeline.image_sources import RawImage, Source, key_of

__all__ = ["Pixels", "default_cache_dir", "prepare"]

_CHUNK = 64
_NAMED = 5
_VERSION = 1

_GREY = {"1", "L", "LA"}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pixels:
    """The prepared images of a source.

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


def default_cache_dir() -> Path:
    """`$DDPM_PIPELINE_CACHE`, or else `$HF_HOME/ddpm_pipeline/images`."""
    return Path(os.environ.get("DDPM_PIPELINE_CACHE") or Path(HF_HOME, "ddpm_pipeline", "images"))


# All images, in threads.


def _unreadable(count: int, length: int, errors: Sequence[str]) -> str:
    more = ", ..." if count > len(errors) else ""
    return f"{count} of {length} images cannot be read: {'; '.join(errors)}{more}"


@dataclass(frozen=True)
class _Plan:
    """What the first reading of all images found."""

    fingerprint: str
    settings: Preparation
    readable: tuple[int, ...]


class _Work:
    """Reading and decoding all images of a source in threads, in order and in bounded memory."""

    def __init__(
        self, source: Source, settings: Preparation, strict: bool, threads: int, progress: bool
    ) -> None:
        self.source, self.settings, self.strict = source, settings, strict
        self.threads, self.progress = threads, progress
        self.failures: dict[int, str] = {}

    def inspect(self) -> _Plan:
        """Hash every image and read its header."""
        digest, channels, readable = hashlib.sha256(), 1, []
        for i, found in self._map(_inspect, range(self.source.length), "Reading images"):
            if found is None:
                continue
            digest.update(found[0])
            channels = max(channels, found[1])
            readable.append(i)
        self._check(len(readable))
        settings = replace(self.settings, channels=self.settings.channels or channels)
        fingerprint = key_of(digest.hexdigest(), asdict(settings), _VERSION)
        return _Plan(fingerprint, settings, tuple(readable))

    def write(self, plan: _Plan, write: Callable[[memoryview], object]) -> dict[str, Any]:
        """Decode every readable image into `write`; return the entry's header."""
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
            "errors": [self.failures[i] for i in sorted(self.failures)[:_NAMED]],
            "changes": dict(changes),
        }

    def in_memory(self) -> Pixels:
        buffer = bytearray()
        header = self.write(self.inspect(), buffer.extend)
        return _pixels(np.frombuffer(buffer, np.uint8), header)

    def _map(
        self, function: Callable[[RawImage], Any], indices: Sequence[int], text: str
    ) -> Iterator[tuple[int, Any]]:
        """(i, function(image i)) in order, with None for what cannot be read."""
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
            errors = [self.failures[i] for i in sorted(self.failures)[:_NAMED]]
            raise ValueError(_unreadable(self.source.length, self.source.length, errors))


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return " ".join(str(error).split()) or type(error).__name__


def _inspect(raw: RawImage) -> tuple[bytes, int]:
    """A hash of one raw image, and how many channels it asks for."""
    if isinstance(raw, np.ndarray):
        values = np.ascontiguousarray(raw if raw.ndim == 3 else raw[:, :, None])
        digest = hashlib.sha256(f"{values.shape}{values.dtype}".encode())
        digest.update(values.data)
        return digest.digest(), values.shape[2]
    with Image.open(io.BytesIO(raw)) as image:
        grey = image.mode in _GREY or image.mode[0] == "I"
    return hashlib.sha256(raw).digest(), 1 if grey else 3


# The cache.


def prepare(
    source: Source,
    settings: Preparation,
    *,
    cache_dir: str | os.PathLike | None = None,
    strict: bool = False,
    num_threads: int | None = None,
    progress: bool = True,
) -> Pixels:
    """The prepared images of a source, from the cache or else decoded into it.

    Images that cannot be read are left out, counted and named in a warning. A source in memory is
    prepared in memory.

    Arguments:
        cache_dir: Where to keep them; `default_cache_dir()` unless given.
        strict: Refuse the source if any image cannot be read.
        num_threads: How many threads decode; as many as there are processors, at most 32, unless
            given.

    Raises:
        ValueError: If no image can be read, or one cannot with `strict`; if one does not fit the
            settings.
        OSError: If the cache cannot be written.
    """
    if source.dtype != "uint8" and settings.value_range is None:
        raise ValueError(
            f"{source.dtype} images need value_range=(low, high), the values that become black "
            "and white: (0, 1), (-1, 1), (0, 255), ..."
        )
    work = _Work(source, settings, strict, num_threads or min(32, os.cpu_count() or 1), progress)
    if source.quick_key is None:
        return work.in_memory()
    root = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    try:
        pixels = _cached(work, root)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(error.errno, f"the image cache {str(root)!r} failed: {reason}") from error
    if pixels.dropped:
        report = _unreadable(len(pixels.dropped), source.length, pixels.errors)
        if strict:
            raise ValueError(f"{report}; strict refuses that")
        logger.warning("%s; skipped", report)
    return pixels


def _cached(work: _Work, root: Path) -> Pixels:
    root.mkdir(parents=True, exist_ok=True)
    quick = root / f"{key_of(work.source.quick_key, asdict(work.settings), _VERSION)}.json"
    with FileLock(quick.with_suffix(".lock")):
        if (known := _read_quick(quick)) and (pixels := _open(root / known)):
            return pixels
        plan = work.inspect()
        entry = root / plan.fingerprint
        with FileLock(entry.with_suffix(".lock")):
            pixels = _open(entry) or _build(work, plan, entry)
        _write_atomically(quick, json.dumps({"fingerprint": plan.fingerprint}).encode())
    return pixels


def _read_quick(path: Path) -> str | None:
    try:
        return str(json.loads(path.read_bytes())["fingerprint"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        logger.warning("image cache: %s is damaged; reading the images again", path.name)
        return None


# Entries on disk.


def _build(work: _Work, plan: _Plan, entry: Path) -> Pixels:
    """Write an entry aside, then rename it; the caller holds its lock."""
    aside = entry.with_suffix(".tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        with (aside / "pixels.u8").open("wb") as file:
            header = work.write(plan, file.write)
            file.flush()
            os.fsync(file.fileno())
        text = json.dumps(header)
        record = {"header": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
        _write_atomically(aside / "header.json", json.dumps(record).encode())
        shutil.rmtree(entry, ignore_errors=True)
        aside.replace(entry)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    _sync_folder(entry.parent)
    return _pixels(_map_file(entry), header)


def _open(entry: Path) -> Pixels | None:
    """An entry that is whole, else None, with a message if there is a damaged one."""
    if not entry.exists():
        return None
    try:
        record = json.loads((entry / "header.json").read_bytes())
        if hashlib.sha256(record["header"].encode()).hexdigest() != record["sha256"]:
            raise ValueError("its header does not match its checksum")
        header = json.loads(record["header"])
        if header["fingerprint"] != entry.name:
            raise ValueError("it belongs to other images")
        return _pixels(_map_file(entry), header)
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("image cache: %s is damaged (%s); building it again", entry.name, error)
        return None


def _map_file(entry: Path) -> np.ndarray:
    """The bytes of an entry; copy on write, since torch wants writable memory."""
    return np.memmap(entry / "pixels.u8", np.uint8, mode="c")


def _pixels(values: np.ndarray, header: dict[str, Any]) -> Pixels:
    sizes = None if header["sizes"] is None else np.array(header["sizes"], np.int64)
    count = sizes.prod(1).sum() * header["channels"] if sizes is not None else None
    if values.size != (np.prod(header["shape"], dtype=np.int64) if count is None else count):
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


def _write_atomically(path: Path, content: bytes) -> None:
    aside = path.with_suffix(".tmp")
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    """Make renames in a folder last through a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
