r"""``variational_bound``: an upper bound on the negative log-likelihood of data under a model.

.. math::
    \mathbb E[-\log p_\theta(x_0)] \le \mathbb E_q\Big[
    \underbrace{\mathrm{KL}(q(x_{t_K} | x_0) \| p)}_{\text{prior}}
    + \sum_{k=2}^{K} \underbrace{\mathrm{KL}(q(x_{t_{k-1}} | x_{t_k}, x_0) \|
      p_\theta(x_{t_{k-1}} | x_{t_k}))}_{\text{transitions}}
    \underbrace{- \log p_\theta(x_0 | x_{t_1})}_{\text{decoder}}\Big]

The prior needs no network and the decoder's term is always computed; the transitions are summed
exactly, or estimated without bias from a few of them (``transitions``). The noise of image i at
timestep t depends on the seed, i and t alone: the number is the same for any batch size and any
number of processes but for rounding, and an estimate sees the noise that the exact sum sees.
"""

import math
import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import diffusers
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ddpm_pipeline.common import (
    check_above_zero,
    check_choice,
    check_integer,
    draw_seed,
    float32_arithmetic,
    precise_dtype,
)
from ddpm_pipeline.data import Batches
from ddpm_pipeline.diffusion import (
    DECODERS,
    Decoder,
    ErrorSpectrum,
    Levels,
    ReverseProcess,
    ValueDecoder,
    check_chain,
)
from ddpm_pipeline.likelihood.blocks import BoundData
from ddpm_pipeline.likelihood.config import BoundSampler
from ddpm_pipeline.likelihood.estimator import BoundEstimator
from ddpm_pipeline.likelihood.report import BoundReport, BoundSettings, summarize
from ddpm_pipeline.likelihood.state import SavedBound
from ddpm_pipeline.likelihood.totals import BoundTotals
from ddpm_pipeline.likelihood.transitions import make_transition_sampler
from ddpm_pipeline.likelihood.units import check_units, unit_settings
from ddpm_pipeline.networks import Denoiser, Told, device_of, evaluating, rows_per_call
from ddpm_pipeline.schedulers import DDPMScheduler, needed_spectrum

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["calibrated_variances", "variational_bound"]


# Elements of one call of the model unless batch_size says otherwise, on CPUs and on GPUs, and
# calls between two looks at the standard error.
_ELEMENTS_PER_CALL, _ELEMENTS_ON_GPUS = 2**18, 2**22
_CALLS_PER_BLOCK = 8
# Too few examples to believe their spread.
_FEWEST_TO_STOP = 32


def variational_bound(
    model: Denoiser,
    scheduler: diffusers.DDPMScheduler,
    x_0: Tensor | Batches,
    *,
    timesteps: Sequence[int] | Tensor | None = None,
    num_timestep_samples: int | None = None,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
    decoder: Decoder = "discretized",
    decoder_variance: Literal["model", "best"] | float | None = None,
    clip_x_0: float | None = None,
    class_labels: Told = None,
    x_0_variance: Tensor | None = None,
    levels: Levels | None = None,
    log_unit: float | None = None,
    timestep_sampler: BoundSampler = "rate",
    target_standard_error: float | None = None,
    eta: float | None = None,
    accelerator: "Accelerator | None" = None,
    state_file: str | os.PathLike | None = None,
    progress: bool = False,
) -> BoundReport:
    r"""Measure the variational bound of a model on data, with its parts and its standard error.

    Arguments:
        model: Any callable (x_t, t) -> tensor or object with one as ``sample``, t being int64 of
            shape (B,); a module is put in evaluation mode meanwhile.
        scheduler: Its schedule, prediction type and variance type are those of the model. Its
            clip_sample is not used: see ``clip_x_0``.
        x_0: Data in [-1, 1], floating point, shape (N, C, *); or batches of such, or of pairs
            (x_0, class labels). To stop early they must come in random order.
        timesteps: A chain of K timesteps, strictly decreasing; None is the full one.
        num_timestep_samples: Transitions to draw for each example, one forward pass each beside
            the decoder's; K - 1 or more, or None, sums all of them exactly.
        generator: Where the seed of all noise and timesteps is drawn from.
        batch_size: Rows of one call of the model, over examples and timesteps together; unless
            given, 2¹⁸ elements on a CPU, and on a GPU 2²² or what half of its memory holds.
        decoder: As for ``decoder_nats``; "discretized" is for 8-bit data.
        decoder_variance: Of the last move: "model" as its variance type says, "best" for the mean
            squared error over these data (continuous only; it is below the best for other data
            by 1/(2ND) nats per dimension), or a number. None is "best" for a continuous decoder
            with a fixed variance type, whose last variance is a free choice, and else "model".
        clip_x_0: Clamp the predicted x_0 to ± this; None leaves it alone.
        class_labels: Labels of a class-conditional model if x_0 is a tensor, int64, shape (N,).
        x_0_variance: v_t of the variance type "analytic", shape (T,), of the decoder too; what the
            scheduler's calibration says of both by default.
        levels: Those of the discretized decoder; None for 8-bit data in [-1, 1].
        log_unit: Mean over dimensions of ln u, where v = c + u x are the data in their own unit: a
            continuous decoder's density is then that of v.
        timestep_sampler: How transitions are drawn; see the table of ``transitions``.
        target_standard_error: Stop once ``standard_error`` is as small, in bits per dimension.
        eta: Only 1, DDPM's chain, whatever the scheduler's solver; the bound of DDIM's, eta = 0,
            and of other solvers without noise is infinite, with noise not known.
        accelerator: Share the work among its processes, all of which are given the same data and
            get the same report.
        state_file: Where to keep what was summed so far; a run that finds the file continues, a
            run that ends deletes it.
        progress: Whether to show a progress bar.
    Returns:
        The report, in bits per dimension.
    Raises:
        ValueError: If an option or the data are not allowed, the channels do not fit the variance
            type, or the model's output is not finite.
        TypeError: If x_0 or the scheduler is of another type.
    Source: Ho et al. 2020 (arXiv:2006.11239), eq. 5 and 13.
    """
    scheduler = _checked_scheduler(scheduler, eta, model if x_0_variance is None else None)
    check_above_zero(clip_x_0=clip_x_0, target_standard_error=target_standard_error)
    chain = _checked_chain(timesteps, len(scheduler.schedule))
    data = BoundData(x_0, class_labels, in_range=check_units(decoder, levels, log_unit))
    settings = BoundSettings(
        chain=tuple(chain),
        **_process_settings(scheduler),
        dims=data.example.numel(),
        decoder=decoder,
        decoder_variance=_checked_decoder(decoder, decoder_variance, scheduler.variance_type),
        clip_x_0=clip_x_0,
        num_timestep_samples=num_timestep_samples,
        timestep_sampler=timestep_sampler,
        seed=draw_seed(generator, accelerator),
        **unit_settings(levels, log_unit),
    )
    device = accelerator.device if accelerator else device_of(model, data.example.device)
    variances = calibrated_variances(scheduler, x_0_variance, decoder, data.example.shape, device)
    is_main = accelerator is None or accelerator.is_main_process
    saved = SavedBound(state_file, data, variances, any_seed=generator is None, writes=is_main)
    settings, totals = saved.load(settings)
    rows = _rows(batch_size, model, data.example.shape, device)
    sums = _estimator(model, scheduler, settings, variances, rows, device, accelerator, levels)
    with evaluating(model), float32_arithmetic(tf32=False):
        totals = _sum_blocks(sums, data, totals, target_standard_error, saved, progress)
    saved.delete()
    return summarize(totals, settings, _warn(totals, settings))


