"""TODO data.rows."""

from collections.abc import Generator, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ddpm_pipeline.common import stream_generator, stream_key
from ddpm_pipeline.data.sources.shards import check_shards

if TYPE_CHECKING:
    import datasets

__all__ = []


Row = dict[str, Any]


class ShuffledRows:
    """The rows of a stream in their shuffled order, epoch after epoch, with their place.

    Its state is the epoch, the place in the files where the current block begins, how many rows of
    the epoch come before that, and a position in the block.
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
        """Up to `count` rows, at least one, each with its epoch and its number there."""
        while self._position == len(self._block):
            self._next_block()
        rows = self._block[self._position : self._position + count]
        first = self._before + self._position
        self._position += len(rows)
        return [(self.epoch, first + i, row) for i, row in enumerate(rows)]

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "place": self._place,
            "before": self._before,
            "position": self._position,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._seek(state["epoch"], state["place"], state["before"], state["position"])

    def close(self) -> None:
        with suppress(ValueError):  # a thread may be reading at this moment
            self._stream.close()

    def _seek(self, epoch: int, place: dict[str, Any] | None, before: int, position: int) -> None:
        """Go to a position of the block that begins at a place in an epoch."""
        seed, _ = self._key
        shards = np.random.SeedSequence(stream_key("stream_shards", seed, epoch)).generate_state(
            1
        )[0]
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
        try:
            rows = list(islice(self._stream, self._size or 64))
        except Exception as error:
            check_shards(self._shards)
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"a shard of the stream cannot be read: {reason}") from error
        if self._size == 0:
            return rows
        seed, rank = self._key
        generator = stream_generator("stream_blocks", seed, rank, self.epoch, self._before)
        order = torch.randperm(len(rows), generator=generator)
        return [rows[i] for i in order.tolist()]
