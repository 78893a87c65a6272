r"""The noise of a given image: DDIM's steps taken backwards, each solved for where it came from.

A step of DDIM without noise is a map, and its inverse is where that map gives x_s:

.. math::
    x_s = F_t(x_t) = \sqrt{\bar\alpha_s}\, \hat x_0(x_t) + \sqrt{1 - \bar\alpha_s}\,
    \hat\epsilon(x_t), \qquad x_t \leftarrow x_t + (x_s - F_t(x_t)) / \kappa

with the steepest derivative that the step can have as kappa. The first such update from x_t = x_s
is DDIM's own inversion, nearly; the updates that follow, mixed by Anderson's method, make it one
of the steps that are taken: with clipping, guidance and any chain.

Source: Song et al. 2020 (arXiv:2010.02502), section 4.3; Pan et al. 2023 (arXiv:2309.04907) for
the fixed point; Anderson 1965, J. ACM 12, for the mixing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from diffusers import DDIMScheduler, SchedulerMixin
from torch import Tensor

from ddpm_pipeline.common import check_integer, precise_dtype
from ddpm_pipeline.pipelines.denoising import Step, denoise
from ddpm_pipeline.schedulers import DDPMScheduler

__all__ = ["deterministic", "invert", "walk_back"]


_REMEMBERED = 5  # updates that are mixed
_FARTHEST = 30.0  # that a mixture may go, in lengths of the newest update
_LARGEST = 1000.0  # variance of an image's largest component; they are not larger in small images
_CLOSE = 1e-5  # of x_s, root mean square: a hundredth of a grey level
Network = Callable[[Tensor, Tensor], Tensor]


def deterministic(scheduler: SchedulerMixin) -> SchedulerMixin:
    """Give a scheduler whose steps with eta = 0 draw nothing, on the same chain.

    A calibrated variance adds what x_t leaves open about x_0; its copy here has a fixed one.

    Raises:
        ValueError: If its steps are not those of DDIM.
    """
    if not isinstance(scheduler, DDPMScheduler | DDIMScheduler):
        raise ValueError(
            f"the steps of a {type(scheduler).__name__} cannot be taken backwards; use "
            "DDPMScheduler or DDIMScheduler"
        )
    if getattr(scheduler, "uses_calibration", False):
        chain = scheduler.timesteps.tolist()
        scheduler = type(scheduler).from_config(
            scheduler.config, variance_type="fixed_small", solver="ddpm"
        )
        scheduler.set_timesteps(timesteps=chain)
    return scheduler


def walk_back(
    network: Network,
    scheduler: SchedulerMixin,
    noise: Tensor,
    edit: Callable[[Step], Tensor | None] | None = None,
) -> Iterator[Step]:
    """Take noise down the chain without drawing any: the way back of ``invert``."""
    return denoise(network, scheduler, noise, scheduler.timesteps, eta=0.0, edit=edit)


@torch.no_grad()
def invert(
    network: Network, scheduler: SchedulerMixin, images: Tensor, calls_per_step: int
) -> Iterator[Tensor]:
    """Take images up the chain, and yield x_t after every step; the last is their noise.

    Arguments:
        network: As for ``denoise``.
        scheduler: Of ``deterministic``, whose chain is chosen.
        images: x_0, (B, C, H, W).
        calls_per_step: Calls of the network that a step may take, at least 1.
    """
    check_integer("calls_per_step", calls_per_step)
    x, chain = images, scheduler.timesteps
    for place in reversed(range(len(chain))):
        t, s = chain[place], int(chain[place + 1]) if place + 1 < len(chain) else -1
        x = _step_before(
            lambda x_t, t=t: next(denoise(network, scheduler, x_t, [t], eta=0.0)).image,
            x,
            _slope(scheduler, int(t), s),
            calls_per_step,
        )
        yield x


def _slope(scheduler: SchedulerMixin, t: int, s: int) -> float:
    """Give kappa: the derivative of a step along the largest component that images have."""
    table = scheduler.alphas_cumprod
    at_t, at_s = float(table[t]), 1.0 if s < 0 else float(table[s])
    from_x_t = ((1 - at_s) / (1 - at_t)) ** 0.5
    from_x_0 = at_s**0.5 - from_x_t * at_t**0.5
    x_0_from_x_t = at_t**0.5 * _LARGEST / (_LARGEST * at_t + 1 - at_t)
    return from_x_t + from_x_0 * x_0_from_x_t


def _step_before(
    step: Callable[[Tensor], Tensor], x_s: Tensor, slope: float, most_calls: int
) -> Tensor:
    """Solve step(x_t) = x_s for x_t, for each image by itself; give the closest that was met."""
    x, best, least = x_s, x_s, None
    points: list[Tensor] = []
    updates: list[Tensor] = []
    for _ in range(most_calls):
        update = (x_s - step(x)) / slope
        distance = (update * slope).flatten(1).square().mean(1).sqrt()
        is_closer = _rows(distance < (torch.inf if least is None else least), x)
        best = torch.where(is_closer, x, best)
        least = distance if least is None else torch.minimum(distance, least)
        is_done = _rows(least < _CLOSE, x)
        if is_done.all():
            return best
        points, updates = [*points, x][-_REMEMBERED:], [*updates, update][-_REMEMBERED:]
        x = torch.where(is_done, best, _mixed(points, updates))
    # The last update was not tried; it is taken where the one before brought x closer.
    return torch.where(is_closer, x, best)


def _mixed(points: list[Tensor], updates: list[Tensor]) -> Tensor:
    """Give Anderson's next point: the updates' combination that is smallest, taken from there."""
    x, f = points[-1], updates[-1]
    if len(points) == 1:
        return x + f
    flat = [u.flatten(1).to(precise_dtype(u.device)) for u in updates]
    changes = torch.stack([flat[-1] - u for u in flat[:-1]], dim=2)  # (B, D, m)
    gram = changes.mT @ changes
    ridge = 1e-10 * gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] + 1e-30
    gram = gram + ridge * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    weights = torch.linalg.solve(gram, changes.mT @ flat[-1][..., None])[..., 0].to(f)
    step = f
    for weight, point, update in zip(weights.unbind(1), points[:-1], updates[:-1], strict=True):
        step = step - _rows(weight, x) * ((x - point) + (f - update))
    # A step far beyond its update leads away from the images.
    far = step.flatten(1).norm(dim=1) > _FARTHEST * f.flatten(1).norm(dim=1)
    return x + torch.where(_rows(far, x), f, step)


def _rows(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (x.ndim - 1))
