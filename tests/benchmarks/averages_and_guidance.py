"""How the length of an average, and guidance by an early one, change the distance to real images.

A class-conditional model is trained on Fashion-MNIST with snapshots of averages; then images of
averages of several lengths, and of one guided by earlier and longer ones at equal K, are compared
with the test images in features:

    python tests/benchmarks/averages_and_guidance.py FASHION_MNIST FEATURES WORK --images 1000

FEATURES is a folder that ``examples/train_features.py`` wrote. What is measured already is kept
in docs/benchmarks/averages_and_guidance.json, and a run that was stopped goes on with the rest.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from ddpm_pipeline import TrainingConfig, train
from ddpm_pipeline.common import write_json
from ddpm_pipeline.evaluation import EvaluateConfig, evaluate
from ddpm_pipeline.training import save_average

RESULTS = Path(__file__).parents[2] / "docs/benchmarks/averages_and_guidance.json"
LENGTHS = (0.02, 0.05, 0.1, 0.15, 0.25)
BASE = 0.05
STEPS = 6


@dataclass(frozen=True)
class Case:
    """A way of drawing: the average, and what guides it if anything does."""

    sigma_rel: float
    scale: float = 1.0
    guide: tuple[float, float] | None = None  # its length, and its update as a share of the run
    interval: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        words = f"average {self.sigma_rel:g}"
        if self.scale == 1:
            return words
        by = "the null class"
        if self.guide is not None:
            by = f"average {self.guide[0]:g} at {self.guide[1]:.0%} of the run"
        where = "" if self.interval is None else f", t in {self.interval}"
        return f"{words}, w = {self.scale:g} by {by}{where}"


CASES = [
    Case(BASE),
    Case(BASE, 1.5, (BASE, 0.25)),
    *(Case(length) for length in LENGTHS if length != BASE),
    Case(BASE, 2.0, (BASE, 0.25)),
    Case(BASE, 1.5, (BASE, 0.5)),
    Case(BASE, 1.5, (BASE, 0.25), (200, 800)),
    Case(BASE, 1.5),
    Case(BASE, 2.0, (BASE, 0.5)),
]


def measured(options: argparse.Namespace) -> dict:
    """Train if there is no run yet, then measure what was not measured yet."""
    run = Path(options.work, "run")
    if not (run / "post-hoc").is_dir():
        train(
            TrainingConfig(
                train_data_dir=options.data,
                output_dir=str(run),
                resolution=28,
                class_conditional=True,
                max_train_steps=1000,
                post_hoc_steps=25,
                checkpointing_steps=100,
            )
        )
    last = max(int(path.stem.removeprefix("step-")) for path in (run / "post-hoc").glob("step-*"))
    found = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"cases": []}
    found |= {"updates": last, "num_images": options.images, "num_inference_steps": STEPS}
    known = {case["name"] for case in found["cases"]}
    for case in CASES:
        if case.name not in known:
            found["cases"].append(measure(case, run, last, options))
            write_json(RESULTS, found)
    return found


def measure(case: Case, run: Path, last: int, options: argparse.Namespace) -> dict:
    """Draw images in one way, and give their distance."""
    guide = None
    if case.guide is not None:
        guide = model_of(run, case.guide[0], round(last * case.guide[1] / 25) * 25)
    report = evaluate(
        EvaluateConfig(
            model=model_of(run, case.sigma_rel, last),
            guidance_model=guide,
            guidance_scale=case.scale,
            guidance_interval=case.interval,
            data=options.data,
            split="test",
            features=options.features,
            num_images=options.images,
            num_inference_steps=STEPS,
            solver="multistep",
            batch_size=64,
            num_nearest=0,
            bound_images=0,
        )
    )
    return {
        "name": case.name,
        "frechet_distance": report.frechet_distance,
        "kid": report.kid,
        "kid_standard_error": report.kid_standard_error,
        "precision": report.precision,
        "recall": report.recall,
    }


def model_of(run: Path, sigma_rel: float, step: int) -> str:
    """Make the model of an average, once."""
    folder = run.parent / f"average-{sigma_rel:g}-{step}"
    if not folder.is_dir():
        save_average(run, folder, sigma_rel, step)
    return str(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("features")
    parser.add_argument("work")
    parser.add_argument("--images", type=int, default=320)
    for case in measured(parser.parse_args())["cases"]:
        print(f"{case['name']:60} {case['frechet_distance']:.1f}")


if __name__ == "__main__":
    main()
