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
import time
from pathlib import Path

import numpy as np
import pytest
from diffusers import UNet2DModel
from PIL import Image
from results import record

from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.networks.unets import unet_config
from ddpm_pipeline.training.storage.checkpoints import Checkpoint, write_checkpoint

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
        with self.process.stdout as answers:
            peak = float(answers.readline())
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
    record_table(result)
    return result


def record_table(measured: dict) -> None:
    rows = []
    for (name, precision), found in measured.items():
        stock, bare = measured["stock", precision], measured["bare", precision]
        rows.append(
            [
                name,
                precision,
                1000 * found["seconds"],
                found["images"],
                found["images"] / stock["images"],
                found["images"] / measured["stock", "no"]["images"],
                found["peak"],
                found["peak"] / bare["peak"],
            ]
        )
    record(
        "training_speed",
        title="Training: images per second and memory",
        command='TRAINING_IMAGES=fashion-mnist/ make bench ARGS="-k training_speed"',
        text="Updates with 64 images of 28 × 28 and the small UNet (1.1 M parameters), on all "
        "cores. `stock` is the loop of diffusers' example with its defaults (Pillow in a "
        "DataLoader, the loss read at each step), `ours` that of `ddpm train`, `bare` forward, "
        "backward and AdamW on random numbers. The loops took turns, a few updates at a time.",
        columns=(
            "loop",
            "mixed precision",
            "ms/update",
            "images/s",
            "× stock, same precision",
            "× stock by default",
            "peak MiB",
            "× bare",
        ),
        rows=rows,
    )


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


def test_a_checkpoint_every_500_updates_costs_nothing(measured: dict, tmp_path: Path) -> None:
    network = UNet2DModel(**unet_config("small", resolution=28, channels=1))
    weights = network.state_dict()
    names = ("model", "average", "first_moment", "second_moment")
    state = {name: {k: v.clone() for k, v in weights.items()} for name in names}
    seconds = []
    for step in range(7):
        start = time.perf_counter()
        write_checkpoint(tmp_path, Checkpoint(step, state, {}, {}), limit=2)
        seconds.append(time.perf_counter() - start)
    share = statistics.median(seconds) / (500 * measured["ours", "bf16"]["seconds"])
    print(f"\na checkpoint: {1000 * statistics.median(seconds):.0f} ms, {share:.3%} of the time")
    assert share < 0.02
