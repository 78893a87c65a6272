r"""The loss of training by coefficients: what of it depends on t stands in one table.

.. math::
    x_t = a_t\, x_0 + b_t\, \epsilon, \qquad y = c_t\, x_0 + d_t\, \epsilon, \qquad
    L_{\text{simple}} = w_t \cdot \tfrac1D \lVert y - y_\theta(x_t, t) \rVert^2

:math:`a_t, b_t, c_t, d_t, w_t` and, for the bound, those of the move t → t - 1 are computed once
for every t, from the schedule in float64. An update then gathers the rows of its timesteps on the
device that trains: it computes no schedule, and no table is copied.

    objective = TrainingObjective(ReverseProcess(schedule), device=device)
    chosen = objective.at(t)
    x_t = chosen.noisy(x_0, eps)
    losses = objective.losses(chosen, network(x_t, chosen.t), x_0, eps, x_t)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

import torch
from torch import Tensor

from ddpm_pipeline.common import moved
from ddpm_pipeline.diffusion.bound_terms import bits_per_dim, decoder_nats
from ddpm_pipeline.diffusion.forward_process import marginal, posterior_variance
from ddpm_pipeline.diffusion.gaussian import Gaussian
from ddpm_pipeline.diffusion.predictions import target_weights
from ddpm_pipeline.diffusion.reverse_process import ReverseMove, apply_move, split_output
from ddpm_pipeline.diffusion.tensors import broadcast, combine, sum_elements

if TYPE_CHECKING:
    from ddpm_pipeline.diffusion.choices import Loss
    from ddpm_pipeline.diffusion.reverse_model import ReverseProcess

__all__ = ["ChosenTimesteps", "TrainingObjective"]


DecoderNats = Callable[[Gaussian, Tensor], Tensor]


class LossCoefficients(NamedTuple):
    """All that a loss needs of the schedule at some timesteps, each in the shape of t."""

    signal: Tensor
    noise: Tensor
    target_x_0: Tensor
    target_eps: Tensor
    weight: Tensor
    posterior_log_var: Tensor | None = None
    move: ReverseMove | None = None

    @classmethod
    def at(
        cls,
        process: ReverseProcess,
        t: Tensor,
        weights: Tensor | None,
        loss: Loss,
        dtype: torch.dtype,
    ) -> Self:
        """Compute them, with those of the bound if the loss has it.

        All but the marginal's are float64, which is that of data of the ``dtype``.
        """
        schedule = process.schedule
        q = marginal(schedule, torch.ones(t.shape, dtype=dtype, device=t.device), t)
        target = target_weights(schedule, t, prediction_type=process.prediction_type)
        weight = torch.ones_like(target[0]) if weights is None else weights[t]
        simple = (q.mean.to(weight), q.std.to(weight), *target, weight)
        if loss == "simple":
            return cls(*simple)
        log_var = posterior_variance(schedule, t).log()
        return cls(*simple, log_var, process.coefficients(t, t - 1))

    @classmethod
    def of_columns(cls, columns: tuple[Tensor, ...]) -> Self:
        """Make them of what ``columns`` gave, or of rows of it."""
        return cls(*columns[:6], ReverseMove(*columns[6:])) if columns[5:] else cls(*columns)

    def columns(self) -> tuple[Tensor, ...]:
        """Give all of them in a row."""
        return self[:5] if self.move is None else (*self[:6], *self.move)

    def on(self, device: torch.device) -> LossCoefficients:
        """Give them on a device."""
        return self.of_columns(tuple(moved(c, device) for c in self.columns()))

    def rows(self, order: Tensor) -> LossCoefficients:
        """Give those of some of the timesteps."""
        return self.of_columns(tuple(c.index_select(0, order) for c in self.columns()))


class DecoderSplit(NamedTuple):
    """Which examples of a batch are at t = 0, where the bound's term is the decoder's.

    Arguments:
        order: The examples' numbers, those at t = 0 last, int64 (B,).
        decoders: How many are at t = 0.
    """

    order: Tensor
    decoders: int

    @classmethod
    def of(cls, t: Tensor) -> Self:
        """Sort a batch; its timesteps are read, without a wait if they are the host's."""
        is_decoder = t == 0
        return cls(is_decoder.to(torch.uint8).argsort(stable=True), int(is_decoder.sum()))

    def on(self, device: torch.device) -> DecoderSplit:
        """Give it with its order on a device."""
        return self._replace(order=moved(self.order, device))


@dataclass(frozen=True)
class ChosenTimesteps:
    """A batch's timesteps, and what the loss needs of the schedule there.

    Arguments:
        t: int64 (B,), on the device.
        coefficients: Each (B,), float32, on the device.
        split: For losses with the bound, its order on the device; None for others.
    """

    t: Tensor
    coefficients: LossCoefficients
    split: DecoderSplit | None

    def noisy(self, x_0: Tensor, eps: Tensor) -> Tensor:
        """Give x_t."""
        return noisy(self.coefficients, x_0, eps)


