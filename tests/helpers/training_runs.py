"""Small real training runs, in this process or a forked one, and what they leave behind."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import signal
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import torch
from accelerate import Accelerator
from helpers.device_counts import DEVICE
from helpers.processes import fork, fork_ranks
from safetensors.torch import load_file

from ddpm_pipeline.data.images import ImageData, open_images
from ddpm_pipeline.data.loader import ImageLoader
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.learner import Learner
from ddpm_pipeline.training.resolving import resolve
from ddpm_pipeline.training.run import train
from ddpm_pipeline.training.setup import make_scheduler, make_unet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ddpm_pipeline.data.images import Batch

TINY_UNET = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "layers_per_block": 1,
    "block_out_channels": [4, 8],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "norm_num_groups": 2,
    "attention_head_dim": 4,
    "dropout": 0.1,
}


def blobs(count: int = 40, size: int = 8, seed: int = 0) -> np.ndarray:
    """Smooth grey images, uint8 (N, size, size)."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    centres = generator.uniform(1, size - 2, (count, 2, 1, 1))
    squares = (x - centres[:, 0]) ** 2 + (y - centres[:, 1]) ** 2
    return (255 * np.exp(-squares / size)).astype(np.uint8)


def image_data(count: int = 40, labels: list[int] | None = None) -> ImageData:
    return open_images(blobs(count), resolution=8, labels=labels or False, progress=False)


SHORT_RUN = {
    "train_batch_size": 4,
    "eval_batch_size": 4,
    "ddpm_num_inference_steps": 2,
    "mixed_precision": "no",
    "num_threads": 1,
}
"""Options of a run whose images are drawn in two steps."""


def tiny_config(folder: Path, **options: Any) -> TrainingConfig:
    """A run of a few milliseconds per step in folder/run, on folder/images.npy."""
    folder.mkdir(parents=True, exist_ok=True)
    unet = dict(TINY_UNET)
    if options.get("class_conditional"):
        unet["num_class_embeds"] = options.pop("embeddings")
    (folder / "unet.json").write_text(json.dumps(unet))
    np.save(folder / "images.npy", blobs())
    defaults = {
        "train_data_dir": str(folder / "images.npy"),
        "output_dir": str(folder / "run"),
        "cache_dir": str(folder / "cache"),
        "model_config_name_or_path": str(folder / "unet.json"),
        "resolution": 8,
        "max_train_steps": 12,
        "train_batch_size": 4,
        "random_flip": True,
        "lr_warmup_steps": 2,
        "logging_steps": 5,
        "checkpointing_steps": 4,
        "save_images_steps": 6,
        "eval_batch_size": 2,
        "ddpm_num_steps": 20,
        "ddpm_num_inference_steps": 2,
        "mixed_precision": "no",
    }
    return TrainingConfig(**{**defaults, **options})


def a_learner(folder: Path, **options: Any) -> Learner:
    """What makes the updates of a tiny run."""
    config = tiny_config(folder, **options)
    config = resolve(config, length=40, world_size=1, device=torch.device("cpu"))
    torch.manual_seed(0)
    classes = 3 if config.class_conditional else None
    unet = make_unet(config, 1, classes)
    return Learner(config, make_scheduler(config).schedule, unet, Accelerator(cpu=True))


def a_learner_far_away(folder: Path, **options: Any) -> Learner:
    """What makes the updates of a tiny run on ``stand_in_device``, without half precision."""
    config = tiny_config(folder, **options)
    config = resolve(config, length=40, world_size=1, device=torch.device("cpu"))
    unet = make_unet(config, 1, 3 if config.class_conditional else None)
    with patch.object(Accelerator, "device", DEVICE):
        accelerator = Accelerator(cpu=True)
        accelerator.prepare_model = lambda network: network
        learner = Learner(config, make_scheduler(config).schedule, unet, accelerator)
    learner.autocast = nullcontext  # torch has none for this device
    return learner


def batches(learner: Learner, labels: list[int] | None = None) -> Iterator[Batch]:
    return ImageLoader(
        image_data(labels=labels), batch_size=learner.config.train_batch_size, seed=0
    )


def metrics(run: Path) -> list[dict[str, Any]]:
    """All that a run logged."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def outcome(run: Path) -> dict[str, Any]:
    """All that two runs must agree on, bit for bit."""
    checkpoint = max((run / "checkpoints").glob("step-*"))
    tensors = {
        f"{path.stem}/{name}": tensor
        for path in sorted(checkpoint.glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }
    model = load_file(run / "unet" / "diffusion_pytorch_model.safetensors")
    samples = {path.name: path.read_bytes() for path in sorted((run / "samples").iterdir())}
    entries = metrics(run)
    for entry in entries:
        entry.pop("images_per_second", None)
    return {
        "step": checkpoint.name,
        "tensors": tensors,
        "model": model,
        "samples": samples,
        "metrics": entries,
    }


def assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    for name in ("step", "samples", "metrics"):
        assert a[name] == b[name], name
    for group in ("tensors", "model"):
        assert a[group].keys() == b[group].keys()
        differing = [k for k in a[group] if not torch.equal(a[group][k], b[group][k])]
        assert not differing


def run_forked(
    config: TrainingConfig,
    when: Callable[[], bool] | None = None,
    *,
    send: int = signal.SIGKILL,
    times: int = 1,
    processes: int = 1,
    file_limit: int | None = None,
) -> list[int]:
    """Train in forked processes, all signalled when ``when()`` holds; their exit codes.

    A process that a signal ended has that signal's number, negated, for a code. With a limit,
    writing more bytes than that into one file fails as on a full disk.
    """

    def run() -> None:
        faulthandler.dump_traceback_later(60)
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
        train(config)

    pids = [fork(run)] if processes == 1 else fork_ranks(run, processes)
    codes: dict[int, int] = {}
    deadline = time.monotonic() + 90
    try:
        while len(codes) < processes:
            assert time.monotonic() < deadline, "the forked run did not end"
            if when is not None and times and when():
                for pid in pids:
                    os.kill(pid, send)
                times -= 1
            for pid in set(pids) - codes.keys():
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    codes[pid] = os.waitstatus_to_exitcode(status)
            time.sleep(0.001)
    finally:
        for pid in set(pids) - codes.keys():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return [codes[pid] for pid in pids]
