"""From nothing to a trained model and a picture of its samples, on two CPU cores.

    python examples/demo.py --output_dir runs/demo

Trains on scikit-learn's 1797 handwritten digits (8 x 8 pixels), opens the saved model again and
draws ten samples of every digit. Run again, it only draws; after an interruption, it goes on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits

from ddpm_pipeline import DDPMPipeline, TrainingConfig, train

CLASSES = range(10)
COLUMNS = 10


def save_digits(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Write the images, whose 17 levels 0 ... 16 become 0 ... 255, with their labels."""
    digits = load_digits()
    images = (digits.images * (255 / 16)).round().astype(np.uint8)
    if not path.exists():  # a file of another date would be read and cached anew
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, images=images, labels=digits.target)
    return images, digits.target


def draw_classes(
    pipe: DDPMPipeline, num_classes: int, columns: int, steps: int | None, guidance_scale: float
) -> np.ndarray:
    """Draw samples of each class in turn, uint8 (num_classes * columns, H, W) or (..., 3)."""
    samples = pipe(
        batch_size=num_classes * columns,
        generator=torch.Generator().manual_seed(0),
        num_inference_steps=steps,
        class_labels=torch.arange(num_classes).repeat_interleave(columns),
        guidance_scale=guidance_scale,
    )
    return np.stack([np.asarray(image) for image in samples.images])


def in_rows(images: np.ndarray, num_rows: int, shade: int) -> np.ndarray:
    """Put images (N, H, W) or (N, H, W, 3) into rows, each with a frame one pixel wide."""
    width = [(0, 0), (1, 1), (1, 1)] + [(0, 0)] * (images.ndim - 3)
    framed = np.pad(images, width, constant_values=shade)
    rows = [np.concatenate(list(row), axis=1) for row in np.split(framed, num_rows)]
    return np.concatenate(rows)


def label_rows(axis: plt.Axes, names: list[str], side: float) -> None:
    """Write a name beside each row of a picture, whose rows are ``side`` pixels high."""
    axis.set(xticks=[], yticks=[side * (row + 0.5) for row in range(len(names))])
    axis.set_yticklabels(names)
    axis.tick_params(length=0)


def save_figure(panels: dict[str, np.ndarray], path: Path) -> None:
    """Draw one panel of labelled rows for each set of images, COLUMNS of every class in order."""
    mpl.use("Agg")
    figure, axes = plt.subplots(1, len(panels), figsize=(7.2, 3.75), layout="constrained")
    for axis, (title, images) in zip(axes, panels.items(), strict=True):
        axis.imshow(in_rows(images, len(CLASSES), 90), cmap="gray", vmin=0, vmax=255)
        axis.set(title=title)
        label_rows(axis, [str(c) for c in CLASSES], images.shape[1] + 2)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def print_written(folder: Path, figure_path: Path) -> None:
    """Say what there is now, and where to look."""
    print("Wrote")
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        print(f"  {path}")
    print(f"Look at {figure_path}")


def main() -> None:
    """Train, draw, and say what was written."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--output_dir", type=Path, default=Path("runs/demo"))
    parser.add_argument("--max_train_steps", type=int, default=1000)
    parser.add_argument("--num_inference_steps", type=int, default=50)
    parser.add_argument("--guidance_scale", type=float, default=1.0)
    options = parser.parse_args()

    data_path, model_dir = options.output_dir / "digits.npz", options.output_dir / "model"
    images, labels = save_digits(data_path)
    result = train(
        TrainingConfig(
            train_data_dir=str(data_path),
            resolution=8,
            class_conditional=True,
            train_batch_size=64,
            max_train_steps=options.max_train_steps,
            num_epochs=None,
            output_dir=str(model_dir),
            cache_dir=str(options.output_dir / "cache"),
        )
    )
    if not result.finished:
        sys.exit("demo: stopped; the same command goes on from there")
    pipe = DDPMPipeline.from_pretrained(result.output_dir)
    samples = draw_classes(
        pipe, len(CLASSES), COLUMNS, options.num_inference_steps, options.guidance_scale
    )
    real = np.concatenate([images[labels == c][:COLUMNS] for c in CLASSES])
    figure_path = options.output_dir / "samples.png"
    steps = f"{result.global_step} updates, {options.num_inference_steps} steps"
    save_figure({"the data": real, f"samples ({steps})": samples}, figure_path)
    print_written(options.output_dir, figure_path)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"demo: {error}")