class TrainingObjective:
    """The loss of training, for batches of timesteps.

    Arguments:
        process: The schedule, and what the network predicts of it.
        loss: One of LOSSES.
        weights: w_t, float64 (T,), on the CPU; None weighs all alike.
        vlb_weight: λ of ``hybrid``.
        device: Where batches are.
        decoder: f(p, x_0) gives -log p(x_0 | x_t) of each example, for losses with the bound.
    """

    def __init__(
        self,
        process: ReverseProcess,
        *,
        loss: Loss = "simple",
        weights: Tensor | None = None,
        vlb_weight: float = 1e-3,
        device: torch.device | str = "cpu",
        decoder: DecoderNats = decoder_nats,
    ) -> None:
        self.process, self.loss, self.vlb_weight = process, loss, vlb_weight
        self.decoder = decoder
        self.device, self._is_weighted = torch.device(device), weights is not None
        t = torch.arange(len(process.schedule))
        table = torch.stack(
            LossCoefficients.at(process, t, weights, loss, torch.float32).columns(), 1
        )
        self._table = table.float().to(self.device)

    def at(self, t: Tensor) -> ChosenTimesteps:
        """Choose timesteps, int64 (B,), on the CPU."""
        split = self.split(t)
        return self.choose(moved(t, self.device), None if split is None else split.on(self.device))

    def split(self, t: Tensor) -> DecoderSplit | None:
        """Sort a batch's timesteps on the CPU, for a loss with the bound; None for others."""
        return None if self.loss == "simple" else DecoderSplit.of(t)

    def choose(self, t: Tensor, split: DecoderSplit | None) -> ChosenTimesteps:
        """Choose timesteps that are on the device, by one gather.

        Arguments:
            t: int64 (B,), on the device.
            split: What ``split`` gave for them, on the device.
        """
        rows = self._table.index_select(0, t)
        return ChosenTimesteps(t, LossCoefficients.of_columns(rows.unbind(1)), split)

    def losses(
        self, chosen: ChosenTimesteps, model_output: Tensor, x_0: Tensor, eps: Tensor, x_t: Tensor
    ) -> Tensor:
        """Give the loss of each example, shape (B,); x_t is that of ``chosen.noisy``."""
        return example_losses(
            self.process,
            chosen.coefficients,
            chosen.split,
            model_output,
            x_0,
            eps,
            x_t,
            loss=self.loss,
            vlb_weight=self.vlb_weight,
            is_weighted=self._is_weighted,
            decoder=self.decoder,
        )


def noisy(coefficients: LossCoefficients, x_0: Tensor, eps: Tensor) -> Tensor:
    """Give x_t, to the bit what ``marginal`` gives by the noise eps."""
    signal, noise = (broadcast(c, x_0) for c in coefficients[:2])
    return signal * x_0 + noise * eps


def example_losses(
    process: ReverseProcess,
    coefficients: LossCoefficients,
    split: DecoderSplit | None,
    model_output: Tensor,
    x_0: Tensor,
    eps: Tensor,
    x_t: Tensor,
    *,
    loss: Loss,
    vlb_weight: float,
    is_weighted: bool,
    decoder: DecoderNats = decoder_nats,
) -> Tensor:
    """Give the loss of each example; arguments as in ``training_loss``, by coefficients."""
    if loss == "vlb":
        return bound_losses(process, coefficients, split, model_output, x_0, x_t, decoder)
    prediction, _ = split_output(model_output, x_0, process.variance_type)
    of_x_0, of_eps = (broadcast(c, x_0) for c in coefficients[2:4])
    target = combine(of_x_0, x_0, of_eps, eps)
    losses = (prediction.to(x_0.dtype) - target).square().flatten(1).mean(1)
    if is_weighted:
        losses = broadcast(coefficients.weight, losses) * losses
    if loss == "simple":
        return losses
    output = _with_fixed_mean(process, model_output, x_0)
    bound = bound_losses(process, coefficients, split, output, x_0, x_t, decoder)
    return losses + vlb_weight * bound


def _with_fixed_mean(process: ReverseProcess, model_output: Tensor, x_0: Tensor) -> Tensor:
    """Let no gradient pass into the mean, only into a learned variance."""
    prediction, log_var = split_output(model_output, x_0, process.variance_type)
    return torch.cat([prediction.detach(), *([] if log_var is None else [log_var])], dim=1)


def bound_losses(
    process: ReverseProcess,
    coefficients: LossCoefficients,
    split: DecoderSplit,
    model_output: Tensor,
    x_0: Tensor,
    x_t: Tensor,
    decoder: DecoderNats = decoder_nats,
) -> Tensor:
    """Give T times the bound's term of each example in bits per dimension, shape (B,)."""
    output, count = model_output.to(x_0.dtype), len(x_0) - split.decoders
    if split.decoders == 0:
        nats = _bound_nats(process, coefficients, output, x_0, x_t, None).to(x_0.dtype)
    else:
        nats = x_0.new_zeros(len(x_0))
        for is_decoder in (False, True):
            here = split.order[count:] if is_decoder else split.order[:count]
            if len(here) == 0:
                continue
            chosen = (output[here], x_0[here], x_t[here])
            rows = coefficients.rows(here)
            terms = _bound_nats(process, rows, *chosen, decoder if is_decoder else None)
            nats = nats.index_add(0, here, terms.to(nats.dtype))
    return len(process.schedule) * bits_per_dim(nats, x_0[0].numel())


def _bound_nats(
    process: ReverseProcess,
    coefficients: LossCoefficients,
    output: Tensor,
    x_0: Tensor,
    x_t: Tensor,
    decoder: DecoderNats | None,
) -> Tensor:
    """Give the bound's terms of examples at t = 0 only, with a decoder, or at others only."""
    move = ReverseMove(*(broadcast(c, x_t) for c in coefficients.move))
    p = apply_move(move, output, x_t, process.variance_type)
    if decoder is not None:
        return decoder(p, x_0)
    mean = combine(move.mean_from_x_0, x_0, move.mean_from_x_t, x_t)
    q = Gaussian(mean, broadcast(coefficients.posterior_log_var, x_t))
    return sum_elements(q.kl(p))
