"""What conditioned models do: numbers that are asked for and come out, and super-resolution.

    python tests/benchmarks/conditioning.py vector
    python tests/benchmarks/conditioning.py super_resolution --data fashion-mnist --features DIR

``vector`` draws 4,000 bars of 16 × 16 pixels, each with its mean brightness and its angle in
metadata.csv, trains on them with ``condition_vector``, asks for 500 others and measures them.
``super_resolution`` halves the images of Fashion-MNIST by the mean of 2 × 2 pixels, trains with
``condition_on`` the halves, and draws several samples for each of the test images: their mean is
the estimate of the truth, each of them is an image as real ones are.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from results import DOCS, record
from torch.nn.functional import avg_pool2d, interpolate
from torchmetrics.functional.image import peak_signal_noise_ratio

from ddpm_pipeline import DDPMPipeline, TrainingConfig, train
from ddpm_pipeline.data import image_grid, open_images
from ddpm_pipeline.evaluation import Moments, frechet_distance, load_features

SIDE = 16
ANGLES, PEAKS = (10.0, 80.0), (0.35, 1.0)


def bar(angle: float, peak: float, shift: np.ndarray) -> np.ndarray:
    """Draw a bar of 10 × 3.5 pixels with soft ends, float (16, 16) in [0, 1]."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    x, y = x - shift[0], y - shift[1]
    radians = np.deg2rad(angle)
    along, across = (
        x * np.cos(radians) + y * np.sin(radians),
        y * np.cos(radians) - x * np.sin(radians),
    )
    soft = np.clip(5.5 - abs(along), 0, 1) * np.clip(2.25 - abs(across), 0, 1)
    return peak * soft


def measured(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give the mean brightness and the angle in degrees, by second moments, of (N, H, W)."""
    y, x = np.mgrid[: images.shape[1], : images.shape[2]].astype(float)
    mass = images.sum((1, 2))
    centre = [(images * axis).sum((1, 2)) / mass for axis in (x, y)]
    dx, dy = (axis - c[:, None, None] for axis, c in zip((x, y), centre, strict=True))
    xx, yy, xy = ((images * p).sum((1, 2)) / mass for p in (dx * dx, dy * dy, dx * dy))
    return images.mean((1, 2)), np.rad2deg(0.5 * np.arctan2(2 * xy, xx - yy))


def draw_bars(count: int, seed: int) -> np.ndarray:
    """Draw bars at random, uint8 (N, 16, 16)."""
    rng = np.random.default_rng(seed)
    angles, peaks = rng.uniform(*ANGLES, count), rng.uniform(*PEAKS, count)
    shifts = rng.uniform(-1.5, 1.5, (count, 2))
    images = [bar(*v) for v in zip(angles, peaks, shifts, strict=True)]
    return np.round(255 * np.stack(images)).astype(np.uint8)


def write_bars(folder: Path, images: np.ndarray) -> None:
    """Write pictures, and what is measured of them as metadata.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{i:05d}.png" for i in range(len(images))]
    for name, pixels in zip(names, images, strict=True):
        Image.fromarray(pixels).save(folder / name)
    with (folder / "metadata.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", "brightness", "angle"])
        rows.writerows(zip(names, *measured(images / 255), strict=True))


def trained(config: TrainingConfig) -> float:
    """Train a model unless it is there; give the minutes of one core that it took."""
    kept = Path(config.output_dir) / "minutes.json"
    if not kept.exists():
        began = time.process_time()
        train(config)
        kept.write_text(json.dumps((time.process_time() - began) / 60), encoding="utf-8")
    return json.loads(kept.read_text(encoding="utf-8"))


def vector(output: Path, steps: int) -> None:
    """Train on bars, and compare what is asked for with what is drawn."""
    folder, model = output / "bars", output / "bars-model"
    if not folder.exists():
        write_bars(folder, draw_bars(4000, 0))
    config = TrainingConfig(
        train_data_dir=str(folder),
        condition_vector=("brightness", "angle"),
        resolution=SIDE,
        output_dir=str(model),
        max_train_steps=steps,
        train_batch_size=64,
        num_threads=1,
        seed=0,
    )
    minutes = trained(config)
    asked = np.stack(measured(draw_bars(500, 1) / 255), 1)
    pipe = DDPMPipeline.from_pretrained(model)
    rows = []
    for weight in (1.0, 2.0):
        images = pipe(
            condition=torch.tensor(asked),
            num_inference_steps=25,
            solver="multistep",
            guidance_scale=weight,
            generator=torch.Generator().manual_seed(0),
            output_type="np",
        ).images[..., 0]
        found = np.stack(measured(images), 1)
        for j, (name, unit) in enumerate((("mean brightness", 1), ("angle, degrees", 1))):
            correlation = np.corrcoef(asked[:, j], found[:, j])[0, 1]
            error = np.sqrt(((asked[:, j] - found[:, j]) ** 2).mean()) / unit
            spread = asked[:, j].std()
            rows.append(
                [name, f"{weight:g}", f"{correlation:.4f}", f"{error:.3g}", f"{spread:.3g}"]
            )
    print(*rows, sep="\n")
    record(
        "condition_vector",
        title="A model that is told numbers",
        command="python tests/benchmarks/conditioning.py vector",
        text=(
            f"4,000 bars of 16 × 16 pixels, {steps:,} updates of 64, {minutes:.1f} minutes of one "
            "core; 500 other pairs of brightness and angle are asked for, and measured in what is "
            "drawn in 25 steps. The correlation of asked and measured is to be at least 0.95."
        ),
        columns=[
            "",
            "guidance",
            "correlation",
            "root mean squared error",
            "spread of what is asked",
        ],
        rows=rows,
    )


