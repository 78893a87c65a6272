"""The estimated bound beside the sum of all T terms: its time, its error, what it states.

    BOUND_MODEL=model BOUND_DATA=fashion-mnist BOUND_SPLIT=test make bench ARGS="-m slow -k bound"

measures a model on images it was not trained on. Without these variables a small model is trained
on scikit-learn's handwritten digits first. The exact sum runs on BOUND_EXACT_IMAGES images (16
unless set; 1000 takes hours on a CPU), and its time is scaled to the 1,000 of the estimate.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from results import record
from sklearn.datasets import load_digits

from ddpm_pipeline import BoundReport, DDPMPipeline, TrainingConfig, train, variational_bound
from ddpm_pipeline.data.images import ImageData, open_images
from ddpm_pipeline.data.pixels import to_model_range
from ddpm_pipeline.likelihood.config import BOUND_SAMPLERS
from ddpm_pipeline.likelihood.transitions import make_transition_sampler

IMAGES = 1000
SAMPLES = 8
ROWS = 7 + len(BOUND_SAMPLERS)


def opened(folder: Path) -> tuple[DDPMPipeline, ImageData]:
    """The model and the images that the environment names, or digits and a model of them."""
    model = os.environ.get("BOUND_MODEL")
    if model is not None:
        pipeline = DDPMPipeline.from_pretrained(model)
        source, split = os.environ["BOUND_DATA"], os.environ.get("BOUND_SPLIT")
        side = pipeline.unet.config.sample_size
        return pipeline, open_images(source, resolution=side, split=split, progress=False)
    digits = (load_digits().images * (255 / 16)).round().astype(np.uint8)
    np.save(folder / "digits.npy", digits[IMAGES:])
    config = TrainingConfig(
        train_data_dir=str(folder / "digits.npy"),
        output_dir=str(folder / "model"),
        cache_dir=str(folder / "cache"),
        resolution=8,
        max_train_steps=400,
        save_images_steps=400,
        checkpointing_steps=0,
        compile=False,
    )
    train(config)
    data = open_images(digits[:IMAGES], resolution=8, progress=False)
    return DDPMPipeline.from_pretrained(folder / "model"), data


class Subject:
    """A model and 1,000 images in random order."""

    def __init__(self, folder: Path) -> None:
        self.pipeline, data = opened(folder)
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
        self.x_0 = to_model_range(data.batch(order[:IMAGES]).images)
        self.few = int(os.environ.get("BOUND_EXACT_IMAGES", "16"))

    def bound(self, images: torch.Tensor, samples: int | None) -> tuple[BoundReport, float]:
        """The report of some images, and its seconds."""
        start = time.perf_counter()
        report = variational_bound(
            self.pipeline.unet,
            self.pipeline.scheduler,
            images,
            num_timestep_samples=samples,
            generator=torch.Generator().manual_seed(0),
        )
        return report, time.perf_counter() - start


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject(tmp_path_factory.mktemp("bound"))


@pytest.fixture(scope="module")
def rows(subject: Subject) -> Iterator[list[list[str | float]]]:
    """What the tests find, recorded if both of them ran."""
    found: list[list[str | float]] = []
    yield found
    if len(found) == ROWS:
        side = subject.pipeline.unet.config.sample_size
        record(
            "bound_speed",
            title="The bound: its estimate beside the sum of all terms",
            command="BOUND_MODEL=runs/time/ours-1590 BOUND_DATA=fashion-mnist/ BOUND_SPLIT=test "
            'make bench ARGS="-m slow -k bound_speed"',
            text=f"Bits/dim of {IMAGES:,} images of {side} × {side} from {SAMPLES} timesteps "
            f"each, on one thread. The sum of all {len(subject.pipeline.scheduler):,} terms was "
            f"taken of {subject.few} of them and its time scaled. The spread is that of estimates "
            f"over 200 seeds, from the terms of {subject.few} images; `rate` draws timesteps in "
            "proportion to what they are expected to add.",
            columns=("what", "measured", "unit"),
            rows=found,
        )


@pytest.mark.slow
@pytest.mark.timeout(36_000)
def test_a_thousand_images_to_a_hundredth_of_a_bit_in_a_fiftieth_of_the_time(
    subject: Subject, rows: list[list[str | float]]
) -> None:
    few = subject.x_0[: subject.few]
    subject.bound(few, 1)  # warm up
    exact, exact_time = subject.bound(few, None)
    estimate, _ = subject.bound(few, SAMPLES)
    report, seconds = subject.bound(subject.x_0, SAMPLES)
    full_time = exact_time / exact.num_images * report.num_images
    print(
        f"\n{report}\n{seconds:.1f} s for {report.num_images} images; the sum of all "
        f"{len(report.chain)} terms {full_time:.0f} s (from {exact.num_images} images in "
        f"{exact_time:.1f} s), {full_time / seconds:.0f} times as long\n"
        f"the same {exact.num_images} images: exact {exact.bits_per_dim:.4f}, estimate "
        f"{estimate.bits_per_dim:.4f} ± {estimate.standard_error_timesteps:.4f}"
    )
    rows += [
        ["the estimate", seconds, "s"],
        ["the sum of all terms, scaled", full_time, "s"],
        ["their ratio", full_time / seconds, "at least 50"],
        [
            "standard error from the choice of timesteps",
            report.standard_error_timesteps,
            "bits/dim",
        ],
        [f"exact, {exact.num_images} images", exact.bits_per_dim, "bits/dim"],
        [f"estimate, the same {exact.num_images}", estimate.bits_per_dim, "bits/dim"],
        ["its stated standard error", estimate.standard_error_timesteps, "bits/dim"],
    ]
    # Images of 64 pixels have terms that vary more with the noise.
    assert report.standard_error_timesteps < (0.01 if report.settings.dims > 500 else 0.02)
    assert full_time > 50 * seconds
    assert estimate.forwards < exact.forwards / 100
    error = abs(estimate.bits_per_dim - exact.bits_per_dim)
    assert error < 3 * estimate.standard_error_timesteps


@pytest.mark.slow
@pytest.mark.timeout(36_000)
def test_low_discrepancy_has_at_most_0_65_of_the_spread_of_uniform_draws(
    subject: Subject, rows: list[list[str | float]]
) -> None:
    """Draws for 1,000 images with the exact terms of a few, for many seeds."""
    reports = [subject.bound(one, None)[0] for one in subject.x_0[: subject.few].split(1)]
    terms = torch.stack([report.transitions for report in reports])
    terms, spread = terms[torch.arange(IMAGES) % len(terms)], {}
    schedule, chain = subject.pipeline.scheduler.schedule, reports[0].chain
    for name in BOUND_SAMPLERS:
        sampler = make_transition_sampler(name, schedule, chain, SAMPLES)
        draws = (sampler.draw(seed, torch.arange(IMAGES)) for seed in range(200))
        means = [(weights * terms.gather(1, k)).sum(1).mean() for k, weights in draws]
        spread[name] = (torch.stack(means).std() / terms.sum(1).mean()).item()
    listed = ", ".join(f"{name} {value:.4f}" for name, value in spread.items())
    print(f"\nrelative standard deviation of estimates from {len(terms)} images: {listed}")
    rows += [[f"spread with `{name}`", value, "of the mean"] for name, value in spread.items()]
    assert spread["low_discrepancy"] < 0.65 * spread["uniform"]
    assert spread["rate"] < 0.1 * spread["uniform"]
