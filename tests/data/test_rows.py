"""Shuffled rows against a permutation made by hand, and their place in the stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import datasets
import numpy as np
import pytest
import torch
from helpers.image_samples import flat, write_tar
from helpers.shards import levels, opened, write_shards

from ddpm_pipeline.data.rows import ShuffledRows

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("quiet_datasets")


def numbers(count: int = 20, *, size: int, **options: int) -> ShuffledRows:
    """Rows {"i": 0}, {"i": 1}, ..."""
    stream = datasets.Dataset.from_dict({"i": list(range(count))}).to_iterable_dataset()
    options = {"seed": 0, "rank": 0, "world_size": 1} | options
    return ShuffledRows(stream, [], shuffle_buffer=size, **options)


def take(rows: ShuffledRows, count: int, at_once: int = 3) -> list[tuple[int, int, int]]:
    """The next (epoch, number, i)."""
    found = []
    while len(found) < count:
        found += rows.take(min(at_once, count - len(found)))
    return [(epoch, number, row["i"]) for epoch, number, row in found]


def block_by_hand(rows: list[int], seed: int, rank: int, epoch: int, before: int) -> list[int]:
    """A block in the order that NumPy's seed sequence and torch's permutation give it."""
    key = np.random.SeedSequence((seed, rank, epoch, before, 13)).generate_state(1, np.uint64)[0]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(int(key)))
    return [rows[i] for i in order.tolist()]


@pytest.mark.parametrize(("seed", "rank"), [(0, 0), (5, 0), (5, 3)])
def test_blocks_are_permuted_by_seed_rank_epoch_and_place(seed: int, rank: int) -> None:
    found = take(numbers(size=8, seed=seed, rank=rank, world_size=4), 40)
    expected = []
    for epoch in (0, 1):
        for before in (0, 8, 16):
            block = list(range(before, min(before + 8, 20)))
            expected += block_by_hand(block, seed, rank, epoch, before)
    assert [i for _, _, i in found] == expected


def test_rows_are_numbered_within_their_epoch() -> None:
    for size in (0, 6, 100):
        found = take(numbers(size=size), 50)
        assert [(epoch, number) for epoch, number, _ in found] == [
            (i // 20, i % 20) for i in range(50)
        ]


def test_without_a_buffer_the_order_is_that_of_the_files() -> None:
    found = take(numbers(100, size=0), 200)
    assert [i for _, _, i in found] == [*range(100), *range(100)]


def test_a_call_gives_at_least_one_row_and_no_more_than_asked_for() -> None:
    rows = numbers(size=8)
    assert [len(rows.take(5)) for _ in range(6)] == [5, 3, 5, 3, 4, 5]


@pytest.mark.parametrize("size", [0, 6, 100])
def test_going_on_from_any_place(size: int) -> None:
    rows, states, whole = numbers(size=size), [], []
    for _ in range(45):
        states.append(rows.state_dict())
        whole += take(rows, 1)
    other = numbers(size=size)
    for place in (44, 0, 19, 20, 21, 7):
        other.load_state_dict(states[place])
        assert take(other, min(4, 45 - place)) == whole[place : place + 4]


def test_closing_twice_is_no_harm() -> None:
    rows = numbers(size=8)
    rows.take(1)
    rows.close()
    rows.close()


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_shards_lost_while_streaming_are_named(kind: str, tmp_path: Path) -> None:
    stream = opened(write_shards(kind, tmp_path / "data"), shuffle_buffer=5)
    levels(stream, 1)
    for path in (tmp_path / "data").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match="4 of the shards missing"):
        levels(stream, 20)


def test_a_shard_damaged_inside(tmp_path: Path) -> None:
    source = write_shards("parquet", tmp_path / "data")
    path = sorted((tmp_path / "data").iterdir())[2]
    content = bytearray(path.read_bytes())
    content[4:600] = bytes(596)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="a shard of the stream cannot be read: "):
        levels(opened(source), 10)


def test_a_rank_without_images_says_so(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", {"0.png": flat(0), "0.cls": b"0"})
    with pytest.raises(ValueError, match="rank 1 of 2 finds no images in the stream"):
        next(opened(tmp_path / "x.tar", rank=1, world_size=2))


def test_a_stream_without_rows_is_an_error() -> None:
    stream = datasets.Dataset.from_dict({"i": [1, 2]}).to_iterable_dataset()
    stream = stream.filter(lambda row: row["i"] > 2)
    rows = ShuffledRows(stream, [], seed=0, rank=0, world_size=1, shuffle_buffer=4)
    with pytest.raises(ValueError, match="rank 0 of 1 finds no images in the stream"):
        rows.take(1)
