r"""All reverse moves of a chain, tabulated once, so that a step of a scheduler only looks one up.

.. math::
    \hat x_0 = a_1 x_t + a_2 f_\theta, \qquad x_s = b_1 \hat x_0 + b_2 x_t + \sigma z

A timestep that the chain leaves out has a move too: to the next lower one that it holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddpm_pipeline.common import is_integer, moved
from ddpm_pipeline.diffusion import (
    NoiseSchedule,
    ReverseMove,
    ReverseProcess,
    broadcast,
    ddim_coefficients,
    posterior_variance,
)

__all__ = ["Chain", "StepTable", "TabulatedStep", "check_timestep", "moves", "tabulate"]


class TabulatedStep(NamedTuple):
    """A reverse move ready for use: floats, or tensors that broadcast against the sample."""

    move: ReverseMove
    std: float | Tensor  # of the variance types that are not learned; 0 on clean data
    has_noise: float | Tensor | bool


@dataclass(frozen=True, eq=False)
class Chain:
    """Where the moves go: ``landing`` and ``above`` of every t, int64, shape (T,).

    Arguments:
        timesteps: The chain, strictly decreasing in [0, T-1].
        T: Number of timesteps of the full chain.
    """

    timesteps: Sequence[int]
    T: int
    landing: Tensor = field(init=False)
    above: Tensor = field(init=False)

    def __post_init__(self) -> None:
        ascending, every_t = torch.tensor(self.timesteps).flip(0), torch.arange(self.T)
        bottom, beyond = torch.tensor([-1]), torch.tensor([self.T])
        below = torch.searchsorted(ascending, every_t)
        object.__setattr__(self, "landing", torch.cat([bottom, ascending])[below])
        above = torch.searchsorted(ascending, every_t, right=True)
        object.__setattr__(self, "above", torch.cat([ascending, beyond])[above])


class StepTable(NamedTuple):
    """All steps of a chain: on the host, as columns (T, 8), and the columns on other devices."""

    steps: list[TabulatedStep]
    columns: Tensor
    on_device: dict[tuple[torch.device, torch.dtype], Tensor]

    def step(self, t: int | Tensor, sample: Tensor) -> TabulatedStep:
        """Look up the step from t, an int or int64 of shape () or (B,), without a synchronisation.

        Raises:
            ValueError: If t lies outside [0, T-1] where that can be seen without one.
        """
        if isinstance(t, Tensor) and t.ndim == 0 and t.device.type == "cpu":
            t = t.numpy()[()]  # host memory, read without a dispatch
        if type(t) in (int, np.int64) and 0 <= t < len(self.steps):
            return self.steps[t]
        check_timestep(t, len(self.steps), len(sample))
        if not isinstance(t, Tensor):
            return self.steps[int(t)]
        key = (sample.device, sample.dtype)
        if key not in self.on_device:
            self.on_device[key] = moved(self.columns.to(sample.dtype), sample.device)
        rows = self.on_device[key].index_select(0, moved(t, sample.device).reshape(-1))
        columns = [broadcast(column, sample) for column in rows.unbind(1)]
        return TabulatedStep(ReverseMove(*columns[:-2]), *columns[-2:])


def moves(
    process: ReverseProcess, chain: Chain, t: Tensor, eta: float | None = None
) -> ReverseMove:
    """Give the moves of a chain from t, those of DDIM where eta is given."""
    s = chain.landing[t]
    if eta is None:
        return process.coefficients(t, s, chain.above[t])
    return ddim_coefficients(
        process.schedule,
        t,
        s,
        eta=eta,
        prediction_type=process.prediction_type,
        x_0_variance=process.x_0_variance_of_moves(t, s),
    )


def tabulate(
    process: ReverseProcess, chain: Chain, *, last_noise_levels: float, eta: float | None = None
) -> StepTable:
    """Tabulate all steps of a chain.

    Arguments:
        process: Whose moves they are.
        chain: Where they go.
        last_noise_levels: With a calibrated variance, the largest mean |noise| of the last
            noise drawn, in units of 2/255; it is not made smaller than the forward process's.
        eta: Of DDIM; None is for DDPM's own steps.
    """
    move = moves(process, chain, torch.arange(chain.T), eta)
    std = (0.5 * move.log_var).exp()
    if process.variance_type in ("analytic", "spectral"):
        lowest = (1.0 if eta is None else eta) * _posterior_std(process.schedule, chain)
        std = _with_little_noise_last(chain, std, lowest, last_noise_levels)
    has_noise = (chain.landing >= 0) & (std > 0)
    std = has_noise * std
    rows = map(ReverseMove, *(column.tolist() for column in move))
    steps = list(map(TabulatedStep, rows, std.tolist(), has_noise.tolist()))
    return StepTable(steps, torch.stack([*move, std, has_noise.to(std)], dim=1), {})


def _posterior_std(schedule: NoiseSchedule, chain: Chain) -> Tensor:
    return posterior_variance(schedule, torch.arange(chain.T), chain.landing).sqrt()


def _with_little_noise_last(chain: Chain, std: Tensor, lowest: Tensor, levels: float) -> Tensor:
    """Cap the standard deviation of the last noise, though not below the lowest; all of (T,)."""
    cap = levels * 2 / 255 * math.sqrt(math.pi / 2)
    capped = torch.maximum(std.clamp(max=cap), lowest)
    return torch.where(chain.landing == chain.timesteps[-1], capped, std)


def check_timestep(t: int | Tensor, T: int, batch_size: int | None = None) -> None:
    """Refuse what is no timestep of a batch; values on a device are not read.

    Arguments:
        t: An int, or int64 or int32 of shape (), (1,) or (batch_size,).
        T: Number of timesteps.
        batch_size: Examples that t is for; None for any number.
    Raises:
        ValueError: If t is not of such a type or shape, or outside [0, T-1].
    """
    if not isinstance(t, Tensor):
        if not is_integer(t):
            raise ValueError(f"timestep must be an integer, got {t!r}")
        values = np.asarray(t)
    else:
        if t.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"timestep must be of dtype int64 or int32, got {t.dtype}")
        shapes = ((), (1,), (batch_size,))
        if t.ndim > 1 or (batch_size is not None and t.shape not in shapes):
            raise ValueError(
                f"timestep must be of shape () or ({batch_size or 'B'},), got {(*t.shape,)}"
            )
        values = t.numpy() if t.device.type == "cpu" else np.zeros(1, int)
    if values.size and not (values.min() >= 0 and values.max() < T):
        raise ValueError(f"timestep must lie in [0, {T - 1}], got {t}")
