"""The formulas on the device against the CPU, on the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import TYPE_CHECKING

import torch
from gpu.place import CPU
from torch import Tensor

from ddpm_pipeline.diffusion import (
    Gaussian,
    NoiseSchedule,
    keyed_normal,
    loss_weights,
    marginal,
    posterior,
    reverse,
    training_loss,
)
from ddpm_pipeline.diffusion.keyed_noise import philox

if TYPE_CHECKING:
    from gpu.found import Found
    from gpu.place import Place

PREDICTIONS = ("epsilon", "sample", "v_prediction")
VARIANCES = ("fixed_small", "fixed_large", "learned", "learned_range", "analytic")
Formula = Callable[[torch.device], Tensor]


def difference(formula: Formula, place: Place) -> float:
    """The largest difference of the device's result from the CPU's, by the size of that."""
    ours, cpu = formula(place.device).cpu().double(), formula(CPU).double()
    same = ours == cpu  # infinities too
    scale = cpu[cpu.isfinite()].abs().max().clamp(min=1)
    return float(((ours - cpu).abs() / scale).masked_fill(same, 0).max())


def philox_words(device: torch.device) -> Tensor:
    counters = [torch.arange(0, 2**31, 2**31 // 4093, device=device) + i for i in range(4)]
    return torch.stack(list(philox(counters, 0x1234567890ABCDEF)))


def philox_normals(device: torch.device) -> Tensor:
    rows = torch.arange(64, device=device)
    return keyed_normal(7, rows, rows * 15, (3, 8, 8))


def random_words(place: Place, found: Found) -> None:
    words = philox_words(place.device).cpu()
    found.at_most("differing words", int((words != philox_words(CPU)).sum()), 0)
    found.at_most("normals from the CPU's", difference(philox_normals, place), 1e-12)


def formulas(place: Place, found: Found) -> None:
    for name, formula in _formulas():
        found.at_most(name, difference(formula, place), 1e-12)


def _formulas() -> Iterator[tuple[str, Formula]]:
    """q, p and the losses for all types, from float64 tensors that were drawn on the CPU."""
    schedule = NoiseSchedule.cosine(1000)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(3, 16, 2, 8, 8, generator=generator, dtype=torch.float64)
    levels = torch.randint(0, 256, (16, 2, 8, 8), generator=generator)
    x_0, eps, output = levels.double() / 127.5 - 1, drawn[1], drawn[2]
    t = torch.linspace(1, 999, 16).long()
    s = t // 2

    def on(device: torch.device, *tensors: Tensor) -> list[Tensor]:
        return [tensor.to(device) for tensor in tensors]

    yield "marginal", lambda d: marginal(schedule, *on(d, x_0, t)).reparameterize(*on(d, eps))
    yield "posterior", lambda d: posterior(schedule, *on(d, x_0, eps, t, s)).mean
    for prediction, variance in product(PREDICTIONS, VARIANCES):
        wide = torch.cat([output, drawn[0]], dim=1) if "learned" in variance else output
        options = {"prediction_type": prediction, "variance_type": variance}

        def move(device: torch.device, wide: Tensor = wide, options: dict = options) -> Tensor:
            more = {"x_0_variance": torch.full((16,), 0.01, device=device, dtype=torch.float64)}
            more = more if options["variance_type"] == "analytic" else {}
            p = reverse(schedule, *on(device, wide, eps, t, s), **options, **more)
            return torch.stack([p.mean, p.log_var.expand_as(p.mean)])

        yield f"reverse, {prediction}, {variance}", move
    for prediction, loss in product(PREDICTIONS, ("simple", "hybrid", "vlb")):
        variance = "fixed_small" if loss == "simple" else "learned_range"
        wide = output if loss == "simple" else torch.cat([output, drawn[0]], dim=1)
        options = {"prediction_type": prediction, "loss": loss, "variance_type": variance}

        def losses(device: torch.device, wide: Tensor = wide, options: dict = options) -> Tensor:
            weights = loss_weights(schedule, prediction_type=options["prediction_type"])
            tensors = on(device, wide, x_0, eps)
            return training_loss(schedule, *tensors, t, weights=weights, **options)

        yield f"loss, {prediction}, {loss}", losses


def decoder_tails(place: Place, found: Found) -> None:
    """Levels at, and far from, means; the bins at the ends; variances from tiny to large."""
    x = torch.tensor([-1.0, -0.5, 1 / 255, 1.0], dtype=torch.float64)
    means = torch.linspace(-3, 3, 61, dtype=torch.float64)[:, None]
    log_vars = torch.linspace(-18, 2, 41, dtype=torch.float64)[:, None, None]

    def nats(device: torch.device) -> Tensor:
        p = Gaussian(means.to(device), log_vars.to(device))
        return p.discretized_log_prob(x.to(device))

    ours, cpu = nats(place.device).cpu(), nats(CPU)
    relative = (ours - cpu).abs() / cpu.abs().clamp(min=1)
    found.at_most("log-probabilities from the CPU's", float(relative.max()), 1e-12)
    found.at_most("that are not finite", int((~ours.isfinite()).sum()), 0)
