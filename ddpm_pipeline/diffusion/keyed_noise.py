r"""Random numbers that belong to an example and a timestep, whoever draws them.

.. math:: \epsilon_{i,t} = f(\text{seed}, i, t)

An estimate made with these does not depend on the size of a batch, the number of processes, the
order of the work or the device: the counter-based generator Philox-4x32-10 turns (element, i, t)
into four random words without any state. Normals come from the words by Box and Muller:

.. math:: \sqrt{-2 \ln u}\,(\cos 2\pi v,\ \sin 2\pi v), \qquad u, v \sim \mathcal U(0, 1)

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ddpm_pipeline.common import precise_dtype

__all__ = ["keyed_normal", "keyed_uniform", "philox"]


_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox(counter: Sequence[Tensor], seed: int) -> list[Tensor]:
    """Make four random 32-bit words for each counter of four.

    Arguments:
        counter: Four int64 tensors in [0, 2³²) that broadcast against each other.
        seed: The key, 0 <= seed < 2⁶⁴.
    Returns:
        Four int64 tensors in [0, 2³²).
    Source: Salmon et al. 2011, section 3.3.
    """
    shape = torch.broadcast_shapes(*(c.shape for c in counter))
    factors, words, products = torch.empty(
        3, 2, *shape, dtype=torch.int64, device=counter[0].device
    ).unbind()
    # Both lanes of a round share their kernels, but for the products that change places.
    lanes, result, spare = factors.unbind(), words.unbind(), products.unbind()
    for lane, c in zip([*lanes, *result], [*counter[::2], *counter[1::2]], strict=True):
        lane.copy_(c)
    for keys in _round_keys(seed, factors):
        # They wrap around in int64, which leaves their 64 bits as they should be.
        torch.mul(lanes[0], _MULTIPLIERS[0], out=spare[1])
        torch.mul(lanes[1], _MULTIPLIERS[1], out=spare[0])
        torch.bitwise_right_shift(products, 32, out=factors)
        # What stands above the lower 32 bits is cut off here, and of the words at the end.
        factors.bitwise_xor_(words).bitwise_xor_(keys).bitwise_and_(_MASK)
        words, products, result, spare = products, words, spare, result
    words.bitwise_and_(_MASK)
    return [lanes[0], result[0], lanes[1], result[1]]


def _round_keys(seed: int, like: Tensor) -> tuple[Tensor, ...]:
    """Give the two keys of each round, made where they are used: (2, 1, ...), of int64."""
    starts = seed & _MASK, seed >> 32
    keys = [
        torch.arange(start, start + _ROUNDS * step, step, device=like.device)
        for start, step in zip(starts, _KEY_STEPS, strict=True)
    ]
    return torch.stack(keys).reshape(2, _ROUNDS, *[1] * (like.ndim - 1)).unbind(1)


def keyed_uniform(seed: int, examples: Tensor, timesteps: Tensor, count: int) -> Tensor:
    """Draw uniforms in (0, 1) that depend on nothing but the seed, the example and t.

    Arguments:
        seed: 0 <= seed < 2⁶⁴.
        examples: Index of the example of each row, int64, shape (B,), in [0, 2⁶³).
        timesteps: t of each row, int64, shape (B,), in [0, 2³²).
        count: Numbers per row.
    Returns:
        float64 (float32 on devices without it), shape (B, count), on the device of ``examples``.
    """
    blocks = torch.arange(-(-count // 4), device=examples.device)
    counter = (blocks, examples[:, None] & _MASK, timesteps[:, None], examples[:, None] >> 32)
    words = torch.cat(philox(counter, seed), dim=1)[:, :count]
    return words.to(precise_dtype(examples.device)).add_(0.5).mul_(2.0**-32)


def keyed_normal(seed: int, examples: Tensor, timesteps: Tensor, shape: Sequence[int]) -> Tensor:
    """Draw standard normals that depend on nothing but the seed, the example and t.

    Arguments:
        seed, examples, timesteps: As in ``keyed_uniform``.
        shape: Shape of one row.
    Returns:
        float64 (float32 on devices without it), shape (B, *shape).
    """
    size = math.prod(shape)
    half = -(-size // 2)
    u, v = keyed_uniform(seed, examples, timesteps, 2 * half).split(half, dim=1)
    radius, angle = u.log().mul_(-2).sqrt_(), v.mul_(2 * math.pi)
    normal = torch.cat([angle.cos().mul_(radius), angle.sin().mul_(radius)], dim=1)
    return normal[:, :size].reshape(-1, *shape)
