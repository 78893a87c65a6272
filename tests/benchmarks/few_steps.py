"""Fréchet distance over calls of the network: our solvers on calibrated steps beside stock's.

    python tests/benchmarks/few_steps.py \
        --data fashion-mnist/ --features features/ --output runs/few_steps
    python tests/benchmarks/few_steps.py --model colour runs/demo-colour/model \
        --data runs/demo-colour/data --calibration_split validation \
        --features emoji-features/ --output runs/few_steps

Without --model the two of Fashion-MNIST are trained first, by ``ddpm train`` with these options
and else its defaults. Models may have any size, channels and classes. Each is calibrated on other
images than it was trained on, unless it is saved with a calibration. Image i of every scheduler
begins in the same noise and has the same class.

A row of stock's is on the spacing that is the best with these calls, by ``--num_tried`` images.
Every distance is kept as it is found in ``few_steps.jsonl``: a command that was killed goes on,
and commands for some --models, --samplers or --calls add to the same tables, also at the same
time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import diffusers
import torch
from few_steps_tables import CALLS, OURS, STOCK, Row, show
from results import DOCS
from trained_models import train_recipe

from ddpm_pipeline import Calibration, DDPMPipeline, calibrate
from ddpm_pipeline.calibration.config import SAMPLERS
from ddpm_pipeline.common import write_json
from ddpm_pipeline.common.randomness import seeded_generator
from ddpm_pipeline.data import ImageData, ModelBatches
from ddpm_pipeline.data.model_images import open_model_images
from ddpm_pipeline.data.training_images import open_split
from ddpm_pipeline.evaluation import (
    FeatureExtractor,
    check_count,
    classes_as_often,
    frechet_distance,
    load_features,
    reference_statistics,
    sample_statistics,
)
from ddpm_pipeline.networks import computes_in_bfloat16
from ddpm_pipeline.pipelines import ImageSampler, SamplingOptions
from ddpm_pipeline.schedulers import Solver

STEPS = 1500
RECIPES = {
    "v": "",
    "ε": "--prediction_type epsilon --ddpm_beta_schedule linear",
}
CLASSES = {
    "UniPC": ("UniPCMultistepScheduler", {}),
    "DPM-Solver++ 2M": ("DPMSolverMultistepScheduler", {}),
    "DPM-Solver++ 2M SDE": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "SA-Solver": ("SASolverScheduler", {}),
    "DEIS": ("DEISMultistepScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "DDIM": ("DDIMScheduler", {}),
    "DDPM": ("DDPMScheduler", {}),
}
SPACINGS = ("trailing", "linspace", "leading")


@dataclass(frozen=True, eq=False)
class Contest:
    """A model, the images it is compared with, and how.

    Arguments:
        name: In the tables.
        folder: Of the model.
        saved: The model as it is there.
        data: All images of the reference.
        extractor: Of features.
        kept: The file of all rows.
        options: The command's.
    """

    name: str
    folder: Path
    saved: DDPMPipeline
    data: ImageData
    extractor: FeatureExtractor
    kept: Path
    options: argparse.Namespace

    @classmethod
    def of(cls, name: str, folder: Path, options: argparse.Namespace) -> Contest:
        """Open what it needs."""
        saved = DDPMPipeline.from_pretrained(folder)
        data = _open(folder, saved, options.data, options.reference_split)
        extractor = load_features(options.features)
        features = extractor(data.pictures(range(1)))
        check_count(min(options.num_images, options.num_tried), features.shape[1])
        kept = options.output / "few_steps.jsonl"
        return cls(name, folder, saved, data, extractor, kept, options)

    def row(self, sampler: str, calls: int) -> Row:
        """The row of a sampler; stock's on its best spacing."""
        if sampler in OURS:
            return self.distance(sampler, OURS[sampler], calls, self.options.num_images)
        best, *others = self.options.spacings
        if others:
            tried = [
                self.distance(sampler, spacing, calls, self.options.num_tried)
                for spacing in self.options.spacings
            ]
            best = min(tried, key=lambda row: row.distance).spacing
        return self.distance(sampler, best, calls, self.options.num_images)

    def distance(self, sampler: str, spacing: str, calls: int, num_images: int) -> Row:
        """Measure a row, or read it; infinite where a scheduler of stock's fails."""
        row = Row(self.name, sampler, spacing, calls, num_images, float("inf"), 0.0, "")
        try:
            drawn = self.sampler(sampler, spacing, calls, num_images)
            row = replace(row, key=self._key(drawn, num_images))
            for known in rows_of(self.kept):
                if known.key == row.key and not known.failure:
                    return replace(known, model=self.name)
            row = self._measured(row, drawn)
        except Exception as error:  # of any kind
            if sampler in OURS:
                raise
            row = replace(row, failure=f"{type(error).__name__}: {error}"[:200])
        print(json.dumps(asdict(row), ensure_ascii=False), flush=True)
        with self.kept.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")
        return row

    def _measured(self, row: Row, sampler: ImageSampler) -> Row:
        start = time.perf_counter()
        real = reference_statistics(self.data, self.extractor, progress=False)
        drawn = sample_statistics(sampler, self.extractor, row.images, progress=False)
        distance = frechet_distance(drawn.moments, real.moments)
        return replace(row, distance=distance, seconds=time.perf_counter() - start)

    def sampler(self, name: str, spacing: str, calls: int, num_images: int) -> ImageSampler:
        """Draws image i of the model by a scheduler, in so many calls of the network."""
        saved = self.saved.scheduler
        if name in OURS:
            choice = SAMPLERS[name]
            scheduler = saved.with_calibration(
                self.calibration(),
                variance_type=choice.variance_type,
                timestep_spacing=spacing,
                solver=choice.solver or Solver(),
            )
            eta = choice.eta
        else:
            kind, changed = CLASSES[name]
            config = {**saved.config, "timestep_spacing": spacing, **changed}
            scheduler, eta = getattr(diffusers, kind).from_config(config), None
        options = SamplingOptions(
            model=str(self.folder),
            seed=self.options.seed,
            num_inference_steps=(calls + 1) // 2 if name == "Heun" else calls,
            eta=eta,
            class_labels=self._classes(num_images),
            batch_size=self.options.rows,
        )
        pipe = DDPMPipeline(self.saved.unet, scheduler)
        pipe.set_progress_bar_config(disable=True)
        pipe.unet.eval()
        return ImageSampler(pipe.optimize(), options, saved)  # bf16 where the processor has it

    def calibration(self) -> Calibration:
        """The one that the model is saved with, or else one that is made and kept once."""
        found = self.saved.scheduler.calibration
        if found is not None and found.spectrum is not None:
            return found
        number = self.options.num_forwards
        path = self.folder / f"few_steps_calibration_{number}.json"
        if not path.exists():
            data = _open(
                self.folder, self.saved, self.options.data, self.options.calibration_split
            )
            made = calibrate(
                self.saved.unet,
                self.saved.scheduler,
                ModelBatches(data, 64),
                num_forwards=number,
                generator=seeded_generator(0),
                progress=True,
            )
            write_json(path, made.to_dict())
        return Calibration.from_dict(json.loads(path.read_text(encoding="utf-8")))

    def _classes(self, num_images: int) -> tuple[int | str, ...] | None:
        config, seed = self.saved.unet.config, self.options.seed
        if config.num_class_embeds is None:
            return None
        return classes_as_often(self.data, config, num_images, seed=seed).labels

    def _key(self, sampler: ImageSampler, num_images: int) -> str:
        """All that the distance depends on, in short."""
        known = {
            **sampler.describe(),
            "num_images": num_images,
            "bf16": computes_in_bfloat16(torch.device("cpu")),
            "features": self.extractor.fingerprint,
            "data": self.data.fingerprint,
        }
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


