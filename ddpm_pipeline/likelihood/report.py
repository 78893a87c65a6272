r"""``BoundReport``: the bound of a model on data, with its parts and how sure they are.

.. math::
    \text{bits/dim} = \text{prior} + \sum_k \text{transitions}_k + \text{decoder}, \qquad
    \mathrm{se}^2 = \mathrm{se}_{\text{images}}^2 + \mathrm{se}_{\text{timesteps}}^2

.. math::
    \mathrm{Rate}(t) = \text{prior} + \text{transitions down to } t, \qquad
    \mathrm{Distortion}(t) = 127.5\, \sqrt{\mathbb E\|x_0 - \hat x_0(x_t)\|^2 / D}
"""

import json
import math
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm_pipeline.common import write_text
from ddpm_pipeline.diffusion import bits_per_dim
from ddpm_pipeline.likelihood.totals import BoundTotals

__all__ = ["BoundReport", "BoundSettings", "shown_error", "summarize"]


_LEVELS_PER_UNIT = 127.5


@dataclass(frozen=True)
class BoundSettings:
    """Whose bound a bound is, of which chain, and how it was measured.

    Arguments:
        chain: Timesteps, strictly decreasing.
        num_train_timesteps: T.
        dims: D, elements of an example.
        prediction_type, variance_type: Of the reverse process.
        decoder: One of DECODERS.
        decoder_variance: "model", "best", or the variance itself.
        clip_x_0: The predicted x_0 was clamped to ± this, or None.
        num_timestep_samples: Transitions drawn for each example, or None for all.
        timestep_sampler: How they were drawn.
        seed: Of the noise and the timesteps.
        log_unit: Mean of ln u over dimensions, nats by which a density in the data's own unit
            differs from that in the model's; None where these are the same.
        num_levels: How many levels the discretized decoder has; None for the 256 of bytes.
    """

    chain: tuple[int, ...]
    num_train_timesteps: int
    dims: int
    prediction_type: str
    variance_type: str
    decoder: str
    decoder_variance: str | float
    clip_x_0: float | None
    num_timestep_samples: int | None
    timestep_sampler: str
    seed: int
    log_unit: float | None = None
    num_levels: int | None = None

    @property
    def is_exact(self) -> bool:
        """Whether every term of every example is summed."""
        n = self.num_timestep_samples
        return n is None or n >= len(self.chain) - 1


