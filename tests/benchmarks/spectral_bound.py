"""Bits/dim of few steps: one variance for each frequency and value beside one for all.

    python tests/benchmarks/spectral_bound.py --data fashion-mnist/ \
        --model v runs/few_steps/defaults \
        --model ε runs/few_steps/prediction_type-epsilon-ddpm_beta_schedule-linear

Of the images of --split, which the models were not trained on, some are kept for the bounds and
the others calibrate the model. Both chains take the steps that are optimal for their variances.
"""

from __future__ import annotations

import argparse

import torch
from results import record
from torch import Tensor

from ddpm_pipeline import BoundReport, Calibration, DDPMPipeline, calibrate, variational_bound
from ddpm_pipeline.common.randomness import seeded_generator
from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.data.pixels import to_model_range
from ddpm_pipeline.schedulers.optimal import chain_bits_per_dim

NAME = "spectral_bound"
VARIANCES = ("analytic", "spectral")
COLUMNS = ("model", "K", *VARIANCES, "difference", "± its error", "by the calibration")
Batches = list[tuple[Tensor, None]]


def shuffled(source: str, split: str | None, resolution: int) -> Tensor:
    """All images in [-1, 1], in random order."""
    images = open_images(source, resolution=resolution, split=split, progress=False)
    order = torch.randperm(len(images), generator=seeded_generator(0))
    return to_model_range(images.batch(order).images)


def batches(x_0: Tensor) -> Batches:
    return [(part, None) for part in x_0.split(64)]


def measured(
    pipe: DDPMPipeline, found: Calibration, x_0: Tensor, variance: str, K: int
) -> tuple[BoundReport, float]:
    """The bound of K optimal steps by forward passes, and as the calibration prices it."""
    scheduler = pipe.scheduler.with_calibration(
        found, variance_type=variance, timestep_spacing="optimal"
    )
    scheduler.set_timesteps(K)
    report = variational_bound(
        pipe.unet,
        scheduler,
        batches(x_0),
        timesteps=scheduler.timesteps,
        generator=seeded_generator(3),
    )
    priced = chain_bits_per_dim(
        found, scheduler.schedule, scheduler.timesteps, variance_type=variance
    )
    return report, priced


def rows_of(
    name: str, pipe: DDPMPipeline, data: Tensor, options: argparse.Namespace
) -> list[list]:
    """A row for every K: both bounds, and their difference image by image."""
    held, others = data[: options.num_images], data[options.num_images :]
    found = calibrate(
        pipe.unet,
        pipe.scheduler,
        batches(others),
        num_forwards=options.num_forwards,
        generator=seeded_generator(0),
        progress=True,
    )
    rows = []
    for K in options.K:
        (one, one_priced), (many, many_priced) = (
            measured(pipe, found, held, variance, K) for variance in VARIANCES
        )
        gain = many.per_example - one.per_example
        error = gain.std() / len(gain) ** 0.5
        bits = (one.bits_per_dim, many.bits_per_dim)
        rows.append([name, K, *bits, gain.mean().item(), error.item(), many_priced - one_priced])
        print(rows[-1], flush=True)
    return rows


def report(rows: list[list], options: argparse.Namespace) -> None:
    """Write the table for the page."""
    record(
        NAME,
        title="Few steps: bits/dim with one variance for each frequency and value",
        command="python tests/benchmarks/spectral_bound.py --data fashion-mnist/ "
        "--model v runs/few_steps/defaults "
        "--model ε runs/few_steps/prediction_type-epsilon-ddpm_beta_schedule-linear",
        text="The models of [few calls of the network](#few-calls-of-the-network). Bits/dim "
        f"of {options.num_images:,} test images by forward passes through all K steps, which "
        "are the optimal ones of each variance; their difference image by image; and what "
        f"the calibration says of it, by {options.num_forwards:,} forwards on the other test "
        "images.",
        columns=COLUMNS,
        rows=rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", required=True, help="grey images, such as the IDX files of Fashion-MNIST")
    add("--split", default="test")
    add("--model", nargs=2, action="append", required=True, metavar=("NAME", "FOLDER"))
    add("--K", type=int, nargs="+", default=[10, 25])
    add("--num_images", type=int, default=2_000, help="of the bounds")
    add("--num_forwards", type=int, default=10_000, help="of a calibration")
    options = parser.parse_args()
    rows: list[list] = []
    for name, folder in options.model:
        pipe = DDPMPipeline.from_pretrained(folder)
        data = shuffled(options.data, options.split, pipe.unet.config.sample_size)
        rows += rows_of(name, pipe, data, options)
        report(rows, options)


if __name__ == "__main__":
    main()
