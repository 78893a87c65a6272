r"""``ode_likelihood``: the likelihood of data under a flow, by change of variables.

With the angle :math:`\varphi`, :math:`\sqrt{\bar\alpha} = \cos\varphi` and
:math:`\sqrt{1 - \bar\alpha} = \sin\varphi`, the flow whose marginals are those of the process is

.. math::
    \frac{dx}{d\varphi} = \hat v(x, \varphi), \qquad
    \log p(x(\varphi_0)) = \log \mathcal N(x(\varphi_T); 0, I) +
    \int_{\varphi_0}^{\varphi_T} \operatorname{tr} \frac{\partial \hat v}{\partial x}\, d\varphi

from the angle of t = 0 to that of t = T - 1, which is finite at zero terminal SNR too. Data reach
t = 0 by the forward process and leave it by the decoder of the bound:

.. math::
    -\log p(x_0) \le \mathbb E_{q(x_{t=0} | x_0)}\big[-\log p(x_{t=0}) + \log q(x_{t=0} | x_0)
    - \log p_\theta(x_0 | x_{t=0})\big]

Between two timesteps log SNR is a straight line of t, and the network is asked at the fractional t
of the angle; between the last two of a schedule that ends at zero SNR the angle is. The trace is
Hutchinson's estimate with signs that stay the same along the way, or exact.

Source: Song et al. 2021 (arXiv:2011.13456), section 4.3 and appendix D; Hutchinson 1990, Commun.
Stat. Simul. 19.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ddpm_pipeline.common import (
    check_above_zero,
    check_choice,
    check_integer,
    draw_seed,
    precise_dtype,
)
from ddpm_pipeline.data import Batches
from ddpm_pipeline.diffusion import (
    NoiseSchedule,
    ReverseProcess,
    decoder_nats,
    keyed_normal,
    keyed_uniform,
    marginal,
    velocity_at,
)
from ddpm_pipeline.likelihood.blocks import Block, BoundData
from ddpm_pipeline.likelihood.bound import calibrated_variances
from ddpm_pipeline.likelihood.ode_report import OdeParts, OdeReport, OdeSettings, summarize
from ddpm_pipeline.networks import Denoiser, Told, device_of, evaluating, run_denoiser
from ddpm_pipeline.schedulers import DDPMScheduler

__all__ = ["SOLVERS", "Angles", "check_solver", "ode_likelihood"]


SOLVERS = ("RK45", "DOP853", "RK23")
"""Adaptive ones of SciPy, explicit."""
_DECODERS = ("discretized", "continuous")
_ROWS = 64


class Angles:
    """The angles of a schedule, and the timestep of any angle between.

    Arguments:
        schedule: Noise schedule with T steps.
    """

    def __init__(self, schedule: NoiseSchedule) -> None:
        t = torch.arange(len(schedule))
        self._signal = schedule.alpha_bar(t).sqrt().cpu().numpy()
        self._noise = schedule.one_minus_alpha_bar(t).sqrt().cpu().numpy()
        self.table = np.arctan2(self._noise, self._signal)

    @property
    def ends(self) -> tuple[float, float]:
        """Give the angles of t = 0 and t = T - 1."""
        return float(self.table[0]), float(self.table[-1])

    def timestep(self, angle: float) -> float:
        """Give the t at which a network is asked for this angle."""
        angle = min(max(angle, self.table[0]), self.table[-1])
        above = min(max(int(np.searchsorted(self.table, angle)), 1), len(self.table) - 1)
        low, high = self.table[above - 1], self.table[above]
        if self._signal[above] > 0:
            low, high, angle = (math.log(math.tan(a)) for a in (low, high, angle))
        return above - 1 + (angle - low) / (high - low)


def ode_likelihood(
    model: Denoiser,
    scheduler: DDPMScheduler,
    x_0: Tensor | Batches,
    *,
    class_labels: Told = None,
    num_probes: int | None = 2,
    decoder: str = "discretized",
    dequantize: bool = False,
    solver: str = "RK45",
    rtol: float = 1e-4,
    atol: float = 1e-4,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> OdeReport:
    r"""Measure the likelihood of data under a model's flow, with its standard error and its cost.

    Arguments:
        model: Any callable (x_t, t) -> tensor or object with one as ``sample``, differentiable in
            x_t, t being float32 of shape (B,) and not always whole.
        scheduler: Its schedule, prediction type and, for a discretized decoder, variance type are
            those of the model. Nothing is clipped.
        x_0: Data in [-1, 1], floating point, (N, C, *); or batches of such, or of pairs
            (x_0, class labels).
        class_labels: As for ``variational_bound``.
        num_probes: Vectors of Hutchinson's trace for each image, at least 2 for its own standard
            error; None computes the trace itself, by as many products as there are dimensions.
        decoder: "discretized", the probability of 8-bit levels, by the variance that the model's
            last move has; or "continuous", a density, by the best variance for these data.
        dequantize: Add uniform noise of a level's width to 8-bit data and take the density of what
            comes out, a lower bound of the levels' probability, instead of the decoder's.
        solver: One of SOLVERS.
        rtol, atol: Its tolerances, of pixels and of nats per dimension.
        batch_size: Images that are integrated together, and share their steps; 64 unless given.
        generator: Where the seed of all noise is drawn from; of the same seed the noise at t = 0
            is that of ``variational_bound``.
        progress: Whether to show a progress bar.
    Raises:
        ImportError: If SciPy is not installed.
        ValueError: If an argument is not allowed, or the flow is not finite.
    """
    integrate = check_solver()
    if num_probes is not None:
        check_integer("num_probes", num_probes)
    check_choice("decoder", decoder, _DECODERS)
    check_choice("solver", solver, SOLVERS)
    check_above_zero(rtol=rtol, atol=atol)
    size = check_integer("batch_size", _ROWS if batch_size is None else batch_size)
    if dequantize:
        decoder = "continuous"
    if not isinstance(scheduler, DDPMScheduler):
        scheduler = DDPMScheduler.from_config(scheduler.config)
    data = BoundData(x_0, class_labels, in_range=decoder == "discretized" or dequantize)
    settings = OdeSettings(
        dims=data.example.numel(),
        num_train_timesteps=len(scheduler.schedule),
        prediction_type=scheduler.config.prediction_type,
        decoder_kind="uniform" if dequantize else decoder,
        num_probes=num_probes,
        solver=solver,
        rtol=rtol,
        atol=atol,
        seed=draw_seed(generator),
    )
    device = device_of(model, data.example.device)
    flow = _Flow(model, scheduler, settings, device, integrate)
    parts: list[OdeParts] = []
    with (
        evaluating(model),
        tqdm(total=data.length or None, unit=" images", desc="ode", disable=not progress) as bar,
    ):
        for block in data.blocks(size):
            parts.append(flow.parts(block))
            bar.update(len(block.x_0))
    return summarize(parts, settings)


def check_solver() -> Callable[..., Any]:
    """Give SciPy's solver of initial value problems.

    Raises:
        ImportError: If it is not installed; says what to install.
    """
    try:
        from scipy.integrate import solve_ivp
    except ImportError as error:
        raise ImportError(
            'the likelihood of the flow needs SciPy: pip install "ddpm_pipeline[eval]"'
        ) from error
    return solve_ivp


@dataclass(frozen=True, eq=False)
class _Flow:
    """The flow of a model, and what it takes to follow it."""

    model: Denoiser
    scheduler: DDPMScheduler
    settings: OdeSettings
    device: torch.device
    integrate: Callable[..., Any]

    def parts(self, block: Block) -> OdeParts:
        """Measure the images of a block."""
        x_0, labels = self._data(block)
        schedule, zero = self.scheduler.schedule, torch.zeros(len(x_0), dtype=torch.int64)
        index = (block.first + torch.arange(len(x_0))).to(self.device)
        zero = zero.to(self.device)
        eps = keyed_normal(self.settings.seed, index, zero, x_0.shape[1:]).to(x_0)
        x = marginal(schedule, x_0, zero).reparameterize(eps)
        log_q = -0.5 * (
            _squares(eps) + eps[0].numel() * _log_2_pi(schedule.one_minus_alpha_bar(0))
        )
        output = run_denoiser(self.model, x, zero, labels)
        process = self._process(x_0.shape[1:])
        error = process.squared_error(output, x_0, x, zero, zero - 1)
        decoded = torch.zeros_like(error)
        if self.settings.decoder_kind == "discretized":
            above = min(1, len(schedule) - 1)
            decoded = decoder_nats(process.decoder(output, x, zero, above), x_0)
        end, volume, calls = self._followed(x, labels, index)
        log_prior = -0.5 * (_squares(end) + end[0].numel() * _log_2_pi(torch.tensor(1.0)))
        values = (-log_prior, -volume, log_q, decoded, error)
        return OdeParts(*(v.cpu().double() for v in values), calls + 1)

    def _data(self, block: Block) -> tuple[Tensor, Tensor | None]:
        x_0, labels = (b if b is None else b.to(self.device) for b in block[1:])
        if self.settings.decoder_kind == "uniform":
            index = (block.first + torch.arange(len(x_0))).to(self.device)
            place = torch.full_like(index, self.settings.num_train_timesteps)
            u = keyed_uniform(self.settings.seed, index, place, x_0[0].numel())
            x_0 = x_0 + ((2 * u - 1) / 255).to(x_0).reshape(x_0.shape)
        return x_0, labels

    def _process(self, shape: torch.Size) -> ReverseProcess:
        """Give the reverse process whose last move is the decoder, that of the bound."""
        scheduler, kind = self.scheduler, self.settings.decoder_kind
        decoder = "discretized" if kind == "discretized" else "continuous"
        return ReverseProcess(
            scheduler.schedule,
            scheduler.config.prediction_type,
            scheduler.variance_type,
            **calibrated_variances(scheduler, None, decoder, shape, self.device),
        )

    def _followed(self, x: Tensor, labels: Told, index: Tensor) -> tuple[Tensor, Tensor, int]:
        """Follow the flow from t = 0 to T - 1.

        Returns:
            x there; the integral of the trace by probe, nats (B, probes); calls of the network.
        """
        rows, D = len(x), x[0].numel()
        probes = list(self._probes(x, index))
        columns = 1 if self.settings.num_probes is None else len(probes)
        angles = Angles(self.scheduler.schedule)

        def slope(angle: float, state: np.ndarray) -> np.ndarray:
            point = torch.from_numpy(state[: rows * D]).to(x).reshape(x.shape)
            v, traces = self._velocity(angles, angle, point, labels, probes)
            flat = [v.flatten(), traces.flatten() / D]
            return torch.cat([part.cpu().double() for part in flat]).numpy()

        start = np.concatenate([x.flatten().cpu().double().numpy(), np.zeros(rows * columns)])
        how = {"rtol": self.settings.rtol, "atol": self.settings.atol}
        found = self.integrate(slope, angles.ends, start, method=self.settings.solver, **how)
        if not found.success or not np.isfinite(found.y[:, -1]).all():
            raise ValueError(f"the flow could not be followed to its end: {found.message}")
        end = torch.from_numpy(found.y[:, -1])
        volume = end[rows * D :].reshape(rows, columns) * D
        return end[: rows * D].reshape(x.shape), volume, int(found.nfev)

    def _velocity(
        self,
        angles: Angles,
        angle: float,
        x: Tensor,
        labels: Told,
        probes: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Give v, and the estimates of its trace by probe, (B, probes), or their sum if exact."""
        t = torch.full((len(x),), angles.timestep(angle), device=x.device, dtype=torch.float32)
        level = torch.tensor(angle, dtype=precise_dtype(x.device), device=x.device)
        kind = self.scheduler.config.prediction_type
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            output = run_denoiser(self.model, point, t, labels)[:, : x.shape[1]]
            v = velocity_at(
                level.cos().square(), level.sin().square(), output, point, from_type=kind
            )
            traces = [
                torch.autograd.grad(v, point, probe, retain_graph=True)[0].mul(probe)
                for probe in probes
            ]
        found = torch.stack([trace.flatten(1).double().sum(1) for trace in traces], dim=1)
        return v.detach(), found if self.settings.num_probes else found.sum(1, keepdim=True)

    def _probes(self, x: Tensor, index: Tensor) -> Iterator[Tensor]:
        """Give vectors of signs for each image, or all unit vectors."""
        if self.settings.num_probes is None:
            for unit in torch.eye(x[0].numel(), dtype=x.dtype, device=x.device):
                yield unit.reshape(1, *x.shape[1:]).expand_as(x)
            return
        for k in range(self.settings.num_probes):
            place = torch.full_like(index, self.settings.num_train_timesteps + 1 + k)
            u = keyed_uniform(self.settings.seed, index, place, x[0].numel())
            yield ((u > 0.5).to(x) * 2 - 1).reshape(x.shape)


def _squares(x: Tensor) -> Tensor:
    return x.flatten(1).to(precise_dtype(x.device)).square().sum(1)


def _log_2_pi(variance: Tensor) -> float:
    return math.log(2 * math.pi * float(variance))
