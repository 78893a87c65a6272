r"""Images at scale: any number of samples, the same set however they are drawn.

.. math:: \text{image}_i = f(\text{model}, \text{sampler}, \text{seed}, i)

All noise of image i comes from a generator seeded by (seed, i), and every model call has the same
number of rows, so that neither the number of processes nor what else is drawn beside it changes a
byte. Images are written in shards of consecutive i; a run that was killed goes on with the shards
that are missing.

    sample_images(SampleConfig(model="model", num_images=50_000, output="samples"))

    samples/000000.png ...          format "png"
    samples/000000-000255.tar ...   format "webdataset": 000000.png, and 000000.cls with classes
    samples.npz                     format "npz": arr_0 uint8 (N, H, W, C), arr_1 the classes
    samples/sampling.json           what determines the images
"""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from accelerate import PartialState
from diffusers import DDIMScheduler
from tqdm.auto import tqdm

from ddpm_pipeline.data_order import seeded_generator
from ddpm_pipeline.features import weights_hash
from ddpm_pipeline.pipeline import DDPMPipeline, images_from_uint8, uint8_from_unit_range
from ddpm_pipeline.scheduler import DDPMScheduler

__all__ = ["SampleConfig", "Sampler", "SamplingOptions", "load_sampler", "sample_images"]

Format = Literal["png", "npz", "webdataset"]
Precision = Literal["float32", "bfloat16", "float16"]
SchedulerName = Literal["as_saved", "ddpm", "ddim"]

MANIFEST_NAME = "sampling.json"
_SAMPLE_STREAM = 21
_SCHEDULERS = {"ddpm": DDPMScheduler, "ddim": DDIMScheduler}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """What determines image i.

    Raises:
        ValueError: If a value is not allowed; the message names it and what is.
    """

    model: str
    """A model directory, or a model of the Hub."""
    seed: int = 0
    """Image i depends on (seed, i) alone."""
    scheduler: SchedulerName = "ddim"
    """The sampler: DDIM, DDPM with the model's variances, or what the model was saved with."""
    num_inference_steps: int | None = 50
    """K, the number of reverse steps; None is all T of the model."""
    eta: float | None = None
    """Share of the noise in DDIM, 0 to 1; 0 unless given."""
    class_labels: tuple[int, ...] | None = None
    """Classes of a class-conditional model, in turn: image i is of class i mod their count."""
    guidance_scale: float = 1.0
    """Classifier-free guidance; 1 is none."""
    batch_size: int = 16
    """Rows of one model call. Another number changes images by rounding errors only."""
    precision: Precision = "float32"
    """Number type of the network."""

    def __post_init__(self) -> None:
        _check_at_least(self, seed=0, batch_size=1)
        if self.class_labels is not None and len(self.class_labels) == 0:
            raise ValueError("class_labels must hold at least one class, got none")


