r"""``Calibration``: the record of what ``calibrate`` measured, which a scheduler carries along.

.. math::
    m_t = \mathbb E\|\hat\epsilon\|^2/D, \qquad e_t = \mathbb E\|x_0 - \hat x_0\|^2/D, \qquad
    v_t \approx \mathbb E\,\mathrm{Var}(x_0 \mid x_t)/D

Tables over t = 0, ..., T-1, from which the analytic variance, the optimal spacings and the bound
of any chain follow without the network (``optimal``). It knows its noise schedule and its weights
again. In JSON a table is a text of numbers, in as many digits as give every bit back.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from ddpm_pipeline.common import check_choice, check_integer
from ddpm_pipeline.diffusion import (
    DECODER_RATIOS,
    MAX_TIMESTEPS,
    NoiseSchedule,
    ValueDecoder,
)
from ddpm_pipeline.schedulers.choices import VARIANCE_ESTIMATES, VarianceEstimate
from ddpm_pipeline.schedulers.spectrum import MeasuredSpectrum

__all__ = [
    "MEASURED_TABLES",
    "OPTIONAL_TABLES",
    "Calibration",
    "needed_calibration",
    "rounded_value_decoder",
    "schedule_fingerprint",
]


# Of calibrations without a spectrum, with one, and with variances by value too; versions before
# read those without what they do not know.
_VERSION, _SPECTRAL_VERSION, _VALUE_VERSION = 2, 3, 4
_ADDED = {_VERSION: ("spectrum", "value_decoder"), _SPECTRAL_VERSION: ("value_decoder",)}
_VALUE_DIGITS = 4
MEASURED_TABLES = (
    "m",
    "m_standard_error",
    "x_0_error",
    "x_0_error_standard_error",
    "decoder_variance",
    "decoder",
)
_TABLES = (*MEASURED_TABLES[:-1], "x_0_variance")
OPTIONAL_TABLES = ("decoder_cost", "wiener_error")
_OF_EITHER_SIGN = ("decoder", "decoder_cost")  # nats of densities
_LONGEST_SIDE = 1_000_000
_MOST_SEEN = 2**63 - 1  # images and forward passes
# So many values of alpha_bar tell schedules apart.
_FINGERPRINTS = 16


@dataclass(frozen=True, eq=False, repr=False)
class Calibration:
    r"""The record of what ``calibrate`` measured of a model, as exact in JSON as in memory.

    Arguments:
        m: m_t = E||eps_hat||²/D, float64, shape (T,).
        m_standard_error: Its standard error, shape (T,).
        x_0_error: e_t = E||x_0 - x_0_hat||²/D, shape (T,).
        x_0_error_standard_error: Its standard error, shape (T,).
        x_0_variance: v_t, what the analytic variance is made of, shape (T,).
        decoder_variance: That of the move from t to the data: v_t for a continuous decoder, and
            for 8-bit data the best from e_t/8 to 16 e_t that is at most 1 - alpha_bar, shape (T,).
        decoder_cost: E[-log p(x_0 | x_t)]/D in nats with decoder_variance, shape (T,); None for a
            continuous decoder, whose cost follows from x_0_error.
        wiener_error: W_t, the error of Wiener's filter by the data's power spectrum, shape (T,);
            None where that is unknown.
        spectrum: How x_0's error is spread over frequencies; None if that is unknown.
        value_decoder: Variances of the spectral move to 8-bit data by what is predicted; None has
            one variance for all values.
        decoder: E[-log p(x_0 | x_t)]/D in nats for variances of DECODER_RATIOS (1 - alpha_bar),
            shape (7, T); (0, T) for a continuous decoder.
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
    spectrum: MeasuredSpectrum | None = None
    value_decoder: ValueDecoder | None = None
    standard_error: float = 0.0
    num_images: int = 0
    num_forwards: int = 0
    image_shape: tuple[int, ...] = ()
    estimate: VarianceEstimate = "error"
    weights: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        for name in (*_TABLES, *OPTIONAL_TABLES, "decoder"):
            table = getattr(self, name)
            if name in OPTIONAL_TABLES and table is None:
                continue
            rows = (len(self.decoder),) if name == "decoder" else ()
            if table.dtype != torch.float64 or table.shape != (*rows, len(self)):
                raise ValueError(
                    f"{name} must be float64 of shape {(*rows, len(self))}, got {table.dtype} of "
                    f"shape {(*table.shape,)}"
                )
            _check_values(name, table)
        self._check_numbers()
        if len(self.decoder) not in (0, len(DECODER_RATIOS)):
            raise ValueError(
                f"decoder must have {len(DECODER_RATIOS)} or no rows, got {len(self.decoder)}"
            )
        if len(self.decoder) and self.decoder_cost is None:
            raise ValueError("decoder_cost must be a table unless decoder has no rows, got None")

    def _check_numbers(self) -> None:
        """Refuse what is no number, no count or no name where one must be."""
        count = min(_FINGERPRINTS, len(self))
        if len(self.alpha_bar) != count or not all(_is_real(a, 0, 1) for a in self.alpha_bar):
            raise ValueError(
                f"alpha_bar must be {count} numbers from 0 to 1, got {self.alpha_bar!r:.200}"
            )
        for name in ("second_moment", "standard_error"):
            if not _is_real(getattr(self, name), 0, math.inf):
                raise ValueError(
                    f"{name} must be a finite number of at least 0, got {getattr(self, name)!r}"
                )
        for name in ("num_images", "num_forwards"):
            check_integer(name, getattr(self, name), least=0, most=_MOST_SEEN)
        for side in self.image_shape:
            check_integer("image_shape", side, most=_LONGEST_SIDE)
        check_choice("estimate", self.estimate, VARIANCE_ESTIMATES)
        if self.weights is not None and not all(
            isinstance(word, str) for item in dict(self.weights).items() for word in item
        ):
            raise ValueError(f"weights must be hashes by precision, got {self.weights!r:.200}")

    def __len__(self) -> int:
        """T."""
        return len(self.x_0_error)

    def __repr__(self) -> str:
        return (
            f"Calibration(T={len(self)}, num_images={self.num_images}, "
            f"num_forwards={self.num_forwards}, image_shape={self.image_shape}, "
            f"estimate={self.estimate!r}, standard_error={self.standard_error:.2g})"
        )

    def for_any_weights(self) -> Calibration:
        """Make a copy that is refused for no weights, whatever weights it was measured with."""
        return replace(self, weights=None)

    def check_schedule(self, schedule: NoiseSchedule) -> None:
        """Refuse another schedule.

        Raises:
            ValueError: If it was made for another T or another noise schedule.
        """
        if len(schedule) != len(self):
            raise ValueError(
                f"the calibration was made for {len(self)} timesteps, but the scheduler has "
                f"{len(schedule)}; calibrate again"
            )
        mine, theirs = torch.tensor(self.alpha_bar), torch.tensor(schedule_fingerprint(schedule))
        if mine.shape != theirs.shape or not torch.allclose(mine, theirs, rtol=1e-5, atol=1e-12):
            raise ValueError(
                "the calibration was made for another noise schedule than the scheduler's; "
                "calibrate again"
            )

    def to_dict(self) -> dict[str, Any]:
        """Give all of it as JSON values; tables as text, numbers in digits that give them back."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        version, spectrum, decoder = _VERSION, values.pop("spectrum"), values.pop("value_decoder")
        if spectrum is not None:
            version, values["spectrum"] = _SPECTRAL_VERSION, spectrum.to_dict()
        if decoder is not None:
            version = _VALUE_VERSION
            values |= {"spectrum": values.get("spectrum"), "value_decoder": _texts(decoder)}
        tables = {name: _text(values.pop(name)) for name in _TABLES}
        rows = [_text(row) for row in values.pop("decoder")]
        for name in OPTIONAL_TABLES:
            values[name] = None if values[name] is None else _text(values[name])
        values["alpha_bar"] = list(self.alpha_bar)
        values["image_shape"] = list(self.image_shape)
        values["weights"] = None if self.weights is None else dict(self.weights)
        return {"version": version, **values, **tables, "decoder": rows}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Make the calibration again of which ``to_dict`` gave these values.

        Raises:
            ValueError: If a newer version of this package wrote it, or it is not a calibration.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"a calibration must be an object, got {values!r:.100}")
        values = dict(values)
        version = values.pop("version", None)
        if version not in (_VERSION, _SPECTRAL_VERSION, _VALUE_VERSION):
            raise ValueError(
                f"the calibration's version must be from {_VERSION} to {_VALUE_VERSION}, got "
                f"{version!r}; a newer ddpm_pipeline may read it, or calibrate again"
            )
        values |= dict.fromkeys(_ADDED.get(version, ()))
        if missing := {field.name for field in fields(cls)} - values.keys():
            raise ValueError(f"the calibration lacks {', '.join(sorted(missing))}")
        if surplus := values.keys() - {field.name for field in fields(cls)}:
            raise ValueError(f"the calibration has no {', '.join(sorted(surplus))}")
        for name in (*_TABLES, *OPTIONAL_TABLES):
            is_left_out = name in OPTIONAL_TABLES and values[name] is None
            values[name] = None if is_left_out else _table(name, values[name])
        if values["spectrum"] is not None:
            values["spectrum"] = MeasuredSpectrum.from_dict(values["spectrum"])
        if values["value_decoder"] is not None:
            values["value_decoder"] = _value_decoder(values["value_decoder"])
        T = len(values["x_0_error"])
        decoder = [_table("decoder", row) for row in _list("decoder", values["decoder"])]
        values["decoder"] = torch.stack(decoder) if decoder else torch.zeros(0, T).double()
        for name in ("alpha_bar", "image_shape"):
            values[name] = tuple(_list(name, values[name]))
        if not isinstance(values["weights"], Mapping | None):
            raise ValueError(f"weights must be an object or null, got {values['weights']!r:.100}")
        return cls(**values)


def needed_calibration(calibration: Calibration | None, option: str) -> Calibration:
    """Give a calibration back.

    Raises:
        ValueError: If there is none; names the option that needs it, and what gives one.
    """
    if calibration is None:
        raise ValueError(
            f"{option} needs a calibration, got None; "
            "scheduler.set_calibration(calibrate(model, scheduler, batches)) gives it one, and "
            "`ddpm calibrate` gives a saved model one"
        )
    return calibration


def rounded_value_decoder(decoder: ValueDecoder) -> ValueDecoder:
    """Give variances by value with the digits that are kept, so that saving changes nothing."""
    return _value_decoder(_texts(decoder))


def _texts(decoder: ValueDecoder) -> dict[str, str]:
    tables = {"variance": decoder.variance, "gain": decoder.gain}
    return {
        name: " ".join(f"{number:.{_VALUE_DIGITS}g}" for number in table.flatten().tolist())
        for name, table in tables.items()
    }


def _value_decoder(texts: object) -> ValueDecoder:
    """Read variances by value out of their texts.

    Raises:
        ValueError: If they are none.
    """
    if not isinstance(texts, Mapping) or texts.keys() != {"variance", "gain"}:
        raise ValueError(f"value_decoder must hold variance and gain, got {texts!r:.100}")
    tables = {name: _table(f"value_decoder's {name}", text) for name, text in texts.items()}
    classes = max(1, len(tables["variance"]) // max(1, len(tables["gain"])))
    if len(tables["variance"]) == classes * len(tables["gain"]):
        tables["variance"] = tables["variance"].reshape(-1, classes)
    return ValueDecoder(**tables)


def _text(table: Tensor) -> str:
    return " ".join(map(repr, table.tolist()))


def _table(name: str, text: object) -> Tensor:
    """Read a table out of its text.

    Raises:
        ValueError: If it is none, or longer than any; names it.
    """
    words = text.split() if isinstance(text, str) else []
    if not 1 <= len(words) <= MAX_TIMESTEPS:
        raise ValueError(f"{name} must be a text of 1 to {MAX_TIMESTEPS:,} numbers")
    try:
        return torch.tensor([float(number) for number in words], dtype=torch.float64)
    except ValueError as error:
        raise ValueError(f"{name} must be a text of numbers: {error}") from None


def _list(name: str, values: object) -> list[Any]:
    if not isinstance(values, list | tuple):
        raise ValueError(f"{name} must be a list, got {values!r:.100}")
    return list(values)


def _is_real(value: object, least: float, most: float) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= sys.float_info.max and least <= value <= most


def _check_values(name: str, table: Tensor) -> None:
    """Refuse a table with a value that no measurement gives.

    Raises:
        ValueError: If one is not finite, or below 0 where it is a mean of squares; names it.
    """
    least = -math.inf if name in _OF_EITHER_SIGN else 0.0
    bad = table[~(table.isfinite() & (table >= least))]
    if len(bad):
        allowed = "finite" if least < 0 else "finite and at least 0"
        raise ValueError(f"{name} must be {allowed}, got {bad[0].item()}")


def schedule_fingerprint(schedule: NoiseSchedule) -> tuple[float, ...]:
    """Give alpha_bar at 16 timesteps or fewer, by which a schedule is known again."""
    count = min(_FINGERPRINTS, len(schedule))
    places = torch.linspace(0, len(schedule) - 1, count, dtype=torch.float64).round().long()
    return tuple(schedule.alpha_bar(places).tolist())