@dataclass(frozen=True, eq=False)
class BoundReport:
    """The variational bound of N examples in bits per dimension, an upper bound on their NLL.

    Arguments:
        bits_per_dim: Mean over the examples: prior + sum of transitions + decoder.
        standard_error: Of that mean, as an estimate for the distribution the examples are from.
        standard_error_images: The part of it that more images would reduce; it includes the
            noise.
        standard_error_timesteps: The part that more timesteps would reduce, 0 if all were
            summed: the error of the mean as an estimate of the exact sum over these examples.
        prior: Mean of KL(q(x_T | x_0) || N(0, I)).
        transitions: Mean of each KL, from the noisiest move to the last before the data, float64,
            shape (K - 1,). In an estimate, moves that were never drawn are 0.
        decoder: Mean of -log p(x_0 | x_{t_1}).
        per_example: The bound of each example, float64, shape (N,).
        prior_per_example, transitions_per_example, decoder_per_example: Its parts, shape (N,).
        distortion: Root mean squared error of the predicted x_0 at each step of the chain, in
            units of 0 … 255, shape (K,); NaN where there was no forward.
        step_counts: Forwards at each step of the chain, shape (K,).
        last_variance: Variance of the last move where it is one number for all data, else None.
        settings: What was measured.
        warnings: What to know before comparing the number with others.
        without_condition: Of a model that was also trained without its condition, the bound of
            the same examples without, in bits per dimension; None where it was not measured.
        without_condition_error: Its standard error.
    """

    bits_per_dim: float
    standard_error: float
    standard_error_images: float
    standard_error_timesteps: float
    prior: float
    transitions: Tensor
    decoder: float
    per_example: Tensor
    prior_per_example: Tensor
    transitions_per_example: Tensor
    decoder_per_example: Tensor
    distortion: Tensor
    step_counts: Tensor
    last_variance: float | None
    settings: BoundSettings
    warnings: tuple[str, ...] = ()
    without_condition: float | None = None
    without_condition_error: float | None = None

    @property
    def nats(self) -> float:
        """Mean bound in nats per example."""
        return self.bits_per_dim / bits_per_dim(1.0, self.settings.dims)

    @property
    def num_images(self) -> int:
        """N."""
        return len(self.per_example)

    @property
    def chain(self) -> tuple[int, ...]:
        """The timesteps, strictly decreasing."""
        return self.settings.chain

    @property
    def forwards(self) -> int:
        """How many examples the network was run on, over all timesteps."""
        return int(self.step_counts.sum())

    @property
    def rate(self) -> Tensor:
        """Bits per dimension that x_t holds about x_0, at each step of the chain, shape (K,)."""
        return self.prior + torch.cat([self.transitions.new_zeros(1), self.transitions.cumsum(0)])

    def to_dict(self, *, per_example: bool = True) -> dict[str, Any]:
        """Give all fields and properties as JSON can hold them; NaN becomes None.

        Arguments:
            per_example: Whether to include the four lists of N numbers.
        """
        names = [f.name for f in fields(self) if f.name != "settings"]
        if self.without_condition is None:
            names = [name for name in names if not name.startswith("without_condition")]
        names += ["nats", "num_images", "forwards", "rate"]
        values = {name: _plain(getattr(self, name)) for name in names}
        if not per_example:
            values = {k: v for k, v in values.items() if not k.endswith("per_example")}
        settings = {f.name: _plain(getattr(self.settings, f.name)) for f in fields(self.settings)}
        return values | settings

    def to_json(
        self, path: str | os.PathLike | None = None, *, per_example: bool = True, **more: object
    ) -> str:
        """Give ``to_dict`` as JSON; also write it to a file if a path is given.

        Arguments:
            path: The file, or None.
            per_example: Whether to include the four lists of N numbers.
            more: JSON values to be kept beside the report, by name.
        """
        text = json.dumps(self.to_dict(per_example=per_example) | more, indent=1) + "\n"
        if path is not None:
            write_text(Path(path), text)
        return text

    def _without(self) -> list[tuple[str, str]]:
        """Give the row of the table that says the bound without the condition, if there is one."""
        if self.without_condition is None:
            return []
        bound, error = self.without_condition, self.without_condition_error
        return [("without condition", f"{bound:.4f} ± {error:.4f}")]

    def __str__(self) -> str:
        rows = [
            ("bits/dim", f"{self.bits_per_dim:.4f} ± {self.standard_error:.4f}"),
            ("  prior", f"{self.prior:.4f}"),
            ("  transitions", f"{self.transitions.sum().item():.4f}"),
            ("  decoder", f"{self.decoder:.4f}"),
            *self._without(),
            (
                "error from images",
                shown_error(
                    self.standard_error_images,
                    self.standard_error_timesteps,
                    "timesteps; --num_timestep_samples draws more",
                ),
            ),
            ("error from timesteps", f"± {self.standard_error_timesteps:.4f}"),
            ("nats per image", f"{self.nats:.2f}"),
            *_describe(self.settings),
            ("images", f"{self.num_images} of {self.settings.dims} dimensions"),
            ("forwards", f"{self.forwards}"),
        ]
        table = [f"{name:<22}{value}" for name, value in rows]
        return "\n".join([*table, *(f"warning: {w}" for w in self.warnings)])


