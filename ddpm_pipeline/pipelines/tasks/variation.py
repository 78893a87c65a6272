r"""A picture varied: noise is put on it, and the rest of the chain takes it away again.

.. math::
    x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon, \qquad
    x_s \sim p_\theta(x_s \mid x_t) \text{ from there on}

Source: Meng et al. 2022 (arXiv:2108.01073), SDEdit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from diffusers import SchedulerMixin
from torch import Tensor

from ddpm_pipeline.pipelines.denoising import Step, denoise
from ddpm_pipeline.schedulers import Generators, standard_normal

__all__ = ["check_strength", "kept_steps", "noisy_at", "vary"]


def check_strength(strength: float) -> float:
    """Give the strength back.

    Raises:
        ValueError: If it lies outside [0, 1].
    """
    if isinstance(strength, bool) or not isinstance(strength, int | float):
        raise ValueError(f"strength must be a number in [0, 1], got {strength!r}")
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must lie in [0, 1], got {strength}")
    return strength


def kept_steps(scheduler: SchedulerMixin, strength: float) -> int:
    """Count the last steps of a chain that a strength asks for: all at 1, none near 0."""
    order, count = getattr(scheduler, "order", 1), len(scheduler.timesteps)
    return count - order * int((1 - strength) * count / order + 0.5)


def noisy_at(
    scheduler: SchedulerMixin, images: Tensor, noise: Tensor, kept: int, *, is_whole: bool
) -> Tensor:
    """Put noise on images where the last ``kept`` steps of a chain begin.

    Arguments:
        scheduler: Whose chain it is; it is told where the steps begin.
        images, noise: x_0 and eps, (B, C, H, W).
        kept: Steps that follow, at least 1.
        is_whole: Whether the whole chain follows from nothing but noise.
    """
    if is_whole:
        return noise * scheduler.init_noise_sigma
    begin = len(scheduler.timesteps) - kept
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    return scheduler.add_noise(images, noise, scheduler.timesteps[begin].expand(len(images)))


def vary(
    network: Callable[[Tensor, Tensor], Tensor],
    scheduler: SchedulerMixin,
    images: Tensor,
    strength: float,
    *,
    generator: Generators,
    eta: float | None = None,
    edit: Callable[[Step], Tensor | None] | None = None,
) -> Iterator[Step]:
    """Take noisy copies of images down the last part of a chain.

    Arguments:
        images: x_0 in [-1, 1], (B, C, H, W).
        strength: Share of the chain; at 1 it starts from noise alone, as a plain sample does.
        network, scheduler, generator, eta, edit: As for ``denoise``.
    """
    kept = kept_steps(scheduler, strength)
    if kept == 0:
        return
    noise = standard_normal(images.shape, generator, images.device, images.dtype)
    x_t = noisy_at(scheduler, images, noise, kept, is_whole=strength == 1)
    timesteps = scheduler.timesteps[-kept:]
    yield from denoise(network, scheduler, x_t, timesteps, generator=generator, eta=eta, edit=edit)
