r"""Opening images of any kind, and taking batches of them as bytes.

    data  = open_images("photos/", resolution=64)          decoded once, memory-mapped bytes
    batch = data.batch(batch_indices(step, length=len(data), batch_size=64, seed=0))
    x_0   = data.model_values(random_flip(batch.images.to(device), generator))

.. math:: x_0 = \frac{2 k}{255} - 1, \qquad k \in \{0, \dots, 255\}

Values that are kept deeper than bytes have a ``scale`` in its place.

order.py says which images a step sees; loader.py and streams.py give batches without end.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddpm_pipeline.common import Resolution, key_of, sides_of
from ddpm_pipeline.data.cache import prepare
from ddpm_pipeline.data.conditions import DataConditions
from ddpm_pipeline.data.decoding import Crop, Depth, Fit, Preparation
from ddpm_pipeline.data.findings import Found, described, summarized
from ddpm_pipeline.data.moments import ValueMoments
from ddpm_pipeline.data.pixels import model_values, pictured_values
from ddpm_pipeline.data.prepared import Pixels
from ddpm_pipeline.data.reading_conditions import asked_conditions, with_conditions
from ddpm_pipeline.data.sources.finding import (
    count_classes,
    find_source,
    report_unread,
    with_labels,
)
from ddpm_pipeline.data.sources.source import Source
from ddpm_pipeline.data.tiff_bands import TiffBands
from ddpm_pipeline.data.value_range import OutsideRange, measured
from ddpm_pipeline.networks import Told, ValueScale

__all__ = ["Batch", "ImageData", "open_images"]


_MOST_COUNTED = 10_000  # classes without names that are counted whether they have images or not


class Batch(NamedTuple):
    """Images (B, C, H, W), bytes unless kept deeper, and classes, int64 (B,), or conditions."""

    images: Tensor
    labels: Told


@dataclass(frozen=True, eq=False)
class ImageData:
    """N images with random access, and what was done to them.

    Arguments:
        values: Bytes, or values as deep as they were, (M, C, H, W), M >= N; flat where
            `crop="random"` keeps images of other proportions.
        windows: First value, height and width of each image (M, 3) where `values` is flat, else
            None.
        resolution: Side of the images of a batch; (height, width) where they are not square.
        channels: C.
        members: Which N of the M images these are, int64, or None for all.
        labels: Class labels of these N, int64, or None.
        num_classes: How many classes there are, or None.
        class_names: Their names, or None.
        fingerprint: Hash of the images, settings and labels; the same files give the same one
            anywhere, under any path.
        changes: How many of the M images were "resized", "cropped", "padded", "requantized"
            (between the 256 levels) or converted, as in {"RGBA to RGB": 3}.
        skipped: How many images could not be read.
        found: Sizes and modes, what was left out and why, and the split, for people.
        name_of: Says which file each of the M images is, or None.
        scale: What a model's unit is in that of these values, where they are no bytes.
        moments: Of all M images, where they have a scale.
        given: What these N are conditioned on beside classes, or None.
    """

    values: Tensor
    windows: Tensor | None
    resolution: Resolution
    channels: int
    members: Tensor | None
    labels: Tensor | None
    num_classes: int | None
    class_names: tuple[str, ...] | None
    fingerprint: str
    changes: dict[str, int]
    skipped: int
    found: Found = field(default_factory=Found)
    name_of: Callable[[int], str] | None = None
    scale: ValueScale | None = None
    moments: ValueMoments | None = None
    given: DataConditions | None = None

    def __len__(self) -> int:
        if self.members is not None:
            return len(self.members)
        return len(self.values if self.windows is None else self.windows)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Give (N, C, H, W)."""
        return len(self), self.channels, *sides_of(self.resolution)

    @property
    def was_resized(self) -> bool:
        """Tell whether any image was scaled, so that its bits/dim are not the original's."""
        return "resized" in self.changes

    @property
    def was_cropped(self) -> bool:
        """Tell whether any image lost pixels to a crop, or will with `crop="random"`."""
        return "cropped" in self.changes or self.windows is not None

    @property
    def was_padded(self) -> bool:
        """Tell whether a border was put around any image."""
        return "padded" in self.changes

    @property
    def names(self) -> list[str] | None:
        """Name the N images, as those of files or "row 3"; None if they have no names."""
        if self.name_of is None:
            return None
        numbers = range(len(self)) if self.members is None else self.members.tolist()
        return [self.name_of(i) for i in numbers]

    @property
    def class_counts(self) -> dict[str, int] | None:
        """Count the images of each class, by its name or number; None without labels.

        Of very many that have no names, those without images are left out.
        """
        if self.labels is None:
            return None
        present, counts = self.labels.unique(return_counts=True)
        found = dict(zip(present.tolist(), counts.tolist(), strict=True))
        if self.class_names is not None:
            return {name: found.get(i, 0) for i, name in enumerate(self.class_names)}
        has_few = self.num_classes <= _MOST_COUNTED
        return {str(i): found.get(i, 0) for i in (range(self.num_classes) if has_few else found)}

    def describe(self) -> str:
        """Say in a few lines what the images are, what was done to them, and what was left out."""
        return "\n".join(described(self))

    def __repr__(self) -> str:
        return "\n".join(summarized(self))

    def batch(
        self, indices: Tensor | Sequence[int], generator: torch.Generator | None = None
    ) -> Batch:
        """Take the images and labels at `indices`, in one gather.

        Arguments:
            indices: int64 (B,), 0 … N - 1.
            generator: Where random crops are drawn from; None takes centre crops.

        Raises:
            ValueError: If `indices` is empty.
            IndexError: If an index is out of range.
        """
        indices = torch.as_tensor(indices, dtype=torch.int64)
        if len(indices) == 0:
            raise ValueError("indices must hold at least one index, got none")
        if indices.min() < 0 or indices.max() >= len(self):
            raise IndexError(f"indices must be in 0 ... {len(self) - 1}")
        labels = None if self.labels is None else self.labels.index_select(0, indices)
        labels = labels if self.given is None else self.given.of(indices, labels)
        if self.members is not None:
            indices = self.members.index_select(0, indices)
        if self.windows is not None:
            indices = self._offsets(indices, generator)
        # NumPy's gather copies whole rows, five times faster than torch's on bytes.
        axis = None if self.windows is not None else 0
        images = np.take(self.values.numpy(), indices.numpy(), axis=axis)
        return Batch(torch.from_numpy(images), labels)

    def model_values(self, images: Tensor) -> Tensor:
        """Map images of a batch to float32 as a model sees them, on the device they are on."""
        return model_values(images, self.scale)

    def pictures(self, indices: Tensor | Sequence[int]) -> Tensor:
        """Take the images at `indices` as bytes to be looked at, whatever their depth is."""
        return pictured_values(self.batch(indices).images, self.scale)

    def _offsets(self, indices: Tensor, generator: torch.Generator | None) -> Tensor:
        """Find where in the flat values each element of square windows is, (B, C, H, W)."""
        start, height, width = self.windows.index_select(0, indices).view(-1, 3, 1, 1, 1).unbind(1)
        H, W = sides_of(self.resolution)
        room = torch.cat([height, width], dim=1) - torch.tensor([H, W]).view(1, 2, 1, 1)
        corner = room // 2
        if generator is not None:
            place = torch.rand(room.shape, dtype=torch.float64, generator=generator)
            corner = (place * (room + 1)).long()
        channel = torch.arange(self.channels).view(-1, 1, 1)
        y, x = corner[:, :1] + torch.arange(H).view(-1, 1), corner[:, 1:] + torch.arange(W)
        return start + (channel * height + y) * width + x

    def subset(self, indices: Tensor | Sequence[int]) -> "ImageData":
        """Take these images alone, sharing memory, with a fingerprint of their own."""
        indices = torch.as_tensor(indices, dtype=torch.int64)
        members = indices if self.members is None else self.members.index_select(0, indices)
        return replace(
            self,
            members=members,
            labels=None if self.labels is None else self.labels.index_select(0, indices),
            given=None if self.given is None else self.given.subset(indices),
            fingerprint=key_of(self.fingerprint, indices.tolist()),
        )