def _describe(settings: BoundSettings) -> list[tuple[str, str]]:
    """Give the rows of the table that say what was measured."""
    chain, T = settings.chain, settings.num_train_timesteps
    span = f"{len(chain)} of {T} steps, {chain[0]} to {chain[-1]}"
    drawn = f"{settings.num_timestep_samples} per image, sampler {settings.timestep_sampler}"
    variance = settings.decoder_variance
    clip = settings.clip_x_0
    return [
        ("chain", span),
        ("transitions summed", "all" if settings.is_exact else drawn),
        ("decoder", f"{settings.decoder}{_levels(settings)}, variance: {variance}"),
        ("variance type", settings.variance_type),
        ("prediction type", settings.prediction_type),
        ("predicted x_0", "not clamped" if clip is None else f"clamped to ± {clip:g}"),
    ]


def _levels(settings: BoundSettings) -> str:
    """Say how deep the data are, or that the density is that of their own unit."""
    if settings.num_levels is not None:
        return f" in {settings.num_levels:,} levels"
    return "" if settings.log_unit is None else " in the unit of the data"


def summarize(
    totals: BoundTotals, settings: BoundSettings, warnings: tuple[str, ...] = ()
) -> BoundReport:
    """Make the report of the sums so far."""
    N, D = len(totals), settings.dims
    decoder, last_variance = _decoder(totals, settings)
    parts = [bits_per_dim(p, D) for p in (totals.prior, totals.transitions, decoder)]
    per_example = torch.stack(parts).sum(0)
    error = per_example.std().item() / math.sqrt(N) if N > 1 else math.nan
    from_timesteps = 0.0
    if not settings.is_exact:
        from_timesteps = bits_per_dim(math.sqrt(totals.timestep_variance() / N), D)
    error_from_images = math.sqrt(max(error**2 - from_timesteps**2, 0)) if N > 1 else math.nan
    return BoundReport(
        bits_per_dim=per_example.mean().item(),
        standard_error=error,
        standard_error_images=error_from_images,
        standard_error_timesteps=from_timesteps,
        prior=parts[0].mean().item(),
        transitions=bits_per_dim(totals.step_nats / N, D),
        decoder=parts[2].mean().item(),
        per_example=per_example,
        prior_per_example=parts[0],
        transitions_per_example=parts[1],
        decoder_per_example=parts[2],
        distortion=_LEVELS_PER_UNIT * (totals.step_errors / totals.step_counts / D).sqrt(),
        step_counts=totals.step_counts,
        last_variance=last_variance,
        settings=settings,
        warnings=warnings,
    )


def _decoder(totals: BoundTotals, settings: BoundSettings) -> tuple[Tensor, float | None]:
    r"""Give the decoder's nats of each example, and its variance where that is one number.

    The best variance of a Gaussian whose mean is given is the mean squared error v, with which
    -log p(x_0 | x_t) = D/2 ln(2 pi v) + ||x_0 - x_0_hat||²/(2v).
    """
    variance, D = settings.decoder_variance, settings.dims
    volume = D * (settings.log_unit or 0)  # -log p(v) = -log p(x) + sum of ln u
    if variance == "model":
        return totals.decoder + volume, None
    if variance != "best":
        return totals.decoder + volume, variance
    v = totals.last_error.mean().item() / D
    if v == 0:
        raise ValueError(
            "decoder_variance 'best' is 0: the model predicts these data without any error, so "
            "that their density is infinite; use the discretized decoder"
        )
    return 0.5 * (D * math.log(2 * math.pi * v) + totals.last_error / v) + volume, v


def _plain(value: object) -> object:
    """Turn a value into numbers, strings, lists and None; NaN and infinities become None."""
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def shown_error(error: float, other: float, source: str) -> str:
    """Say an error, or that another one hides it: what is left of the whole is 0 then.

    Arguments:
        error: What is left.
        other: What was taken off, which is estimated too.
        source: Of the other, and what makes it smaller.
    """
    if error == 0 and other > 0:
        return f"hidden by that from {source}"
    return f"± {error:.4f}"
