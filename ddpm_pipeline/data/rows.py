"""The rows of a stream in a shuffled order whose place is a few numbers.

    rows = ShuffledRows(dataset, shards, seed=0, rank=0, world_size=1, shuffle_buffer=1000)
    for epoch, number, row in rows.take(64): ...
    rows.load_state_dict(state)                  reads at most one block again

Rows are read in blocks, each permuted by (seed, rank, epoch, rows before it). The order of the
shards follows from (seed, epoch). So the place in the files where a block begins and a position in
it are all there is to remember, where the shuffle buffer of `datasets` would have to be saved.
"""

from collections.abc import Generator, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ddpm_pipeline.common import stream_generator, stream_key
from ddpm_pipeline.data.sources.shard_files import check_shards
from ddpm_pipeline.data.sources.source import one_line

if TYPE_CHECKING:
    import datasets

__all__ = ["Row", "ShuffledRows"]

Row = dict[str, Any]

_READ_AT_ONCE = 64


class ShuffledRows:
    """The rows of a stream, epoch after epoch without end.

    Its state is the epoch, the place in the files where the current block begins, how many rows of
    the epoch come before that, and a position in the block.

    Arguments:
        dataset: This process's rows, in the order of the files.
        shards: The local files behind them, to be looked at when reading fails.
        seed: What the order follows from, with the rank.
        rank, world_size: This process among all that read together.
        shuffle_buffer: How many rows a block has; 0 keeps the order of the files.
    """

    def __init__(
        self,
        dataset: "datasets.IterableDataset",
        shards: Sequence[str],
        *,
        seed: int,
        rank: int,
        world_size: int,
        shuffle_buffer: int,
    ) -> None:
        self.identity = {
            "seed": seed,
            "rank": rank,
            "world_size": world_size,
            "shuffle_buffer": shuffle_buffer,
        }
        self._dataset, self._shards = dataset, shards
        self._key, self._size = (seed, rank), shuffle_buffer
        self._seek(0, None, 0, 0)

    def take(self, count: int) -> list[tuple[int, int, Row]]:
        """Give up to `count` rows, at least one, each as (epoch, number in the epoch, row).

        Raises:
            ValueError: If a whole epoch has no rows, or they cannot be read.
            FileNotFoundError: If a shard has been lost.
        """
        while self._position == len(self._block):
            self._next_block()
        rows = self._block[self._position : self._position + count]
        first = self._before + self._position
        self._position += len(rows)
        return [(self.epoch, first + i, row) for i, row in enumerate(rows)]

    def state_dict(self) -> dict[str, Any]:
        """Give the place in the stream, as JSON values."""
        return {
            "epoch": self.epoch,
            "place": self._place,
            "before": self._before,
            "position": self._position,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a place; reads at most one block again."""
        self._seek(state["epoch"], state["place"], state["before"], state["position"])

    def close(self) -> None:
        """Close the files."""
        with suppress(ValueError):  # a thread may be reading at this moment
            self._stream.close()

    def _seek(self, epoch: int, place: dict[str, Any] | None, before: int, position: int) -> None:
        """Go to a position of the block that begins at a place in an epoch."""
        seed, _ = self._key
        sequence = np.random.SeedSequence(stream_key("stream_shards", seed, epoch))
        shards = sequence.generate_state(1)[0]
        # `datasets` orders the shards by its epoch number, and leaves them as they are at 0.
        self._dataset.set_epoch(int(shards) | 1 if self._size else 0)
        self._dataset.load_state_dict(place)
        self._stream: Generator[Row] = iter(self._dataset)
        self.epoch, self._place, self._before = epoch, place, before
        self._block: list[Row] = []
        self._position = 0
        if position:
            self._block = self._read_block()
            self._position = position

    def _next_block(self) -> None:
        """Read the block that follows, in the next epoch if this one has no more."""
        before = self._before + len(self._block)
        if before:
            self._place = self._dataset.state_dict()
        self._before, self._position = before, 0
        self._block = self._read_block()
        if self._block:
            return
        if before == 0:
            rank, size = self.identity["rank"], self.identity["world_size"]
            raise ValueError(f"rank {rank} of {size} finds no images in the stream")
        self._seek(self.epoch + 1, None, 0, 0)

    def _read_block(self) -> list[Row]:
        """Read as many rows as a block has, and permute them."""
        try:
            rows = list(islice(self._stream, self._size or _READ_AT_ONCE))
        except Exception as error:
            check_shards(self._shards)
            raise ValueError(f"a shard of the stream cannot be read: {one_line(error)}") from error
        if self._size == 0:
            return rows
        seed, rank = self._key
        generator = stream_generator("stream_blocks", seed, rank, self.epoch, self._before)
        order = torch.randperm(len(rows), generator=generator)
        return [rows[i] for i in order.tolist()]
