"""Covariances of each image by the network's Jacobian, beside the measured ones at equal calls.

    python tests/benchmarks/jacobian_covariances.py --model runs/few_steps/defaults \
        --data fashion-mnist/ --features features/

Tweedie's formula says that Cov(x_0 | x_t) = (1 - ᾱ_t)/√ᾱ_t ∂x̂_0/∂x_t. Two papers of 2026 draw the
noise of a step by products of that Jacobian with vectors:

- arXiv:2605.13910 adds noise to DDIM's steps, by a covariance of frequencies, from one product;
- arXiv:2605.22723 takes a root of the covariance of DDPM's steps times a vector, by Lanczos'
  method with three.

These are our own short versions of both. A product is taken by a central difference, two calls of
the network; torch's forward mode fails in the group norm of diffusers' UNet. The last step has no
noise and needs none; the first, where x_t holds nothing of x_0 and Tweedie's formula is 0 / 0,
takes the measured variances. Calibrated steps cost one call each.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from results import record
from spectral_bound import batches, shuffled
from torch import Tensor
from trained_models import BATCH, Judge, make_judge, open_model

from ddpm_pipeline import Calibration, DDPMPipeline, DDPMScheduler, calibrate
from ddpm_pipeline.common.randomness import seeded_generator
from ddpm_pipeline.data.pixels import uint8_from_unit_range
from ddpm_pipeline.diffusion import FrequencyBasis, predict_x_0
from ddpm_pipeline.diffusion.ddim import ddim_posterior
from ddpm_pipeline.evaluation.metrics import Moments, frechet_distance
from ddpm_pipeline.networks import Denoiser, run_denoiser
from ddpm_pipeline.schedulers import Solver

NAME = "jacobian_covariances"
RINGS = 8
LANCZOS = 3
METHODS = {"one product": (3, 5), "Lanczos": (3,)}
"""And the numbers of steps of each."""
LEAST_SIGNAL = 1e-3
DIFFERENCE = 0.01
Product = Callable[[Tensor], Tensor]


def jacobian_times(f: Product, x: Tensor, v: Tensor) -> Tensor:
    """The derivative of f at x along v, by a central difference."""
    length = DIFFERENCE / v.square().mean().sqrt()
    return (f(x + length * v) - f(x - length * v)) / (2 * length)


def by_one_product(
    basis: FrequencyBasis, rings: Tensor, covariance: Product, z: Tensor, signs: Tensor
) -> Tensor:
    """Noise with a variance for each ring of frequencies, which one product estimates.

    Arguments:
        basis: Of frequencies.
        rings: Number of the ring of each, int64, shape (C, H, W).
        covariance: Of x_0 given x_t, times images of shape (B, C, H, W).
        z: Standard normal, of that shape.
        signs: 1 or -1 at random.
    """
    diagonal = signs * basis.to_frequencies(covariance(basis.to_pixels(signs)))
    sums = diagonal.new_zeros(len(z), int(rings.max()) + 1)
    sums.index_add_(1, rings.flatten(), diagonal.flatten(1))
    variance = (sums / rings.flatten().bincount()).clamp(min=0)[:, rings]
    return basis.to_pixels(variance.sqrt() * z)


def by_lanczos(
    covariance: Product, root: Callable[[Tensor], Tensor], z: Tensor, *, steps: int = LANCZOS
) -> Tensor:
    """The function ``root`` of a symmetric operator, times z, for each image by itself.

    Exact once there are as many steps as the operator has distinct eigenvalues.
    """
    norm = z.flatten(1).norm(dim=1)
    q = [z.flatten(1) / norm[:, None]]
    diagonal, beside = [], []
    for step in range(steps):
        w = covariance(q[-1].view_as(z)).flatten(1)
        diagonal.append((w * q[-1]).sum(1))
        for known in q:  # twice would be safer, but three vectors stay orthogonal
            w = w - (w * known).sum(1, keepdim=True) * known
        length = w.norm(dim=1)
        if step + 1 < steps:
            beside.append(length)
            q.append(w / length.clamp(min=torch.finfo(w.dtype).tiny)[:, None])
    matrix = torch.diag_embed(torch.stack(diagonal, 1))
    for offset in (-1, 1) if beside else ():
        matrix = matrix + torch.diag_embed(torch.stack(beside, 1), offset=offset)
    values, vectors = torch.linalg.eigh(matrix)
    first = (vectors * root(values)[:, None, :] * vectors[:, :1, :]).sum(2)
    return (torch.stack(q, 2) @ (first * norm[:, None])[:, :, None])[:, :, 0].view_as(z)


def rings_of(shape: tuple[int, ...]) -> Tensor:
    """Rings of the frequencies of images (C, H, W), some for each channel, in equal ratios."""
    C, *sizes = shape
    axes = torch.meshgrid(*(torch.arange(n) / n for n in sizes), indexing="ij")
    radius = sum(axis.square() for axis in axes).sqrt() * min(sizes)
    octaves = (radius.clamp(min=0.5) * 2).log2()  # 0 for what is constant
    ring = (octaves / octaves.max() * (RINGS - 1)).round().long()
    ring = ring.unique(return_inverse=True)[1]  # without empty ones
    return ring + (ring.max() + 1) * torch.arange(C).reshape(C, *[1] * len(sizes))


class Walk:
    """Draws images by steps whose noise comes from the network's Jacobian.

    Arguments:
        model: The network.
        scheduler: With a calibration that has a spectrum, and the steps.
        method: "one product" or "Lanczos".
    """

    def __init__(self, model: Denoiser, scheduler: DDPMScheduler, method: str) -> None:
        self.model, self.scheduler, self.method = model, scheduler, method
        self.schedule, self.calls = self.scheduler.schedule, 0
        self.spectrum = self.scheduler.x_0_spectrum
        self.rings = rings_of(self.spectrum.basis.shape)

    def x_0_hat(self, x_t: Tensor, t: int) -> Tensor:
        self.calls += 1
        output = run_denoiser(self.model, x_t, torch.full((len(x_t),), t))
        kind = self.scheduler.config.prediction_type
        return predict_x_0(self.schedule, output, x_t, torch.tensor(t), prediction_type=kind)

    def step(self, x_t: Tensor, t: int, s: int, generator: torch.Generator) -> Tensor:
        """Of DDIM without own noise, or of DDPM, with the noise that x_0's covariance asks for."""
        eta = 1.0 if self.method == "Lanczos" else 0.0
        from_x_0, from_x_t, own = map(float, ddim_posterior(self.schedule, t, s, eta))
        x_0 = self.x_0_hat(x_t, t)
        bound = self.scheduler.config.clip_sample_range
        x_0_clamped = x_0.clamp(-bound, bound) if self.scheduler.config.clip_sample else x_0
        if s < 0:
            return x_0_clamped
        mean = from_x_t * x_t + from_x_0 * x_0_clamped
        z, basis = torch.randn(x_t.shape, generator=generator).to(x_t), self.spectrum.basis
        a = float(self.schedule.alpha_bar(torch.tensor(t)))
        if a < LEAST_SIGNAL:  # Tweedie's formula is 0 / 0 at no signal; both take the measured one
            variance = self.spectrum.at(torch.tensor([t])).to(z)
            return mean + basis.to_pixels((own + from_x_0**2 * variance).sqrt() * z)

        def covariance(v: Tensor) -> Tensor:
            return (1 - a) / a**0.5 * jacobian_times(lambda x: self.x_0_hat(x, t), x_t, v)

        if self.method == "Lanczos":
            return mean + by_lanczos(
                covariance, lambda c: (own + from_x_0**2 * c.clamp(min=0)).sqrt(), z
            )
        signs = (torch.randint(2, x_t.shape, generator=generator) * 2 - 1).to(x_t)
        return mean + from_x_0 * by_one_product(basis, self.rings, covariance, z, signs)

    @torch.no_grad()
    def images(self, count: int, K: int, generator: torch.Generator) -> Tensor:
        """So many images from K steps, in [-1, 1], shape (count, C, H, W)."""
        self.scheduler.set_timesteps(K)
        chain = [*map(int, self.scheduler.timesteps), -1]
        x = torch.randn(count, *self.spectrum.basis.shape, generator=generator)
        for t, s in pairwise(chain):
            x = self.step(x, t, s, generator)
        return x


