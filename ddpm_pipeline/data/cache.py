"""Images decoded once, into a memory-mapped file of bytes that later runs open at once.

    key          = hash(names, sizes and times of the files, settings)      (quick)
    fingerprint  = hash(sha256 of every file in order, settings)            (content)

    <cache>/<key>.json            says which fingerprint these files had, and what else was found
    <cache>/<fingerprint>/        pixels.u8, (N, C, H, W) one after the other (.u16, .f32, ... of
                                  deeper values that are kept exactly), header.json, and
                                  blocks.sha256, by which a changed byte is noticed

The fingerprint holds no path: the same files give the same one on any machine, and touching or
moving them costs reading, not decoding. An entry holds only what its content determines; which
files of a source cannot be read, and why, is in the record of that source, or found anew. An entry
is built aside, synced to disk and renamed, under a file lock, so that it is either whole or absent
and two processes that start at once build it once. The cache is its user's alone where it is made
here.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import __version__ as pillow_version

from ddpm_pipeline.common import key_of, sync_path, write_aside, write_bytes
from ddpm_pipeline.data.checksums import BlockSums, check_blocks
from ddpm_pipeline.data.decoding import Preparation, decoding_threads
from ddpm_pipeline.data.exact import check_exact_type
from ddpm_pipeline.data.inspection import Inspection, ReadingPlan
from ddpm_pipeline.data.places import default_cache_dir, private_folder
from ddpm_pipeline.data.prepared import Pixels, check_length, describe_unreadable, pixels_of
from ddpm_pipeline.data.preparing import CACHE_VERSION, Preparer
from ddpm_pipeline.data.sources.regular_files import check_regular, open_regular, read_regular
from ddpm_pipeline.data.sources.source import Source
from ddpm_pipeline.networks import EXACT_TYPES

__all__ = ["check_range", "prepare"]

logger = logging.getLogger(__name__)

# What earlier versions did to images as this one does; of others the files are looked at again.
_KNOWN_CHANGES = re.compile(r"resized|cropped|padded|(1|L|RGB|RGBA|CMYK|YCbCr) to (L|RGB|RGBA)")


_SUMS = "blocks.crc32"
# What a file of JSON can be damaged by.
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
_checked: set[tuple[str, int, int, int]] = set()  # the files that this process has looked at


def prepare(
    source: Source,
    settings: Preparation,
    *,
    cache_dir: str | os.PathLike | None = None,
    strict: bool = False,
    num_threads: int | None = None,
    progress: bool = True,
    verify: bool = False,
) -> Pixels:
    """Give the prepared images of a source, from the cache or else decoded into it.

    Images that cannot be read are left out, counted and named in a warning. A source in memory is
    prepared in memory.

    Arguments:
        cache_dir: Where to keep them; `default_cache_dir()` unless given.
        strict: Refuse the source if any image cannot be read.
        num_threads: How many threads decode; as many as there are processors, at most 32, unless
            given.
        verify: Whether to hold all bytes of the cache against their checksums; otherwise a sample,
            when a process opens them for the first time.

    Raises:
        ValueError: If no image can be read, or one cannot with `strict`; if one does not fit the
            settings.
        OSError: If the cache cannot be written.
    """
    if settings.is_exact:
        check_exact_type(source.dtype)
    else:
        check_range(source.dtype, settings.value_range)
    preparer = Preparer(source, settings, strict, decoding_threads(num_threads), progress)
    if source.quick_key is None:
        return preparer.in_memory()
    root = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    try:
        pixels = _cached(preparer, root, verify)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(error.errno, f"the image cache {str(root)!r} failed: {reason}") from error
    if pixels.dropped:
        report = describe_unreadable(len(pixels.dropped), source.length, pixels.errors)
        if strict:
            raise ValueError(f"{report}; strict refuses that")
        logger.warning("%s; skipped", report)
    return pixels


def check_range(dtype: str, value_range: tuple[float, float] | None) -> None:
    """Refuse numbers of a type that does not say what is black and white.

    Raises:
        ValueError: Names the option that says it.
    """
    if dtype not in {"uint8", "bool"} and value_range is None:
        raise ValueError(
            f"{dtype} images need value_range=(low, high), the values that become black "
            "and white: (0, 1), (-1, 1), (0, 255), ..."
        )


def _cached(preparer: Preparer, root: Path, verify: bool) -> Pixels:
    """Find the entry by the files' names and times, else by their content, else build it."""
    private_folder(root)
    quick = root / f"{_quick_key(preparer)}.json"
    with FileLock(quick.with_suffix(".lock")):
        if pixels := _known(preparer.source, root, quick, verify):
            return pixels
        plan = preparer.inspect()
        entry = root / plan.fingerprint
        with FileLock(entry.with_suffix(".lock")):
            header = _open(entry, verify) or _build(preparer, plan, entry)
            pixels = pixels_of(_map_file(entry, header), header, preparer.source, plan.inspection)
        if plan.lasting:
            found = plan.inspection.to_json() | {"pillow": pillow_version}
            record = {"fingerprint": plan.fingerprint, "found": found}
            write_bytes(quick, json.dumps(record).encode())
    return pixels


def _quick_key(preparer: Preparer) -> str:
    """Hash everything that the findings in a source follow from."""
    settings = preparer.settings.identity()
    if _may_hold_tiff(preparer.source):
        settings["tiff_bands"] = preparer.settings.tiff_bands
        settings["tiff_reading"] = 2  # bands that do not interleave were misread in 1
    if preparer.settings.max_pixels is not None:
        settings["max_pixels"] = preparer.settings.max_pixels
    return key_of(preparer.source.quick_key, settings, CACHE_VERSION)


