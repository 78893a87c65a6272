"""What a seed means: numbers of streams that never change, and generators from NumPy's seeds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddpm_pipeline.common.randomness import (
    STREAMS,
    seeded_generator,
    stream_generator,
    stream_key,
    stream_seed,
)

# By stream: its number, and the first draw of torch.randint(2**31) with seed 7 at place 3, both
# as commit b3da084 had them, or that which added the stream. A changed line means that no seed
# gives its old images any more.
PINNED = {
    "init": (3329549428, 342591566),
    "timesteps": (3300553540, 815068918),
    "noise": (4255749673, 1635525723),
    "labels": (3050373649, 39115726),
    "flips": (9802900, 854462136),
    "network": (1619298236, 501553277),
    "previews": (1030650504, 1478261254),
    "validation": (380394350, 1980307262),
    "bound": (2769190326, 15946046),
    "augmentation": (1159140701, 396267982),
    "conditions": (4100327849, 1018524428),
    "distances": (2175659559, 1758586896),
    "validation_split": (1, 2115815794),
    "order": (2, 581688730),
    "crops": (11, 218352428),
    "stream_crops": (12, 1886135509),
    "stream_blocks": (13, 1493662864),
    "stream_shards": (14, 450675017),
    "samples": (21, 88885863),
    "edits": (51, 934186135),
    "reference_features": (22, 376904619),
    "evaluated_subset": (23, 2081241303),
    "evaluated_bound": (24, 1498947190),
    "evaluated_classes": (25, 1108450406),
    "evaluated_pairs": (26, 375997073),
    "measured_order": (31, 797944309),
    "measured_noise": (32, 893581225),
    "calibration_order": (41, 1284813505),
    "calibration_noise": (42, 853308489),
    "calibration_strip": (43, 1694386780),
}
OF_TRAINING = list(PINNED)[:12]


def test_every_stream_is_pinned_and_has_its_own_number() -> None:
    assert PINNED.keys() == STREAMS.keys()
    assert len(set(STREAMS.values())) == len(STREAMS)


@pytest.mark.parametrize("stream", PINNED)
def test_a_seed_keeps_its_meaning_forever(stream: str) -> None:
    number, draw = PINNED[stream]
    assert STREAMS[stream] == number
    generator = stream_generator(stream, 7, 3)
    assert torch.randint(2**31, (1,), generator=generator).item() == draw


@pytest.mark.parametrize("stream", PINNED)
def test_the_number_opens_the_key_in_training_and_closes_it_elsewhere(stream: str) -> None:
    number, _ = PINNED[stream]
    expected = (number, 5, 1) if stream in OF_TRAINING else (5, 1, number)
    assert stream_key(stream, 5, 1) == expected
    assert stream_generator(stream, 5, 1).initial_seed() == seed_by_hand(*expected)


def seed_by_hand(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


@pytest.mark.parametrize("key", [(0,), (1, 2, 3), (2**40, 7), (2**64 + 5,)])
def test_draws_are_those_of_the_mersenne_twister_with_numpys_seed(key: tuple[int, ...]) -> None:
    words = np.random.RandomState(seed_by_hand(*key) % 2**32)._bit_generator.random_raw(20)
    # torch makes an integer of two words, the lower one second.
    expected = [int(word) % 2**31 for word in words[1::2]]
    assert torch.randint(2**31, (10,), generator=seeded_generator(*key)).tolist() == expected


def test_generators_follow_from_their_key() -> None:
    def draw(*key: int) -> list[float]:
        return torch.rand(4, generator=seeded_generator(*key)).tolist()

    assert draw(1, 2, 3) == draw(1, 2, 3)
    assert len({tuple(draw(*key)) for key in [(1, 2, 3), (1, 3, 2), (1, 2), (0, 2, 3)]}) == 4
    with pytest.raises(ValueError, match="non-negative"):
        seeded_generator(0, -1)


def test_streams_share_no_draws_at_the_same_place() -> None:
    seeds = {stream_generator(stream, 0, 0).initial_seed() for stream in STREAMS}
    assert len(seeds) == len(STREAMS)


def test_a_negative_place_and_an_unknown_stream_are_refused() -> None:
    with pytest.raises(ValueError, match="seeds must be non-negative integers, got"):
        stream_generator("order", 0, -1)
    with pytest.raises(KeyError, match="colours"):
        stream_generator("colours", 0)


def test_a_stream_is_drawn_alike_by_a_generator_that_is_there() -> None:
    there = torch.Generator().manual_seed(stream_seed("noise", 3, 0, 1))
    expected = torch.rand(5, generator=stream_generator("noise", 3, 0, 1))
    assert torch.equal(torch.rand(5, generator=there), expected)
