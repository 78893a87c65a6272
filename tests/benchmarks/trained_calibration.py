"""How little data a calibration needs, and what few calibrated steps are worth.

    python tests/benchmarks/trained_calibration.py DATA MODEL [MODEL ...] [--split test]

A MODEL is a folder of `ddpm train`, DATA images that it was not trained on. Fails, at the end, if
10 images per timestep lose more than 0.005 bits/dim, or if the bound of 25 steps, measured by
forward passes, is above that of all T with the posterior's variance.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from results import record
from torch import Tensor

from ddpm_pipeline import (
    BoundReport,
    Calibration,
    DDPMPipeline,
    NoiseSchedule,
    TrainingConfig,
    calibrate,
    variational_bound,
)
from ddpm_pipeline.common.randomness import seeded_generator
from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.data.pixels import to_model_range
from ddpm_pipeline.diffusion.costs import move_costs
from ddpm_pipeline.diffusion.spacing import spaced_timesteps
from ddpm_pipeline.schedulers.optimal import chain_bits_per_dim, optimal_timesteps

COLUMNS = (10, 25, 50, 100, 1000)
MOST_LOST = 0.005

Batches = list[tuple[Tensor, Tensor | None]]
Row = list[str | int | float]


def read(pipe: DDPMPipeline, source: str, split: str | None) -> Batches:
    """All images in random order, with labels for a class-conditional model."""
    unet = pipe.unet.config
    data = open_images(
        source,
        resolution=unet.sample_size,
        channels=unet.in_channels,
        split=split,
        labels=unet.num_class_embeds is not None,
    )
    order = torch.randperm(len(data), generator=seeded_generator(0))
    parts = (data.batch(part) for part in order.split(64))
    return [(to_model_range(images), labels) for images, labels in parts]


def lost_by_few_images(
    pipe: DDPMPipeline, few: Calibration, many: Calibration
) -> dict[int, float]:
    """Bits/dim that variances from few images lose against those from many, by K."""
    T, schedule, lost = len(pipe.scheduler), pipe.scheduler.schedule, {}
    for K in (10, 25, 100, T):
        chain = spaced_timesteps(T, K, "linspace")
        t, s = chain[:-1], chain[1:]
        nats = [
            move_costs(schedule, t, s, many.x_0_error[t], x_0_variance=found.x_0_variance[t])
            for found in (few, many)
        ]
        lost[K] = (nats[0] - nats[1]).sum().item() / math.log(2)
    return lost


def compare_bounds(
    pipe: DDPMPipeline, found: Calibration, data: Batches
) -> tuple[BoundReport, BoundReport]:
    """Bounds of 25 analytic, optimal steps and of all T with fixed_small, by forward passes."""
    T = len(pipe.scheduler)
    best = pipe.scheduler.with_calibration(found, timestep_spacing="optimal")
    best.set_timesteps(25)
    usual = pipe.scheduler.with_calibration(found, variance_type="fixed_small")
    reports = []
    for scheduler, chain, draws in (
        (best, best.timesteps, None),
        (usual, range(T - 1, -1, -1), 8),
    ):
        name = scheduler.variance_type
        report = variational_bound(
            pipe.unet,
            scheduler,
            data,
            timesteps=chain,
            num_timestep_samples=draws,
            generator=seeded_generator(3),
        )
        priced = chain_bits_per_dim(found, scheduler.schedule, chain, variance_type=name)
        print(
            f"K = {len(chain)}, {name}: {report.bits_per_dim:.3f} ± {report.standard_error:.3f} "
            f"bits/dim; from the calibration {priced:.3f} ± {found.standard_error:.3f}"
        )
        reports.append(report)
    return tuple(reports)


def priced_rows(updates: int, found: Calibration, schedule: NoiseSchedule) -> list[Row]:
    """(updates, variance, spacing, bits/dim of each K), from the calibration alone."""
    rows = []
    for name in ("fixed_large", "fixed_small", "analytic"):
        for spacing in ("even", "optimal"):
            row = [updates, name, spacing]
            for K in COLUMNS:
                if spacing == "optimal":
                    chain = optimal_timesteps(found, schedule, K, variance_type=name)
                else:
                    chain = spaced_timesteps(len(schedule), K, "linspace")
                row.append(chain_bits_per_dim(found, schedule, chain, variance_type=name))
            rows.append(row)
    return rows


def report(rows: list[Row], notes: list[str], num_forwards: int) -> None:
    """The table of bits/dim over K, and what forward passes and more data say of it."""
    record(
        "calibrated_bound",
        title="Few steps: bits/dim",
        command="python tests/benchmarks/trained_calibration.py fashion-mnist/ "
        "runs/time/ours-1850 runs/calibrated/defaults --split test",
        text="Models trained here by `ddpm train` with its defaults for so many updates, and "
        f"calibrated with {num_forwards:,} forwards on test images, 10 per timestep. Bits/dim of "
        "chains of K steps, evenly spaced or optimal, from the calibration; below, by forward "
        "passes on some of the images that the calibration saw, 25 optimal steps with analytic "
        "variances beside all T with fixed_small, and what 10 images per timestep lose against "
        "50.",
        columns=("updates", "variance", "spacing", *(f"K = {K:,}" for K in COLUMNS)),
        rows=rows,
        notes=notes,
    )


def calibrations(pipe: DDPMPipeline, data: Batches) -> Iterator[Calibration]:
    """With 10 and with 50 images per timestep."""
    for per_timestep in (10, 50):
        yield calibrate(
            pipe.unet,
            pipe.scheduler,
            data,
            generator=seeded_generator(per_timestep),
            num_forwards=per_timestep * len(pipe.scheduler),
            progress=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--split")
    parser.add_argument("--num_images", type=int, default=2048, help="of the bounds")
    options = parser.parse_args()
    rows: list[Row] = []
    notes, misses = [], []
    for model in options.models:
        pipe = DDPMPipeline.from_pretrained(model)
        config = TrainingConfig.from_json(Path(model, "training_config.json"))
        data = read(pipe, options.data, options.split)
        few, many = calibrations(pipe, data)
        lost = max(lost_by_few_images(pipe, few, many).values())
        best, usual = compare_bounds(pipe, few, data[: max(options.num_images // 64, 1)])
        rows += priced_rows(config.max_train_steps, few, pipe.scheduler.schedule)
        more = best.per_example - usual.per_example
        notes.append(
            f"{config.max_train_steps:,} updates: {best.bits_per_dim:.4f} with 25 steps, "
            f"{usual.bits_per_dim:.4f} with all T, {more.mean():+.4f} ± "
            f"{more.std() / len(more) ** 0.5:.4f} image by image; {lost:.5f} lost."
        )
        print(notes[-1], flush=True)
        report(rows, notes, few.num_forwards)
        if lost > MOST_LOST or best.bits_per_dim > usual.bits_per_dim:
            misses.append(notes[-1])
    if misses:
        raise SystemExit("short of what is wanted: " + " ".join(misses))


if __name__ == "__main__":
    main()
