"""Small shards of every kind, streams of them, and what is in their batches."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import datasets
import torch
from helpers.image_samples import flat, write_folder, write_tar

from ddpm_pipeline.data.streams import ImageStream, open_stream

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["COUNT", "EACH", "SHARDS", "levels", "opened", "table", "tar_files", "write_shards"]

SHARDS, EACH = 4, 7
COUNT = SHARDS * EACH


def tar_files(first: int, label: str = "cls") -> dict[str, bytes]:
    """Name EACH images and their labels, the levels from `first` on."""
    files = {}
    for i in range(first, first + EACH):
        files |= {f"{i:04d}.png": flat(i), f"{i:04d}.{label}": str(i % 3).encode()}
    return files


def write_shards(kind: str, folder: Path) -> str:
    """Write 28 images of levels 0 … 27 with labels level % 3, as shards of one kind."""
    folder.mkdir()
    if kind == "tar":
        for s in range(SHARDS):
            write_tar(folder / f"part-{s:02d}.tar", tar_files(s * EACH))
        return str(folder / "part-{00..03}.tar")
    if kind == "parquet":
        for s in range(SHARDS):
            rows = range(s * EACH, (s + 1) * EACH)
            columns = {
                "image": [{"bytes": flat(i), "path": None} for i in rows],
                "label": [i % 3 for i in rows],
            }
            kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=3)}
            shard = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
            shard.to_parquet(folder / f"train-{s:05d}-of-{SHARDS:05d}.parquet")
        return str(folder)
    files = {f"{i:03d}.png": flat(i) for i in range(COUNT)}
    lines = [json.dumps({"file_name": name, "label": int(name[:3]) % 3}) for name in files]
    write_folder(folder, files | {"metadata.jsonl": "\n".join(lines).encode()})
    return str(folder)


def opened(source: object, **options: Any) -> ImageStream:
    """Open a stream of such shards, in batches of 5 and blocks of 6."""
    defaults = {"resolution": 8, "channels": 1, "batch_size": 5, "shuffle_buffer": 6}
    defaults |= {"labels": True, "num_classes": 3}
    return open_stream(source, **defaults | options)


def levels(stream: Any, count: int) -> list[list[int]]:
    """Take the levels of the next batches, having checked their labels."""
    batches = []
    for _ in range(count):
        images, labels = next(stream)
        assert images.shape == (5, 1, 8, 8)
        assert images.dtype == torch.uint8
        first = images[:, 0, 0, 0]
        assert torch.equal(labels, first.long() % 3)
        batches.append(first.tolist())
    return batches


def table(labels: list, kind: object = None) -> datasets.IterableDataset:
    """Make a stream of equal images with these labels."""
    columns = {"image": [{"bytes": flat(1), "path": None}] * len(labels), "label": labels}
    features = {"image": datasets.Image(), "label": kind or datasets.Value("int64")}
    data = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    return data.to_iterable_dataset()
