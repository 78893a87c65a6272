"""A run of training in a process of its own, which may be killed.

On a GPU the process is spawned, since CUDA does not survive a fork; in a rehearsal it is forked,
which spares it all imports.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.state import AcceleratorState
from gpu.runs import a_prepared
from safetensors.torch import load_file
from tqdm.auto import tqdm

from ddpm_pipeline import TrainingConfig, train
from ddpm_pipeline.training.setup import backend_options
from ddpm_pipeline.training.trainer import Trainer

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from gpu.place import Place
    from torch import Tensor

__all__ = ["TOO_LARGE", "differing_tensors", "log_of", "loss_scale", "start"]

TOO_LARGE = 2.0**40
"""The loss scale that runs in fp16 begin with, so that their first updates overflow."""


def start(
    place: Place, options: dict[str, Any], *, shards: bool = False, **environment: str
) -> BaseProcess:
    """Start a run with these options of TrainingConfig.

    Arguments:
        place: Where.
        options: Of TrainingConfig.
        shards: Whether to shard the weights, also over a group of one, which ``train`` refuses.
        environment: Set in the process.
    """
    context = multiprocessing.get_context(place.pick("spawn", "fork"))
    process = context.Process(target=_run, args=(options, shards, environment))
    process.start()
    return process


def log_of(options: dict[str, Any]) -> Path:
    """Where a run writes what it says."""
    return Path(f"{options['output_dir']}.log")


def _run(options: dict[str, Any], shards: bool, environment: dict[str, str]) -> None:
    with log_of(options).open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.environ.update(environment)
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own is shared with other processes, which may be killed
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.amp.GradScaler = partial(torch.amp.GradScaler, init_scale=TOO_LARGE)
    config = TrainingConfig(**options)
    if not shards:
        train(config)
        return
    with a_prepared(config) as (accelerator, ready):
        settled = ready.config.replace(fsdp=True)
        with backend_options(settled):
            Trainer(settled, accelerator, ready.data, derived=ready.derived).run()


def differing_tensors(first: str, second: str) -> int:
    """How many tensors of two runs' models and last checkpoints differ in any bit."""
    one, two = _tensors(Path(first)), _tensors(Path(second))
    if not one or one.keys() != two.keys():
        return max(1, len(one.keys() ^ two.keys()))
    return sum(bytes(one[k].numpy().data) != bytes(two[k].numpy().data) for k in one)


def loss_scale(run: str) -> float:
    """The loss scale in the last checkpoint of a run in fp16."""
    last = max(Path(run, "checkpoints").glob("step-*"))
    return json.loads((last / "state.json").read_text(encoding="utf-8"))["scaler"]["scale"]


def _tensors(run: Path) -> dict[str, Tensor]:
    last = max((run / "checkpoints").glob("step-*"), default=run / "none")
    return {
        f"{file.stem}/{name}": tensor.contiguous()
        for folder in (run / "unet", last)
        for file in folder.glob("*.safetensors")
        for name, tensor in load_file(file).items()
    }
