"""What the input side delivers beside what a model consumes, and how fast a second run starts."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel
from image_samples import encoded, noise, write_folder, write_idx
from PIL import Image

from ddpm_pipeline.data import open_images, random_flip, seeded_generator, to_model_range
from ddpm_pipeline.loading import ImageLoader

BATCH = 64
WIDE = 100_000


def images_per_second(step: Callable[[], object], steps: int) -> float:
    step()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return BATCH * steps / (time.perf_counter() - start)


def test_input_delivers_20_times_what_a_model_consumes(tmp_path: Path) -> None:
    write_idx(tmp_path / "train-images-idx3-ubyte", noise(60_000, 28, 28))  # as Fashion-MNIST
    write_idx(tmp_path / "train-labels-idx1-ubyte", noise(60_000) % 10)
    cache = tmp_path / "cache"
    data = open_images(tmp_path, resolution=28, labels=True, cache_dir=cache, progress=False)
    loader, generator = ImageLoader(data, batch_size=BATCH), seeded_generator(0)

    def load() -> torch.Tensor:
        return random_flip(to_model_range(next(loader).images), generator)

    unet = UNet2DModel(
        28,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(32, 64, 64),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    ).train()
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
    assert delivered >= 20 * consumed


def smooth(seed: int) -> Image.Image:
    """A 64x64 colour image that packs as photographs do, better than noise."""
    return Image.fromarray(noise(8, 8, 3, seed=seed)).resize((64, 64), Image.Resampling.BICUBIC)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_second_run_on_100_000_files_starts_in_5_seconds(tmp_path: Path) -> None:
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
    assert runs[1][1] < 5
