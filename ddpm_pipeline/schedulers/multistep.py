r"""Steps of high order in a scheduler: their weights, and what a walk down the chain remembers.

.. math:: x_s = c\, x_t + c_0\, \hat x_0(t) + c_1\, \hat x_0(t') + \dots + n\, \epsilon

n is 0 without a share of noise.

The predictions of a walk are in a ``History`` that no step changes: it makes the next one. So a
copy of a scheduler goes its own way, and a step that is not the next of a walk begins another,
whose order grows from 1 again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_pipeline.diffusion import (
    NoiseSchedule,
    PredictionType,
    ReverseMove,
    add_scaled_,
    multistep_moves,
    reverse_coefficients,
)
from ddpm_pipeline.schedulers.chain import check_timestep
from ddpm_pipeline.schedulers.choices import Solver
from ddpm_pipeline.schedulers.drawing import Generators, scaled_noise

__all__ = ["History", "Landing", "MultistepChain", "WalkedChain"]


class Landing(NamedTuple):
    """The x_s that a step gave, in a copy that nobody else has, and its coefficients."""

    x_s: Tensor
    coefficients: Tensor

    @classmethod
    def of(cls, x_s: Tensor, coefficients: Tensor) -> Landing | None:
        """Remember both.

        None on devices, whose values cannot be compared without waiting, and where gradients go
        through the state.
        """
        is_kept = x_s.device.type == "cpu" and not x_s.requires_grad
        return cls(x_s.clone(), coefficients) if is_kept else None

    def known(self, x_t: Tensor) -> Tensor | None:
        """Give the coefficients of a state if its values are those of that x_s."""
        if x_t.requires_grad or x_t.dtype != self.x_s.dtype or x_t.device != self.x_s.device:
            return None
        return self.coefficients if torch.equal(x_t, self.x_s) else None


@dataclass(frozen=True, eq=False)
class History:
    """A walk down a chain so far.

    Arguments:
        start: Where in the chain it began.
        place: Where its next step is.
        predictions: Of x_0, the newest first; as many as a step can use.
        landing: Of the last step, in the solver's basis, where it takes its steps in one.
    """

    start: int
    place: int
    predictions: tuple[Tensor, ...] = ()
    landing: Landing | None = None

    def after(self, *predictions: Tensor, landing: Landing | None = None) -> History:
        """Give the walk after one more step."""
        return History(self.start, self.place + 1, predictions, landing)

    def fits(self, x_t: Tensor) -> bool:
        """Tell whether the predictions can be combined with a state."""
        kind = (x_t.shape, x_t.dtype, x_t.device)
        return all((p.shape, p.dtype, p.device) == kind for p in self.predictions)


class _Weights(NamedTuple):
    """Those of a step, as floats."""

    from_x_t: float
    noise: float
    from_x_0: list[float]


class WalkedChain(ABC):
    """A chain whose steps use what earlier steps of a walk remember; how is the solver's.

    Arguments:
        schedule: Noise schedule with T steps.
        prediction_type: Of the network.
        timesteps: The chain, strictly decreasing in [0, T-1].
        solver: That takes the steps.
    Raises:
        ValueError: If the solver's order is above the number of steps.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        prediction_type: PredictionType,
        timesteps: Sequence[int],
        solver: Solver,
    ) -> None:
        self._schedule, self._solver, self._timesteps = schedule, solver, list(timesteps)
        self._order = solver.order_for(len(timesteps))
        self._places = {t: place for place, t in enumerate(timesteps)}
        t = torch.tensor(self._timesteps)
        move = reverse_coefficients(
            schedule, t, t - 1, prediction_type=prediction_type, variance_type="fixed_large"
        )
        self._moves = list(map(ReverseMove, *(column.tolist() for column in move)))

    def goes_on(
        self, t: int | Tensor, x_t: Tensor, history: History | None, chain: Tensor
    ) -> History:
        """Give the walk that a step from t belongs to: the given one, or one that begins here.

        Arguments:
            t: A timestep of the chain. On another device than the CPU an element of ``chain`` is
                known by where it lies; any other is taken for the next of a walk, and read, for
                which the host waits, where none goes on.
            x_t: The state at t.
            history: The walk so far; None for none.
            chain: All timesteps in a tensor, int64, shape (K,).
        Raises:
            ValueError: If t is no timestep of the chain, or there is one for each example.
        """
        place = self._place(t, chain)
        if history is not None and place in (None, history.place) and history.fits(x_t):
            return history
        place = self._place(int(t), chain) if place is None else place
        return History(place, place)

    def move(self, history: History) -> ReverseMove:
        """Give the step of DDPM from where a walk is, for the prediction of x_0 there."""
        return self._moves[history.place]

    @abstractmethod
    def step(
        self, history: History, x_0_hat: Tensor, x_t: Tensor, generator: Generators
    ) -> tuple[Tensor, History | None]:
        """Give x_s, and the walk after the step; None at its end.

        What a walk uses of a tensor that a caller has, who may change it in place, it remembers in
        one of its own.

        Arguments:
            history: The walk before the step.
            x_0_hat: The prediction of x_0 at x_t.
            x_t: The state.
            generator: Source of the noise, as in ``DDPMScheduler.step``.
        """

    def _ends_at(self, history: History) -> bool:
        """Tell whether the next step of a walk is its last."""
        return history.place + 1 == len(self._timesteps)

    def _place(self, t: int | Tensor, chain: Tensor) -> int | None:
        """Find a timestep in the chain without waiting for a device; None if that cannot be."""
        if isinstance(t, Tensor):
            if t.numel() != 1:
                raise ValueError(
                    f"timestep must be one for all examples with solver {self._solver.name!r}, "
                    f"got {t.numel()} of them"
                )
            if t.device.type != "cpu":
                is_own = t.untyped_storage() is chain.untyped_storage()
                return t.storage_offset() if is_own else None
            t = t.numpy().reshape(())[()]  # host memory, read without a dispatch
        place = self._places.get(t)
        if place is None:
            check_timestep(t, len(self._schedule))
            raise ValueError(
                "timestep must be one of scheduler.timesteps with solver "
                f"{self._solver.name!r}, got {t}"
            )
        return place


