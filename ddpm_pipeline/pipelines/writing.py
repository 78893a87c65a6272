"""Shards of images: the files that hold images start … stop - 1, in three formats.

    png          one file per image
    webdataset   one .tar of PNG files, and of .cls files where there are classes
    npz          one .npy, to be joined with the others into one .npz

A file appears under its name when it is whole. What a crash leaves empty counts as missing.
"""

from __future__ import annotations

import io
import json
import logging
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ddpm_pipeline.common import printable, write_aside
from ddpm_pipeline.pipelines.config import Format
from ddpm_pipeline.pipelines.manifest import SAMPLES_MANIFEST

__all__ = ["FORMATS", "Format", "ShardFormat", "grouped", "join_parts", "split"]

logger = logging.getLogger(__name__)


ClassNumbers = Sequence[int] | None


@dataclass(frozen=True)
class ShardFormat:
    """A way of storing shards.

    Arguments:
        names: The names of a shard's files.
        write: `write(folder, shard, images, labels)`, images uint8 (N, H, W, C).
    """

    names: Callable[[range], list[str]]
    write: Callable[[Path, range, np.ndarray, ClassNumbers], None]

    def is_finished(self, folder: Path, shard: range) -> bool:
        """Tell whether all files of a shard are there and none is empty."""
        for path in (folder / name for name in self.names(shard)):
            if not path.exists():
                return False
            if path.stat().st_size == 0:
                name = printable(str(path))
                logger.warning("%s is empty, as a crash leaves it; its shard is drawn again", name)
                return False
        return True

    def pop_finished(self, queue: list[range], folder: Path) -> int:
        """Drop the shards that another process has finished by now; count their images."""
        count = 0
        while queue and self.is_finished(folder, queue[0]):
            count += len(queue.pop(0))
        return count


def _png_files(shard: range) -> list[str]:
    return [f"{i:06d}.png" for i in shard]


def _png_bytes(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "png")
    return buffer.getvalue()


def _write_png(folder: Path, shard: range, images: np.ndarray, labels: ClassNumbers) -> None:
    del labels  # PNG files have no place for them; image i is of class i mod their count
    for name, image in zip(_png_files(shard), images, strict=True):
        with write_aside(folder / name, sync=False) as file:
            file.write(_png_bytes(image))


def _tar_files(shard: range) -> list[str]:
    return [f"{shard.start:06d}-{shard.stop - 1:06d}.tar"]


def _write_tar(folder: Path, shard: range, images: np.ndarray, labels: ClassNumbers) -> None:
    with (
        write_aside(folder / _tar_files(shard)[0]) as file,
        tarfile.open(fileobj=file, mode="w") as tar,
    ):
        for k, i in enumerate(shard):
            _add(tar, f"{i:06d}.png", _png_bytes(images[k]))
            if labels is not None:
                _add(tar, f"{i:06d}.cls", str(labels[k]).encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def _npy_files(shard: range) -> list[str]:
    return [f"{shard.start:06d}.npy"]


def _write_npy(folder: Path, shard: range, images: np.ndarray, labels: ClassNumbers) -> None:
    del labels  # they are written when the parts are joined
    with write_aside(folder / _npy_files(shard)[0]) as file:
        np.save(file, images)


FORMATS: dict[Format, ShardFormat] = {
    "png": ShardFormat(_png_files, _write_png),
    "npz": ShardFormat(_npy_files, _write_npy),
    "webdataset": ShardFormat(_tar_files, _write_tar),
}


def join_parts(
    folder: Path, shards: Sequence[range], output: Path, labels: ClassNumbers, manifest: dict
) -> None:
    """Join the .npy files of all shards to one .npz, one at a time, and remove them."""
    parts = [np.load(folder / _npy_files(shard)[0], mmap_mode="r") for shard in shards]
    shape = (shards[-1].stop, *parts[0].shape[1:])
    header = {"descr": parts[0].dtype.str, "fortran_order": False, "shape": shape}
    with write_aside(output) as file, zipfile.ZipFile(file, "w") as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as entry:
            np.lib.format.write_array_header_1_0(entry, header)
            for part in parts:
                entry.write(part.tobytes())
        if labels is not None:
            with archive.open("labels.npy", "w") as entry:
                np.save(entry, np.array(labels))
        archive.writestr(SAMPLES_MANIFEST, json.dumps(manifest))
    shutil.rmtree(folder)


def grouped(shards: list[range], rows: int) -> list[list[range]]:
    """Put together the shards whose images one call can draw; one where calls are smaller."""
    size = max(1, rows // len(shards[0])) if shards else 1
    return [shards[i : i + size] for i in range(0, len(shards), size)]


def split(indices: Sequence[int], size: int) -> list[Sequence[int]]:
    """Cut numbers into parts of a size, the last of which may be smaller."""
    return [indices[start : start + size] for start in range(0, len(indices), size)]