def _may_hold_tiff(source: Source) -> bool:
    """Tell whether files of a source may be TIFF; all may whose names are not known."""
    names = map(source.name, range(source.length))
    return not source.has_names or any(name.lower().endswith((".tif", ".tiff")) for name in names)


def _known(source: Source, root: Path, quick: Path, verify: bool) -> Pixels | None:
    """Open the entry that a source's record names, if it can be believed."""
    try:
        check_regular([quick])
        record = json.loads(read_regular(quick))
        fingerprint = str(record["fingerprint"])
        found = Inspection.from_json(record["found"]) if "found" in record else None
    except FileNotFoundError:
        return None
    except _UNREADABLE:
        logger.warning("image cache: %s is damaged; reading the images again", quick.name)
        return None
    header = _open(root / fingerprint, verify, warns=False)  # it is opened again to be built
    if header is None or not _believable(header, record, found):
        return None
    try:
        values = _map_file(root / fingerprint, header)
        return pixels_of(values, header, source, found or Inspection({}))
    except ValueError:  # the record of an earlier version, which did not say what was left out
        return None


def _believable(header: dict[str, Any], record: dict[str, Any], found: Inspection | None) -> bool:
    """Tell whether looking at the files again would find nothing else.

    It might if an earlier version looked, or another Pillow, which may read more.
    """
    if found is None:
        return all(_KNOWN_CHANGES.fullmatch(change) for change in header["changes"])
    return not found.unreadable or record["found"]["pillow"] == pillow_version


def _build(preparer: Preparer, plan: ReadingPlan, entry: Path) -> dict[str, Any]:
    """Write an entry aside, then rename it; the caller holds its lock."""
    aside = entry.with_suffix(".tmp")
    _remove(aside)
    aside.mkdir()
    try:
        with write_aside(aside / _pixels(plan.dtype)) as file:
            sums = BlockSums(file.write)
            header = preparer.write(plan, sums.write)
        write_bytes(aside / _SUMS, sums.checksums)
        text = json.dumps(header)
        record = {"header": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
        record["checksums"] = hashlib.sha256(sums.checksums).hexdigest()
        write_bytes(aside / "header.json", json.dumps(record).encode())
        _remove(entry)
        aside.replace(entry)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    sync_path(entry.parent)
    return header


def _remove(path: Path) -> None:
    """Remove a folder, or what was put into its place, but not what a link leads to."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    shutil.rmtree(path, ignore_errors=True)


def _open(entry: Path, verify: bool, *, warns: bool = True) -> dict[str, Any] | None:
    """Read the header of an entry that is whole; else give None, with a warning if it is damaged.

    Not used is an entry of an earlier version that left images out, since it says which of some
    source, and one of another Pillow that could not decode some.
    """
    if not entry.exists():
        return None
    level = logging.WARNING if warns else logging.DEBUG
    try:
        record = json.loads(read_regular(entry / "header.json"))
        if hashlib.sha256(record["header"].encode()).hexdigest() != record["sha256"]:
            raise ValueError("its header does not match its checksum")
        header = json.loads(record["header"])
        if header["fingerprint"] != entry.name:
            raise ValueError("it belongs to other images")
        check_length(values := _map_file(entry, header), header)
        if verify and record.get("checksums") is None:
            logger.log(level, "image cache: %s has no checksums; building it again", entry.name)
            return None
        _check_bytes(entry / _pixels(_type_of(header)), record.get("checksums"), values, verify)
    except (OSError, *_UNREADABLE) as error:
        logger.log(level, "image cache: %s is damaged (%s); building it again", entry.name, error)
        return None
    other_pillow = "undecodable" in header and header["pillow"] != pillow_version
    return None if header["dropped"] or other_pillow else header


def _check_bytes(pixels: Path, sums: str | None, values: np.ndarray, verify: bool) -> None:
    """Hold an entry's bytes against their checksums, which those of earlier versions lack.

    Raises:
        ValueError: If they are not what was written.
    """
    entry, status = pixels.parent, pixels.stat()
    state = (str(entry), status.st_ino, status.st_size, status.st_mtime_ns)
    if sums is None or (state in _checked and not verify):
        return
    checksums = read_regular(entry / _SUMS)
    if hashlib.sha256(checksums).hexdigest() != sums:
        raise ValueError("its checksums are not what was written")
    check_blocks(values.view(np.uint8), checksums, every=verify)
    _checked.add(state)


def _type_of(header: dict[str, Any]) -> str:
    """Give the type of an entry's values, which those of earlier versions do not say.

    Raises:
        ValueError: If it is none that is kept.
    """
    dtype = header.get("dtype", "uint8")
    if dtype not in EXACT_TYPES:
        raise ValueError(f"it holds values of type {dtype!r:.40}")
    return dtype


def _pixels(dtype: str) -> str:
    """Name the file of an entry's values: pixels.u8, pixels.u16, pixels.f32, ..."""
    kind = np.dtype(dtype)
    return f"pixels.{kind.kind}{8 * kind.itemsize}"


def _map_file(entry: Path, header: dict[str, Any]) -> np.ndarray:
    """Map the values of an entry, copy on write, since torch wants writable memory."""
    dtype = _type_of(header)
    open_regular(entry / _pixels(dtype)).close()
    return np.memmap(entry / _pixels(dtype), dtype, mode="c")
