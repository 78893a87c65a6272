r"""Which transitions an estimate of the bound looks at, and with which weights.

The sum of the M transitions of an example is estimated from n of them, drawn with p_k and weighed
by 1/(n p_k), which is unbiased for every p with full support:

.. math::
    \sum_{k=1}^M L_k = \mathbb E\Big[\tfrac1n \sum_{j=1}^n \tfrac{L_{k_j}}{p_{k_j}}\Big],
    \qquad k_j = F_p^{-1}(z_j)

====================  ============================================  ============================
sampler               points z_j in (0, 1)                          p_k
====================  ============================================  ============================
``uniform``           independent                                   1/M
``low_discrepancy``   one in each of n equal strata                 1/M
``rate``              one in each of n equal strata                 by the information they carry
====================  ============================================  ============================

In a stratum the place of the point moves from one example to the next along a low-discrepancy
sequence, so that together the examples cover the chain evenly too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_pipeline.common import check_choice, check_integer
from ddpm_pipeline.diffusion import NoiseSchedule, gaussian_rate, keyed_uniform
from ddpm_pipeline.likelihood.config import BOUND_SAMPLERS, BoundSampler

__all__ = ["TransitionSampler", "make_transition_sampler"]


# The share of p that is uniform in ``rate``, which keeps every weight below M / (n * share).
_UNIFORM_SHARE = 0.1

# No timestep has this number, so that these draws are not those of any noise.
_POINTS_KEY = 0xFFFFFFFF


@dataclass(frozen=True, eq=False)
class TransitionSampler:
    """Draws n of M transitions for each example, as a function of the seed and its index.

    Arguments:
        probabilities: p_k, float64, shape (M,).
        count: n; at least M takes every transition once, with weight 1.
        points: f(seed, examples, n) -> z, float64 in [0, 1), shape (B, n).
    """

    probabilities: Tensor
    count: int
    points: Callable[[int, Tensor, int], Tensor]

    def draw(self, seed: int, examples: Tensor) -> tuple[Tensor, Tensor]:
        """Draw transitions, int64 of shape (B, n), with their weights, float64 of that shape.

        Arguments:
            seed: Of the estimate.
            examples: Index of each example, int64, shape (B,), on the CPU.
        """
        p, M = self.probabilities, len(self.probabilities)
        if self.count >= M:
            every = torch.arange(M).expand(len(examples), M)
            return every, torch.ones((), dtype=torch.float64).expand(len(examples), M)
        edges = p.cumsum(0)
        k = torch.searchsorted(edges, self.points(seed, examples, self.count), right=True)
        k = k.clamp(max=M - 1)  # the last edge may be below 1 by rounding
        return k, 1 / (self.count * p[k])


def make_transition_sampler(
    name: BoundSampler, schedule: NoiseSchedule, chain: Sequence[int], count: int | None
) -> TransitionSampler:
    """Make the sampler of a name for the M = len(chain) - 1 transitions of a chain.

    Arguments:
        name: One of BOUND_SAMPLERS.
        schedule: Noise schedule with T steps.
        chain: Timesteps, strictly decreasing.
        count: Transitions of each example; None takes all of them.
    Raises:
        ValueError: If the name is unknown or the count is below 1.
    """
    check_choice("timestep_sampler", name, BOUND_SAMPLERS)
    M = len(chain) - 1
    if count is not None:
        note = f", or None for all {M} transitions"
        count = check_integer("num_timestep_samples", count, note=note)
    probabilities = torch.full((M,), 1 / max(M, 1), dtype=torch.float64)
    if name == "rate" and M:
        probabilities = _UNIFORM_SHARE * probabilities + (1 - _UNIFORM_SHARE) * _rates(
            schedule, chain
        )
    points = _independent if name == "uniform" else _stratified
    return TransitionSampler(probabilities, M if count is None else count, points)


def _rates(schedule: NoiseSchedule, chain: Sequence[int]) -> Tensor:
    """Give the share of each transition in the rate of Gaussian data."""
    rates = gaussian_rate(schedule, torch.tensor(chain)).diff()
    return rates / rates.sum()


def _independent(seed: int, examples: Tensor, count: int) -> Tensor:
    return keyed_uniform(seed, examples, torch.full_like(examples, _POINTS_KEY), count)


def _stratified(seed: int, examples: Tensor, count: int) -> Tensor:
    """Give (j + frac(u_j + i r_j)) / n, u random offsets and r the additive recurrence of R_n."""
    root = _golden_ratio(count)
    steps = torch.tensor([root ** -(j + 1) for j in range(count)], dtype=torch.float64)
    offsets = torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    places = (offsets + examples[:, None].double() * steps) % 1
    return (torch.arange(count) + places) / count


def _golden_ratio(n: int) -> float:
    """Find the root of x^(n+1) = x + 1, whose powers are as irrational as n numbers can be."""
    x = 2.0
    for _ in range(64):
        x = (1 + x) ** (1 / (n + 1))
    return x
