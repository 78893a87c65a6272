"""How little data a calibration needs, and what few calibrated steps are worth.

    python tests/benchmarks/trained_calibration.py MODEL DATA [--split test] [--num_images 256]

MODEL is a folder with weights that were trained, DATA images that they were not trained on. Fails
if 10 images per timestep lose more than 0.005 bits/dim, or if the bound of 25 steps, measured by
forward passes, is above that of all T with the posterior's variance.
"""

import argparse
import math
import time

import torch
from results import record
from torch import Tensor

from ddpm_pipeline import Calibration, DDPMPipeline, calibrate, variational_bound
from ddpm_pipeline.calibration_chains import chain_bits_per_dim, optimal_timesteps
from ddpm_pipeline.calibration_costs import move_costs
from ddpm_pipeline.data import open_images, seeded_generator, to_model_range
from ddpm_pipeline.process import VarianceType
from ddpm_pipeline.spacing import spaced_timesteps

Batches = list[tuple[Tensor, Tensor | None]]


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


def compare_bounds(pipe: DDPMPipeline, found: Calibration, data: Batches) -> tuple[float, float]:
    """Bits/dim of 25 analytic, optimal steps and of all T with fixed_small, by forward passes."""
    T = len(pipe.scheduler)
    best = pipe.scheduler.with_calibration(found, timestep_spacing="optimal")
    best.set_timesteps(25)
    usual = pipe.scheduler.with_calibration(found, variance_type="fixed_small")
    bits = []
    for scheduler, chain, draws in (
        (best, best.timesteps, None),
        (usual, range(T - 1, -1, -1), 16),
    ):
        name = scheduler.variance_type
        report = variational_bound(
            pipe.unet,
            scheduler,
            data,
            timesteps=chain,
            num_timestep_samples=draws,
            x_0_variance=found.x_0_variance if name == "analytic" else None,
            generator=seeded_generator(3),
        )
        priced = chain_bits_per_dim(found, scheduler.schedule, chain, variance_type=name)
        print(
            f"K = {len(chain)}, {name}: {report.bits_per_dim:.3f} ± {report.standard_error:.3f} "
            f"bits/dim; from the calibration {priced:.3f} ± {found.standard_error:.3f}"
        )
        bits.append(report.bits_per_dim)
    return tuple(bits)


def report(
    pipe: DDPMPipeline, found: Calibration, lost: dict[int, float], best: float, usual: float
) -> None:
    """The table of bits/dim over K, and what forward passes and more data say of it."""
    T, schedule = len(pipe.scheduler), pipe.scheduler.schedule

    def bits(K: int, variance: VarianceType, *, optimal: bool) -> float:
        if optimal:
            chain = optimal_timesteps(found, schedule, K, variance_type=variance)
        else:
            chain = spaced_timesteps(T, K, "linspace")
        return chain_bits_per_dim(found, schedule, chain, variance_type=variance)

    columns = (10, 25, 50, 100, T)
    measured = (
        f"By forward passes, on images that the calibration also saw: {best:.3f} with analytic "
        f"variances and 25 optimal steps, {usual:.3f} with fixed_small and all {T:,}."
    )
    record(
        "calibrated_bound",
        title="Few steps: bits/dim",
        command="python tests/benchmarks/trained_calibration.py runs/calibrated/defaults "
        "fashion-mnist/ --split test",
        text="A model trained here by `ddpm train` with its defaults for 1,850 updates, and "
        f"calibrated with {found.num_forwards:,} forwards on test images, 10 per timestep. "
        "Bits/dim of chains of K steps, evenly spaced or optimal, from the calibration.",
        columns=("variance", "spacing", *(f"K = {K:,}" for K in columns)),
        rows=[
            [name, spacing, *(bits(K, name, optimal=spacing == "optimal") for K in columns)]
            for name in ("fixed_large", "fixed_small", "analytic")
            for spacing in ("even", "optimal")
        ],
        notes=[measured, f"10 images per timestep lose {max(lost.values()):.5f} against 50."],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--split")
    parser.add_argument("--num_images", type=int, default=256, help="of the bounds")
    options = parser.parse_args()
    pipe = DDPMPipeline.from_pretrained(options.model)
    data, T = read(pipe, options.data, options.split), len(pipe.scheduler)

    start = time.perf_counter()
    few, many = (
        calibrate(
            pipe.unet,
            pipe.scheduler,
            data,
            generator=seeded_generator(per_timestep),
            num_forwards=per_timestep * T,
            progress=True,
        )
        for per_timestep in (10, 50)
    )
    print(f"{60 * T} forwards in {time.perf_counter() - start:.0f} s")
    lost = lost_by_few_images(pipe, few, many)
    for K, bits in lost.items():
        print(f"K = {K}: {bits:.5f} bits/dim lost with 10 images per timestep")
    best, usual = compare_bounds(pipe, few, data[: max(options.num_images // 64, 1)])
    assert max(lost.values()) <= 0.005
    assert best <= usual
    report(pipe, few, lost, best, usual)


if __name__ == "__main__":
    main()