def open_images(
    source: object,
    *,
    resolution: int | Sequence[int],
    channels: int | None = None,
    fit: Fit = "resize",
    crop: Crop = "center",
    value_range: tuple[float, float] | None = None,
    split: str | None = None,
    labels: bool | Sequence[int] | Sequence[str] = False,
    num_classes: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    background: str | tuple[int, int, int] | None = None,
    max_pixels: int | None = None,
    depth: Depth = "bytes",
    tiff_bands: TiffBands | None = None,
    stack_pattern: str | None = None,
    outside_range: OutsideRange = "refuse",
    strict: bool = False,
    cache_dir: str | os.PathLike | None = None,
    num_threads: int | None = None,
    progress: bool = True,
    verify_cache: bool = False,
    condition_on: str | os.PathLike | None = None,
    condition_vector: Sequence[str] | None = None,
    condition_channels: int | None = None,
) -> ImageData:
    """Open any data set of images, decoded once and kept as bytes in a memory-mapped cache.

    Arguments:
        source: A folder of images; a .npy, .npz or IDX file; a folder of IDX files; a .parquet
            file, or folder of them; a folder made by `save_to_disk`; the name of a data set on the
            Hub; an array, tensor or `datasets.Dataset`.
        resolution: The side of squares, or (height, width).
        channels: 1, 3 or 4 for pictures, any number for arrays and TIFF bands; None is 1 if
            every image that can be read is grey, else 3 (arrays keep their own).
        fit: "resize" scales images to the smallest size that covers `resolution`, "pad" puts
            `background` around smaller ones and refuses larger ones.
        crop: "center", or "random" for a window of the longer side drawn anew for each batch.
        value_range: What becomes 0 and 255: needed for arrays that are not uint8 and for files
            that do not say it (32 bits, signed, floating point), possible for all of over 8 bits.
            With depth "exact", -1 and 1: each channel's mean and two deviations unless given.
        split: Which part: of a data set, of IDX files, of a .npz, or a folder in the folder ("."
            is all of it). Data sets, IDX files and folders of splits take "train" unless told.
        labels: Whether to read class labels: folder names, a column of metadata.csv or
            metadata.jsonl, the label column, the labels file or the array `labels` or `y`. Or the
            labels themselves, one per image.
        num_classes: How many classes there must be.
        image_column, label_column: Columns of a data set, if they are not to be found by type; the
            latter also of a folder's metadata.
        background: The colour under transparency and in padding, as "white", "#808080" or (128,
            128, 128); None is white under transparency and black in padding.
        max_pixels: How many pixels an image file may have; None keeps Pillow's limit.
        depth: "bytes" rounds what is deeper to 256 levels; "exact" keeps uint8, uint16, int16,
            float16 and float32 as they are, with a `scale` for models.
        tiff_bands: Of TIFF files that are more than a picture, "all" bands of all pages as
            channels, or the "picture" of the first page; None refuses what could be either.
        stack_pattern: How files of a folder are called that are a band each of one image, as
            r"(?P<name>.*)_band(?P<band>[0-9]+)", below it and without their suffix; or "none".
        outside_range: With depth "exact", whether values outside `value_range` are refused, or
            cut for the model; both count and name them.
        strict: Refuse images that cannot be read, and files that may be images by no known suffix;
            otherwise they are left out, with a warning that counts and names them.
        cache_dir: Where decoded images are kept; `$DDPM_PIPELINE_CACHE`, or else
            `$HF_HOME/ddpm_pipeline/images`. Arrays in memory are not cached.
        num_threads, progress: How many threads decode, and whether a bar shows how far they are.
        verify_cache: Whether to hold all that is in the cache against its checksums, rather than a
            sample; what was changed is decoded again.
        condition_on: Pictures that go with the images: a source as above, or a column.
        condition_vector: Columns of numbers that go with them; of metadata, a data set or .npz.
        condition_channels: Of these pictures, as `channels` are of the images.

    Raises:
        FileNotFoundError: If the path does not exist and is no data set on the Hub either.
        ValueError: If there are no images, or they, their labels or an option do not fit.
        TypeError: If `source` is of another type.
    """
    settings = Preparation(
        resolution, channels, fit, crop, value_range, background, max_pixels, depth, tiff_bands
    )
    columns = (image_column, label_column)
    found = find_source(source, split, labels is True, *columns, channels, stack_pattern)
    if not isinstance(labels, bool):
        found = with_labels(found, labels)
    count = count_classes(found, num_classes)
    report_unread(found.unread, strict)
    how = {"cache_dir": cache_dir, "num_threads": num_threads, "progress": progress}
    pixels = prepare(found, settings, strict=strict, verify=verify_cache, **how)
    data = _image_data(pixels, found, settings.resolution, count)
    data = measured(data, pixels.moments, pixels.step, value_range, outside_range)

    def read(pictures: Source, own: Preparation) -> ImageData:
        pixels = prepare(pictures, own, strict=True, verify=verify_cache, **how)
        opened = _image_data(pixels, pictures, own.resolution, None)
        return measured(opened, pixels.moments, pixels.step, None, outside_range)

    wanted = replace(settings, channels=condition_channels)
    asked = asked_conditions(source, condition_on, condition_vector, found.split, wanted)
    return data if asked is None else with_conditions(data, found, pixels.dropped, asked, read)


def _image_data(
    pixels: Pixels, found: Source, resolution: Resolution, num_classes: int | None
) -> ImageData:
    """Join the pixels with the labels of those images that could be read."""
    labels, windows, fingerprint = None, None, pixels.fingerprint
    if pixels.sizes is not None:
        areas = pixels.sizes.prod(1) * pixels.channels
        windows = torch.from_numpy(np.column_stack([areas.cumsum() - areas, pixels.sizes]))
    kept = np.delete(np.arange(found.length), list(pixels.dropped)) if pixels.dropped else None

    def name_of(i: int) -> str:
        return found.name(i if kept is None else int(kept[i]))

    if found.labels is not None:
        labels = torch.from_numpy(found.labels if kept is None else found.labels[kept])
        fingerprint = key_of(fingerprint, labels.tolist(), found.class_names)
    return ImageData(
        values=torch.from_numpy(pixels.values),
        windows=windows,
        resolution=resolution,
        channels=pixels.channels,
        members=None,
        labels=labels,
        num_classes=num_classes,
        class_names=found.class_names,
        fingerprint=fingerprint,
        changes=pixels.changes,
        skipped=len(pixels.dropped),
        found=pixels.found,
        name_of=name_of,
    )
