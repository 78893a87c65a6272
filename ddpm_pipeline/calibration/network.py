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
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor, nn

from ddpm_pipeline.calibration.run import CalibrationRun, Measured, own_state_file
from ddpm_pipeline.calibration.spectrum import measured_spectrum
from ddpm_pipeline.calibration.tables import estimate_x_0_variance, measured_tables
from ddpm_pipeline.calibration.value_decoder import measured_value_decoder
from ddpm_pipeline.common import StateFile, check_choice, check_integer, draw_seed, weights_hashes
from ddpm_pipeline.data import Batches
from ddpm_pipeline.diffusion import NoiseSchedule
from ddpm_pipeline.networks import Denoiser
from ddpm_pipeline.schedulers import (
    MEASURED_TABLES,
    OPTIONAL_TABLES,
    VARIANCE_ESTIMATES,
    Calibration,
    VarianceEstimate,
    rounded_value_decoder,
    schedule_fingerprint,
)

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["calibrate"]

# Forward passes per timestep unless num_forwards says otherwise.
FORWARDS_PER_TIMESTEP = 10
# Digits that are kept: far below the standard errors, and half the size in a file.
_DIGITS = 9
_DECODERS = ("discretized", "continuous")


class _Scheduler(Protocol):
    """The part of ``ddpm_pipeline.DDPMScheduler`` that a calibration needs."""

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
    estimate: VarianceEstimate = "error",
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
    schedule = _schedule_of(scheduler)
    T = len(schedule)
    num_forwards = FORWARDS_PER_TIMESTEP * T if num_forwards is None else num_forwards
    _check_options(T, num_forwards, precision, estimate, decoder)
    hashes = weights_hashes(model) if isinstance(model, nn.Module) else None
    state = own_state_file(state_file, accelerator)
    saved_seed = _saved_seed(state) if generator is None else None
    run = CalibrationRun(
        schedule=schedule,
        prediction_type=scheduler.config["prediction_type"],
        variance_type=scheduler.variance_type,
        num_forwards=num_forwards,
        is_discrete=decoder == "discretized",
        seed=draw_seed(generator, accelerator, saved=saved_seed),
        weights=repr(hashes),
    )
    measured = run.sum_forwards(
        model, x_0_batches, accelerator=accelerator, state=state, progress=progress
    )
    if not measured.sums.error.isfinite().all():
        raise ValueError(
            "the model's output is not finite at "
            f"{int((~measured.sums.error.isfinite()).sum())} of {T} timesteps: its weights are "
            "damaged, or it was not trained to this end"
        )
    made = _calibration(run, measured, estimate, hashes)
    _check_precision(precision, made.standard_error, made.num_images)
    return made


def _schedule_of(scheduler: object) -> NoiseSchedule:
    schedule = getattr(scheduler, "schedule", None)
    if not isinstance(schedule, NoiseSchedule):
        raise TypeError(
            "scheduler must be a ddpm_pipeline.DDPMScheduler, got "
            f"{type(scheduler).__name__}; use DDPMScheduler.from_config(scheduler.config)"
        )
    return schedule


def _calibration(
    run: CalibrationRun,
    measured: Measured,
    estimate: VarianceEstimate,
    weights: Mapping[str, str] | None,
) -> Calibration:
    """Make the calibration of all that was measured."""
    found = measured_tables(run.schedule, measured.sums)
    tables = {
        name: _rounded(getattr(found, name)) for name in (*MEASURED_TABLES, *OPTIONAL_TABLES)
    }
    second_moment = found.second_moment
    x_0_variance = _rounded(
        estimate_x_0_variance(
            run.schedule, estimate, tables["m"], tables["x_0_error"], second_moment
        )
    )
    if not run.is_discrete:
        tables["decoder_variance"] = x_0_variance
    # Forwards of one image at several timesteps are not independent: count the images.
    repeats = run.num_forwards / measured.num_images
    spectrum = None
    if measured.spectrum is not None:
        spectrum = measured_spectrum(run.schedule, measured.sums, measured.spectrum)
    values = None if measured.values is None else measured_value_decoder(measured.values)
    return Calibration(
        **tables,
        spectrum=spectrum,
        value_decoder=None if values is None else rounded_value_decoder(values),
        x_0_variance=x_0_variance,
        alpha_bar=schedule_fingerprint(run.schedule),
        second_moment=second_moment,
        standard_error=found.standard_error * repeats**0.5,
        num_images=measured.num_images,
        num_forwards=run.num_forwards,
        image_shape=measured.image_shape,
        estimate=estimate,
        weights=weights,
    )


def _saved_seed(state: StateFile) -> int | None:
    """Read the seed of an interrupted run; None without one."""
    saved = state.load()
    return None if saved is None else saved["seed"]


def _check_options(
    T: int, num_forwards: int, precision: float | None, estimate: str, decoder: str
) -> None:
    note = ", one for each timestep"
    check_integer("num_forwards", num_forwards, least=T, note=note)
    if precision is not None and not precision > 0:
        raise ValueError(f"precision must be above 0 bits per dimension, got {precision}")
    check_choice("estimate", estimate, VARIANCE_ESTIMATES)
    check_choice("decoder", decoder, _DECODERS)


def _check_precision(precision: float | None, standard_error: float, num_images: int) -> None:
    if precision is not None and not standard_error <= precision:
        needed = math.ceil(num_images * (standard_error / precision) ** 2)
        raise ValueError(
            f"a standard error of {precision:g} bits per dimension takes about {needed} images, "
            f"with num_forwards as many; {num_images} images give {standard_error:.2g}"
        )


def _rounded(table: Tensor | None) -> Tensor | None:
    """Round every number to the digits that are kept."""
    if table is None:
        return None
    numbers = [float(f"{number:.{_DIGITS}g}") for number in table.flatten().tolist()]
    return torch.tensor(numbers, dtype=torch.float64).reshape(table.shape)
