"""Batches from sharded data that is read as it goes and never whole.

    stream = open_stream("train-{0000..0127}.tar", resolution=64, batch_size=64, world_size=8)
    images, labels = next(stream)

It can be resumed exactly, which the shuffle buffer of `datasets` cannot; rows.py says how. Images
are decoded here, in threads, with the labels and random crops that belong to them.
"""

import logging
import weakref
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from ddpm_pipeline.common import check_integer, stream_key
from ddpm_pipeline.data.cache import check_range
from ddpm_pipeline.data.decoding import (
    Crop,
    Fit,
    Preparation,
    RefusedImageError,
    decode,
    decoding_threads,
)
from ddpm_pipeline.data.findings import Named, describe_named, printable, without_detail
from ddpm_pipeline.data.images import Batch
from ddpm_pipeline.data.inspection import reason_of
from ddpm_pipeline.data.loader import check_same_run
from ddpm_pipeline.data.order import check_share
from ddpm_pipeline.data.rows import Row, ShuffledRows
from ddpm_pipeline.data.sources.columns import (
    ImageKind,
    find_image_column,
    find_label_column,
    image_kind,
    select_encoded,
)
from ddpm_pipeline.data.sources.finding import report_unread
from ddpm_pipeline.data.sources.folders import check_folder
from ddpm_pipeline.data.sources.library import share_of_rows
from ddpm_pipeline.data.sources.row_files import files_of_source
from ddpm_pipeline.data.sources.shards import is_folder, open_shards
from ddpm_pipeline.data.sources.source import check_distinct
from ddpm_pipeline.data.tiff_bands import TiffBands

if TYPE_CHECKING:
    import datasets

__all__ = ["ImageStream", "open_stream"]

logger = logging.getLogger(__name__)

_NAMED = 5


def open_stream(
    source: object,
    *,
    resolution: int | Sequence[int],
    batch_size: int,
    channels: int = 3,
    fit: Fit = "resize",
    crop: Crop = "center",
    split: str | None = None,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    shuffle_buffer: int = 1000,
    labels: bool = False,
    class_names: Sequence[str] | None = None,
    num_classes: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    value_range: tuple[float, float] | None = None,
    background: str | tuple[int, int, int] | None = None,
    max_pixels: int | None = None,
    tiff_bands: TiffBands | None = None,
    strict: bool = False,
    num_threads: int | None = None,
) -> "ImageStream":
    """Open endless batches of a sharded data set, each rank reading its own shards.

    Where the number of shards is not a multiple of `world_size`, every rank reads all of them and
    keeps every `world_size`-th image. The epochs of a rank follow one another without end; a batch
    may end one and begin the next.

    Arguments:
        source: A folder of .tar (webdataset) or .parquet shards, nested or not, or of images;
            shards by name, as in "part-{0000..0127}.tar" or ``part-*.parquet``;
            the name of a data set on the Hub; or a `datasets.IterableDataset`.
        resolution, channels, fit, crop, value_range, background, max_pixels, tiff_bands: As for
            `open_images`, but `channels` is not found out.
        batch_size: How many images this process takes at a time.
        split: Which part; "train" unless given. For a folder, the shards whose names say so, or
            the images in a folder in it, as for `open_images`.
        seed: What the order and the random crops follow from.
        rank, world_size: This process among all that train together.
        shuffle_buffer: How many images are read and permuted together; 0 keeps the order of the
            files and of the images in them.
        labels: Whether to read class labels.
        class_names: The classes by name; needed where labels are strings.
        num_classes: How many there are; needed where the data set does not say.
        image_column, label_column: Columns, if they are not to be found by type.
        strict: Refuse images that cannot be read; otherwise they are passed over and counted, with
            a warning at the first and another when the stream is closed.
        num_threads: How many threads decode; as many as there are processors unless given.

    Raises:
        FileNotFoundError: If a shard is missing, naming it, or the source is found nowhere.
        ValueError: If a shard is damaged, naming it, the stream is shuffled already, or a column,
            the classes or an option do not fit.
        TypeError: If the source is of another type.
    """
    check_share(batch_size, rank, world_size)
    check_integer("shuffle_buffer", shuffle_buffer, least=0)
    settings = Preparation(
        resolution, channels, fit, crop, value_range, background, max_pixels, tiff_bands=tiff_bands
    )
    dataset, shards = open_shards(source, split)
    if not shards and is_folder(source):
        report_unread(check_folder(Path(source).expanduser(), split), strict)
    column = find_image_column(dataset.features, image_column)
    files = files_of_source(source, shards)
    kind = image_kind(dataset.features, column, files, channels)
    check_range(kind.dtype, value_range)
    classes = _find_classes(dataset, label_column, class_names, num_classes) if labels else None
    columns = [kind.column] if classes is None else [kind.column, classes.column]
    rows = ShuffledRows(
        share_of_rows(select_encoded(dataset, columns, kind), rank, world_size),
        shards,
        seed=seed,
        rank=rank,
        world_size=world_size,
        shuffle_buffer=shuffle_buffer,
    )
    threads = decoding_threads(num_threads)
    return ImageStream(rows, settings, kind, classes, batch_size, strict, threads)


