"""Runs that are killed and gone on with: the bits of runs that were not.

All runs are processes of their own and train side by side; what is killed is killed by SIGKILL,
some updates after a checkpoint.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu.checks.compiling import graph_option
from gpu.found import NotBuilt
from gpu.runs import run_options
from gpu.training_process import differing_tensors, start

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from gpu.found import Found
    from gpu.place import Place

MODES: dict[str, dict[str, Any]] = {
    "adamw": {"optimizer": "adamw"},
    "muon": {"optimizer": "muon"},
    "dropout, flips": {"dropout": 0.1, "random_flip": True},
    "fp16": {"mixed_precision": "fp16", "optimizer": "adamw"},
    "compile": {"compile": True},
}
REHEARSED = {"adamw": {"optimizer": "adamw", "mixed_precision": "no"}}
NOT_PROMISED = "without deterministic"


def modes(place: Place) -> dict[str, dict[str, Any]]:
    if place.rehearses:
        return REHEARSED
    found = {name: {**options, "deterministic": True} for name, options in MODES.items()}
    with contextlib.suppress(NotBuilt):
        found["graph"] = {graph_option(): True, "deterministic": True}
    return {**found, NOT_PROMISED: {"deterministic": False}}


def exact_resume(place: Place, found: Found) -> None:
    wanted = {
        (mode, is_killed): _options(place, mode, options, is_killed=is_killed)
        for mode, options in modes(place).items()
        for is_killed in (False, True)
    }
    runs = {key: start(place, options) for key, options in wanted.items()}
    killed = {key: process for key, process in runs.items() if key[1]}
    _kill_when_saved({wanted[key]["output_dir"]: process for key, process in killed.items()})
    was_killed = sum(_code(process) == -signal.SIGKILL for process in killed.values())
    found.at_least("runs that were killed in time", was_killed, len(killed))
    again = [start(place, wanted[key]) for key in killed]
    others = [process for key, process in runs.items() if not key[1]]
    failed = sum(_code(process) != 0 for process in [*others, *again])
    found.at_most("runs that failed", failed, 0)
    for mode in modes(place):
        whole, resumed = (wanted[mode, is_killed]["output_dir"] for is_killed in (False, True))
        differing = differing_tensors(whole, resumed)
        if mode == NOT_PROMISED:
            found.note(**{f"differing tensors {mode}": differing})
        else:
            found.at_most(f"differing tensors, {mode}", differing, 0)


def _options(
    place: Place, mode: str, options: dict[str, Any], *, is_killed: bool
) -> dict[str, Any]:
    name = f"resume-{mode.replace(', ', '-').replace(' ', '-')}-{is_killed}"
    shutil.rmtree(place.folder / name, ignore_errors=True)
    every = place.pick(40, 4)
    length = {"checkpointing_steps": every, "max_train_steps": 6 * every}
    return run_options(place, name, **length, **options)


def _kill_when_saved(runs: dict[str, BaseProcess]) -> None:
    """Kill each run once its second checkpoint is there, unless it has ended."""
    left = dict(runs)
    while left:
        for folder, process in list(left.items()):
            saved = len(list(Path(folder, "checkpoints").glob("step-*")))
            if saved >= 2:
                process.kill()
            if saved >= 2 or not process.is_alive():
                del left[folder]
        time.sleep(0.002)


def _code(process: BaseProcess) -> int:
    """Wait until a process has ended."""
    process.join()
    return process.exitcode
