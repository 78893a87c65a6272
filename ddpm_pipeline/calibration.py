r"""``calibrate``: the best reverse variances and the best K steps of a model that is trained.

One pass of O(T) forwards over data measures, for every timestep and without clipping x_0,

.. math::
    m_t = \mathbb E\|\hat\epsilon(x_t, t)\|^2/D, \qquad e_t = \mathbb E\|x_0 - \hat x_0\|^2/D

From these follow the variance of p(x_s | x_t) for any t and s, the bound of any chain with any
fixed variance, and the cheapest chain of every length:

.. math::
    \sigma^2_{s|t} = \tilde\beta_{s|t} + \bar\alpha_s \beta_{t|s}^2/(1-\bar\alpha_t)^2\; v_t

v_t is the error e_t itself, because no other scalar gives the network at hand a lower bound.
Bao et al. (2022) take (1 - alpha_bar)/alpha_bar (1 - m_t): the same for a perfect network, but
with the noise of 1 - m amplified by 1/SNR, and 0 · infinity at alpha_bar = 0. It is here as
estimate="moment". Neither may exceed the error of the best multiple of x_t.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import torch
from torch import Tensor, nn

from ddpm_pipeline.calibration_costs import linear_error
from ddpm_pipeline.calibration_estimate import DECODER_RATIOS, estimate_tables
from ddpm_pipeline.calibration_run import Batches, CalibrationRun, draw_seed
from ddpm_pipeline.calibration_weights import weights_hashes
from ddpm_pipeline.denoiser import Denoiser
from ddpm_pipeline.schedule import NoiseSchedule

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Calibration", "calibrate"]

Estimate = Literal["error", "moment"]
ESTIMATES: tuple[str, ...] = get_args(Estimate)
# Forward passes per timestep unless num_forwards says otherwise.
FORWARDS_PER_TIMESTEP = 10

# Version 1 has 4 rows of decoder costs and no decoder_variance, decoder_cost or wiener_error.
_VERSIONS = (1, 2)
_VERSION_1_DECODER_ROWS = 4
_MEASURED = (
    "m",
    "m_standard_error",
    "x_0_error",
    "x_0_error_standard_error",
    "decoder_variance",
    "decoder",
)
_TABLES = (*_MEASURED[:-1], "x_0_variance")
_OPTIONAL_TABLES = ("decoder_cost", "wiener_error")
# Digits that are kept: far below the standard errors, and half the size in a file.
_DIGITS = 9
_DECODERS = ("discretized", "continuous")
# alpha_bar at this many timesteps tells schedules apart.
_FINGERPRINTS = 16
# Below this SNR the noise of 1 - m, amplified by 1/SNR, is worse than the model's own error.
_MOMENT_SNR = 1e-2


@dataclass(frozen=True, eq=False, repr=False)
class Calibration:
    r"""What ``calibrate`` measured of a model, as exact in JSON as in memory.

    Arguments:
        m: m_t = E||eps_hat||²/D, float64, shape (T,).
        m_standard_error: Its standard error, shape (T,).
        x_0_error: e_t = E||x_0 - x_0_hat||²/D, shape (T,).
        x_0_error_standard_error: Its standard error, shape (T,).
        x_0_variance: v_t, what the analytic variance is made of, shape (T,).
        decoder_variance: That of the move from t to the data: v_t for a continuous decoder, and
            for 8-bit data the best from e_t/8 to 16 e_t that is at most 1 - alpha_bar, shape (T,).
        decoder_cost: E[-log p(x_0 | x_t)]/D in nats with decoder_variance, shape (T,); None where
            it follows from x_0_error or from decoder.
        wiener_error: W_t, the error of Wiener's filter by the data's power spectrum, shape (T,);
            None where that is unknown.
        decoder: E[-log p(x_0 | x_t)]/D in nats for variances of DECODER_RATIOS (1 - alpha_bar),
            shape (7, T), or (4, T) from version 1; (0, T) for a continuous decoder, which follows
            from x_0_error.
        alpha_bar: Of the schedule at 16 timesteps or fewer, evenly spaced from 0 to T-1.
        second_moment: E||x_0||²/D of the data.
        standard_error: Of the full chain's bits per dimension.
        num_images: Different images seen.
        num_forwards: Forward passes made, one image each.
        image_shape: Shape of one image, () if unknown.
        estimate: Where x_0_variance comes from, "error" or "moment".
        weights: Hashes of the weights by precision; None is for any weights.
    """

    m: Tensor
    m_standard_error: Tensor
    x_0_error: Tensor
    x_0_error_standard_error: Tensor
    x_0_variance: Tensor
    decoder_variance: Tensor
    decoder: Tensor
    alpha_bar: tuple[float, ...]
    second_moment: float
    decoder_cost: Tensor | None = None
    wiener_error: Tensor | None = None
    standard_error: float = 0.0
    num_images: int = 0
    num_forwards: int = 0
    image_shape: tuple[int, ...] = ()
    estimate: Estimate = "error"
    weights: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        for name in (*_TABLES, *_OPTIONAL_TABLES, "decoder"):
            table = getattr(self, name)
            if name in _OPTIONAL_TABLES and table is None:
                continue
            rows = (len(self.decoder),) if name == "decoder" else ()
            if table.dtype != torch.float64 or table.shape != (*rows, len(self)):
                raise ValueError(
                    f"{name} must be float64 of shape {(*rows, len(self))}, got {table.dtype} of "
                    f"shape {(*table.shape,)}"
                )
        if len(self.decoder) not in (0, _VERSION_1_DECODER_ROWS, len(DECODER_RATIOS)):
            raise ValueError(
                f"decoder must have {len(DECODER_RATIOS)}, {_VERSION_1_DECODER_ROWS} or no rows, "
                f"got {len(self.decoder)}"
            )

    def __len__(self) -> int:
        """T."""
        return len(self.x_0_error)

    def __repr__(self) -> str:
        return (
            f"Calibration(T={len(self)}, num_images={self.num_images}, "
            f"num_forwards={self.num_forwards}, image_shape={self.image_shape}, "
            f"estimate={self.estimate!r}, standard_error={self.standard_error:.2g})"
        )

    @classmethod
    def from_errors(
        cls,
        schedule: NoiseSchedule,
        x_0_error: Tensor,
        *,
        second_moment: float = 1.0,
        m: Tensor | None = None,
        **options: object,
    ) -> Calibration:
        """A calibration from errors that are known otherwise, for a continuous decoder.

        Arguments:
            schedule: Noise schedule with T steps.
            x_0_error: e_t, float64, shape (T,).
            second_moment: E||x_0||²/D of the data.
            m: m_t; that of a perfect network with these errors by default.
            options: Further fields.
        """
        zeros = torch.zeros_like(x_0_error)
        if m is None:
            m = 1 - schedule.snr(torch.arange(len(schedule))) * x_0_error
        x_0_variance = _x_0_variance(schedule, "error", m, x_0_error, second_moment)
        defaults = {
            "m": m,
            "m_standard_error": zeros,
            "x_0_error": x_0_error,
            "x_0_error_standard_error": zeros,
            "x_0_variance": x_0_variance,
            "decoder_variance": x_0_variance,
            "decoder": zeros.new_zeros(0, len(zeros)),
            "alpha_bar": _fingerprint(schedule),
            "second_moment": second_moment,
        }
        return cls(**(defaults | options))

    def for_any_weights(self) -> Calibration:
        """The same, which will no longer be refused for other weights than those it is of."""
        return replace(self, weights=None)

    def check_schedule(self, schedule: NoiseSchedule) -> None:
        """ValueError if it was made for another T or another noise schedule."""
        if len(schedule) != len(self):
            raise ValueError(
                f"the calibration was made for {len(self)} timesteps, but the scheduler has "
                f"{len(schedule)}; calibrate again"
            )
        mine, theirs = torch.tensor(self.alpha_bar), torch.tensor(_fingerprint(schedule))
        if mine.shape != theirs.shape or not torch.allclose(mine, theirs, rtol=1e-5, atol=1e-12):
            raise ValueError(
                "the calibration was made for another noise schedule than the scheduler's; "
                "calibrate again"
            )

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values; tables as text, numbers in the digits that give them back."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        tables = {name: _text(values.pop(name)) for name in _TABLES}
        decoder = [_text(row) for row in values.pop("decoder")]
        for name in _OPTIONAL_TABLES:
            values[name] = None if values[name] is None else _text(values[name])
        values["alpha_bar"] = list(self.alpha_bar)
        values["image_shape"] = list(self.image_shape)
        values["weights"] = None if self.weights is None else dict(self.weights)
        return {"version": _VERSIONS[-1], **values, **tables, "decoder": decoder}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """What ``to_dict`` was called on.

        Raises:
            ValueError: If a newer version of this package wrote it, or it is not a calibration.
        """
        values = dict(values)
        version = values.pop("version", None)
        if version not in _VERSIONS:
            raise ValueError(
                f"the calibration's version must be {' or '.join(map(str, _VERSIONS))}, got "
                f"{version!r}; a newer ddpm_pipeline may read it"
            )
        if version == 1 and "x_0_variance" in values:
            values["decoder_variance"] = values["x_0_variance"]
            values |= dict.fromkeys(_OPTIONAL_TABLES)
        if missing := {field.name for field in fields(cls)} - values.keys():
            raise ValueError(f"the calibration lacks {', '.join(sorted(missing))}")
        for name in (*_TABLES, *_OPTIONAL_TABLES):
            values[name] = None if values[name] is None else _table(values[name])
        T = len(values["x_0_error"])
        decoder = [_table(row) for row in values["decoder"]]
        values["decoder"] = torch.stack(decoder) if decoder else torch.zeros(0, T).double()
        for name in ("alpha_bar", "image_shape"):
            values[name] = tuple(values[name])
        return cls(**values)


def _text(table: Tensor) -> str:
    return " ".join(map(repr, table.tolist()))


def _table(text: str) -> Tensor:
    return torch.tensor([float(number) for number in text.split()], dtype=torch.float64)


def _fingerprint(schedule: NoiseSchedule) -> tuple[float, ...]:
    count = min(_FINGERPRINTS, len(schedule))
    places = torch.linspace(0, len(schedule) - 1, count, dtype=torch.float64).round().long()
    return tuple(schedule.alpha_bar(places).tolist())


def _x_0_variance(
    schedule: NoiseSchedule,
    estimate: Estimate,
    m: Tensor,
    x_0_error: Tensor,
    second_moment: float,
) -> Tensor:
    """v_t by the chosen estimate, at most the error of the best multiple of x_t."""
    limit = linear_error(schedule, second_moment)
    if estimate == "moment":
        snr = schedule.snr(torch.arange(len(schedule)))
        x_0_error = torch.where(snr < _MOMENT_SNR, x_0_error, (1 - m) / snr)
    return torch.minimum(x_0_error, limit).clamp(min=1e-6 * limit)


class _Scheduler(Protocol):
    """What is needed of ``ddpm_pipeline.DDPMScheduler``."""

    schedule: NoiseSchedule
    variance_type: str
    config: Mapping[str, Any]


def calibrate(
    model: Denoiser,
    scheduler: _Scheduler,
    x_0_batches: Batches,
    *,
    generator: torch.Generator | None = None,
    num_forwards: int | None = None,
    precision: float | None = None,
    estimate: Estimate = "error",
    decoder: Literal["discretized", "continuous"] = "discretized",
    accelerator: Accelerator | None = None,
    state_file: str | os.PathLike | None = None,
    progress: bool = False,
) -> Calibration:
    """Measure what the best reverse variances and the best K steps of a model follow from.

    Arguments:
        model: Called as model(x_t, t), t being int64 of shape (B,), or with class_labels where a
            batch has them; with the weights that will be sampled from. Predictions of noise, x_0
            or v; a module is put in evaluation mode meanwhile.
        scheduler: A ``ddpm_pipeline.DDPMScheduler``, for its schedule and prediction type.
        x_0_batches: Data in [-1, 1], floating point, (B, C, *), or pairs of data and labels, in
            random order; read again from the start until there are enough.
        generator: Where the seed of all noise and timesteps is drawn from.
        num_forwards: Forward passes, of one image each; 10 T by default, at least T.
        precision: Largest standard error wanted, of the full chain's bits per dimension.
        estimate: What the analytic variance is made of: the error of x_0, or the paper's
            "moment" (see the module).
        decoder: "discretized" for 8-bit data, "continuous" for the density of other data.
        accelerator: Share the work among its processes, all of which are given the same data and
            get the same calibration.
        state_file: Where to keep what was measured so far; a run that finds the file continues,
            a run that ends deletes it.
        progress: Whether to show a progress bar.
    Returns:
        The calibration, for ``scheduler.set_calibration`` or ``scheduler.with_calibration``.
    Raises:
        ValueError: If an option is not allowed, the data do not fit the model or are too few for
            the precision, or the model's output is not finite.
        TypeError: If the scheduler or the data are of another type.
    Source: Bao et al. 2022 (arXiv:2201.06503), section 3.
    """
    schedule = getattr(scheduler, "schedule", None)
    if not isinstance(schedule, NoiseSchedule):
        raise TypeError(
            "scheduler must be a ddpm_pipeline.DDPMScheduler, got "
            f"{type(scheduler).__name__}; use DDPMScheduler.from_config(scheduler.config)"
        )
    T = len(schedule)
    num_forwards = FORWARDS_PER_TIMESTEP * T if num_forwards is None else num_forwards
    _check_options(T, num_forwards, precision, estimate, decoder)
    hashes = weights_hashes(model) if isinstance(model, nn.Module) else None
    run = CalibrationRun(
        schedule=schedule,
        prediction_type=scheduler.config["prediction_type"],
        variance_type=scheduler.variance_type,
        num_forwards=num_forwards,
        is_discrete=decoder == "discretized",
        seed=draw_seed(generator, state_file, accelerator),
        weights=repr(hashes),
    )
    measured = run.measure(
        model, x_0_batches, accelerator=accelerator, state_file=state_file, progress=progress
    )
    estimates = estimate_tables(schedule, measured.sums)
    # Forwards of one image at several timesteps are not independent: count the images.
    repeats = num_forwards / measured.num_images
    standard_error = estimates.standard_error * repeats**0.5
    _check_precision(precision, standard_error, measured.num_images)
    measured_tables = (*_MEASURED, *_OPTIONAL_TABLES)
    tables = {name: _rounded(getattr(estimates, name)) for name in measured_tables}
    x_0_variance = _rounded(
        _x_0_variance(
            schedule, estimate, tables["m"], tables["x_0_error"], estimates.second_moment
        )
    )
    if decoder == "continuous":
        tables["decoder_variance"] = x_0_variance
    return Calibration(
        **tables,
        x_0_variance=x_0_variance,
        alpha_bar=_fingerprint(schedule),
        second_moment=estimates.second_moment,
        standard_error=standard_error,
        num_images=measured.num_images,
        num_forwards=num_forwards,
        image_shape=measured.image_shape,
        estimate=estimate,
        weights=hashes,
    )


def _check_options(
    T: int, num_forwards: int, precision: float | None, estimate: str, decoder: str
) -> None:
    if isinstance(num_forwards, bool) or not isinstance(num_forwards, int) or num_forwards < T:
        raise ValueError(
            f"num_forwards must be an integer of at least {T}, one for each timestep, got "
            f"{num_forwards!r}"
        )
    if precision is not None and not precision > 0:
        raise ValueError(f"precision must be above 0 bits per dimension, got {precision}")
    if estimate not in ESTIMATES:
        raise ValueError(f"estimate must be one of {', '.join(ESTIMATES)}, got {estimate!r}")
    if decoder not in _DECODERS:
        raise ValueError(f"decoder must be one of {', '.join(_DECODERS)}, got {decoder!r}")


def _check_precision(precision: float | None, standard_error: float, num_images: int) -> None:
    if precision is not None and not standard_error <= precision:
        needed = math.ceil(num_images * (standard_error / precision) ** 2)
        raise ValueError(
            f"x_0_batches must hold about {needed} images, with num_forwards as many, for a "
            f"precision of {precision:g} bits per dimension; {num_images} images give "
            f"{standard_error:.2g}"
        )


def _rounded(table: Tensor | None) -> Tensor | None:
    """Every number to the digits that are kept."""
    if table is None:
        return None
    numbers = [float(f"{number:.{_DIGITS}g}") for number in table.flatten().tolist()]
    return torch.tensor(numbers, dtype=torch.float64).reshape(table.shape)
