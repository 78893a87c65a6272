"""The process that runs items, one at a time, as it is asked for them.

    python -m gpu.worker FOLDER [--rehearse] [--data FASHION_MNIST]

reads names of items, each with the seconds it has, on standard input and answers each with a line
of JSON. What items print goes to standard error. Whoever asks ends the process when an item takes
too long; what it had found by then is in FOLDER/found.json.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpu.place import Place
    from gpu.plan import Item

__all__ = ["answer"]


def answer(item: Item, place: Place, seconds: float) -> dict[str, Any]:
    """Run an item; what it found, or why it found nothing."""
    from gpu.found import Found, NotBuilt

    began = time.perf_counter()
    kept = place.folder / "found.json"
    kept.unlink(missing_ok=True)
    found = Found(place.on_gpu, time.monotonic() + seconds, kept)
    try:
        function = getattr(importlib.import_module(f"gpu.{item.module}"), item.name)
        function(place, found)
        place.wait()
        result = found.to_dict()
    except NotBuilt as reason:
        result = {**found.to_dict(), "verdict": "not built", "figure": str(reason)}
    except Exception as failure:  # noqa: BLE001 - other items still run
        figure = f"{type(failure).__name__}: {failure}".partition("\n")[0][:200]
        result = {**found.to_dict(), "verdict": "failed", "figure": figure}
        result["error"] = traceback.format_exc()
    return {**result, "seconds": round(time.perf_counter() - began, 2), "usable": _tidy(place)}


def _tidy(place: Place) -> bool:
    """Leave nothing of an item behind; whether the device still computes."""
    import torch

    torch.use_deterministic_algorithms(False)
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
    gc.collect()
    if not place.on_gpu:
        return True
    try:
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    except RuntimeError:  # after some errors nothing runs in this process any more
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--data")
    options = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import torch
    from gpu.machine import describe
    from gpu.place import CPU, Place
    from gpu.plan import PLAN

    is_gpu = torch.cuda.is_available() and not options.rehearse
    device = torch.device("cuda", 0) if is_gpu else CPU
    place = Place(device, options.rehearse, options.folder, options.data)
    items = {item.name: item for item in PLAN}

    def say(words: dict[str, Any]) -> None:
        answers.write(json.dumps(words, default=str) + "\n")
        answers.flush()

    with contextlib.suppress(Exception):  # what is missing is found by the first item
        import gpu.runs  # noqa: F401 - takes some seconds, which are no item's
    say({"machine": describe(device), "has_device": is_gpu or options.rehearse})
    for line in sys.stdin:
        name, seconds = line.split()
        say(answer(items[name], place, float(seconds)))


if __name__ == "__main__":
    main()
