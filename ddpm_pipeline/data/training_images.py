"""The images that a model was trained on, known again by their content.

    known = KnownImages.of_training(train, validation, held_out={"size": 0.1, "seed": 0})
    known.save("model/training_images.safetensors")
    data = open_split("model", "validation", open_data)     what training held out; or "training"
    training_overlap("model", data).train                   how many of these it was trained on

Of each image 64 bits of a hash of its bytes are kept, as the model sees it. Of more than 250,000
images only those of the smallest hashes are, a random sample; numbers are then estimates.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ddpm_pipeline.common import is_repo_id, write_bytes
from ddpm_pipeline.data.held_out import split_validation
from ddpm_pipeline.data.images import ImageData

__all__ = [
    "TRAINING_IMAGES_NAME",
    "KnownImages",
    "Overlap",
    "described_overlap",
    "described_reference",
    "image_hashes",
    "open_split",
    "training_overlap",
]

logger = logging.getLogger(__name__)


TRAINING_IMAGES_NAME = "training_images.safetensors"
"""The file beside a model that tells its training images."""
_HELD_OUT, _TRAINED = "validation", "training"
_SPLITS = (_TRAINED, _HELD_OUT)  # as split_validation gives them
_MADE = {_TRAINED: "left to train on", _HELD_OUT: "held out"}
_MOST_HASHES = 250_000
_END = 2**64
_BATCH = 1024
_UNKNOWN = (
    "it could not be checked whether the model was trained on these images: it keeps no hashes of "
    "its training images, which were a stream or are those of another program"
)


def image_hashes(data: ImageData) -> np.ndarray:
    """Hash the bytes of each image to 64 bits, uint64 (N,), in their order."""
    hashes = np.empty(len(data), dtype=np.uint64)
    for numbers in torch.arange(len(data)).split(_BATCH):
        images = np.ascontiguousarray(data.batch(numbers).images.numpy())
        for i, image in zip(numbers.tolist(), images, strict=True):
            digest = hashlib.blake2b(image, digest_size=8, person=b"ddpm image")
            hashes[i] = int.from_bytes(digest.digest(), "big")
    return hashes


@dataclass(frozen=True, eq=False)
class _Sketch:
    """The hashes of many images that are below a limit: all of them, or a random sample.

    Arguments:
        hashes: uint64, sorted.
        limit: What they are below.
        count: How many images there were.
    """

    hashes: np.ndarray
    limit: int
    count: int

    @classmethod
    def of(cls, data: ImageData) -> _Sketch:
        hashes = np.sort(image_hashes(data))
        limit = int(hashes[_MOST_HASHES]) if len(hashes) > _MOST_HASHES else _END
        return cls(cls.below(hashes, limit), limit, len(data))

    @staticmethod
    def below(hashes: np.ndarray, limit: int) -> np.ndarray:
        return hashes if limit >= _END else hashes[hashes < np.uint64(limit)]

    def is_of(self, data: ImageData) -> bool:
        """Tell whether it is the sketch of these images, in any order."""
        hashes = np.sort(image_hashes(data))
        same = len(hashes) == self.count
        return same and np.array_equal(self.below(hashes, self.limit), self.hashes)

    def found_in(self, hashes: np.ndarray) -> int:
        """Count how many of other images are among these; an estimate where these are a sample."""
        comparable = self.below(hashes, self.limit)
        found = int(np.isin(comparable, self.hashes).sum())
        return round(found * len(hashes) / len(comparable)) if len(comparable) else 0


@dataclass(frozen=True, eq=False)
class KnownImages:
    """The training images of a model, and those that it was validated on.

    Arguments:
        train: The training images.
        validation: The held-out ones, of the same source or another, or None.
        held_out: What ``split_validation`` was called with, and the split of the source that it
            was called on: {"size": 0.1, "seed": 0, "split": None}; None if nothing was held out.
    """

    train: _Sketch
    validation: _Sketch | None
    held_out: dict[str, Any] | None

    @classmethod
    def of_training(
        cls,
        train: ImageData,
        validation: ImageData | None = None,
        held_out: dict[str, Any] | None = None,
    ) -> KnownImages:
        """Hash the images of a run."""
        return cls(
            _Sketch.of(train), None if validation is None else _Sketch.of(validation), held_out
        )

    @property
    def validated_on_training_images(self) -> int:
        """Count the held-out images that are training images too, as copies are."""
        held_out = self.validation
        if held_out is None or not held_out.count:
            return 0
        found = self.train.found_in(held_out.hashes)
        return round(found * held_out.count / len(held_out.hashes))

    def save(self, path: Path) -> None:
        """Write them to a file, eight bytes for an image."""
        parts = {"train": self.train} | ({_HELD_OUT: self.validation} if self.validation else {})
        about = {
            "held_out": self.held_out,
            **{name: {"limit": part.limit, "count": part.count} for name, part in parts.items()},
        }
        tensors = {name: part.hashes for name, part in parts.items()}
        write_bytes(Path(path), save(tensors, metadata={"about": json.dumps(about)}))

    @classmethod
    def load(cls, path: str | Path) -> KnownImages:
        """Read what ``save`` wrote.

        Raises:
            ValueError: If it is another kind of file.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                about = json.loads(file.metadata()["about"])
                parts = {
                    name: _Sketch(file.get_tensor(name).astype(np.uint64), **about[name])
                    for name in file.keys()  # noqa: SIM118 (it is no dict)
                }
            return cls(parts["train"], parts.get(_HELD_OUT), about["held_out"])
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{str(path)!r} does not tell training images: {error}") from None

    @classmethod
    def of_model(cls, model: str | Path) -> KnownImages | None:
        """Find those of a saved model; None if it does not say.

        Arguments:
            model: A folder, or a name of the Hub.
        """
        path = Path(model).expanduser() / TRAINING_IMAGES_NAME
        if path.is_file():
            return cls.load(path)
        if path.parent.exists() or not is_repo_id(str(model)):
            return None
        from huggingface_hub import hf_hub_download

        try:
            return cls.load(hf_hub_download(str(model), TRAINING_IMAGES_NAME))
        except Exception:  # noqa: BLE001 (without a network, or on a model of others, it is unknown)
            return None


