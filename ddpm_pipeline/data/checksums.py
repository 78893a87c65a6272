"""Checksums of the bytes in the cache, block by block, so that a few blocks tell of damage.

    sums = BlockSums(file.write)
    sums.write(image)                        passes the bytes on
    check_blocks(values, sums.checksums, every=False)

Reading all of a large cache would take as long as decoding some of it. A sample, another one in
every process, finds what is damaged in many places at once and the rest sooner or later. The sums
are CRC-32: they are for damage, not for forgers, who could write the sums as well.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

__all__ = ["BlockSums", "check_blocks"]

_BLOCK = 2**20
_LENGTH = 4
_SAMPLE = 8
"""Blocks that are looked at where not all are: milliseconds."""


class BlockSums:
    """Sums bytes on their way into a file.

    Arguments:
        write: Given the bytes.
    """

    def __init__(self, write: Callable[[memoryview], object]) -> None:
        self._write, self._checksums = write, bytearray()
        self._sum, self._room = 0, _BLOCK

    def write(self, content: memoryview) -> None:
        """Pass bytes on."""
        self._write(content)
        content = memoryview(content).cast("B")
        while len(content) >= self._room:
            self._sum = zlib.crc32(content[: self._room], self._sum)
            content = content[self._room :]
            self._end()
        self._sum = zlib.crc32(content, self._sum)
        self._room -= len(content)

    def _end(self) -> None:
        self._checksums += self._sum.to_bytes(_LENGTH, "big")
        self._sum, self._room = 0, _BLOCK

    @property
    def checksums(self) -> bytes:
        """Give the checksums of all blocks, one after the other; call it at the end."""
        if self._room < _BLOCK:
            self._end()
        return bytes(self._checksums)


def check_blocks(values: np.ndarray, checksums: bytes, *, every: bool) -> None:
    """Hold bytes against their checksums: all, or the first, the last and some at random.

    Arguments:
        values: The bytes, flat.
        checksums: What ``BlockSums`` made of them.
        every: Whether to read all of them.
    Raises:
        ValueError: If they are not what was written; says where.
    """
    count = -(-values.size // _BLOCK)
    if len(checksums) != count * _LENGTH:
        raise ValueError("it has other checksums than bytes")
    chosen = range(count)
    if not every and count > _SAMPLE:
        middle = np.random.default_rng().choice(count - 2, _SAMPLE - 2, replace=False) + 1
        chosen = [0, *sorted(middle.tolist()), count - 1]
    for i in chosen:
        found = zlib.crc32(values[i * _BLOCK : (i + 1) * _BLOCK])
        if found != int.from_bytes(checksums[i * _LENGTH : (i + 1) * _LENGTH], "big"):
            raise ValueError(f"bytes {i * _BLOCK:,} and on are not what was written")
