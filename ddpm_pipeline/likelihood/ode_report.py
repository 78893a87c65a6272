r"""``OdeReport``: the likelihood of a model's flow, with its parts, its error and its cost.

.. math::
    \text{bits/dim} = \text{prior} + \text{volume} + \text{noise} + \text{decoder}, \qquad
    \mathrm{se}^2 = \mathrm{se}_{\text{images}}^2 + \mathrm{se}_{\text{trace}}^2
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddpm_pipeline.common import write_text
from ddpm_pipeline.diffusion import bits_per_dim
from ddpm_pipeline.likelihood.report import shown_error

__all__ = ["OdeParts", "OdeReport", "OdeSettings", "summarize"]


@dataclass(frozen=True)
class OdeSettings:
    """How a flow's likelihood was measured.

    Arguments:
        dims: D, elements of an example.
        num_train_timesteps: T.
        prediction_type: Of the network.
        decoder_kind: "discretized", "continuous", or "uniform" for that of dequantized data.
        num_probes: Of the trace, or None for the exact one.
        solver, rtol, atol: That integrated.
        seed: Of all noise.
    """

    dims: int
    num_train_timesteps: int
    prediction_type: str
    decoder_kind: str
    num_probes: int | None
    solver: str
    rtol: float
    atol: float
    seed: int


class OdeParts(NamedTuple):
    """What was found of some images, in nats, float64.

    Arguments:
        prior: -log N(x; 0, I) at the noisy end, (B,).
        volume: Minus the integral of the trace, by probe, (B, probes).
        noise: log q(x_t | x_0) at t = 0, (B,).
        decoder: -log p(x_0 | x_t) there, (B,); 0 where its variance follows from all images.
        squared_error: Of the predicted x_0 there, (B,).
        calls: Of the network, for each image.
    """

    prior: Tensor
    volume: Tensor
    noise: Tensor
    decoder: Tensor
    squared_error: Tensor
    calls: int


@dataclass(frozen=True)
class OdeReport:
    """The likelihood of a model's flow; all but the last five in bits per dimension.

    Arguments:
        bits_per_dim: Of the data.
        standard_error: Of it, from images, noise and trace together.
        standard_error_images, standard_error_trace: What it is made of; that of the trace is 0 if
            it is exact, and NaN with one probe, which does not tell.
        prior, volume, noise, decoder: The parts.
        per_example: Of each image, float64, (N,).
        forwards: Examples that the network was run on.
        products: Vector-Jacobian products beside them.
        calls_per_image: Calls of the network that an image saw, on average.
        settings: How it was measured.
    """

    bits_per_dim: float
    standard_error: float
    standard_error_images: float
    standard_error_trace: float
    prior: float
    volume: float
    noise: float
    decoder: float
    per_example: Tensor
    forwards: int
    products: int
    calls_per_image: float
    settings: OdeSettings

    @property
    def num_images(self) -> int:
        """N."""
        return len(self.per_example)

    def to_dict(self, *, per_example: bool = True) -> dict[str, Any]:
        """Give all fields as JSON can hold them; NaN becomes None."""
        values = {k: v for k, v in vars(self).items() if k != "settings"}
        values["per_example"] = self.per_example.tolist()
        if not per_example:
            del values["per_example"]
        numbers = {
            k: None if isinstance(v, float) and not math.isfinite(v) else v
            for k, v in values.items()
        }
        return numbers | {"num_images": self.num_images} | asdict(self.settings)

    def to_json(self, path: str | os.PathLike, **more: object) -> None:
        """Write ``to_dict`` into a file, with JSON values to be kept beside it."""
        write_text(Path(path), json.dumps(self.to_dict() | more, indent=1) + "\n")

    def __str__(self) -> str:
        settings, error = self.settings, self.standard_error_trace
        trace = "exact" if settings.num_probes is None else f"{settings.num_probes} probes"
        of_trace = "not known from one probe" if math.isnan(error) else f"± {error:.4f}"
        rows = [
            ("bits/dim of the flow", f"{self.bits_per_dim:.4f} ± {self.standard_error:.4f}"),
            ("  prior", f"{self.prior:.4f}"),
            ("  volume", f"{self.volume:.4f}"),
            ("  noise", f"{self.noise:.4f}"),
            ("  decoder", f"{self.decoder:.4f}"),
            (
                "error from images",
                shown_error(
                    self.standard_error_images, error, "the trace; --ode_probes draws more"
                ),
            ),
            ("error from the trace", of_trace),
            ("trace", trace),
            ("decoder", settings.decoder_kind),
            ("solver", f"{settings.solver}, rtol {settings.rtol:g}, atol {settings.atol:g}"),
            ("images", f"{self.num_images} of {settings.dims} dimensions"),
            ("forwards", f"{self.forwards}, {self.calls_per_image:.0f} for each image"),
            ("products beside them", f"{self.products}"),
        ]
        return "\n".join(f"{name:<22}{value}" for name, value in rows)


def summarize(parts: Sequence[OdeParts], settings: OdeSettings) -> OdeReport:
    """Make the report of all images."""
    D, N = settings.dims, sum(len(part.prior) for part in parts)
    prior, volume, noise, decoder, errors = (
        torch.cat([part[i] for part in parts]) for i in range(5)
    )
    if settings.decoder_kind != "discretized":
        v = errors.mean().item() / D
        decoder = 0.5 * (D * math.log(2 * math.pi * v) + errors / v)
    if settings.decoder_kind == "uniform":
        decoder = decoder + D * math.log(255 / 2)  # a level is 2/255 wide
    columns = [prior, volume.mean(1), noise, decoder]
    bits = [bits_per_dim(column, D) for column in columns]
    per_example = torch.stack(bits).sum(0)
    spread = per_example.std().item() / math.sqrt(N) if N > 1 else math.nan
    of_trace = _trace_error(volume, settings)
    known = 0.0 if math.isnan(of_trace) else of_trace
    calls = sum(len(part.prior) * part.calls for part in parts)
    probes = settings.num_probes or D
    return OdeReport(
        bits_per_dim=per_example.mean().item(),
        standard_error=spread,
        standard_error_images=math.sqrt(max(spread**2 - known**2, 0)) if N > 1 else math.nan,
        standard_error_trace=of_trace,
        prior=bits[0].mean().item(),
        volume=bits[1].mean().item(),
        noise=bits[2].mean().item(),
        decoder=bits[3].mean().item(),
        per_example=per_example,
        forwards=calls,
        products=(calls - N) * probes,
        calls_per_image=calls / N,
        settings=settings,
    )


def _trace_error(volume: Tensor, settings: OdeSettings) -> float:
    """Give the standard error of the mean that is the trace's, in bits per dimension."""
    if settings.num_probes is None:
        return 0.0
    if settings.num_probes == 1:
        return math.nan
    variances = volume.var(1) / settings.num_probes
    return bits_per_dim(math.sqrt(variances.mean().item() / len(volume)), settings.dims)
