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
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, get_args

import torch
from torch import Tensor

__all__ = [
    "TIMESTEP_SAMPLERS",
    "TimestepSampler",
    "TimestepSamplerName",
    "low_discrepancy_timesteps",
    "make_timestep_sampler",
    "uniform_timesteps",
]

TimestepSamplerName = Literal["uniform", "low_discrepancy"]
TIMESTEP_SAMPLERS: tuple[str, ...] = get_args(TimestepSamplerName)


class TimestepSampler(Protocol):
    """What training asks of a sampler: draws with weights, feedback, and a state to save."""

    wants_losses: bool

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """N timesteps, int64 on the CPU, and their weights, float32; both of shape (N,)."""

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Take note of the global batch's losses at its timesteps, both of shape (N,).

        Called after each update of the weights if ``wants_losses``, alike on every process.
        """

    def state_dict(self) -> dict[str, Tensor]:
        """All that ``sample`` depends on beside its arguments."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a state that ``state_dict`` gave."""


def uniform_timesteps(
    num_train_timesteps: int, count: int, generator: torch.Generator | None = None
) -> Tensor:
    """N independent uniform timesteps, int64 of shape (N,), in [0, T-1]. Source: DDPM, alg. 1."""
    return torch.randint(num_train_timesteps, (count,), generator=generator)


def low_discrepancy_timesteps(
    num_train_timesteps: int, count: int, generator: torch.Generator | None = None
) -> Tensor:
    """N timesteps on a comb of equal spacing with a uniform offset, int64 of shape (N,).

    Source: Kingma et al. 2021 (arXiv:2107.00630), appendix I.1.
    """
    offset = torch.rand((), dtype=torch.float64, generator=generator)
    places = (offset + torch.arange(count, dtype=torch.float64) / count) % 1
    return (places * num_train_timesteps).long()


@dataclass(frozen=True)
class MemorylessSampler:
    """A sampler whose draws depend on nothing but the generator, all of weight 1."""

    num_train_timesteps: int
    draw: Callable[[int, int, torch.Generator], Tensor]
    wants_losses: ClassVar[bool] = False

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """As in TimestepSampler."""
        return self.draw(self.num_train_timesteps, count, generator), torch.ones(count)

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Nothing is remembered."""

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing is remembered."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Nothing is remembered."""


_DRAWS: dict[str, Callable[[int, int, torch.Generator], Tensor]] = {
    "uniform": uniform_timesteps,
    "low_discrepancy": low_discrepancy_timesteps,
}


def make_timestep_sampler(name: str, num_train_timesteps: int) -> TimestepSampler:
    """The sampler of that name for a chain of T steps.

    Raises:
        ValueError: If the name is not one of TIMESTEP_SAMPLERS.
    """
    if name not in _DRAWS:
        allowed = ", ".join(TIMESTEP_SAMPLERS)
        raise ValueError(f"timestep_sampler must be one of {allowed}, got {name!r}")
    return MemorylessSampler(num_train_timesteps, _DRAWS[name])
