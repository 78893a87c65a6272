r"""Another model that guides one: which may, and how what it predicts becomes the model's own.

    guide = Guide.of(pipe_of_an_earlier_checkpoint, pipe.unet)
    steps = guide_steps(guide, pipe.scheduler, timesteps)      at which t it is asked, and (a, b)
    y = a * x_t + b * guide.unet(x_t, t)

A guide sees the same x_t. One with another noise schedule is asked at the t' where its own x_t'
has as much signal,

.. math:: \bar\alpha'_{t'} = \bar\alpha_t

which lies between two of its timesteps, by interpolation of the log of the signal-to-noise ratio:
networks take any t, and are trained on whole ones. Its first and last timestep stand for what is
beyond them as long as signal and noise differ by 0.05 at most, as when one schedule ends at no
signal and the other at next to none. Another prediction type is converted exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from diffusers import SchedulerMixin, UNet2DModel
from torch import Tensor

from ddpm_pipeline.common import is_integer
from ddpm_pipeline.diffusion import conversion_weights
from ddpm_pipeline.networks import (
    Condition,
    FastForward,
    Told,
    check_trained,
    device_of,
    facts_of,
    image_channels,
    listed,
)
from ddpm_pipeline.pipelines.conditions import told_rows
from ddpm_pipeline.schedulers import DDPMScheduler

__all__ = ["Guide", "GuideStep", "check_interval", "guide_steps"]


_LARGEST_SHIFT = 0.05  # of signal or noise, which nobody sees in an image


class GuideStep(NamedTuple):
    """How a guide is asked at one timestep, and what becomes of its answer.

    Arguments:
        t: Where it is asked; None for the model's own t.
        of_x, of_y: Weights of x_t and of the answer in what is used.
    """

    t: float | None = None
    of_x: float = 0.0
    of_y: float = 1.0


@dataclass(frozen=True, eq=False)
class Guide:
    """A network that guides another.

    Arguments:
        unet: The network.
        forward: How it is called.
        scheduler: What it was trained for; None for the same as the model's.
    """

    unet: UNet2DModel
    forward: FastForward
    scheduler: SchedulerMixin | None = None

    def check_fit(self, unet: UNet2DModel, device: torch.device) -> None:
        """Refuse to guide a network of images of another shape, or on another device.

        Raises:
            ValueError: If it is one; names what differs.
        """
        if self.unet is unet:
            raise ValueError(
                "guidance_model must be another network than the model's own, which guides itself "
                "by its null class where no guidance_model is given"
            )
        own, other = unet.config, self.unet.config
        channels = image_channels(unet)
        pairs = {
            "in_channels": (channels, image_channels(self.unet)),
            "sample_size": (_sides(own), _sides(other)),
        }
        for name, (mine, its) in pairs.items():
            if mine != its and None not in (mine, its):
                raise ValueError(
                    f"guidance_model must be of the model's images, with {name} {mine}, got {its}"
                )
        if other.out_channels not in (channels, 2 * channels):
            raise ValueError(
                f"guidance_model must have {channels} or {2 * channels} output channels, got "
                f"{other.out_channels}"
            )
        its_device = device_of(self.unet, device)
        if its_device.type != device.type or (its_device.index or 0) != (device.index or 0):
            raise ValueError(f"guidance_model must be on the device {device}, got {its_device}")

    def told(
        self, unet: UNet2DModel, labels: Tensor | None, condition: Condition | None, count: int
    ) -> Told:
        """Give what a guide is told where the model has these classes and this condition.

        Classes are matched by name where both models know names. A guide with classes for a model
        without is asked with its null class. A condition must be that of the guide too, if this
        has any, and is made ready for the guide: its embedding may be of another width.

        Arguments:
            unet: The model's network.
            labels: Its classes, (B,), or None.
            condition: Its condition, as ``told_rows`` takes it, or None.
            count: B.
        Raises:
            ValueError: If the guide has not these classes, or was not trained on one, or is
                conditioned on something else.
        """
        its = facts_of(self.unet).conditioned_on
        if its is not None:
            own = facts_of(unet).conditioned_on
            if own is None or replace(own, trains_null=its.trains_null) != its:
                raise ValueError(
                    f"guidance_model is conditioned on {its}, and the model on {own or 'nothing'}"
                )
        numbers = self._labels(unet, labels, count)
        if its is None:
            return numbers
        return told_rows(self.unet, numbers, condition, count, sides=_sides(unet.config))

    def _labels(self, unet: UNet2DModel, labels: Tensor | None, count: int) -> Tensor | None:
        """Give the guide's own classes, (B,); None where it has none."""
        classes = self.unet.config.num_class_embeds
        if classes is None:
            return None
        if labels is None:
            if facts_of(self.unet).trains_null_class is not True:
                raise ValueError(
                    "guidance_model has classes and no trained null class, which a model without "
                    "classes would be guided by"
                )
            return torch.full((count,), classes - 1)
        numbers = self._numbers(unet)
        wanted = [numbers[number] for number in labels.tolist()]
        check_trained(self.unet, wanted, guided=False)
        return torch.tensor(wanted)

    def _numbers(self, unet: UNet2DModel) -> list[int]:
        """Give the guide's number of each of the model's classes, and of its null class."""
        own, its = facts_of(unet).class_names, facts_of(self.unet).class_names
        count, classes = unet.config.num_class_embeds, self.unet.config.num_class_embeds
        if own is not None and its is not None:
            if missing := [name for name in own if name not in its]:
                raise ValueError(
                    f"guidance_model must know the model's classes, and does not {listed(missing)}"
                )
            return [*map(its.index, own), classes - 1]
        if count != classes:
            raise ValueError(
                f"guidance_model must have as many class embeddings as the model, {count}, "
                f"got {classes}"
            )
        return list(range(count))