def _open(folder: Path, pipe: DDPMPipeline, data: str, split: str | None) -> ImageData:
    """The images of a split, as the model reads them."""
    return open_split(folder, split, lambda part: open_model_images(data, pipe.unet, split=part))


def rows_of(kept: Path) -> list[Row]:
    """What was measured so far, by this command and others."""
    if not kept.exists():
        return []
    return [Row(**json.loads(line)) for line in kept.read_text(encoding="utf-8").splitlines()]


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", required=True, help="the images that the models were trained on")
    add("--features", required=True, help="what train_features.py wrote, or inception")
    add("--output", type=Path, required=True, help="folder of rows, tables and own models")
    add("--model", nargs=2, action="append", metavar=("NAME", "FOLDER"), help="a trained model")
    add("--models", nargs="+", help=f"some of those; without --model of {', '.join(RECIPES)}")
    add("--samplers", nargs="+", default=["multistep", *STOCK], choices=[*OURS, *STOCK])
    add("--calls", type=int, nargs="+", default=list(CALLS))
    add("--spacings", nargs="+", default=list(SPACINGS), choices=SPACINGS, help="of stock's")
    add("--num_images", type=int, default=5000)
    add("--num_tried", type=int, default=250, help="images to choose a spacing by")
    add("--num_forwards", type=int, default=10_000, help="of a calibration, where there is none")
    add("--reference_split", help="what is compared with; the training images unless given")
    add("--calibration_split", default="test")
    add("--rows", type=int, default=50, help="images of a call")
    add("--seed", type=int, default=0)
    add("--steps", type=int, default=STEPS, help="updates of models that are trained here")
    add("--about", help="what the models are, a sentence for the page; needed with --model")
    options = parser.parse_args(argv)
    names = [name for name, _ in options.model or []] or list(RECIPES)
    if unknown := set(options.models or []) - set(names):
        parser.error(f"--models must be among {', '.join(names)}, got {', '.join(unknown)}")
    options.models = options.models or names
    if options.model and not options.about and os.environ.get("BENCHMARKS_RECORD", "1") != "0":
        parser.error("--about must say what the models are, or BENCHMARKS_RECORD be 0")
    options.about = options.about or (
        f"Models of {options.steps:,} updates on Fashion-MNIST by `ddpm train` with its defaults "
        f"(v: cosine β, zero terminal SNR) or `{RECIPES['ε']}` (ε)."
    )
    return options


def main(argv: list[str] | None = None) -> None:
    options = parse_options(argv)
    options.output.mkdir(parents=True, exist_ok=True)
    given = {name: Path(folder) for name, folder in options.model or []}
    for name in options.models:
        folder = given.get(name) or train_recipe(
            options.output, options.data, RECIPES[name], steps=options.steps
        )
        contest = Contest.of(name, folder, options)
        for calls in options.calls:
            for sampler in options.samplers:
                contest.row(sampler, calls)
            show(rows_of(contest.kept), options.output, DOCS, options.about)


if __name__ == "__main__":
    main()