def open_split(
    model: str | Path, split: str | None, open_data: Callable[[str | None], ImageData]
) -> ImageData:
    """Open a split of a source; of a model whose training held images out of it, those too.

    "validation" is then what was held out, and "training" are the others.

    Arguments:
        model: A folder, or a name of the Hub.
        split: The split that was asked for.
        open_data: Opens a split of the source, as the model reads images.
    Raises:
        ValueError: If the source does not hold the images of training any more, or has no such
            split and the model held nothing out.
    """
    if split not in _SPLITS:
        return open_data(split)
    known = KnownImages.of_model(model)
    if known is None or known.held_out is None:
        return _own_split(split, open_data, is_known=known is not None)
    size, seed, own = (known.held_out[name] for name in ("size", "seed", "split"))
    data, expected = open_data(own), known.train if split == _TRAINED else known.validation
    parts = _again(data, size, seed)
    found = None if parts is None else parts[_SPLITS.index(split)]
    if found is None or not expected.is_of(found):
        there = expected.found_in(image_hashes(data))
        raise ValueError(
            f"split={split!r} is what validation_size={size:g} {_MADE[split]} when the model was "
            f"trained, but these are not the same data, in the same order: {there:,} of its "
            f"{expected.count:,} images are among these {len(data):,}; give the data that the "
            "model was trained on, or leave split out to measure all of these, or name a folder "
            f"that is called {split!r} by data"
        )
    logger.info("the %d images of split=%r, as training divided the data", len(found), split)
    return found


def _own_split(
    split: str, open_data: Callable[[str | None], ImageData], *, is_known: bool
) -> ImageData:
    """Open a split of the source's own of such a name; say why it means nothing else."""
    try:
        return open_data(split)
    except (ValueError, FileNotFoundError) as error:
        why = "held none out of its data" if is_known else "does not say what it was trained on"
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f"{error}; nor is it a part that training made: the model {why}") from error


def _again(data: ImageData, size: float, seed: int) -> tuple[ImageData, ImageData] | None:
    """Hold out the same images again; None if there are too few for that."""
    try:
        return split_validation(data, size, seed)
    except ValueError:
        return None


@dataclass(frozen=True)
class Overlap:
    """How many of some images a model has met in its training.

    Arguments:
        images: How many there are.
        train: Those that it was trained on; None if it keeps no hashes of its training images.
        validation: Those that were held out to validate it; None if it keeps no hashes of these.
    """

    images: int
    train: int | None
    validation: int | None

    def to_dict(self) -> dict[str, int | None]:
        """Give the counts as JSON values."""
        return asdict(self)

    @property
    def share(self) -> str:
        """Say how many of the images are training images."""
        return f"{self.train:,} of these {self.images:,} images ({self.train / self.images:.0%})"


def training_overlap(model: str | Path, data: ImageData) -> Overlap:
    """Count how many images a model was trained or validated on.

    Arguments:
        model: A folder, or a name of the Hub.
        data: The images, opened as the model reads them.
    """
    known = KnownImages.of_model(model)
    if known is None:
        return Overlap(len(data), None, None)
    hashes = image_hashes(data)
    held_out = None if known.validation is None else known.validation.found_in(hashes)
    return Overlap(len(data), known.train.found_in(hashes), held_out)


def described_overlap(model: str | Path, data: ImageData) -> tuple[str, ...]:
    """Warn of images that the model was trained on, in what was to be measured on others."""
    overlap = training_overlap(model, data)
    if overlap.train is None:
        return (_UNKNOWN,)
    if not overlap.train:
        return ()
    message = (
        f"{overlap.share} are training images of the model, so the number says how well it "
        "remembers them as well; held-out images alone tell how good it is (--split validation, "
        "if the run held any out)"
    )
    return (message,)


def described_reference(overlap: Overlap) -> tuple[str, ...]:
    """Say what distances to images mean that the model met in its training."""
    if overlap.train is None:
        return (_UNKNOWN,)
    messages = []
    if overlap.train:
        messages.append(
            f"{overlap.share} that samples were compared with are training images of the model: "
            "copies of them would give small distances too, so compare these with distances to "
            "training images only"
        )
    if overlap.validation:
        messages.append(
            f"{overlap.validation:,} of the {overlap.images:,} images that samples were compared "
            "with were held out to validate the model"
        )
    return tuple(messages)
