"""What the input side delivers beside what a model consumes, and how fast a second run starts.

Run by ``make bench ARGS="-k data_speed"``; the table is recorded if all tests ran.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel
from helpers.image_samples import encoded, noise, write_folder, write_idx
from PIL import Image
from results import record

from ddpm_pipeline.common.randomness import seeded_generator
from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.data.loader import ImageLoader
from ddpm_pipeline.data.pixels import random_flip, to_model_range
from ddpm_pipeline.networks.unets import unet_config

BATCH = 64
WIDE = 100_000


@pytest.fixture(scope="module")
def rows() -> Iterator[list[list[str | float]]]:
    found: list[list[str | float]] = []
    yield found
    if len(found) == 5:
        record(
            "input_pipeline",
            title="Reading images",
            command='make bench ARGS="-k data_speed"',
            text="Batches of 64 grey images of 28 × 28, shuffled, flipped and in [-1, 1], beside "
            "what forward and backward of the small UNet consume, on one thread; and the time "
            f"until a batch of {WIDE:,} PNG files of 64 × 64 in colour can be had.",
            columns=("what", "measured", "unit"),
            rows=found,
        )


def images_per_second(step: Callable[[], object], steps: int) -> float:
    step()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return BATCH * steps / (time.perf_counter() - start)


def test_input_delivers_20_times_what_a_model_consumes(
    tmp_path: Path, rows: list[list[str | float]]
) -> None:
    write_idx(tmp_path / "train-images-idx3-ubyte", noise(60_000, 28, 28))  # as Fashion-MNIST
    write_idx(tmp_path / "train-labels-idx1-ubyte", noise(60_000) % 10)
    cache = tmp_path / "cache"
    data = open_images(tmp_path, resolution=28, labels=True, cache_dir=cache, progress=False)
    loader, generator = ImageLoader(data, batch_size=BATCH), seeded_generator(0)

    def load() -> torch.Tensor:
        return random_flip(to_model_range(next(loader).images), generator)

    unet = UNet2DModel(**unet_config("small", resolution=28, channels=1)).train()
    images, t = load(), torch.zeros(BATCH, dtype=torch.int64)

    def train() -> None:
        unet.zero_grad()
        unet(images, t).sample.square().mean().backward()

    delivered, consumed = images_per_second(load, 2000), images_per_second(train, 3)
    print(
        f"\n28x28 grey, batch {BATCH}: {delivered:,.0f} images/s delivered, {consumed:,.0f} "
        f"consumed by {sum(p.numel() for p in unet.parameters()) / 1e6:.1f} M parameters, "
        f"ratio {delivered / consumed:,.0f}"
    )
    rows += [
        ["images delivered", delivered, "images/s"],
        ["images consumed by training", consumed, "images/s"],
        ["delivered / consumed", delivered / consumed, "at least 20"],
    ]
    assert delivered >= 20 * consumed


def smooth(seed: int) -> Image.Image:
    """A 64x64 colour image that packs as photographs do, better than noise."""
    return Image.fromarray(noise(8, 8, 3, seed=seed)).resize((64, 64), Image.Resampling.BICUBIC)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_second_run_on_100_000_files_starts_in_5_seconds(
    tmp_path: Path, rows: list[list[str | float]]
) -> None:
    images = [encoded(smooth(i)) for i in range(2000)]
    for first in range(0, WIDE, 1000):
        folder = tmp_path / "data" / f"{first // 1000:03d}"
        write_folder(folder, {f"{i}.png": images[(first + i) % 2000] for i in range(1000)})
    code = (
        "import sys, time\n"
        "from ddpm_pipeline.data import open_images\n"
        "start = time.perf_counter()\n"
        "data = open_images(sys.argv[1], resolution=64, labels=True, cache_dir=sys.argv[2],\n"
        "                   progress=False)\n"
        "data.batch(range(0, 100_000, 1000)); print(time.perf_counter() - start, data.shape)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "data"), str(tmp_path / "cache")]
    runs = []
    for _ in range(2):
        start = time.perf_counter()
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, shape = run.stdout.split(maxsplit=1)
        assert shape.strip() == f"({WIDE}, 3, 64, 64)"
        runs.append((float(seconds), time.perf_counter() - start))
    print(
        f"\n{WIDE:,} PNGs of 64x64: first start {runs[0][0]:.1f} s, second {runs[1][0]:.2f} s "
        f"({runs[1][1]:.2f} s with the program's imports)"
    )
    rows += [
        [f"first start on {WIDE:,} files, which decodes them", runs[0][1], "s"],
        ["second start, imports of the program included", runs[1][1], "s, at most 5"],
    ]
    assert runs[1][1] < 5