@dataclass(frozen=True)
class _Classes:
    """The column of labels, and the classes by name, if they have names, and number."""

    column: str
    names: tuple[str, ...] | None
    count: int

    def number(self, row: Row, name: str) -> int:
        """Give the number of a row's class.

        Raises:
            ValueError: If the row has none of the classes; calls it by its name.
        """
        label = row[self.column]
        if isinstance(label, str) and self.names is not None and label in self.names:
            return self.names.index(label)
        if label is None or label == -1:
            raise ValueError(f"label missing for {name}")
        if not isinstance(label, int) or not 0 <= label < self.count:
            raise ValueError(f"{name} has label {label!r}, not one of {self.count} classes")
        return label


def _find_classes(
    dataset: "datasets.IterableDataset",
    label_column: str | None,
    class_names: Sequence[str] | None,
    num_classes: int | None,
) -> _Classes:
    """Find the classes of a stream, which does not always say how many it has.

    Raises:
        ValueError: If nothing says it, or two things say otherwise.
    """
    column = find_label_column(dataset.features, label_column)
    names = class_names or getattr(dataset.features[column], "names", None)
    check_distinct(names or ())
    if names is None and num_classes is None:
        raise ValueError(
            f"num_classes or class_names must be given: column {column!r} of a stream does not "
            "say how many classes there are"
        )
    if names is not None and num_classes not in {None, len(names)}:
        raise ValueError(f"num_classes={num_classes}, but there are {len(names)} class names")
    return _Classes(column, None if names is None else tuple(names), num_classes or len(names))


