"""Randomness that follows from a seed: one table of streams, one way to make a generator.

    stream_generator("order", seed, epoch)                  the order of the data in an epoch
    stream_generator("noise", seed, step, micro, rank)      the noise of one micro-step

A *stream* is one use of randomness. Its number is part of the key of every generator, so that two
streams share no draws, and a run that is continued draws what it would have drawn. The numbers
are part of what a seed means: they never change, and a new use takes a new number. What draws by
NumPy, as the order of a stream's shards does, takes its key from here too.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch

__all__ = ["STREAMS", "seeded_generator", "stream_generator", "stream_key", "stream_seed"]

# Streams of training have hashes as numbers, which open the key; the others close it.
_OF_TRAINING = (
    "init",
    "timesteps",
    "noise",
    "labels",
    "flips",
    "augmentation",
    "conditions",
    "distances",
    "network",
    "previews",
    "validation",
    "bound",
)
STREAMS: dict[str, int] = {
    **{name: zlib.crc32(name.encode()) for name in _OF_TRAINING},
    "validation_split": 1,
    "order": 2,
    "crops": 11,
    "stream_crops": 12,
    "stream_blocks": 13,
    "stream_shards": 14,
    "samples": 21,
    "edits": 51,
    "reference_features": 22,
    "evaluated_subset": 23,
    "evaluated_bound": 24,
    "evaluated_classes": 25,
    "evaluated_pairs": 26,
    "measured_order": 31,
    "measured_noise": 32,
    "calibration_order": 41,
    "calibration_noise": 42,
    "calibration_strip": 43,
}
"""Numbers of the streams, by what each is for."""


def stream_key(stream: str, *place: int) -> tuple[int, ...]:
    """Give the key of one use of randomness at one place, such as (seed, epoch)."""
    number = STREAMS[stream]
    return (number, *place) if stream in _OF_TRAINING else (*place, number)


def stream_generator(
    stream: str, *place: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Make the generator of one use of randomness at one place.

    Arguments:
        stream: One of STREAMS.
        place: Non-negative integers that tell the draws of this use apart, the seed first.
        device: Where it draws.
    Raises:
        ValueError: If a number is negative.
    """
    return seeded_generator(*stream_key(stream, *place), device=device)


def stream_seed(stream: str, *place: int) -> int:
    """Give what seeds ``stream_generator``'s generator, for one that is there already."""
    return _seed(*stream_key(stream, *place))


def seeded_generator(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Make a generator whose draws follow from non-negative integers alone.

    Raises:
        ValueError: If a number is negative.
    """
    return torch.Generator(device).manual_seed(_seed(*key))


def _seed(*key: int) -> int:
    if any(k < 0 for k in key):
        raise ValueError(f"seeds must be non-negative integers, got {key}")
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