class MultistepChain(WalkedChain):
    """All steps of a chain of high order; arguments as for ``WalkedChain``.

    Raises:
        ValueError: If the order is above the number of steps, or the kind has no limit there.
    """

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self._weights = {0: self._weights_from(0)}

    def step(
        self, history: History, x_0_hat: Tensor, x_t: Tensor, generator: Generators
    ) -> tuple[Tensor, History | None]:
        """Give x_s, and the walk after the step; None at its end."""
        if history.start not in self._weights:
            self._weights[history.start] = self._weights_from(history.start)
        weights = self._weights[history.start][history.place - history.start]
        predictions = (x_0_hat, *history.predictions)
        if weights.noise:
            x_s = scaled_noise(x_t, weights.noise, generator)
            add_scaled_(x_s, weights.from_x_t, x_t)
        else:
            x_s = x_t * weights.from_x_t
        for weight, prediction in zip(weights.from_x_0, predictions, strict=False):
            add_scaled_(x_s, weight, prediction)
        if self._ends_at(history):
            return x_s, None
        return x_s, history.after(x_0_hat.clone(), *history.predictions[: self._order - 1])

    def _weights_from(self, start: int) -> list[_Weights]:
        """Make the weights of all steps of a walk that begins at a place of the chain."""
        chain = self._timesteps[start:]
        moves = multistep_moves(
            self._schedule,
            chain,
            order=min(self._order, len(chain)),
            corrector=self._solver.corrector,
            kind=self._solver.kind,
            eta=self._solver.eta,
        )
        return [
            _Weights(float(m.from_x_t), float(m.noise), [float(w) for w in m.from_x_0])
            for m in moves
        ]
