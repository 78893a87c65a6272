r"""Training-time samplers of the timestep t.

.. math::
    \text{uniform:}\quad t_i \sim \mathcal U\{0, \dots, T-1\}

.. math::
    \text{low discrepancy:}\quad t_i = \lfloor T \cdot ((u_0 + i / N) \bmod 1) \rfloor,
    \qquad u_0 \sim \mathcal U[0, 1)

A sampler draws for the whole global batch of N examples, over all processes and micro-batches, so
that every process draws the same N values from the same generator and takes its own slice. A
sampler also weighs its draws so that the weighted mean of a loss over t is the uniform one.

Each t of the low-discrepancy sampler is uniform by itself, but the N of them are spread evenly
over the chain, which takes most of the variance of the batch's mean loss away.

.. math::
    \text{importance:}\quad p_t \propto \sqrt{\mathbb E[L_t^2]}, \qquad w_t = \frac{1}{T p_t}

The expectation is over the last 10 losses of each t; a share of 0.1 % of p stays uniform, and all
of it is until every t has 10. With the places of either of the first two samplers,
:math:`t_i = F_p^{-1}(\text{place}_i)`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from ddpm_pipeline.common import check_choice
from ddpm_pipeline.diffusion.choices import TIMESTEP_SAMPLERS

__all__ = [
    "ImportanceSampler",
    "TimestepSampler",
    "low_discrepancy_timesteps",
    "make_timestep_sampler",
    "uniform_timesteps",
]


_HISTORY = 10
_UNIFORM_SHARE = 1e-3


class TimestepSampler(Protocol):
    """What training asks of a sampler: draws with weights, feedback, and a state to save."""

    wants_losses: bool
    weighs: bool
    """Whether weights may be other than 1."""

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw N timesteps, int64 on the CPU, and their weights, float32; both of shape (N,)."""

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Take note of the global batch's losses at its timesteps, both of shape (N,).

        Called after each update of the weights if ``wants_losses``, alike on every process.
        """

    def state_dict(self) -> dict[str, Tensor]:
        """Give all that ``sample`` depends on beside its arguments."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a state that ``state_dict`` gave."""


def uniform_timesteps(
    num_train_timesteps: int, count: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draw N independent timesteps, int64 of shape (N,), in [0, T-1]. Source: DDPM, alg. 1."""
    return torch.randint(num_train_timesteps, (count,), generator=generator)


def low_discrepancy_timesteps(
    num_train_timesteps: int, count: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draw N timesteps: an even comb with a random offset, int64 of shape (N,).

    Source: Kingma et al. 2021 (arXiv:2107.00630), appendix I.1.
    """
    return (_even_places(count, generator) * num_train_timesteps).long()


def _even_places(count: int, generator: torch.Generator | None) -> Tensor:
    offset = torch.rand((), dtype=torch.float64, generator=generator)
    return (offset + torch.arange(count, dtype=torch.float64) / count) % 1


def _independent_places(count: int, generator: torch.Generator | None) -> Tensor:
    return torch.rand(count, dtype=torch.float64, generator=generator)


@dataclass(frozen=True)
class MemorylessSampler:
    """A sampler whose draws depend on nothing but the generator, all of weight 1."""

    num_train_timesteps: int
    draw: Callable[[int, int, torch.Generator], Tensor]
    wants_losses: ClassVar[bool] = False
    weighs: ClassVar[bool] = False

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Do as in TimestepSampler."""
        return self.draw(self.num_train_timesteps, count, generator), torch.ones(count)

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Remember nothing."""

    def state_dict(self) -> dict[str, Tensor]:
        """Remember nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Remember nothing."""


@dataclass(eq=False)
class ImportanceSampler:
    """Draws t with probability proportional to the root of its losses' second moment.

    Arguments:
        num_train_timesteps: T.
        places: f(N, generator) -> N numbers, each uniform in [0, 1).
    Source: Nichol & Dhariwal 2021 (arXiv:2102.09672), eq. 18.
    """

    num_train_timesteps: int
    places: Callable[[int, torch.Generator], Tensor]
    wants_losses: ClassVar[bool] = True
    weighs: ClassVar[bool] = True
    _losses: Tensor = field(init=False, repr=False)
    _counts: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._losses = torch.zeros(self.num_train_timesteps, _HISTORY, dtype=torch.float64)
        self._counts = torch.zeros(self.num_train_timesteps, dtype=torch.int64)

    def probabilities(self) -> Tensor:
        """Give p_t, float64, shape (T,)."""
        T = self.num_train_timesteps
        uniform = torch.full((T,), 1 / T, dtype=torch.float64)
        roots = self._losses.square().mean(1).sqrt()
        if self._counts.min() < _HISTORY or roots.sum() == 0:
            return uniform
        return (1 - _UNIFORM_SHARE) * roots / roots.sum() + _UNIFORM_SHARE * uniform

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Do as in TimestepSampler."""
        p = self.probabilities()
        t = torch.searchsorted(p.cumsum(0), self.places(count, generator), right=True)
        t = t.clamp(max=len(p) - 1)  # the last sum may be below 1 by rounding
        return t, (1 / (len(p) * p[t])).float()

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Do as in TimestepSampler; a loss that is not finite is not remembered."""
        t, losses = t.cpu(), losses.detach().cpu().double()
        t, losses = t[losses.isfinite()], losses[losses.isfinite()]
        order = t.argsort(stable=True)
        t, losses = t[order], losses[order]
        # Which of the equal timesteps of this batch each one is, and how many of them follow it.
        numbers = torch.arange(len(t)) - torch.searchsorted(t, t)
        following = torch.searchsorted(t, t, right=True) - torch.arange(len(t)) - 1
        place = (self._counts[t] + numbers) % _HISTORY
        kept = following < _HISTORY
        self._losses[t[kept], place[kept]] = losses[kept]
        self._counts += torch.bincount(t, minlength=len(self._counts))

    def state_dict(self) -> dict[str, Tensor]:
        """Give the last losses of each timestep, and how many there were."""
        return {"losses": self._losses.clone(), "counts": self._counts.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Do as in TimestepSampler.

        Raises:
            ValueError: If the state is of another T.
        """
        if state["losses"].shape != self._losses.shape:
            raise ValueError(
                f"the state of the importance sampler must be of {len(self._losses)} timesteps, "
                f"got {len(state['losses'])}"
            )
        self._losses, self._counts = state["losses"].clone(), state["counts"].clone()


_DRAWS: dict[str, Callable[[int, int, torch.Generator], Tensor]] = {
    "uniform": uniform_timesteps,
    "low_discrepancy": low_discrepancy_timesteps,
}
_IMPORTANCE_PLACES: dict[str, Callable[[int, torch.Generator], Tensor]] = {
    "importance": _independent_places,
    "low_discrepancy_importance": _even_places,
}


def make_timestep_sampler(name: str, num_train_timesteps: int) -> TimestepSampler:
    """Make the sampler of a name for a chain of T steps.

    Raises:
        ValueError: If the name is not one of TIMESTEP_SAMPLERS.
    """
    check_choice("timestep_sampler", name, TIMESTEP_SAMPLERS)
    if name in _IMPORTANCE_PLACES:
        return ImportanceSampler(num_train_timesteps, _IMPORTANCE_PLACES[name])
    return MemorylessSampler(num_train_timesteps, _DRAWS[name])
