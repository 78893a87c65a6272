r"""``BoundTotals``: the sums that an estimate of the bound keeps of all that it has seen.

Per example its parts, per timestep the sums over examples, and what the standard error over
timesteps needs. With :math:`v_{ij} = L_{k_j} / (n p_{k_j})` the j-th draw of example i and
:math:`e_{ij}` what is left of it after the means of its example and of its stratum,

.. math::
    \mathrm{se}_{\text{timesteps}}^2 = \frac{1}{N}\, n\,
    \frac{\sum_{ij} e_{ij}^2}{(N - 1)(n - 1)}

All of it is in nats, float64 and on the CPU; two sums add up to that of their examples together.
"""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

__all__ = ["BoundTotals"]


_PER_EXAMPLE = ("prior", "transitions", "decoder", "last_error", "off_grid")


@dataclass(frozen=True, eq=False)
class BoundTotals:
    """Nats of N examples over a chain of K steps, from n draws of its M = K - 1 transitions.

    Arguments:
        prior, transitions, decoder: Parts of each example, shape (N,); transitions are weighted.
        last_error: ||x_0 - x_0_hat||² at the last step, shape (N,).
        off_grid: 1 for examples with values between the 256 levels, else 0, shape (N,).
        step_nats: Weighted sum over examples of each transition, shape (M,).
        step_errors: Sum of ||x_0 - x_0_hat||² at each step, not weighted, shape (K,).
        step_counts: How many forwards each step had, shape (K,).
        stratum_nats: Weighted sum over examples of each draw, shape (n,).
        squares: Sum of the squares of all weighted draws, shape ().
    """

    prior: Tensor
    transitions: Tensor
    decoder: Tensor
    last_error: Tensor
    off_grid: Tensor
    step_nats: Tensor
    step_errors: Tensor
    step_counts: Tensor
    stratum_nats: Tensor
    squares: Tensor

    @classmethod
    def zeros(cls, num_examples: int, num_steps: int, num_draws: int) -> "BoundTotals":
        """Give sums of nothing, for N examples, K steps and n draws."""
        shapes = [
            *[(num_examples,)] * len(_PER_EXAMPLE),
            (num_steps - 1,),
            (num_steps,),
            (num_steps,),
            (num_draws,),
            (),
        ]
        return cls(*(torch.zeros(shape, dtype=torch.float64) for shape in shapes))

    def __len__(self) -> int:
        return len(self.prior)

    def __add__(self, other: "BoundTotals") -> "BoundTotals":
        """Add up to the sums over the examples of both."""
        pairs = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        return BoundTotals(
            **{
                name: torch.cat(pair) if name in _PER_EXAMPLE else pair[0] + pair[1]
                for name, pair in pairs.items()
            }
        )

    def flatten(self) -> Tensor:
        """Put all numbers in one vector."""
        return torch.cat([getattr(self, f.name).reshape(-1) for f in fields(self)])

    def unflatten(self, values: Tensor) -> "BoundTotals":
        """Give the numbers of a vector in the shapes of these, float64 on the CPU."""
        shapes = [getattr(self, f.name).shape for f in fields(self)]
        parts = values.cpu().double().split([math.prod(shape) for shape in shapes])
        pairs = zip(parts, shapes, strict=True)
        return BoundTotals(*(part.reshape(shape) for part, shape in pairs))

    def timestep_variance(self) -> float:
        """Estimate the variance that the choice of timesteps adds to an example's sum of draws.

        An upper limit from the spread of all examples if there is one draw each, where the two
        cannot be told apart; NaN for one example.
        """
        N, n = len(self), len(self.stratum_nats)
        if n < 2 or N < 2:
            return self.transitions.var().item() if N > 1 and n else math.nan
        examples = self.transitions.square().sum() / n
        strata = self.stratum_nats.square().sum() / N
        mean = self.transitions.sum().square() / (N * n)
        left = (self.squares - examples - strata + mean).clamp(min=0)
        return left.item() * n / ((N - 1) * (n - 1))