@dataclass(frozen=True, kw_only=True)
class SampleConfig(SamplingOptions):
    """Options of `sample_images`."""

    num_images: int = 16
    """How many images."""
    output: str = "samples"
    """A directory, or a .npz file."""
    format: Format | None = None
    """PNG files, one .npz file or webdataset's .tar shards; by the name of output unless given."""
    shard_size: int = 256
    """Images per shard: what is held in memory, and what a killed run loses at most."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_at_least(self, num_images=1, shard_size=1)
        if (Path(self.output).suffix == ".npz") != (self.resolved_format == "npz"):
            raise ValueError(
                f"output must end in .npz for format npz and for no other, got {self.output!r} "
                f"with format={self.resolved_format!r}"
            )

    @property
    def resolved_format(self) -> Format:
        """The format, from the name of output if none was given."""
        return self.format or ("npz" if Path(self.output).suffix == ".npz" else "png")


def _check_at_least(options: object, **bounds: int) -> None:
    for name, least in bounds.items():
        if getattr(options, name) < least:
            raise ValueError(f"{name} must be at least {least}, got {getattr(options, name)}")


# Drawing.


@dataclass(frozen=True, eq=False)
class Sampler:
    """Draws the images of given numbers.

    Arguments:
        pipe: The pipeline.
        options: What determines image i.
    """

    pipe: DDPMPipeline
    options: SamplingOptions

    def __call__(self, indices: Sequence[int]) -> np.ndarray:
        """The images of these numbers, uint8 (N, H, W, C)."""
        options, device = self.options, self.pipe.device
        extra = {} if options.eta is None else {"eta": options.eta}
        images = self.pipe(
            batch_size=len(indices),
            generator=[
                seeded_generator(options.seed, i, _SAMPLE_STREAM, device=device) for i in indices
            ],
            num_inference_steps=options.num_inference_steps,
            max_batch_size=options.batch_size,
            class_labels=None if options.class_labels is None else self.labels(indices),
            guidance_scale=options.guidance_scale,
            output_type="pt",
            **extra,
        ).images
        return uint8_from_unit_range(images)

    def labels(self, indices: Sequence[int]) -> list[int] | None:
        """The classes of the images of these numbers, None without classes."""
        labels = self.options.class_labels
        return None if labels is None else [labels[i % len(labels)] for i in indices]

    @property
    def num_steps(self) -> int:
        """K."""
        steps = self.options.num_inference_steps
        return self.pipe.scheduler.config.num_train_timesteps if steps is None else steps

    def describe(self) -> dict[str, Any]:
        """What determines the images, as JSON values; no path and no host."""
        config = json.loads(self.pipe.scheduler.to_json_string())
        config = {k: v for k, v in config.items() if k not in ("_name_or_path", "_class_name")}
        options = self.options
        return {
            "weights": weights_hash(self.pipe.unet),
            "scheduler": type(self.pipe.scheduler).__name__,
            "scheduler_config": sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
            "num_inference_steps": self.num_steps,
            "eta": options.eta,
            "class_labels": None if options.class_labels is None else list(options.class_labels),
            "guidance_scale": options.guidance_scale,
            "precision": options.precision,
            "seed": options.seed,
        }


def load_sampler(options: SamplingOptions, device: torch.device | str = "cpu") -> Sampler:
    """The sampler for these options.

    Arguments:
        options: What determines image i.
        device: Where the network runs.
    Raises:
        OSError: If the model cannot be loaded.
        ValueError: If an option does not fit the model.
    """
    pipe = DDPMPipeline.from_pretrained(options.model, dtype=getattr(torch, options.precision))
    if options.scheduler != "as_saved":
        scheduler = _SCHEDULERS[options.scheduler].from_config(pipe.scheduler.config)
        pipe = DDPMPipeline(pipe.unet, scheduler)
    pipe.set_progress_bar_config(disable=True)
    pipe.unet.eval()
    sampler = Sampler(pipe.to(device), options)
    _check_steps(sampler)
    return sampler


def _check_steps(sampler: Sampler) -> None:
    total = sampler.pipe.scheduler.config.num_train_timesteps
    if not 1 <= sampler.num_steps <= total:
        raise ValueError(
            f"num_inference_steps must be 1 to {total}, the model's T, got {sampler.num_steps}"
        )


# Writing.


def sample_images(config: SampleConfig) -> Path:
    """Draw and write images, on every process of `accelerate launch` together.

    A second call goes on where the first was stopped. Several machines must share the output's
    file system.

    Arguments:
        config: All options.
    Returns:
        The path of the directory or file.
    Raises:
        ValueError: If the output holds images that other options made, or an option is not
            allowed.
    """
    state = PartialState()
    sampler = load_sampler(config, state.device)
    output = Path(config.output)
    manifest = {
        **sampler.describe(),
        "num_images": config.num_images,
        "shard_size": config.shard_size,
        "format": config.resolved_format,
    }
    if output.suffix == ".npz" and output.exists():
        _check_manifest(manifest, _npz_manifest(output), output)
        return output
    folder = output.with_name(output.name + ".parts") if output.suffix == ".npz" else output
    with state.main_process_first():
        _claim(folder, manifest)
    _write_shards(config, sampler, folder, state)
    state.wait_for_everyone()
    if output.suffix == ".npz" and state.is_main_process:
        _join_parts(config, sampler, folder, output, manifest)
    state.wait_for_everyone()
    return output


def _claim(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest to a new folder, or make sure that the folder has the same one."""
    path = folder / MANIFEST_NAME
    if path.exists():
        _check_manifest(manifest, json.loads(path.read_text()), folder)
        return
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"output {str(folder)!r} is not empty and was not made by sample_images")
    folder.mkdir(parents=True, exist_ok=True)
    with _aside(path) as file:
        file.write((json.dumps(manifest, indent=2) + "\n").encode())


