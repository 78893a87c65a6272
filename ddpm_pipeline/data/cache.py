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
import json
import logging
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
from filelock import FileLock
from huggingface_hub.constants import HF_HOME

from ddpm_pipeline.common import key_of, sync_path, write_aside, write_bytes
from ddpm_pipeline.data.decoding import Preparation, decoding_threads
from ddpm_pipeline.data.preparing import (
    CACHE_VERSION,
    Pixels,
    Plan,
    Preparer,
    describe_unreadable,
    pixels_of,
)
from ddpm_pipeline.data.sources.source import Source

__all__ = ["default_cache_dir", "prepare"]

logger = logging.getLogger(__name__)


def default_cache_dir() -> Path:
    """Give `$DDPM_PIPELINE_CACHE`, or else `$HF_HOME/ddpm_pipeline/images`."""
    given = os.environ.get("DDPM_PIPELINE_CACHE")
    return Path(given).expanduser() if given else Path(HF_HOME, "ddpm_pipeline", "images")


def prepare(
    source: Source,
    settings: Preparation,
    *,
    cache_dir: str | os.PathLike | None = None,
    strict: bool = False,
    num_threads: int | None = None,
    progress: bool = True,
) -> Pixels:
    """Give the prepared images of a source, from the cache or else decoded into it.

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
    preparer = Preparer(source, settings, strict, decoding_threads(num_threads), progress)
    if source.quick_key is None:
        return preparer.in_memory()
    root = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    try:
        pixels = _cached(preparer, root)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(error.errno, f"the image cache {str(root)!r} failed: {reason}") from error
    if pixels.dropped:
        report = describe_unreadable(len(pixels.dropped), source.length, pixels.errors)
        if strict:
            raise ValueError(f"{report}; strict refuses that")
        logger.warning("%s; skipped", report)
    return pixels


def _cached(preparer: Preparer, root: Path) -> Pixels:
    """Find the entry by the files' names and times, else by their content, else build it."""
    root.mkdir(parents=True, exist_ok=True)
    key = key_of(preparer.source.quick_key, asdict(preparer.settings), CACHE_VERSION)
    quick = root / f"{key}.json"
    with FileLock(quick.with_suffix(".lock")):
        if (known := _read_quick(quick)) and (pixels := _open(root / known)):
            return pixels
        plan = preparer.inspect()
        entry = root / plan.fingerprint
        with FileLock(entry.with_suffix(".lock")):
            pixels = _open(entry) or _build(preparer, plan, entry)
        write_bytes(quick, json.dumps({"fingerprint": plan.fingerprint}).encode())
    return pixels


def _read_quick(path: Path) -> str | None:
    """Read which fingerprint these files had; None if that is not known."""
    try:
        return str(json.loads(path.read_bytes())["fingerprint"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        logger.warning("image cache: %s is damaged; reading the images again", path.name)
        return None


def _build(preparer: Preparer, plan: Plan, entry: Path) -> Pixels:
    """Write an entry aside, then rename it; the caller holds its lock."""
    aside = entry.with_suffix(".tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        with write_aside(aside / "pixels.u8") as file:
            header = preparer.write(plan, file.write)
        text = json.dumps(header)
        record = {"header": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
        write_bytes(aside / "header.json", json.dumps(record).encode())
        shutil.rmtree(entry, ignore_errors=True)
        aside.replace(entry)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    sync_path(entry.parent)
    return pixels_of(_map_file(entry), header)


def _open(entry: Path) -> Pixels | None:
    """Open an entry that is whole; else give None, with a warning if it is damaged."""
    if not entry.exists():
        return None
    try:
        record = json.loads((entry / "header.json").read_bytes())
        if hashlib.sha256(record["header"].encode()).hexdigest() != record["sha256"]:
            raise ValueError("its header does not match its checksum")
        header = json.loads(record["header"])
        if header["fingerprint"] != entry.name:
            raise ValueError("it belongs to other images")
        return pixels_of(_map_file(entry), header)
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("image cache: %s is damaged (%s); building it again", entry.name, error)
        return None


def _map_file(entry: Path) -> np.ndarray:
    """Map the bytes of an entry, copy on write, since torch wants writable memory."""
    return np.memmap(entry / "pixels.u8", np.uint8, mode="c")