def halved(images: np.ndarray) -> np.ndarray:
    """Give the mean of 2 × 2 pixels of uint8 (N, H, W)."""
    return avg_pool2d(torch.from_numpy(images)[:, None].float(), 2)[:, 0].round().byte().numpy()


def bicubic(low: np.ndarray, side: int) -> torch.Tensor:
    """Scale uint8 (N, h, w) up, float (N, 1, H, W) in [0, 1]."""
    x = torch.from_numpy(low)[:, None].float() / 255
    return interpolate(x, (side, side), mode="bicubic").clamp(0, 1)


def moments_of(extractor, images: torch.Tensor) -> Moments:  # noqa: ANN001
    """Sum up the features of images in [0, 1], (N, 1, H, W)."""
    bytes_ = (images * 255).round().byte()
    features = torch.cat([extractor(part) for part in bytes_.split(500)])
    moments = Moments(features.shape[1])
    moments.update(features)
    return moments


def psnr(images: torch.Tensor, truth: torch.Tensor) -> float:
    """Give the mean over images of the peak signal-to-noise ratio in decibels."""
    each = peak_signal_noise_ratio(images, truth, data_range=1.0, dim=(1, 2, 3))
    return float(each)


def super_resolution(
    output: Path, data: str, features: str, *, count: int, samples: int, steps: int
) -> None:
    """Train on halves of Fashion-MNIST, and compare samples and their mean with bicubic."""
    output.mkdir(parents=True, exist_ok=True)
    model, sets = output / "sr-model", {}
    for split in ("train", "test"):
        images = open_images(data, resolution=28, split=split).values[:, 0].numpy()
        sets[split] = images, halved(images)
    archive = output / "fashion.npz"
    np.savez(archive, images=sets["train"][0], low=sets["train"][1])
    config = TrainingConfig(
        train_data_dir=str(archive),
        condition_on="low",
        resolution=28,
        output_dir=str(model),
        max_train_steps=steps,
        train_batch_size=32,
        num_threads=1,
        seed=0,
        condition_dropout=0.0,
        ema_decay=(0.995,),
    )
    minutes = trained(config)
    pipe = DDPMPipeline.from_pretrained(model).optimize()
    truth_bytes, low = (part[:count] for part in sets["test"])
    truth = torch.from_numpy(truth_bytes)[:, None].float() / 255
    drawn = [
        pipe(
            condition=torch.from_numpy(low)[:, None],
            num_inference_steps=20,
            solver="multistep",
            generator=torch.Generator().manual_seed(i),
            output_type="pt",
        ).images
        for i in range(samples)
    ]
    mean, plain = torch.stack(drawn).mean(0), bicubic(low, 28)
    extractor = load_features(features)
    real = moments_of(extractor, torch.from_numpy(sets["train"][0])[:, None].float() / 255)
    rows = []
    for name, images in (("bicubic", plain), ("a sample", drawn[0]), ("mean of samples", mean)):
        distance = frechet_distance(moments_of(extractor, images), real)
        rows.append([name, f"{psnr(images, truth):.2f}", f"{distance:.2f}"])
    rows.append(["truth", "", f"{frechet_distance(moments_of(extractor, truth), real):.2f}"])
    print(*rows, sep="\n")
    nearest = interpolate(torch.from_numpy(low)[:10, None].float() / 255, (28, 28))
    lines = [nearest, plain[:10], *(d[:10] for d in drawn[:3]), mean[:10], truth[:10]]
    grid = (torch.cat(lines) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    picture = image_grid(grid, 10)
    picture.resize((picture.width * 2, picture.height * 2), Image.NEAREST).save(
        DOCS / "images" / "super_resolution.png"
    )
    record(
        "super_resolution",
        title="Super-resolution of Fashion-MNIST, 14 to 28 pixels",
        command="python tests/benchmarks/conditioning.py super_resolution --data fashion-mnist "
        "--features features",
        text=(
            f"{steps:,} updates of 32 in {minutes:.1f} minutes of one core; {count:,} test "
            f"images, {samples} samples of each in 20 steps. PSNR is the mean over images; "
            "distances are to the training images."
        ),
        columns=["", "PSNR, dB", "Fréchet distance"],
        rows=rows,
        picture="images/super_resolution.png",
    )


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["vector", "super_resolution"])
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--features", default="features")
    parser.add_argument("--output", type=Path, default=Path("conditioning"))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--samples", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "vector":
        vector(options.output, options.steps or 1500)
        return
    super_resolution(
        options.output,
        options.data,
        options.features,
        count=options.count,
        samples=options.samples,
        steps=options.steps or 1000,
    )


if __name__ == "__main__":
    main()
