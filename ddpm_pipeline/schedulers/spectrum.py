r"""``MeasuredSpectrum``: how x_0's error is spread over frequencies, as ``calibrate`` measured it.

.. math::
    S_k(t) \propto e^{\rho_{b(k)}(\ln \mathrm{SNR}_t)}\,
    \frac{\lambda_k}{1 + \lambda_k\, \mathrm{SNR}_t}

The fraction is the error of a linear filter that knows the data's spectrum, and rho, which is 0
for Gaussian data, says what the network knows beyond it. It varies so little that some values of
log SNR and some bands of frequencies tell all of it, in less than 200 kB of JSON for images of any
size. Only the shape over k is kept here: the mean over k is the calibration's error of x_0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ddpm_pipeline.common import check_integer
from ddpm_pipeline.diffusion import (
    NUM_KNOTS,
    ErrorSpectrum,
    FrequencyBasis,
    NoiseSchedule,
    frequency_bands,
    knots_around,
)

__all__ = ["MeasuredSpectrum"]


_LONGEST_SIDE = 16_384
_DIGITS = {"channels": 12, "data_variance": 6, "log_ratio": 4, "standard_error": 2}


@dataclass(frozen=True, eq=False, repr=False)
class MeasuredSpectrum:
    """The shape over frequencies of x_0's error, at the knots of log SNR.

    Arguments:
        channels: Orthonormal combinations of the channels, float64, shape (C, C).
        sizes: Lengths of an image's axes, such as (H, W).
        data_variance: lambda by band of the data, float64, above 0, shape (C, *data_bands).
        log_ratio: rho, float64, shape (J, C, *bands), for J knots.
        standard_error: Of rho, the root mean square over channels and bands, shape (J,).
    Raises:
        ValueError: If a table is of another dtype or shape, not finite, or not above 0.
    """

    channels: Tensor
    sizes: tuple[int, ...]
    data_variance: Tensor
    log_ratio: Tensor
    standard_error: Tensor

    def __post_init__(self) -> None:
        for size in self.sizes:
            check_integer("the spectrum's sizes", size, most=_LONGEST_SIDE)
        C, axes = len(self.channels), len(self.sizes)
        J = len(self.standard_error)
        shapes = {
            "channels": (C, C),
            "data_variance": (C, *self.data_variance.shape[1:]),
            "log_ratio": (J, C, *self.log_ratio.shape[2:]),
            "standard_error": (J,),
        }
        for name, shape in shapes.items():
            table = getattr(self, name)
            if table.dtype != torch.float64 or table.shape != shape or not table.isfinite().all():
                raise ValueError(
                    f"the spectrum's {name} must be finite float64 of shape {shape}, got "
                    f"{table.dtype} of shape {(*table.shape,)}"
                )
        if self.data_variance.ndim != 1 + axes or self.log_ratio.ndim != 2 + axes:
            raise ValueError(f"the spectrum's tables must have {axes} axes of bands")
        for bands in (self.data_variance.shape[1:], self.log_ratio.shape[2:]):
            if not all(1 <= count <= size for count, size in zip(bands, self.sizes, strict=True)):
                raise ValueError(
                    f"the spectrum must have from 1 to {self.sizes} bands, got {(*bands,)}"
                )
        if J != NUM_KNOTS or not (self.standard_error >= 0).all():
            raise ValueError(
                f"the spectrum's standard_error must be {NUM_KNOTS} numbers of at least 0, got {J}"
            )
        if not (self.data_variance > 0).all():
            raise ValueError("the spectrum's data_variance must be above 0")

    def __repr__(self) -> str:
        return f"MeasuredSpectrum(image_shape={(len(self.channels), *self.sizes)})"

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Refuse images of another shape (C, *).

        Raises:
            ValueError: If they are.
        """
        FrequencyBasis(self.channels, self.sizes).check_shape(shape)

    def tabulate(self, schedule: NoiseSchedule, mean: Tensor) -> ErrorSpectrum:
        """Give S_k(t) for the timesteps of a schedule.

        Arguments:
            schedule: Noise schedule with T steps.
            mean: Mean over k of S_k(t), such as e_t, float64, shape (T,).
        """
        variance = self.data_variance
        for axis, (n, count) in enumerate(zip(self.sizes, variance.shape[1:], strict=True), 1):
            variance = variance.index_select(axis, frequency_bands(n, count))
        t = torch.arange(len(schedule))
        below, share = knots_around(schedule.snr(t))
        share = share.reshape(-1, *[1] * (self.log_ratio.ndim - 1))
        log_ratio = (1 - share) * self.log_ratio[below] + share * self.log_ratio[below + 1]
        bands = zip(self.sizes, self.log_ratio.shape[2:], strict=True)
        return ErrorSpectrum(
            basis=FrequencyBasis(self.channels, self.sizes),
            data_variance=variance,
            ratios=log_ratio.exp(),
            bands=tuple(frequency_bands(n, count) for n, count in bands),
            snr=schedule.snr(t),
        ).with_mean(mean)

    def to_dict(self) -> dict[str, Any]:
        """Give all of it as JSON values: numbers as text, with the shapes that they are of."""
        values: dict[str, Any] = {"sizes": list(self.sizes)}
        for name, digits in _DIGITS.items():
            table = getattr(self, name)
            numbers = " ".join(f"{number:.{digits}g}" for number in table.flatten().tolist())
            values[name] = {"shape": list(table.shape), "numbers": numbers}
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MeasuredSpectrum:
        """Make the spectrum again of which ``to_dict`` gave these values.

        Raises:
            ValueError: If they are not those of a spectrum.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"the calibration's spectrum must be an object, got {values!r:.100}")
        if missing := {"sizes", *_DIGITS} - values.keys():
            raise ValueError(f"the calibration's spectrum lacks {', '.join(sorted(missing))}")
        tables = {}
        for name in _DIGITS:
            try:
                numbers = [float(number) for number in values[name]["numbers"].split()]
                table = torch.tensor(numbers, dtype=torch.float64)
                tables[name] = table.reshape(values[name]["shape"])
            except (AttributeError, KeyError, TypeError, RuntimeError, ValueError) as error:
                raise ValueError(f"the spectrum's {name} is damaged: {error}") from error
        if not isinstance(values["sizes"], list):
            raise ValueError(f"the spectrum's sizes must be a list, got {values['sizes']!r:.100}")
        return cls(sizes=tuple(values["sizes"]), **tables)

    def rounded(self) -> MeasuredSpectrum:
        """Give the spectrum with the digits that are kept, so that saving changes nothing."""
        return type(self).from_dict(self.to_dict())
