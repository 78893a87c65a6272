"""Images per second and memory of training, beside diffusers' example and a bare loop.

    make bench ARGS="-k training_speed"

uses all processors, on the images of TRAINING_IMAGES (an IDX file or folder, 28 x 28; Debian's
``dataset-fashion-mnist`` installs /usr/share/datasets/fashion-mnist) or random ones. The loops run
in turns, a few updates at a time, so that whatever else the machine does falls on all alike; what
is compared are medians over all updates.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm_pipeline.data import open_images

HERE = Path(__file__).parent
LOOPS = [
    ("stock", "no"),
    ("stock", "bf16"),
    ("ours", "no"),
    ("ours", "bf16"),
    ("bare", "no"),
    ("bare", "bf16"),
]
ROUNDS, STEPS, BATCH = int(os.environ.get("TRAINING_ROUNDS", "6")), 4, 64


class Loop:
    """One training loop in a process of its own."""

    def __init__(self, name: str, precision: str, folder: Path) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(os.cpu_count())}
        self.seconds: list[float] = []
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "stock_training.py"), name, precision, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def run(self, steps: int) -> list[float]:
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return [float(word) for word in self.process.stdout.readline().split()]

    def end(self) -> float:
        self.process.stdin.close()
        peak = float(self.process.stdout.readline())
        self.process.wait()
        return peak


def png_folder(folder: Path) -> Path:
    """10,000 PNG files of 28 x 28."""
    source = os.environ.get("TRAINING_IMAGES")
    if source is None:
        images = np.random.default_rng(0).integers(0, 256, (10_000, 28, 28), np.uint8)
    else:
        data = open_images(source, resolution=28, progress=False, cache_dir=folder / "cache")
        images = data.batch(range(10_000)).images[:, 0].numpy()
    (folder / "images").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / "images" / f"{i:05d}.png")
    return folder / "images"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = png_folder(tmp_path_factory.mktemp("speed"))
    loops = {key: Loop(*key, folder) for key in LOOPS}
    for loop in loops.values():
        loop.run(3)
    for _ in range(ROUNDS):
        for loop in loops.values():
            loop.seconds += loop.run(STEPS)
    result = {}
    for key, loop in loops.items():
        seconds = statistics.median(loop.seconds)
        result[key] = {"seconds": seconds, "images": BATCH / seconds, "peak": loop.end()}
        name, precision = key
        print(
            f"\n{name:5} {precision:4} {1000 * seconds:7.1f} ms/update "
            f"{BATCH / seconds:7.1f} images/s, peak {result[key]['peak']:6.0f} MiB",
            end="",
        )
    return result


@pytest.mark.timeout(1800)
def test_by_default_at_least_half_as_fast_again_as_stock(measured: dict) -> None:
    ratio = measured["ours", "bf16"]["images"] / measured["stock", "no"]["images"]
    print(f"\nours by default / stock by default: {ratio:.2f}")
    assert ratio >= 1.5


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_at_equal_precision_faster_than_stock(measured: dict, precision: str) -> None:
    ratio = measured["ours", precision]["images"] / measured["stock", precision]["images"]
    print(f"\nours / stock at mixed_precision {precision}: {ratio:.2f}")
    assert ratio >= 1.15


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_memory_is_that_of_a_bare_loop(measured: dict, precision: str) -> None:
    ratio = measured["ours", precision]["peak"] / measured["bare", precision]["peak"]
    print(f"\npeak memory, ours / bare loop at mixed_precision {precision}: {ratio:.2f}")
    assert ratio <= 1.1