class _Dropped:
    """What a stream has passed over: how many images for each reason, and the first names."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.counts: Counter[str] = Counter()
        self.names: dict[str, list[str]] = {}

    def add(self, name: str, reason: str) -> None:
        """Count one more image; warns of the first."""
        with self._lock:
            if not self.counts:
                logger.warning("%s cannot be read (%s); passed over", printable(name), reason)
            self.counts[reason] += 1
            first = self.names.setdefault(reason, [])
            if len(first) < _NAMED and name not in first:
                first.append(name)

    def groups(self) -> dict[str, Named]:
        """Give the counts and first names by reason."""
        with self._lock:
            return {k: Named(n, tuple(self.names[k])) for k, n in self.counts.items()}


def _close(rows: ShuffledRows, dropped: _Dropped) -> None:
    """Close the files, and say what was passed over."""
    rows.close()
    if groups := dropped.groups():
        count = sum(named.count for named in groups.values())
        logger.warning("the stream passed over %d images: %s", count, describe_named(groups))


class ImageStream:
    """Batches without end of a stream that `open_stream` opened, with their place in it.

    Attributes:
        batch_size: How many images a batch has.
        num_classes, class_names: The number and the names of the classes, or None.
        skipped: How many images could not be read so far.
        close: Closes the files, and warns of what was passed over, when it is called, at the
            latest at the interpreter's end.
    """

    def __init__(
        self,
        rows: ShuffledRows,
        settings: Preparation,
        kind: ImageKind,
        classes: _Classes | None,
        batch_size: int,
        strict: bool,
        num_threads: int,
    ) -> None:
        self._rows, self._settings, self._kind = rows, settings, kind
        self._classes, self._strict = classes, strict
        self.batch_size = batch_size
        self.num_classes = None if classes is None else classes.count
        self.class_names = None if classes is None else classes.names
        self.skipped = self._delivered = 0
        self._dropped = _Dropped()
        self._pool = ThreadPoolExecutor(num_threads, "decode")
        # Files are closed while the interpreter still can, also where nobody calls `close`.
        self.close = weakref.finalize(self, _close, rows, self._dropped)

    @property
    def dropped(self) -> dict[str, Named]:
        """Count the images passed over since the stream was opened, by reason.

        The names of the first stand beside the count: {"not an image": (2, ("a.png", "b.png"))}.
        """
        return self._dropped.groups()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        good: list[tuple[np.ndarray, int]] = []
        while len(good) < self.batch_size:
            rows = self._rows.take(self.batch_size - len(good))
            found = [item for item in self._pool.map(self._prepare, rows) if item is not None]
            self.skipped += len(rows) - len(found)
            self._delivered += len(found)
            if self._delivered == 0 and self._rows.epoch > 0:
                raise ValueError(f"none of the {self.skipped} images of the stream can be read")
            good += found
        images = torch.from_numpy(np.stack([image for image, _ in good]))
        labels = None if self._classes is None else torch.tensor([label for _, label in good])
        return Batch(images, labels)

    def state_dict(self) -> dict[str, Any]:
        """Give the place in the stream, and the numbers it depends on, as JSON values."""
        return {
            **self._identity(),
            **self._rows.state_dict(),
            "skipped": self.skipped,
            "delivered": self._delivered,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state; reads at most one block again.

        Raises:
            ValueError: If the state was saved with another order or batch size.
        """
        check_same_run(state, self._identity())
        self._rows.load_state_dict(state)
        self.skipped, self._delivered = state["skipped"], state["delivered"]

    def _identity(self) -> dict[str, Any]:
        return {"batch_size": self.batch_size, **self._rows.identity}

    def _prepare(self, numbered: tuple[int, int, Row]) -> tuple[np.ndarray, int] | None:
        """Decode a row into (image, label); None if it cannot be read and that is allowed."""
        epoch, number, row = numbered
        value = row[self._kind.column]
        name = self._kind.path(value) or f"image {number}"
        label = 0 if self._classes is None else self._classes.number(row, name)
        try:
            image, _ = decode(self._kind.read(value), self._settings)
        except RefusedImageError as error:
            raise ValueError(f"{printable(name)}: {error}") from error
        except Exception as error:
            if self._strict:
                raise ValueError(
                    f"{printable(name)} cannot be read; strict refuses that"
                ) from error
            self._dropped.add(name, without_detail(reason_of(error)))
            return None
        return self._window(image, epoch, number), label

    def _window(self, image: np.ndarray, epoch: int, number: int) -> np.ndarray:
        """Cut the window that a random crop shows this time out of an image (C, H, W)."""
        height, width = self._settings.sides
        room = (image.shape[1] - height + 1, image.shape[2] - width + 1)
        if room == (1, 1):
            return image
        order = self._rows.identity
        key = stream_key("stream_crops", order["seed"], order["rank"], epoch, number)
        top, left = np.random.default_rng(key).integers(room)
        return image[:, top : top + height, left : left + width]