def _process_settings(scheduler: DDPMScheduler) -> dict[str, Any]:
    return {
        "num_train_timesteps": len(scheduler.schedule),
        "prediction_type": scheduler.config.prediction_type,
        "variance_type": scheduler.variance_type,
    }


def _checked_chain(timesteps: Sequence[int] | Tensor | None, T: int) -> list[int]:
    return check_chain(range(T - 1, -1, -1) if timesteps is None else timesteps, T)


def _estimator(
    model: Denoiser,
    scheduler: DDPMScheduler,
    settings: BoundSettings,
    variances: dict[str, Tensor | ErrorSpectrum | ValueDecoder],
    batch_size: int,
    device: torch.device,
    accelerator: "Accelerator | None",
    levels: Levels | None,
) -> BoundEstimator:
    schedule, clip_x_0 = scheduler.schedule, settings.clip_x_0
    types = settings.prediction_type, settings.variance_type
    return BoundEstimator(
        model=model,
        process=ReverseProcess(schedule, *types, clip_x_0=clip_x_0, **variances),
        settings=settings,
        sampler=make_transition_sampler(
            settings.timestep_sampler, schedule, settings.chain, settings.num_timestep_samples
        ),
        batch_size=batch_size,
        device=device,
        accelerator=accelerator,
        levels=levels,
    )


def calibrated_variances(
    scheduler: DDPMScheduler,
    x_0_variance: Tensor | None,
    decoder: Decoder,
    shape: torch.Size,
    device: torch.device,
) -> dict[str, Tensor | ErrorSpectrum | ValueDecoder]:
    """Put what calibrated variances are made of on the device; {} for other variances."""
    if not scheduler.uses_calibration:
        return {}
    tables = {"x_0_variance": x_0_variance}
    if x_0_variance is None and scheduler.calibration is not None:
        tables["x_0_variance"] = scheduler.x_0_variance
        if decoder != "continuous":  # a density keeps v_t
            tables["decoder_variance"] = scheduler.decoder_variance
    if scheduler.variance_type == "spectral":
        if x_0_variance is not None:
            raise ValueError(
                "x_0_variance is for variance_type 'analytic', got one for 'spectral'"
            )
        needed_spectrum(scheduler.calibration, "variance_type 'spectral'")
        tables["spectrum"] = scheduler.x_0_spectrum
        tables["spectrum"].basis.check_shape(shape)
        if decoder != "continuous":
            tables["value_decoder"] = scheduler.calibration.value_decoder
    dtype = precise_dtype(device)
    return {name: v.to(device, dtype) for name, v in tables.items() if v is not None}


