r"""Which K of the T timesteps a sampler visits.

Every spacing returns exactly K strictly decreasing timesteps in [0, T-1], for every K from 1 to T.

.. math::
    \text{leading: } i \lfloor T/K \rfloor + \text{offset} \qquad
    \text{trailing: } \mathrm{round}(T - i\,T/K) - 1

.. math::
    \text{linspace: } \mathrm{round}\big(i\,\tfrac{T-1}{K-1}\big) \qquad
    \text{quadratic: } \mathrm{round}\big((T-1)\,(\tfrac{i}{K-1})^2\big)

Leading, trailing and linspace are diffusers' (table 2 of Lin et al. 2023, arXiv:2305.08891);
quadratic is DDIM's (Song et al. 2020, arXiv:2010.02502, appendix D.2), stretched to start at T-1.
All but leading start at T-1, also for K = 1.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

__all__ = ["SPACINGS", "Spacing", "check_chain", "spaced_timesteps"]

Spacing = Literal["leading", "trailing", "linspace", "quadratic"]
SPACINGS: tuple[str, ...] = get_args(Spacing)


def spaced_timesteps(T: int, K: int, spacing: Spacing, *, steps_offset: int = 0) -> Tensor:
    """K of the timesteps 0, ..., T-1 in strictly decreasing order.

    Arguments:
        T: Number of timesteps of the full chain, at least 1.
        K: Number of timesteps to keep, 1 <= K <= T.
        spacing: One of SPACINGS.
        steps_offset: Added to every timestep of "leading"; the others ignore it, as in diffusers.
    Returns:
        Timesteps, int64, shape (K,).
    Raises:
        ValueError: If K or the spacing is not allowed, or the offset pushes a step beyond T-1.
    Source: see the module.
    """
    if spacing not in _SPACED:
        raise ValueError(f"timestep_spacing must be one of {', '.join(SPACINGS)}, got {spacing!r}")
    if isinstance(K, bool) or not isinstance(K, int) or not 1 <= K <= T:
        raise ValueError(
            f"num_inference_steps must be an integer from 1 to {T} (the timesteps the model was "
            f"trained with), got {K!r}"
        )
    timesteps = _SPACED[spacing](T, K)
    if spacing == "leading":
        timesteps = timesteps + steps_offset
    return torch.tensor(check_chain(timesteps.tolist(), T))


def check_chain(timesteps: Sequence[int] | Tensor, T: int) -> list[int]:
    """The timesteps as a list of ints, checked to be a chain: strictly decreasing, in [0, T-1].

    Raises:
        ValueError: If they are empty, unsorted, repeated, not integers or out of range.
    """
    chain = timesteps.tolist() if hasattr(timesteps, "tolist") else list(timesteps)
    if not chain:
        raise ValueError("timesteps must hold at least one timestep, got none")
    if any(isinstance(t, bool) or int(t) != t for t in chain):
        raise ValueError(f"timesteps must be integers, got {chain}")
    if any(later >= earlier for earlier, later in pairwise(chain)):
        raise ValueError(f"timesteps must be in descending order without repeats, got {chain}")
    if chain[0] >= T or chain[-1] < 0:
        raise ValueError(f"timesteps must lie in [0, {T - 1}], got {chain[0]} ... {chain[-1]}")
    return [int(t) for t in chain]


def _leading(T: int, K: int) -> Tensor:
    return torch.arange(K - 1, -1, -1) * (T // K)


def _trailing(T: int, K: int) -> Tensor:
    # numpy.arange's own step, so that exact halves round as they do in diffusers.
    step = (T - T / K) - T
    return (T + torch.arange(K, dtype=torch.float64) * step).round().long() - 1


def _linspace(T: int, K: int) -> Tensor:
    if K == 1:
        return torch.tensor([T - 1])
    i = torch.arange(K - 1, -1, -1, dtype=torch.float64)
    return (i * ((T - 1) / (K - 1))).round().long()


def _quadratic(T: int, K: int) -> Tensor:
    i = torch.arange(K)
    fraction = torch.linspace(1, 0, K, dtype=torch.float64).flip(0)
    squares = ((T - 1) * fraction.square()).round().long()
    # t - i must not decrease for the timesteps to be distinct; early squares crowd together.
    return ((squares - i).clamp(0, T - K).cummax(0).values + i).flip(0)


_SPACED: dict[str, Callable[[int, int], Tensor]] = {
    "leading": _leading,
    "trailing": _trailing,
    "linspace": _linspace,
    "quadratic": _quadratic,
}