def _sides(config: object) -> object:
    """Give a config's sample_size, with the one side of a square as two."""
    value = config.sample_size
    return (value, value) if isinstance(value, int) else value


def guide_steps(
    guide: Guide, scheduler: SchedulerMixin, timesteps: Sequence[float]
) -> list[GuideStep]:
    """Say how a guide is asked at each of a scheduler's timesteps.

    Raises:
        ValueError: If its schedule has nothing near one of them.
    """
    if guide.scheduler is None or not timesteps:
        return [GuideStep()] * len(timesteps)
    own, its = (s.config.prediction_type for s in (scheduler, guide.scheduler))
    log_snr, its_log_snr = (_log_snr(s) for s in (scheduler, guide.scheduler))
    is_same = log_snr.shape == its_log_snr.shape and torch.allclose(
        log_snr, its_log_snr, atol=1e-4
    )
    if is_same and own == its:
        return [GuideStep()] * len(timesteps)
    t = torch.tensor(timesteps, dtype=torch.float64)
    wanted = _between(log_snr, t)
    asked = t if is_same else _where(its_log_snr, wanted)
    seen = wanted if is_same else _between(its_log_snr, asked)
    levels, seen_levels = _levels(wanted), _levels(seen)
    _check_near(timesteps, levels, seen_levels)
    of_x, of_y = conversion_weights(seen_levels, levels, from_type=its, to_type=own)
    where = [None] * len(timesteps) if is_same else asked.tolist()
    return [GuideStep(*step) for step in zip(where, of_x.tolist(), of_y.tolist(), strict=True)]


def _log_snr(scheduler: SchedulerMixin) -> Tensor:
    """Tabulate log SNR over the timesteps that a model was trained for, float64."""
    if not isinstance(scheduler, DDPMScheduler):
        scheduler = DDPMScheduler.from_config(scheduler.config)
    return scheduler.schedule.snr(torch.arange(len(scheduler.schedule))).log()


def _between(table: Tensor, t: Tensor) -> Tensor:
    """Look a table up, also between two timesteps."""
    low = t.floor().long().clamp(0, len(table) - 1)
    share = t - low
    high = (low + 1).clamp_max(len(table) - 1)
    return torch.where(share == 0, table[low], torch.lerp(table[low], table[high], share))


def _where(table: Tensor, values: Tensor) -> Tensor:
    """Find the t at which a falling table has these values, its ends for those beyond."""
    high = torch.searchsorted(-table, -values).clamp(1, len(table) - 1)
    above, below = table[high - 1], table[high]
    share = ((above - values) / (above - below)).nan_to_num(1.0)  # the last one may be -infinite
    return (high - 1) + share.clamp(0, 1)


def _levels(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """Give the shares of signal and noise in x_t."""
    return torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()


def _check_near(
    timesteps: Sequence[float], wanted: tuple[Tensor, Tensor], seen: tuple[Tensor, Tensor]
) -> None:
    """Refuse timesteps that a guide's schedule has nothing near to."""
    shift = torch.stack([a - b for a, b in zip(wanted, seen, strict=True)]).abs().amax(0)
    worst = int(shift.argmax())
    if not shift[worst] <= _LARGEST_SHIFT:
        raise ValueError(
            f"guidance_model must know images as noisy as those of timestep {timesteps[worst]:g}, "
            f"where the signal is {wanted[0][worst]:.3f}; the nearest that it was trained on has "
            f"{seen[0][worst]:.3f}; a guidance_interval can leave such timesteps out"
        )


def check_interval(interval: Sequence[int] | None, num_train_timesteps: int) -> None:
    """Refuse what is no interval of timesteps.

    Arguments:
        interval: The first and the last timestep that is guided, or None for all.
        num_train_timesteps: T.
    Raises:
        ValueError: If it is not two whole numbers in order, from 0 to T - 1.
    """
    if interval is None:
        return
    last = num_train_timesteps - 1
    is_pair = isinstance(interval, tuple | list) and len(interval) == 2
    if (
        not is_pair
        or not all(map(is_integer, interval))
        or not 0 <= interval[0] <= interval[1] <= last
    ):
        raise ValueError(
            "guidance_interval must be two timesteps, the lower first, "
            f"from 0 to {last}, got {interval!r}"
        )
