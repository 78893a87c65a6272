"""Training loops side by side: diffusers' example as it is by default, a bare loop, and ours.

    python tests/benchmarks/stock_training.py stock no images/

answers each line "STEPS" on standard input with the seconds of that many updates, one per line,
and ends with the process's peak memory in MiB at the end of the input. Each loop has a process to
itself, since settings of the memory allocator are a process's. ``stock`` does what diffusers'
training example ``train_unconditional.py`` does in its loop, with the same libraries:
images are decoded by Pillow in a DataLoader, and the loss is read at each step.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ddpm_pipeline.networks.unets import unet_config

BATCH, RESOLUTION, STEPS = 64, 28, 10_000
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Setting:
    """What is trained, on what.

    Arguments:
        config: Of the UNet.
        batch: Images of an update.
        device: Where.
    """

    config: dict[str, Any]
    batch: int = BATCH
    device: torch.device = CPU

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of a batch."""
        side = self.config["sample_size"]
        return self.batch, self.config["in_channels"], side, side


SMALL = Setting(unet_config("small", resolution=RESOLUTION, channels=1))


class Images(torch.utils.data.Dataset):
    """PNG files, decoded, resized, flipped and normalised one at a time."""

    def __init__(self, folder: Path, side: int = RESOLUTION, mode: str = "L") -> None:
        self.paths, self.side, self.mode = sorted(folder.iterdir()), side, mode

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> Tensor:
        with Image.open(self.paths[i]) as file:
            size = (self.side, self.side)
            image = file.convert(self.mode).resize(size, Image.Resampling.BILINEAR)
        pixels = np.array(image, np.float32).reshape(*size, -1)
        return (torch.from_numpy(pixels).permute(2, 0, 1) / 255 - 0.5) / 0.5


class Resident(torch.utils.data.Dataset):
    """The same images, decoded once and kept on the device."""

    def __init__(self, images: Images, device: torch.device) -> None:
        self.values = torch.stack([images[i] for i in range(len(images))]).to(device)

    def __len__(self) -> int:
        return len(self.values)

    def __getitems__(self, indices: list[int]) -> Tensor:
        """A batch by one gather; the loader leaves it as it is."""
        return self.values[torch.tensor(indices).to(self.values.device)]


def unet(setting: Setting = SMALL) -> diffusers.UNet2DModel:
    torch.manual_seed(0)
    return diffusers.UNet2DModel(**setting.config).to(setting.device).train()


def endless(loader: torch.utils.data.DataLoader) -> Iterator[Tensor]:
    while True:
        yield from loader


@dataclass(frozen=True, eq=False)
class Stock:
    """A run of diffusers' example: its update, and what it saves."""

    step: Callable[[], None]
    model: diffusers.UNet2DModel
    ema: EMAModel
    scheduler: diffusers.DDPMScheduler

    def save(self, folder: Path) -> None:
        """The pipeline with averaged weights, as the example saves it."""
        parameters = list(self.model.parameters())
        self.ema.store(parameters)
        self.ema.copy_to(parameters)
        diffusers.DDPMPipeline(self.model, self.scheduler).save_pretrained(folder)
        self.ema.restore(parameters)


def stock_run(
    folder: Path,
    precision: str,
    *,
    steps: int = STEPS,
    learning_rate: float = 1e-4,
    setting: Setting = SMALL,
    resident: bool = False,
) -> Stock:
    accelerator = Accelerator(cpu=setting.device.type == "cpu", mixed_precision=precision)
    model = unet(setting)
    ema = EMAModel(
        model.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=3 / 4
    )
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8
    )
    images = Images(folder, setting.shape[-1], "L" if setting.shape[1] == 1 else "RGB")
    data = Resident(images, setting.device) if resident else images
    collate = (lambda batch: batch) if resident else None
    loader = torch.utils.data.DataLoader(
        data, batch_size=setting.batch, shuffle=True, collate_fn=collate
    )
    rate = get_scheduler(
        "cosine", optimizer=optimizer, num_warmup_steps=500, num_training_steps=steps
    )
    model, optimizer, loader, rate = accelerator.prepare(model, optimizer, loader, rate)
    batches = endless(loader)

    def step() -> None:
        clean = next(batches)
        noise = torch.randn(clean.shape, device=clean.device)
        t = torch.randint(0, 1000, (len(clean),), device=clean.device).long()
        noisy = scheduler.add_noise(clean, noise, t)
        with accelerator.accumulate(model):
            loss = functional.mse_loss(model(noisy, t).sample.float(), noise.float())
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            rate.step()
            optimizer.zero_grad()
        if accelerator.sync_gradients:
            ema.step(model.parameters())
        accelerator.log({"loss": loss.detach().item(), "lr": rate.get_last_lr()[0]})

    return Stock(step, model, ema, scheduler)


def stock(folder: Path, precision: str) -> Callable[[], None]:
    return stock_run(folder, precision).step


def bare_run(
    precision: str, *, setting: Setting = SMALL, compiled: bool = False
) -> Callable[[], None]:
    model, device = unet(setting), setting.device
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=compiled)
    call = torch.compile(model.to(memory_format=torch.channels_last)) if compiled else model

    def step() -> None:
        noise = torch.randn(setting.shape, device=device)
        t = torch.randint(0, 1000, (setting.batch,), device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            output = call(noise, t).sample
        functional.mse_loss(output.float(), noise).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def bare(_: Path, precision: str) -> Callable[[], None]:
    return bare_run(precision)


def ours(folder: Path, precision: str) -> Callable[[], None]:
    from ddpm_pipeline.data.loader import Prefetcher
    from ddpm_pipeline.training.config import TrainingConfig
    from ddpm_pipeline.training.data import open_training_data
    from ddpm_pipeline.training.learner import Learner
    from ddpm_pipeline.training.log import DeviceLosses
    from ddpm_pipeline.training.resolving import resolve
    from ddpm_pipeline.training.setup import make_scheduler

    config = TrainingConfig(
        train_data_dir=str(folder),
        cache_dir=str(folder.parent / "cache"),
        resolution=RESOLUTION,
        train_batch_size=BATCH,
        max_train_steps=STEPS,
        num_epochs=None,
        mixed_precision=precision,
    )
    accelerator = Accelerator(cpu=True, mixed_precision="no")
    data = open_training_data(config)
    config = resolve(config, length=data.length, world_size=1, device=accelerator.device)
    learner = Learner(config, make_scheduler(config).schedule, unet(), accelerator)
    batches = Prefetcher(data.loader(0, 1), accelerator.device)
    losses = DeviceLosses(config.logging_steps, accelerator, check_norms=True)
    done = 0

    def step() -> None:
        nonlocal done
        losses.add(*learner.update(done, batches))
        done += 1
        if done % config.logging_steps == 0:
            losses.read(done)
            losses.clear()

    return step


LOOPS = {"stock": stock, "bare": bare, "ours": ours}


def main() -> None:
    name, precision, folder = sys.argv[1:]
    step = LOOPS[name](Path(folder), precision)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        print(*seconds, flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)


if __name__ == "__main__":
    main()
