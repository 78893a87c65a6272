"""Runs that are killed and gone on with: the bits of runs that were not.

All runs are processes of their own and train side by side; what is killed is killed by SIGKILL,
some updates after a checkpoint. Runs in fp16 begin with overflows.
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
from gpu.training_process import TOO_LARGE, differing_tensors, loss_scale, start

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
Key = tuple[str, bool]  # a mode, and whether its run is killed


def modes(place: Place) -> dict[str, dict[str, Any]]:
    if place.rehearses:
        return REHEARSED
    found = {name: {**options, "deterministic": True} for name, options in MODES.items()}
    with contextlib.suppress(NotBuilt):
        found["graph"] = {graph_option(): True, "deterministic": True}
    return {**found, NOT_PROMISED: {"deterministic": False}}


def exact_resume(place: Place, found: Found) -> None:
    """Every mode at once; what is found of a mode is kept as soon as its runs are over."""
    wanted = {
        (mode, is_killed): _options(place, mode, options, is_killed=is_killed)
        for mode, options in modes(place).items()
        for is_killed in (False, True)
    }
    runs = {key: start(place, options) for key, options in wanted.items()}
    again = _kill_and_go_on(place, {key: runs[key] for key in runs if key[1]}, wanted)
    for mode in modes(place):
        was_killed = runs[mode, True].exitcode == -signal.SIGKILL
        found.at_least(f"was killed in time, {mode}", float(was_killed), 1.0)
        codes = [_code(run) for run in (runs[mode, False], again[mode, True])]
        found.at_most(f"runs that failed, {mode}", sum(code != 0 for code in codes), 0)
        whole, resumed = (wanted[mode, is_killed]["output_dir"] for is_killed in (False, True))
        differing = differing_tensors(whole, resumed)
        if mode == NOT_PROMISED:
            found.note(**{f"differing tensors {mode}": differing})
        else:
            found.at_most(f"differing tensors, {mode}", differing, 0)
        if mode == "fp16":  # updates were left out, and the checkpoint knows it
            found.at_most("loss scale after overflows, fp16", loss_scale(resumed), TOO_LARGE / 2)


def _options(
    place: Place, mode: str, options: dict[str, Any], *, is_killed: bool
) -> dict[str, Any]:
    name = f"resume-{mode.replace(', ', '-').replace(' ', '-')}-{is_killed}"
    shutil.rmtree(place.folder / name, ignore_errors=True)
    every = place.pick(40, 4)
    length = {"checkpointing_steps": every, "max_train_steps": 6 * every}
    return run_options(place, name, **length, **options)


def _kill_and_go_on(
    place: Place, runs: dict[Key, BaseProcess], wanted: dict[Key, dict[str, Any]]
) -> dict[Key, BaseProcess]:
    """Kill each run once its second checkpoint is there, and start it again at once."""
    left, again = dict(runs), {}
    while left:
        for key, process in list(left.items()):
            checkpoints = Path(wanted[key]["output_dir"], "checkpoints")
            if len(list(checkpoints.glob("step-*"))) >= 2:
                process.kill()
            elif process.is_alive():
                continue
            process.join()
            del left[key]
            again[key] = start(place, wanted[key])
        time.sleep(0.002)
    return again


def _code(process: BaseProcess) -> int:
    """Wait until a process has ended."""
    process.join()
    return process.exitcode
