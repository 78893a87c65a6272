"""Does the test of copying find models that copy, and no others? Small runs of both kinds.

    python tests/benchmarks/copy_test.py --data fashion-mnist/

A run takes seconds: images of 8×8, and a network of three layers in the place of a UNet.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from results import record
from torch import Tensor, nn

from ddpm_pipeline import DDPMScheduler
from ddpm_pipeline.data import to_model_range
from ddpm_pipeline.data.images import ImageData, open_images
from ddpm_pipeline.evaluation import copy_test_of_features

SIDE, FEW, HELD_OUT, SAMPLES = 8, 140, 500, 500
WIDTH, BATCH, LEARNING_RATE, STEPS_OF_SAMPLING = 256, 128, 3e-3, 10
FREQUENCIES = 8


class Network(nn.Module):
    """Predicts v of x_t, (B, 1, 8, 8), from all pixels and waves of t."""

    def __init__(self, num_timesteps: int) -> None:
        super().__init__()
        self.scale = torch.pi / num_timesteps * 2.0 ** torch.arange(FREQUENCIES)
        sizes = (SIDE**2 + 2 * FREQUENCIES, WIDTH, WIDTH, WIDTH)
        layers = [(nn.Linear(n, m), nn.SiLU()) for n, m in pairwise(sizes)]
        self.layers = nn.Sequential(
            *(x for pair in layers for x in pair), nn.Linear(WIDTH, SIDE**2)
        )

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Give v for timesteps of shape (B,)."""
        waves = t[:, None] * self.scale
        given = torch.cat([x_t.flatten(1), waves.sin(), waves.cos()], 1)
        return self.layers(given).view_as(x_t)


def train(images: Tensor, scheduler: DDPMScheduler, steps: int) -> Network:
    """Learn v from images in [-1, 1] with Adam and a learning rate that falls to zero."""
    network = Network(len(scheduler))
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE, foreach=True)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        x_0 = images[torch.randint(len(images), (BATCH,))]
        t, noise = torch.randint(len(scheduler), (BATCH,)), torch.randn_like(x_0)
        x_t = scheduler.add_noise(x_0, noise, t)
        target = scheduler.get_velocity(x_0, noise, t)
        (network(x_t, t) - target).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        falling.step()
    return network


@torch.no_grad()
def draw(network: Network, scheduler: DDPMScheduler) -> Tensor:
    """Draw samples, rounded to bytes as images are."""
    scheduler.set_timesteps(STEPS_OF_SAMPLING)
    x_t = torch.randn(SAMPLES, 1, SIDE, SIDE)
    for t in scheduler.timesteps:
        output = network(x_t, t.expand(SAMPLES))
        x_t = scheduler.step(output, t, x_t).prev_sample
    return ((x_t.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def chosen(data: ImageData, count: int, draws: np.random.Generator) -> Tensor:
    """Take so many of the images at random, in [-1, 1]."""
    return to_model_range(
        data.batch(np.sort(draws.choice(len(data), count, replace=False))).images
    )


def one_run(train_data: ImageData, test_data: ImageData, count: int, seed: int, steps: int) -> Any:
    """Train on so many images, and test for copies in pixels."""
    draws = np.random.default_rng(seed)
    torch.manual_seed(seed)
    images, held_out = chosen(train_data, count, draws), chosen(test_data, HELD_OUT, draws)
    scheduler = DDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )
    scheduler = DDPMScheduler.from_config(scheduler.config, solver="ddim")
    samples = draw(train(images, scheduler, steps), scheduler)
    features = (samples.flatten(1), images.flatten(1), held_out.flatten(1))
    return copy_test_of_features(*features, seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="IDX files of Fashion-MNIST")
    parser.add_argument("--steps", type=int, default=2000, help="updates on few images")
    parser.add_argument("--steps_of_all", type=int, default=300, help="updates on all images")
    parser.add_argument("--runs", type=int, default=20, help="runs of each kind")
    options = parser.parse_args()
    parts = [open_images(options.data, split=s, resolution=SIDE) for s in ("train", "test")]
    found: dict[int, list[Any]] = {FEW: [], len(parts[0]): []}
    steps = {FEW: options.steps, len(parts[0]): options.steps_of_all}
    for seed in range(options.runs):
        for count, ones in found.items():
            ones.append(one_run(*parts, count, seed, steps[count]))
            print(count, seed, ones[-1], flush=True)
    report(found, steps)


def report(found: dict[int, list[Any]], steps: dict[int, int]) -> None:
    """Write docs/benchmarks/copy_test.json."""
    rows = [
        [
            f"{count:,} images",
            seed,
            f"{one.share:.2f} ± {one.standard_error:.2f}",
            f"{one.p_value:.4f}",
            "copies" if one.copies else "",
            f"{one.nearer:.3f} ± {one.nearer_standard_error:.3f}",
            f"{one.nearer_p_value:.2g}",
        ]
        for count, ones in found.items()
        for seed, one in enumerate(ones)
    ]
    notes = [
        f"{count:,} images: {sum(one.p_value < level for one in ones)} of {len(ones)} runs have "
        f"p < {level:g}; by the distances alone {sum(one.nearer_p_value < level for one in ones)}."
        for count, ones in found.items()
        for level in (0.01, 0.05)
    ]
    record(
        "copy_test",
        title="The test of copying",
        command="python tests/benchmarks/copy_test.py --data fashion-mnist/",
        text=f"Fashion-MNIST at {SIDE}×{SIDE}, a network of three layers of {WIDTH}, {BATCH} "
        f"images in each of {' and '.join(f'{n:,}' for n in steps.values())} updates (few images "
        f"and all), {SAMPLES:,} samples from {STEPS_OF_SAMPLING} steps of DDIM, {HELD_OUT:,} "
        "held-out images, distances in pixels. Every run has other weights, draws and held-out "
        f"images, and other {FEW} images. The share of samples that are drawn to training "
        "images, and its p-value, decide: below 0.05 a model is flagged. Beside them stands the "
        "probability that samples are nearer to the training images than held-out images are.",
        columns=("trained on", "run", "share", "p", "flagged", "nearer", "p of nearer"),
        rows=rows,
        notes=notes,
    )


if __name__ == "__main__":
    main()
