"""Checksums of the bytes in the cache, block by block, so that a few blocks tell of damage.

    sums = BlockSums(file.write)
    sums.write(image)                        passes the bytes on
    check_blocks(values, sums.digests, every=False)

Reading all of a large cache would take as long as decoding some of it. A sample, another one in
every process, finds what is damaged in many places at once and the rest sooner or later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

__all__ = ["BlockSums", "check_blocks"]

_BLOCK = 2**20
_DIGEST = 16
_SAMPLE = 8
"""Blocks that are looked at where not all are: milliseconds."""


class BlockSums:
    """Hashes bytes on their way into a file.

    Arguments:
        write: Given the bytes.
    """

    def __init__(self, write: Callable[[memoryview], object]) -> None:
        self._write, self._digests = write, bytearray()
        self._hash, self._room = hashlib.sha256(), _BLOCK

    def write(self, content: memoryview) -> None:
        """Pass bytes on."""
        self._write(content)
        content = memoryview(content).cast("B")
        while len(content) >= self._room:
            self._hash.update(content[: self._room])
            content = content[self._room :]
            self._end()
        self._hash.update(content)
        self._room -= len(content)

    def _end(self) -> None:
        self._digests += self._hash.digest()[:_DIGEST]
        self._hash, self._room = hashlib.sha256(), _BLOCK

    @property
    def digests(self) -> bytes:
        """Give the digests of all blocks, one after the other; call it at the end."""
        if self._room < _BLOCK:
            self._end()
        return bytes(self._digests)


def check_blocks(values: np.ndarray, digests: bytes, *, every: bool) -> None:
    """Hold bytes against their checksums: all, or the first, the last and some at random.

    Arguments:
        values: The bytes, flat.
        digests: What ``BlockSums`` made of them.
        every: Whether to read all of them.
    Raises:
        ValueError: If they are not what was written; says where.
    """
    count = -(-values.size // _BLOCK)
    if len(digests) != count * _DIGEST:
        raise ValueError("it has other checksums than bytes")
    chosen = range(count)
    if not every and count > _SAMPLE:
        middle = np.random.default_rng().choice(count - 2, _SAMPLE - 2, replace=False) + 1
        chosen = [0, *sorted(middle.tolist()), count - 1]
    for i in chosen:
        block = values[i * _BLOCK : (i + 1) * _BLOCK]
        if hashlib.sha256(block).digest()[:_DIGEST] != digests[i * _DIGEST : (i + 1) * _DIGEST]:
            raise ValueError(f"bytes {i * _BLOCK:,} and on are not what was written")
