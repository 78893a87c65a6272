"""What a user does: the commands one after another, and the distances of two sets of images."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING

import torch
from gpu.place import CPU
from gpu.runs import run_options

from ddpm_pipeline.cli.commands import main
from ddpm_pipeline.evaluation.metrics import Moments, frechet_distance, kid, precision_recall

if TYPE_CHECKING:
    from gpu.found import Found
    from gpu.place import Place


def evaluation(place: Place, found: Found) -> None:
    count, dim = place.pick((4000, 256), (200, 8))
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, count, dim, generator=generator).unbind()
    second = second * 1.1 + 0.1
    values = {}
    for device in (CPU, place.device):
        a, b = first.to(device), second.to(device)
        moments = Moments(dim, device), Moments(dim, device)
        for kept, features in zip(moments, (a, b), strict=True):
            kept.update(features)
        distance = frechet_distance(*moments)
        kernel = kid(a, b, generator=torch.Generator().manual_seed(0)).value
        values[device] = (distance, kernel, *precision_recall(a, b))
    names = ("Fréchet distance", "KID", "precision", "recall")
    for name, ours, cpu in zip(names, values[place.device], values[CPU], strict=True):
        found.at_most(f"{name} from the CPU's", abs(ours - cpu) / max(abs(cpu), 1e-9), 1e-6)


def commands(place: Place, found: Found) -> None:
    model, data = str(place.folder / "by-commands"), place.grey_images()
    options = run_options(place, "by-commands", max_train_steps=place.pick(100, 3))
    words = [f"--{name}={value}" for name, value in options.items()]
    cache = f"--cache_dir={place.folder / 'cache'}"
    images = str(place.folder / "drawn")
    few = ["--num_images=4", "--num_inference_steps=2", "--batch_size=4"]
    measured = [f"--data={data}", cache, f"--num_images={place.pick(64, 4)}"]
    for line in (
        ["train", *words],
        ["sample", model, f"--output={images}", *few],
        ["bound", model, *measured, "--num_timestep_samples=2"],
        ["calibrate", model, f"--data={data}", cache, f"--num_forwards={place.T}"],
    ):
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = main(line)
        found.at_most(f"code of ddpm {line[0]}", code, 0)
        if code:
            found.note(**{line[0]: said.getvalue()[-300:]})