def distance_of(walk: Walk, K: int, judge: Judge) -> tuple[float, int]:
    """The distance of images, and how many calls of the network each of them took."""
    drawn = Moments(judge.real.dim)
    for i in range(judge.num_images // BATCH):
        x = walk.images(BATCH, K, seeded_generator(i))
        levels = torch.from_numpy(uint8_from_unit_range((x.clamp(-1, 1) + 1) / 2))
        drawn.update(judge.extractor(levels.permute(0, 3, 1, 2)))
    return frechet_distance(drawn, judge.real), walk.calls * BATCH // judge.num_images


def calibrated(pipe: DDPMPipeline, folder: Path, data: Tensor, num_forwards: int) -> Calibration:
    """The one that few_steps.py kept beside the model, or else a new one."""
    kept = folder / f"few_steps_calibration_{num_forwards}.json"
    if kept.exists():
        return Calibration.from_dict(json.loads(kept.read_text(encoding="utf-8")))
    return calibrate(
        pipe.unet,
        pipe.scheduler,
        batches(data),
        num_forwards=num_forwards,
        generator=seeded_generator(0),
        progress=True,
    )


def rows_of(pipe: DDPMPipeline, found: Calibration, judge: Judge) -> list[list]:
    """A row for each number of calls that K steps of a method take, and ours at as many."""

    def on(spacing: str, **options: object) -> DDPMPipeline:
        # Of the last noise, as of a rival's, nothing is held back.
        scheduler = pipe.scheduler.with_calibration(
            found, last_noise_levels=1e9, timestep_spacing=spacing, **options
        )
        return DDPMPipeline(pipe.unet, scheduler)

    rows = []
    for method, Ks in METHODS.items():
        eta = 1.0 if method == "Lanczos" else 0.0
        for K in Ks:
            same = on("optimal_samples", variance_type="spectral", solver=Solver("ddim"))
            best = on("optimal_samples", variance_type="fixed_small", solver=Solver("multistep"))
            walk = Walk(pipe.unet.eval(), same.scheduler, method)
            distance, count = distance_of(walk, K, judge)
            row = [method, K, count, distance]
            row.append(judge.distance(same, K=K, eta=eta))
            row += [judge.distance(same, K=count, eta=eta), judge.distance(best, K=count)]
            rows.append(row)
            print(row, flush=True)
    return rows


def report(rows: list[list], num_images: int) -> None:
    """Write the table for the page."""
    record(
        NAME,
        title="Few calls: covariances by the network's Jacobian",
        command="python tests/benchmarks/jacobian_covariances.py --model runs/few_steps/defaults "
        "--data fashion-mnist/ --features features/",
        text="The model of v of [few calls of the network](#few-calls-of-the-network), distance "
        f"of {num_images:,} images. Noise by the Jacobian of the network, in our own "
        "short versions of two methods: arXiv:2605.13910 (steps of DDIM with noise by "
        "frequencies, one product a step) and arXiv:2605.22723 (steps of DDPM, Lanczos' method "
        "with three). A product takes two calls; the last step needs none, nor does the "
        "first, which has the measured variances, as x_t holds nothing of x_0 there. Beside them "
        "the measured spectral variances, which cost no calls, with as many steps and with as "
        'many calls, and solver "multistep" with as many calls; all on `optimal_samples` steps.',
        columns=(
            "method",
            "K",
            "calls",
            "distance",
            "spectral, K steps",
            "spectral, as many calls",
            "multistep, as many calls",
        ),
        rows=rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--model", type=Path, required=True)
    add("--data", required=True, help="IDX files of Fashion-MNIST")
    add("--features", required=True, help="what train_features.py wrote")
    add("--num_images", type=int, default=1000)
    add("--num_forwards", type=int, default=10_000, help="of a calibration, where there is none")
    options = parser.parse_args()
    pipe = open_model(options.model)
    data = shuffled(options.data, "test", pipe.unet.config.sample_size)
    found = calibrated(pipe, options.model, data, options.num_forwards)
    judge = make_judge(options.features, options.data, options.num_images)
    report(rows_of(pipe, found, judge), options.num_images)


if __name__ == "__main__":
    main()
