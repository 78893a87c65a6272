"""What callers of the pipeline pass, checked and in the form that the loop uses.

    check_fit(unet, scheduler)
    batch_size = check_noise(None, unet, batch_size=2)
    choose_chain(scheduler, num_inference_steps=50, timesteps=None)
    labels = label_tensor(unet, class_labels=[0, 3], guidance_scale=1.0, batch_size=2)
    shares = split_request(2, generator, labels, max_batch_size=None)
    noise = starting_noise(unet, scheduler, shares[0], device)

Mistakes are ValueErrors that name the argument, its value and what is allowed.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from diffusers import SchedulerMixin, UNet2DModel
from torch import Tensor

from ddpm_pipeline.common import check_choice, check_integer, moved
from ddpm_pipeline.diffusion import check_num_steps
from ddpm_pipeline.networks import (
    Told,
    check_asked_classes,
    check_trained,
    class_numbers,
    image_channels,
)
from ddpm_pipeline.pipelines.denoising import DDPM_SCHEDULERS, takes_variance
from ddpm_pipeline.pipelines.outputs import OUTPUT_TYPES
from ddpm_pipeline.pipelines.room import filled_rows
from ddpm_pipeline.schedulers import (
    DDPMScheduler,
    Generators,
    Solver,
    check_solver_eta,
    needed_spectrum,
    standard_normal,
)

__all__ = [
    "ClassLabels",
    "Share",
    "asked_solver",
    "check_call",
    "check_fit",
    "check_noise",
    "choose_chain",
    "label_tensor",
    "split_request",
    "starting_noise",
]


ClassLabels = str | int | Sequence[str | int] | Tensor | None
# Rows of one model call unless max_batch_size says otherwise: with one generator, and with a list.
_ROWS, _LIST_ROWS = 256, 16
"""Of a picture."""
_CPU = torch.device("cpu")
# What becomes float32 without rounding.
_NOISE_TYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, eq=False)
class Share:
    """A share of a request: images that are drawn together.

    Arguments:
        size: How many.
        generator: Source of their noise.
        labels: Their classes, shape (size,), or their condition, or None.
        call_rows: Rows of every model call; None for ``size``.
        noise: What they start from, (size, C, H, W); None draws it.
        most_rows: Of a model call, where call_rows is None; None for any number.
        rows: Which images of the request they are.
    """

    size: int
    generator: Generators
    labels: Told
    call_rows: int | None = None
    noise: Tensor | None = None
    most_rows: int | None = None
    rows: slice = field(default_factory=lambda: slice(None))


def check_fit(unet: UNet2DModel, scheduler: SchedulerMixin) -> None:
    """Refuse a U-Net whose outputs, or whose weights, are not those that the scheduler needs.

    Raises:
        ValueError: If they do not fit.
    """
    channels, outputs = image_channels(unet), unet.config.out_channels
    allowed = (2 * channels,) if takes_variance(scheduler) else (channels,)
    if not isinstance(scheduler, DDPM_SCHEDULERS):
        allowed = (channels, 2 * channels)  # no learned variance: its half is dropped
    if outputs not in allowed:
        raise ValueError(
            f"the U-Net must have {' or '.join(map(str, allowed))} output channels for {channels} "
            f"image channels and variance_type {scheduler.config.get('variance_type')!r}, "
            f"got {outputs}"
        )
    if isinstance(scheduler, DDPMScheduler):
        scheduler.check_weights(unet)


def check_call(output_type: str, generator: Generators, batch_size: int) -> None:
    """Refuse an output type or generators that are not allowed.

    Arguments:
        output_type, generator: As they were passed.
        batch_size: Number of images.
    Raises:
        ValueError: If one is not; names it.
    """
    check_choice("output_type", output_type, OUTPUT_TYPES)
    if isinstance(generator, list):
        if len(generator) != batch_size:
            raise ValueError(
                f"generator must be one or a list of batch_size = {batch_size}, "
                f"got {len(generator)}"
            )
    elif not isinstance(generator, torch.Generator | None):
        raise ValueError(f"generator must be a torch.Generator or a list, got {generator!r}")


def check_noise(noise: Tensor | None, unet: UNet2DModel, batch_size: int | None) -> int:
    """Check the noise that a caller gives, and the size of images; give the number of images.

    Arguments:
        noise: What images start from, (N, C, H, W), or None.
        unet: Whose images they are.
        batch_size: N; None for as many as the noise has, or 1.
    Raises:
        ValueError: If the noise is not allowed, or nothing says how large the images are.
    """
    size = unet.config.sample_size
    if noise is None:
        if size is None:
            raise ValueError(
                "noise must be given, (N, C, H, W): the U-Net has no sample_size that says how "
                "large images are; unet.register_to_config(sample_size=...) gives it one"
            )
        return 1 if batch_size is None else check_integer("batch_size", batch_size)
    if not isinstance(noise, Tensor) or noise.dtype not in _NOISE_TYPES:
        found = noise.dtype if isinstance(noise, Tensor) else type(noise).__name__
        raise ValueError(f"noise must be a float32 tensor, got {found}")
    sides = (size, size) if isinstance(size, int) else size
    rows = "N" if batch_size is None else check_integer("batch_size", batch_size)
    wanted = (rows, image_channels(unet), *(sides or ("H", "W")))
    fits = [w == n or isinstance(w, str) for w, n in zip(wanted, noise.shape, strict=False)]
    if noise.ndim != len(wanted) or not all(fits) or 0 in noise.shape:
        shape = ", ".join(map(str, wanted))
        raise ValueError(f"noise must be of shape ({shape}), got {(*noise.shape,)}")
    if not noise.isfinite().all():
        raise ValueError("noise must be finite, got NaN or infinity")
    return len(noise)


def asked_solver(
    scheduler: SchedulerMixin, solver: str | Solver, eta: float | None
) -> tuple[Solver, float | None]:
    """Give the solver that is asked for a scheduler, and the eta that is left for its steps.

    Raises:
        ValueError: If there is no such solver, the scheduler is not ours or lacks the spectrum
            that the solver needs, or eta is given for a solver that has none or another.
    """
    name = Solver.of(solver).name
    if not isinstance(scheduler, DDPMScheduler):
        raise ValueError(
            f"solver cannot be chosen for a {type(scheduler).__name__}, got {name!r}; use "
            "DDPMScheduler"
        )
    check_solver_eta(name, eta)
    if name == "spectral":
        needed_spectrum(scheduler.calibration, "solver 'spectral'")
    if isinstance(solver, Solver) and eta is not None and solver.eta not in (0, eta):
        raise ValueError(f"eta must be that of the solver, {solver.eta}, or left out, got {eta}")
    return scheduler.solver.asked(solver).with_eta(eta)


def choose_chain(
    scheduler: SchedulerMixin,
    num_inference_steps: int | None,
    timesteps: Sequence[int] | None,
    *,
    default: int | None = None,
) -> None:
    """Set the timesteps of any scheduler: those that are given, or K, or all T of them.

    Arguments:
        scheduler: Whose ``set_timesteps`` is called.
        num_inference_steps, timesteps: As they were passed.
        default: K if neither is given; None for T.
    Raises:
        ValueError: If both are given, one is not allowed, or the scheduler cannot walk it.
    """
    if timesteps is None:
        T = scheduler.config.num_train_timesteps
        wanted = (default or T) if num_inference_steps is None else num_inference_steps
        K = check_num_steps(wanted, T)
        _set_timesteps(scheduler, K)
        if scheduler.timesteps.min() < 0:
            raise ValueError(
                f"num_inference_steps={K} makes {type(scheduler).__name__} step below 0, "
                "a defect of its trailing spacing; choose another number, or DDPMScheduler"
            )
        return
    if num_inference_steps is not None:
        raise ValueError(
            "pass only one of num_inference_steps and timesteps, got "
            f"num_inference_steps={num_inference_steps} and timesteps={timesteps}"
        )
    if "timesteps" not in inspect.signature(scheduler.set_timesteps).parameters:
        name = type(scheduler).__name__
        raise ValueError(f"timesteps cannot be chosen for a {name}; pass num_inference_steps")
    scheduler.set_timesteps(timesteps=timesteps)


def _set_timesteps(scheduler: SchedulerMixin, K: int) -> None:
    """Set K timesteps; name the option where a scheduler of others cannot make so many."""
    try:
        scheduler.set_timesteps(K)
    except Exception as error:
        if isinstance(scheduler, DDPMScheduler):
            raise
        said = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"num_inference_steps={K} is no chain of a {type(scheduler).__name__}: {said}"
        ) from error


def label_tensor(
    unet: UNet2DModel, class_labels: ClassLabels, guidance_scale: float, batch_size: int
) -> Tensor | None:
    """Make labels of shape (batch_size,), int64; None for a model without classes.

    Raises:
        ValueError: If labels are missing, not needed, too few or too many, or there is no such
            class, or it was not trained; names it.
    """
    count = unet.config.num_class_embeds
    check_asked_classes(unet, class_labels, guidance_scale)
    if count is None:
        return None
    labels = _label_numbers(unet, class_labels)
    is_whole = not labels.is_floating_point() and labels.dtype != torch.bool
    if not is_whole or labels.shape not in ((), (batch_size,)):
        raise ValueError(
            f"class_labels must be one integer or {batch_size} of them, got {class_labels}"
        )
    if ((labels < 0) | (labels >= count)).any():
        raise ValueError(f"class_labels must lie in [0, {count - 1}], got {class_labels}")
    check_trained(unet, labels.unique().tolist(), guided=guidance_scale != 1)
    return labels.long().expand(batch_size)


def _label_numbers(unet: UNet2DModel, class_labels: ClassLabels) -> Tensor:
    """Make a tensor of labels that are numbers or names, one or several.

    A tensor or an array of numbers is taken as it is, for the network's own.
    """
    if isinstance(class_labels, np.ndarray) and class_labels.dtype.kind in "OUS":
        class_labels = class_labels.tolist()
    if isinstance(class_labels, Tensor | np.ndarray):
        return torch.as_tensor(class_labels, device="cpu")
    is_one = isinstance(class_labels, str) or not isinstance(class_labels, Sequence)
    numbers = class_numbers(unet, [class_labels] if is_one else class_labels)
    return torch.tensor(numbers[0] if is_one else numbers)


def split_request(
    batch_size: int,
    generator: Generators,
    labels: Told,
    max_batch_size: int | None,
    noise: Tensor | None = None,
    device: torch.device = _CPU,
) -> list[Share]:
    """Split a request into shares, each of one model call at a time.

    With a generator for each image, every call has the same number of rows, so that an image does
    not depend on what else is drawn with it; see ``room.py`` for calls of very many.

    Raises:
        ValueError: If max_batch_size is not allowed.
    """
    is_list = isinstance(generator, list)
    rows = _LIST_ROWS if is_list else _ROWS
    if max_batch_size is not None:
        rows = check_integer("max_batch_size", max_batch_size)
    parts = [slice(i, min(i + rows, batch_size)) for i in range(0, batch_size, rows)]
    return [
        Share(
            size=part.stop - part.start,
            generator=generator[part] if is_list else generator,
            labels=None if labels is None else labels[part],
            call_rows=filled_rows(rows, batch_size, device) if is_list else None,
            noise=None if noise is None else noise[part],
            most_rows=rows,
            rows=part,
        )
        for part in parts
    ]


def starting_noise(
    unet: UNet2DModel, scheduler: SchedulerMixin, share: Share, device: torch.device
) -> Tensor:
    """Give the image that a chain starts from: normal noise at the scheduler's scale, float32."""
    if share.noise is not None:
        return moved(share.noise.to(torch.float32), device) * scheduler.init_noise_sigma
    size = unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    shape = (share.size, image_channels(unet), height, width)
    noise = standard_normal(shape, share.generator, device, torch.float32)
    return noise * scheduler.init_noise_sigma
