r"""The noise schedule: how much signal is left after t steps of the forward process.

.. math::
    \alpha_t = 1 - \beta_t, \qquad
    \bar\alpha_t = \prod_{i \le t} \alpha_i, \qquad
    \mathrm{SNR}_t = \bar\alpha_t / (1 - \bar\alpha_t)

.. math::
    \alpha_{t|s} = \bar\alpha_t / \bar\alpha_s, \qquad \beta_{t|s} = 1 - \alpha_{t|s}

Timesteps are diffusers' indices 0, ..., T-1 (a paper's t is ours plus one), and -1 is clean data:
alpha_bar(-1) = 1. One table is kept, log alpha_bar in float64, so that 1 - alpha_bar is
``-expm1(log_alpha_bar)``, exact to the last digits where a float32 ``1 - cumprod`` is not.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ddpm_pipeline.common import (
    check_choice,
    check_integer,
    described_sides,
    precise_dtype,
    sides_of,
)

__all__ = [
    "SCHEDULES",
    "NoiseSchedule",
    "Timestep",
    "check_reference_side",
    "is_any",
    "log_snr_shift",
]

_LARGEST_SNR = 2**23 - 1  # float32 tells the root of 1 - 2**-23 from 1, and of nothing nearer
_SHOWN = 1e-5  # relative, to which limits are told


Timestep = int | Tensor


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    r"""Tables of a T-step forward process, indexed by int or int64 tensors, -1 being clean data.

    All methods return float64 (float32 on devices without it) in the shape and on the device of
    ``t``, and raise ValueError for a timestep outside [-1, T-1] where it can be read without a
    device synchronisation.

    Arguments:
        log_alpha_bar: log alpha_bar_t for t = 0, ..., T-1, shape (T,), strictly decreasing and
            below 0; only the last may be -inf (zero terminal SNR).
    """

    log_alpha_bar: Tensor
    _tables: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        log_alpha_bar = torch.as_tensor(self.log_alpha_bar, dtype=torch.float64, device="cpu")
        object.__setattr__(self, "log_alpha_bar", log_alpha_bar)
        table = torch.cat([log_alpha_bar.new_zeros(1), log_alpha_bar])
        if log_alpha_bar.ndim != 1 or not (table.diff() < 0).all() or table[:-1].isinf().any():
            raise ValueError("log_alpha_bar must be 1-D, below 0 and strictly decreasing")
        self._tables[table.device] = table

    @classmethod
    def from_betas(cls, betas: Sequence[float] | Tensor) -> "NoiseSchedule":
        """Schedule with the given beta_t, shape (T,), each in (0, 1); the last may be 1.

        Raises:
            ValueError: If there is no beta, or one lies outside that range.
        """
        betas = torch.as_tensor(betas, dtype=torch.float64, device="cpu")
        if betas.ndim != 1 or len(betas) == 0:
            raise ValueError(f"betas must be non-empty and 1-D, got shape {tuple(betas.shape)}")
        if not ((betas > 0) & (betas <= 1)).all():
            bad = betas[~((betas > 0) & (betas <= 1))][0].item()
            raise ValueError(f"betas must lie in (0, 1], got {bad}")
        if (betas[:-1] == 1).any():
            raise ValueError("betas must be below 1 except for the last, got 1 before the end")
        return cls(torch.log1p(-betas).cumsum(0))

    @classmethod
    def linear(
        cls, T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
    ) -> "NoiseSchedule":
        """beta from beta_start to beta_end in equal steps. Source: Ho et al. 2020, section 4."""
        return cls.from_betas(_linspace(beta_start, beta_end, _positive(T)))

    @classmethod
    def scaled_linear(
        cls, T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
    ) -> "NoiseSchedule":
        """sqrt(beta) in equal steps. Source: Rombach et al. 2022 (arXiv:2112.10752), code."""
        if min(beta_start, beta_end) < 0:
            raise ValueError(f"betas must lie in (0, 1], got {min(beta_start, beta_end)}")
        return cls.from_betas(_linspace(beta_start**0.5, beta_end**0.5, _positive(T)).square())

    @classmethod
    def sigmoid(
        cls, T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
    ) -> "NoiseSchedule":
        """beta along a sigmoid on [-6, 6]. Source: Xu et al. 2022 (arXiv:2203.02923), code."""
        ramp = torch.sigmoid(_linspace(-6, 6, _positive(T)))
        return cls.from_betas(beta_start + (beta_end - beta_start) * ramp)

    @classmethod
    def cosine(cls, T: int = 1000, max_beta: float = 0.999) -> "NoiseSchedule":
        r"""alpha_bar(u) = cos²((u + 0.008)/1.008 · π/2), u = (t+1)/T, with beta at most max_beta.

        Source: Nichol & Dhariwal 2021 (arXiv:2102.09672), eq. 17.
        """
        return cls.from_alpha_bar(
            lambda u: math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2, T, max_beta
        )

    @classmethod
    def laplace(cls, T: int = 1000, max_beta: float = 0.999) -> "NoiseSchedule":
        """Laplace-distributed log-SNR, as diffusers tabulates it (alpha_bar = sqrt of a sigmoid).

        Source: Hang et al. 2024 (arXiv:2407.03297); diffusers' ``betas_for_alpha_bar``.
        """
        return cls.from_alpha_bar(_laplace_alpha_bar, T, max_beta)

    @classmethod
    def from_alpha_bar(
        cls, alpha_bar: Callable[[float], float], T: int, max_beta: float = 0.999
    ) -> "NoiseSchedule":
        """Schedule that follows a continuous alpha_bar(u), u in [0, 1], with beta <= max_beta.

        Arguments:
            alpha_bar: Decreasing positive function of u; only its ratios matter.
            T: Number of steps, at least 1.
            max_beta: Cap on every beta_t, in (0, 1].
        """
        T = _positive(T)
        levels = [alpha_bar(i / T) for i in range(T + 1)]
        ratios = zip(levels[1:], levels[:-1], strict=True)
        return cls.from_betas([min(1 - b / a, max_beta) for b, a in ratios])

    @classmethod
    def named(
        cls, name: str, T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
    ) -> "NoiseSchedule":
        """Schedule by diffusers' ``beta_schedule`` name, one of SCHEDULES.

        The betas' range does not apply to squaredcos_cap_v2 and laplace.

        Raises:
            ValueError: If the name is unknown, or a beta falls outside (0, 1].
        """
        check_choice("beta_schedule", name, SCHEDULES)
        return SCHEDULES[name](T, beta_start, beta_end)

    def zero_terminal_snr(self) -> "NoiseSchedule":
        r"""The schedule shifted and scaled so that nothing of the data is left at T-1.

        .. math:: \sqrt{\bar\alpha'_t} = (\sqrt{\bar\alpha_t} - \sqrt{\bar\alpha_{T-1}})
            \frac{\sqrt{\bar\alpha_0}}{\sqrt{\bar\alpha_0} - \sqrt{\bar\alpha_{T-1}}}

        Raises:
            ValueError: If T is 1.
        Source: Lin et al. 2023 (arXiv:2305.08891), algorithm 1.
        """
        if len(self) == 1:
            raise ValueError("zero terminal SNR needs at least 2 timesteps, got 1")
        first = self.log_alpha_bar[0]
        drop = torch.expm1((self.log_alpha_bar - first) / 2)
        return NoiseSchedule(first + 2 * torch.log1p(-drop / drop[-1]))

    def shifted(self, log_snr: float) -> "NoiseSchedule":
        r"""The schedule with a constant added to log SNR at every timestep.

        .. math:: \bar\alpha'_t = \frac{\bar\alpha_t}{\bar\alpha_t + (1 - \bar\alpha_t) e^{-c}}

        Arguments:
            log_snr: c, natural logarithm; below 0 is more noise. ``log_snr_shift`` gives that of
                images of another side. Zero terminal SNR stays zero.
        Raises:
            ValueError: If it is not finite, or so large that levels are no longer told apart.
        Source: Hoogeboom et al. 2023 (arXiv:2301.11093), section 3.1.
        """
        if not math.isfinite(log_snr):
            raise ValueError(f"log_snr must be finite, got {log_snr}")
        one_minus = torch.log(-torch.expm1(self.log_alpha_bar))
        log_noise_to_signal = one_minus - self.log_alpha_bar - log_snr
        shifted = -torch.logaddexp(torch.zeros_like(log_noise_to_signal), log_noise_to_signal)
        if not (shifted.diff() < 0).all() or shifted[0] == 0:
            raise ValueError(
                f"log_snr must leave every timestep a noise level of its own, got {log_snr}"
            )
        return NoiseSchedule(shifted)

    def __len__(self) -> int:
        return len(self.log_alpha_bar)

    @property
    def betas(self) -> Tensor:
        """beta_t of the full chain, shape (T,), float64."""
        return self.beta(torch.arange(len(self)))

    @property
    def has_zero_terminal_snr(self) -> bool:
        """Whether alpha_bar(T-1) is exactly 0."""
        return math.isinf(self.log_alpha_bar[-1])

    def alpha_bar(self, t: Timestep) -> Tensor:
        """Variance share of the signal at t, in [0, 1]."""
        return self._log_alpha_bar(t).exp()

    def one_minus_alpha_bar(self, t: Timestep) -> Tensor:
        """Variance share of the noise at t, in [0, 1], without cancellation."""
        return 0 - torch.expm1(self._log_alpha_bar(t))  # never -0, which would make SNR -infinite

    def snr(self, t: Timestep) -> Tensor:
        """Signal-to-noise ratio alpha_bar / (1 - alpha_bar); infinite at -1."""
        return self.alpha_bar(t) / self.one_minus_alpha_bar(t)

    def alpha(self, t: Timestep, s: Timestep | None = None) -> Tensor:
        """alpha_{t|s} = alpha_bar_t / alpha_bar_s for s <= t; s defaults to t - 1."""
        return self._log_alpha(t, s).exp()

    def beta(self, t: Timestep, s: Timestep | None = None) -> Tensor:
        """beta_{t|s} = 1 - alpha_{t|s} for s <= t; s defaults to t - 1."""
        return -torch.expm1(self._log_alpha(t, s))

    def _log_alpha(self, t: Timestep, s: Timestep | None) -> Tensor:
        s = t - 1 if s is None else s
        if is_any(np.greater, s, t):
            raise ValueError(f"s must be at most t, got t = {t} and s = {s}")
        later, earlier = self._log_alpha_bar(t), self._log_alpha_bar(s)
        return torch.where(later == earlier, 0.0, later - earlier)

    def _log_alpha_bar(self, t: Timestep) -> Tensor:
        if not isinstance(t, Tensor):
            t = torch.tensor(t)
        if t.is_floating_point() or t.dtype == torch.bool:
            raise TypeError(f"timesteps must be integers, got dtype {t.dtype}")
        try:
            # index_select, unlike [], neither wraps negative indices nor reads them on the host.
            entries = self._table(t.device).index_select(0, t.reshape(-1) + 1)
        except IndexError:
            raise ValueError(f"timesteps must lie in [-1, {len(self) - 1}], got {t}") from None
        return entries.reshape(t.shape)

    def _table(self, device: torch.device) -> Tensor:
        if device not in self._tables:
            dtype = precise_dtype(device)
            self._tables[device] = self._tables[torch.device("cpu")].to(device, dtype)
        return self._tables[device]


def log_snr_shift(resolution: int | Sequence[int], reference_side: float) -> float:
    r"""What to add to log SNR, so that images of another size lose as much as those of one side.

    .. math:: c = 2 \log \frac{d_\mathrm{ref}}{d}, \qquad d^2 = H W

    Means of d²/d_ref² places of a noisy image then have the SNR that a place of a noisy image of
    the reference side has.

    Arguments:
        resolution: d, or (H, W), in places.
        reference_side: d_ref, above 0.
    Source: Hoogeboom et al. 2023 (arXiv:2301.11093), section 3.1; Chen 2023 (arXiv:2301.10972).
    """
    height, width = sides_of(resolution)
    return 2 * math.log(reference_side) - math.log(height * width)


def check_reference_side(
    schedule: NoiseSchedule,
    resolution: int | Sequence[int],
    reference_side: float,
    name: str = "reference_side",
) -> None:
    """Refuse a side by which log SNR would be shifted out of what float32 can tell.

    Stock diffusers keeps alpha_bar in float32, and its root for zero terminal SNR; an alpha_bar_0
    of 1 has an infinite SNR, one of 0 leaves nothing at any timestep.

    Arguments:
        schedule: That is to be shifted.
        resolution, reference_side: As for ``log_snr_shift``.
        name: Of the side, for the message.
    Raises:
        ValueError: If alpha_bar_0 or 1 - alpha_bar_0 would be below 2^-23; says what is allowed.
    """
    if not 0 < reference_side < math.inf:
        raise ValueError(f"{name} must be above 0 and finite, got {reference_side}")
    side, snr = math.sqrt(math.prod(sides_of(resolution))), schedule.snr(0).item()
    least, most = side / math.sqrt(snr * _LARGEST_SNR), side * math.sqrt(_LARGEST_SNR / snr)
    if not least * (1 - _SHOWN) <= reference_side <= most * (1 + _SHOWN):
        raise ValueError(
            f"{name} must be from {least:.6g} to {most:.6g} for images of "
            f"{described_sides(resolution)} and this noise schedule, beyond which float32 does "
            f"not tell alpha_bar of its first timestep from 0 or 1; got {reference_side:g}"
        )


def is_any(relation: np.ufunc, s: Timestep, t: Timestep) -> bool:
    """Tell whether any pair is so related; False on a device, whose timesteps are not read."""
    if any(isinstance(i, Tensor) and i.device.type != "cpu" for i in (s, t)):
        return False
    s, t = (i.numpy() if isinstance(i, Tensor) else i for i in (s, t))
    return bool(np.any(relation(s, t)))


def _positive(T: int) -> int:
    return check_integer("the number of timesteps", T)


def _linspace(start: float, end: float, T: int) -> Tensor:
    return torch.linspace(start, end, T, dtype=torch.float64)


def _laplace_alpha_bar(u: float) -> float:
    half_log_snr = -0.5 * math.copysign(1, 0.5 - u) * math.log(1 - 2 * abs(0.5 - u) + 1e-6)
    return (1 + math.exp(-half_log_snr)) ** -0.5


SCHEDULES: dict[str, Callable[[int, float, float], NoiseSchedule]] = {
    "linear": NoiseSchedule.linear,
    "scaled_linear": NoiseSchedule.scaled_linear,
    "sigmoid": NoiseSchedule.sigmoid,
    "squaredcos_cap_v2": lambda T, *_: NoiseSchedule.cosine(T),
    "laplace": lambda T, *_: NoiseSchedule.laplace(T),
}
