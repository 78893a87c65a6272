"""A changed byte is found: anywhere if all is read, in a sample sooner or later."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from helpers.image_samples import noise

from ddpm_pipeline.data.checksums import BlockSums, check_blocks

MIB = 2**20


def sums_of(values: np.ndarray, step: int) -> bytes:
    sums = BlockSums(lambda _: None)
    for i in range(0, values.size, step):
        sums.write(values[i : i + step].data)
    return sums.checksums


@pytest.mark.parametrize("size", [1, MIB - 1, MIB, MIB + 1, 3 * MIB])
@pytest.mark.parametrize("step", [100_003, MIB, 2 * MIB + 5])
def test_the_sums_are_those_of_the_blocks_however_the_bytes_come(size: int, step: int) -> None:
    values = noise(size)
    blocks = [values[i : i + MIB].tobytes() for i in range(0, size, MIB)]
    trailers = (gzip.compress(block, 0)[-8:-4] for block in blocks)
    expected = b"".join(crc[::-1] for crc in trailers)
    assert sums_of(values, step) == expected
    check_blocks(values, expected, every=True)


@pytest.mark.parametrize("place", [0, MIB - 1, MIB, 12 * MIB + 6])
def test_every_changed_byte_is_found_where_all_are_read(place: int) -> None:
    values = np.zeros(12 * MIB + 7, np.uint8)
    sums = sums_of(values, 4 * MIB)
    values[place] = 1
    with pytest.raises(ValueError, match=f"bytes {place // MIB * MIB:,} and on are not what"):
        check_blocks(values, sums, every=True)


def test_a_sample_holds_the_ends_and_others_each_time() -> None:
    values = np.zeros(12 * MIB, np.uint8)
    sums = sums_of(values, 4 * MIB)
    values[5 * MIB] = 1
    found = 0
    for _ in range(40):
        try:
            check_blocks(values, sums, every=False)
        except ValueError:
            found += 1
    assert 0 < found < 40
    values[11 * MIB] = 1
    with pytest.raises(ValueError, match="not what was written"):
        check_blocks(values[:], sums, every=False)


def test_too_few_sums_are_refused() -> None:
    with pytest.raises(ValueError, match="other checksums than bytes"):
        check_blocks(noise(MIB + 1), bytes(16), every=False)
