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

Where every move t -> s has a cost, the cheapest K timesteps are a shortest path (Watson et al.
2021, arXiv:2106.03802): with C_0 zero on the data and infinite elsewhere,

.. math:: C_k(t) = \min_{s < t}\, C_{k-1}(s) + L(t \to s)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ddpm_pipeline.common import check_choice, check_integer, is_integer
from ddpm_pipeline.diffusion.choices import SPACINGS, Spacing, check_num_steps

__all__ = [
    "ShortestPaths",
    "check_chain",
    "shortest_paths",
    "spaced_timesteps",
]


def spaced_timesteps(T: int, K: int, spacing: Spacing, *, steps_offset: int = 0) -> Tensor:
    """Choose K of the timesteps 0, ..., T-1, in strictly decreasing order.

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
    check_choice("timestep_spacing", spacing, SPACINGS)
    K = check_num_steps(K, T)
    timesteps = _SPACED[spacing](T, K)
    if spacing == "leading":
        largest = T - 1 - int(timesteps[0])
        if steps_offset > largest:
            raise ValueError(
                f"steps_offset must be at most {largest} for {K} leading steps of {T}, "
                f"got {steps_offset}"
            )
        timesteps = timesteps + steps_offset
    return torch.tensor(check_chain(timesteps.tolist(), T))


def check_chain(timesteps: Sequence[int] | Tensor, T: int) -> list[int]:
    """Give timesteps as a list of ints that is a chain: strictly decreasing, in [0, T-1].

    Raises:
        ValueError: If they are empty, unsorted, repeated, not integers or out of range.
    """
    chain = timesteps.tolist() if hasattr(timesteps, "tolist") else timesteps
    if not isinstance(chain, Sequence) or isinstance(chain, str):
        raise ValueError(f"timesteps must be a list of integers, got {timesteps!r}")
    if not chain:
        raise ValueError("timesteps must hold at least one timestep, got none")
    for t in chain:
        if not is_integer(t):
            raise ValueError(f"timesteps must be integers, got {t!r}")
    for earlier, later in pairwise(chain):
        if later >= earlier:
            raise ValueError(
                "timesteps must be in descending order without repeats, got "
                f"{later} after {earlier}"
            )
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


@dataclass(frozen=True, eq=False)
class ShortestPaths:
    """The cheapest chains of 1 to max_steps timesteps down to the data, from every timestep.

    Arguments:
        costs: Their costs, shape (max_steps, T); infinite where t is too low for so many steps.
        landings: Where the first move of each lands, -1 for the data, int32, shape (max_steps, T).
    """

    costs: Tensor
    landings: Tensor

    def chain(self, K: int, start: int | None = None) -> Tensor:
        """Find the cheapest K timesteps.

        Arguments:
            K: Number of timesteps, 1 <= K <= max_steps.
            start: The first of them, at least K - 1; T-1 by default.
        Returns:
            Timesteps, int64, strictly decreasing, shape (K,).
        Raises:
            ValueError: If there is no such chain.
        """
        max_steps, T = self.costs.shape
        K = check_integer("K", K, most=max_steps)
        t = T - 1 if start is None else start
        if not K - 1 <= t < T:
            raise ValueError(f"start must lie in [{K - 1}, {T - 1}] for {K} steps, got {start}")
        chain = []
        for landings in self.landings[:K].flip(0).tolist():
            chain.append(t)
            t = landings[t]
        return torch.tensor(chain)


def shortest_paths(
    costs: Tensor, max_steps: int, *, last_costs: Tensor | None = None
) -> ShortestPaths:
    """Find the cheapest chain of every length up to max_steps, by one dynamic programme.

    Arguments:
        costs: Cost of the move from t to s at [t, s + 1], shape (T, T + 1), s = -1 being the
            data; entries with s >= t are ignored.
        max_steps: Longest chain wanted, 1 <= max_steps <= T.
        last_costs: Cost of the move from s to the data at [t, s + 1] if it comes after one from
            t, in the shape of costs; at any t it is costs[s, 0] by default.
    Returns:
        All of the chains, in O(max_steps T²) operations and O(T²) memory.
    Raises:
        ValueError: If costs is not (T, T + 1), holds a NaN, or max_steps is not allowed.
    Source: Watson et al. 2021 (arXiv:2106.03802), algorithm 1.
    """
    if costs.ndim != 2 or costs.shape[1] != len(costs) + 1:
        raise ValueError(f"costs must have shape (T, T + 1), got {(*costs.shape,)}")
    T = len(costs)
    max_steps = check_integer("max_steps", max_steps, most=T)
    moves = _downward(costs)
    total = moves.new_full((T + 1,), torch.inf)
    total[0] = 0
    totals, landings = [], []
    for k in range(max_steps):
        sums = moves + total
        if k == 1 and last_costs is not None:
            sums = moves + _downward(last_costs)
            sums[:, 0] = torch.inf
        best, s = sums.min(dim=1)
        total = torch.cat([total.new_full((1,), torch.inf), best])
        totals.append(best)
        landings.append(s.to(torch.int32) - 1)
    return ShortestPaths(torch.stack(totals), torch.stack(landings))


def _downward(costs: Tensor) -> Tensor:
    """Give the costs of moves, infinite where s >= t."""
    moves = torch.where(torch.ones_like(costs, dtype=torch.bool).tril(), costs, torch.inf)
    if moves.isnan().any():
        raise ValueError("costs must be numbers, got NaN")
    return moves