def _sum_blocks(
    estimator: BoundEstimator,
    data: BoundData,
    totals: BoundTotals | None,
    target: float | None,
    saved: SavedBound,
    progress: bool,
) -> BoundTotals:
    """Sum over all examples, or over enough of them for the target."""
    per_example = estimator.rows_per_example
    calls = _CALLS_PER_BLOCK * estimator.processes[1]
    size = max(1, calls * estimator.batch_size // per_example)
    seen = 0 if totals is None else len(totals)
    with tqdm(
        total=data.length * per_example or None,
        initial=seen * per_example,
        unit=" forwards",
        desc="bound",
        disable=not progress or estimator.processes[0] > 0,
    ) as bar:
        for block in data.blocks(size, skip=seen):
            sums = estimator(block)
            if not sums.flatten().isfinite().all():
                raise ValueError(estimator.explain(block, sums))
            totals = sums if totals is None else totals + sums
            saved.save(totals, estimator.settings)
            bar.update(len(sums) * per_example)
            if target is not None and len(totals) >= _FEWEST_TO_STOP:
                error = summarize(totals, estimator.settings).standard_error
                bar.set_postfix_str(f"± {error:.4f} bits/dim")
                if error <= target:
                    break
    return totals


def _checked_scheduler(
    scheduler: object, eta: float | None, calibrated_model: Denoiser | None
) -> DDPMScheduler:
    """Give the scheduler as ours; refuse one whose chain has no finite bound.

    Also refuse a model whose weights are not those that the scheduler was calibrated for.
    """
    is_ddim = isinstance(scheduler, diffusers.DDIMScheduler)
    if eta == 0 or (is_ddim and eta is None):
        raise ValueError(
            "the bound of DDIM's chain with eta = 0 is infinite: its moves have no noise, so that "
            "every KL divergence is; use a DDPMScheduler, or eta=1"
        )
    if eta not in (None, 1):
        raise ValueError(f"eta must be 1, DDPM's chain, got {eta}")
    if not isinstance(scheduler, diffusers.DDPMScheduler | diffusers.DDIMScheduler):
        raise TypeError(f"scheduler must be a DDPMScheduler, got {type(scheduler).__name__}")
    if not isinstance(scheduler, DDPMScheduler):
        # With eta = 1 DDIM's variance is the posterior's, whatever its config remembers.
        changes = {"variance_type": "fixed_small"} if is_ddim else {}
        scheduler = DDPMScheduler.from_config(scheduler.config, **changes)
    if eta is None and (name := scheduler.solver.name) != "ddpm":
        why = "infinite: its moves have no noise, so that every KL divergence is"
        if scheduler.solver.eta:
            why = "not known: its moves use earlier predictions"
        raise ValueError(f"the bound of solver {name!r} is {why}; pass eta=1 for that of DDPM's")
    if isinstance(calibrated_model, torch.nn.Module):
        scheduler.check_weights(calibrated_model)
    return scheduler


def _checked_decoder(
    decoder: str, variance: str | float | None, variance_type: str
) -> str | float:
    """Settle the decoder's variance."""
    check_choice("decoder", decoder, DECODERS)
    is_fixed = variance_type.startswith("fixed")
    if variance is None:
        return "best" if decoder == "continuous" and is_fixed else "model"
    if variance == "best" and decoder != "continuous":
        raise ValueError(f"decoder_variance 'best' needs decoder 'continuous', got {decoder!r}")
    if variance in ("model", "best") or (not isinstance(variance, str) and variance > 0):
        return variance
    raise ValueError(
        f"decoder_variance must be 'model', 'best' or a number above 0, got {variance!r}"
    )


def _rows(
    batch_size: int | None, model: Denoiser, shape: Sequence[int], device: torch.device
) -> int:
    if batch_size is not None:
        return check_integer("batch_size", batch_size)
    on_cpu = max(16, _ELEMENTS_PER_CALL // math.prod(shape))
    return rows_per_call(model, shape, device, on_cpu=on_cpu, elements=_ELEMENTS_ON_GPUS)


def _warn(totals: BoundTotals, settings: BoundSettings) -> tuple[str, ...]:
    """Say what to know before comparing the number with others; as Python warnings too."""
    found = []
    off_grid = int(totals.off_grid.sum())
    if settings.num_levels is not None and off_grid:
        found.append(
            f"{off_grid} of {len(totals)} images have values that are none of the "
            f"{settings.num_levels:,} levels: each counts as the nearest, so the number is not "
            "that of these images"
        )
        off_grid = 0
    if off_grid and settings.decoder != "continuous":
        found.append(
            f"{off_grid} of {len(totals)} images have values between the 256 levels of 8-bit data "
            "(resized, or not 2k/255 - 1): the bins around such values overlap, so the number is "
            "not a code length and does not compare with bits/dim of 8-bit images"
        )
    if settings.decoder == "discretized_tanh":
        found.append(
            "the tanh decoder cannot exceed 27.6 nats per dimension: the number is not a bound"
        )
    for message in found:
        warnings.warn(message, stacklevel=3)
    return tuple(found)
