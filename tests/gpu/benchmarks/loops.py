"""Loops of training to time: diffusers' example, a bare loop, and ours, in one process.

Each has an update and what it must have in force: torch's switches are the process's, and ours
sets them for the length of a run.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from accelerate.state import AcceleratorState
from gpu.checks.compiling import graph_option
from gpu.found import NotBuilt
from gpu.runs import a_trainer
from PIL import Image
from stock_training import Setting, bare_run, stock_run
from torch.utils.flop_counter import FlopCounterMode

from ddpm_pipeline import TrainingConfig
from ddpm_pipeline.training.log import DeviceLosses
from ddpm_pipeline.training.setup import backend_options

if TYPE_CHECKING:
    from gpu.place import Place

__all__ = ["Loop", "flops_of_update", "ours", "png_folder", "stock_and_bare", "variants"]

LOGGING = 50  # updates between two looks at the losses, as by default


@dataclass(frozen=True)
class Loop:
    """A way to train.

    Arguments:
        step: Makes one update.
        settings: What must be in force meanwhile.
    """

    step: Callable[[], object]
    settings: Callable[[], AbstractContextManager] = nullcontext


def stock_and_bare(place: Place, setting: Setting) -> Iterator[tuple[str, Callable[[], Loop]]]:
    """Names of the loops beside ours, and how each is made."""
    _, channels, side, _ = setting.shape
    drawn = np.load(place.images(side, channels, place.pick(2048, 96)))
    images = png_folder(place, side, drawn)

    def stock(precision: str, *, resident: bool = False) -> Loop:
        # accelerate keeps one precision for a process; loops that are there already go on.
        AcceleratorState._reset_state(reset_partial_state=True)
        return Loop(stock_run(images, precision, setting=setting, resident=resident).step)

    def bare(*, compiled: bool) -> Loop:
        return Loop(bare_run("bf16", setting=setting, compiled=compiled))

    yield "stock, its defaults", partial(stock, "no")
    yield "stock, bf16", partial(stock, "bf16")
    yield "stock, bf16, images on the device", partial(stock, "bf16", resident=True)
    yield "bare, bf16", partial(bare, compiled=False)
    yield "bare, bf16, compiled", partial(bare, compiled=True)


def variants() -> dict[str, dict[str, Any]]:
    """Options of ours, by name; on a GPU it compiles and is deterministic by default."""
    eager = {"compile": False, "channels_last": False}
    found = {
        "ours, our defaults": {},
        "ours, not deterministic": {"deterministic": False},
        "ours, eager": eager,
    }
    with contextlib.suppress(NotBuilt):
        found["ours, one graph"] = {graph_option(): True}
        found["ours, eager, one graph"] = {**eager, graph_option(): True}
    return found


@contextlib.contextmanager
def ours(place: Place, setting: Setting, options: dict[str, Any]) -> Iterator[Loop]:
    """The updates of ``ddpm train``, with the loss read as often as there."""
    batch, channels, side, _ = setting.shape
    name = "-".join(map(str, [side, batch, *sum(options.items(), ())]))
    config = TrainingConfig(
        train_data_dir=place.images(
            side, channels, place.pick(20_000 if side < 32 else 8_000, 96)
        ),
        output_dir=str(place.folder / f"speed-{name}"),
        cache_dir=str(place.folder / "cache"),
        model_config_name_or_path=_saved_config(place, setting),
        resolution=side,
        train_batch_size=batch,
        max_train_steps=100_000,
        logging_steps=LOGGING,
        **options,
    )
    with a_trainer(config, switches=False) as trainer:
        losses = DeviceLosses(LOGGING, trainer.accelerator, check_norms=True)
        done = 0

        def step() -> None:
            nonlocal done
            losses.add(*trainer.learner.update(done, trainer.batches))
            done += 1
            if done % LOGGING == 0:
                losses.read(done)
                losses.clear()

        yield Loop(step, partial(backend_options, trainer.config))


def flops_of_update(setting: Setting) -> int:
    """Of a bare forward and backward pass of a batch, counted with two images."""
    few = Setting(setting.config, 2, setting.device)
    with FlopCounterMode(display=False) as counter:
        bare_run("no", setting=few)()
    return counter.get_total_flops() * setting.batch // 2


def _saved_config(place: Place, setting: Setting) -> str:
    path = place.folder / f"unet-{setting.config['sample_size']}.json"
    path.write_text(json.dumps(setting.config), encoding="utf-8")
    return str(path)


def png_folder(place: Place, side: int, images: Iterable[np.ndarray]) -> Path:
    """Images as PNG files, which is how diffusers' example reads them; made once."""
    images = [np.asarray(image) for image in images]
    folder = place.folder / f"png-{side}-{len(images)}"
    if not folder.exists():
        folder.mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image).save(folder / f"{i:05d}.png", compress_level=1)
    return folder