def _check_manifest(wanted: dict[str, Any], found: dict[str, Any], output: Path) -> None:
    differing = [
        f"{key} {found.get(key)!r}, now {wanted.get(key)!r}"
        for key in sorted(wanted.keys() | found.keys())
        if wanted.get(key) != found.get(key)
    ]
    if differing:
        raise ValueError(
            f"output {str(output)!r} holds images made with other options: {'; '.join(differing)}"
        )


def _write_shards(
    config: SampleConfig, sampler: Sampler, folder: Path, state: PartialState
) -> None:
    files, write = _FORMATS[config.resolved_format]
    size, total = config.shard_size, config.num_images
    shards = [range(i, min(i + size, total)) for i in range(0, total, size)]
    unfinished = [shard for shard in shards if not _is_finished(folder, files(shard))]
    state.wait_for_everyone()  # before anyone adds to what the others still have to list
    own = unfinished[state.process_index :: state.num_processes]
    others = [unfinished[r :: state.num_processes] for r in range(1, state.num_processes)]
    left = sum(map(len, unfinished))
    is_main = state.is_main_process
    with tqdm(total=total, initial=total - left, unit=" images", disable=not is_main) as bar:
        for shard in own:
            parts = []
            for start in range(0, len(shard), config.batch_size):
                parts.append(sampler(shard[start : start + config.batch_size]))
                bar.update(len(parts[-1]))
            write(folder, shard, np.concatenate(parts), sampler.labels(shard))
            if is_main:
                bar.update(sum(_pop_finished(folder, queue, files) for queue in others))
        state.wait_for_everyone()
        bar.update(total - bar.n)


def _pop_finished(folder: Path, queue: list[range], files: Callable[[range], list[str]]) -> int:
    """Drop the shards that another process has finished by now; how many images they held."""
    count = 0
    while queue and _is_finished(folder, files(queue[0])):
        count += len(queue.pop(0))
    return count


def _is_finished(folder: Path, names: list[str]) -> bool:
    for path in (folder / name for name in names):
        if not path.exists():
            return False
        if path.stat().st_size == 0:
            logger.warning("%s is empty, as a crash leaves it: its shard is drawn again", path)
            return False
    return True


@contextmanager
def _aside(path: Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """A file that appears under its name only when it is whole, and on the disk if `sync`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


# Formats: the files of a shard, and how to write them.


def _png_files(shard: range) -> list[str]:
    return [f"{i:06d}.png" for i in shard]


def _png_bytes(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    images_from_uint8(image[None])[0].save(buffer, "png")
    return buffer.getvalue()


def _write_png(folder: Path, shard: range, images: np.ndarray, labels: list[int] | None) -> None:
    del labels  # PNG files have no place for them; image i is of class i mod their count
    for name, image in zip(_png_files(shard), images, strict=True):
        with _aside(folder / name, sync=False) as file:
            file.write(_png_bytes(image))


def _tar_files(shard: range) -> list[str]:
    return [f"{shard.start:06d}-{shard.stop - 1:06d}.tar"]


def _write_tar(folder: Path, shard: range, images: np.ndarray, labels: list[int] | None) -> None:
    with (
        _aside(folder / _tar_files(shard)[0]) as file,
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


def _write_npy(folder: Path, shard: range, images: np.ndarray, labels: list[int] | None) -> None:
    del labels  # they are written when the parts are joined
    with _aside(folder / _npy_files(shard)[0]) as file:
        np.save(file, images)


_FORMATS = {
    "png": (_png_files, _write_png),
    "npz": (_npy_files, _write_npy),
    "webdataset": (_tar_files, _write_tar),
}


def _join_parts(
    config: SampleConfig, sampler: Sampler, folder: Path, output: Path, manifest: dict[str, Any]
) -> None:
    """One .npz of all parts, copied one at a time."""
    starts = range(0, config.num_images, config.shard_size)
    parts = [np.load(folder / f"{start:06d}.npy", mmap_mode="r") for start in starts]
    shape = (config.num_images, *parts[0].shape[1:])
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with _aside(output) as file, zipfile.ZipFile(file, "w") as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as entry:
            np.lib.format.write_array_header_1_0(entry, header)
            for part in parts:
                entry.write(part.tobytes())
        labels = sampler.labels(range(config.num_images))
        if labels is not None:
            with archive.open("arr_1.npy", "w") as entry:
                np.save(entry, np.array(labels))
        archive.writestr(MANIFEST_NAME, json.dumps(manifest))
    shutil.rmtree(folder)


def _npz_manifest(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read(MANIFEST_NAME))
    except (KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"output {str(path)!r} exists and was not made by sample_images"
        ) from error
