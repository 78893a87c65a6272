"""Check and measure the package on one GPU: ``make gpu``, or on a bare machine

    PYTHONPATH=tests python3 -m gpu.run --output OUT
    PYTHONPATH=tests python3 -m gpu.run --rehearse          on a CPU, with tiny sizes

It ends by itself after ``--minutes``, writes the JSON file of an item as soon as it is over, and
prints a table at the end. Its code is 0 if every item holds its bounds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpu.machine import ROOT, commit, fashion_mnist
from gpu.plan import CHECKS_END, PLAN, Item, chosen
from gpu.watching import Worker
from gpu.writing import write

__all__ = ["main", "run"]

BAD = {"misses", "failed", "timed out"}
_LEAST = 3.0  # seconds below which an item is not begun
_REHEARSAL = 100.0  # seconds for an item
_ENDING = 5.0  # seconds kept for the end


def run(
    items: list[Item], worker: Worker, output: Path, minutes: float, *, began: float
) -> Iterator[tuple[Item, dict[str, Any]]]:
    """Run items until they or the minutes are over; each with what it found.

    Arguments:
        items: In their order.
        worker: Runs them.
        output: Folder of the JSON files.
        minutes: After which the last one is over.
        began: When they began to count, on the clock of ``time.monotonic``.
    """
    known = {"commit": commit()}
    has_both = len({item.is_check for item in items}) == 2
    for item in items:
        end = 60 * minutes - _ENDING
        if has_both and item.is_check:
            end = min(end, CHECKS_END)
        left = began + end - time.monotonic()
        if left < _LEAST:
            yield item, {"verdict": "not run", "figure": "no time was left", "seconds": 0.0}
            continue
        found = worker.ask(item.name, min(item.seconds, left))
        write(output, item, found, known | worker.about.get("machine", {}))
        yield item, found


def line(item: Item, found: dict[str, Any]) -> str:
    return f"{item.name:24} {found['verdict']:9} {found['seconds']:6.1f} s  {found['figure']}"


@contextlib.contextmanager
def ending_after(seconds: float) -> Iterator[None]:
    """Raise SystemExit in the block after so many seconds, or on SIGTERM."""

    def end(number: int, _: object) -> None:
        raise SystemExit(f"ended by {signal.Signals(number).name}")

    kept = {number: signal.signal(number, end) for number in (signal.SIGALRM, signal.SIGTERM)}
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in kept.items():
            signal.signal(number, handler)


def parsed(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with tiny sizes")
    parser.add_argument("--only", default=os.environ.get("GPU_ONLY", ""), help="names of items")
    parser.add_argument("--output", type=Path, help="folder of the JSON; docs/benchmarks")
    parser.add_argument("--minutes", type=float, default=9.0, help="after which it ends")
    parser.add_argument("--list", action="store_true", help="only say what the items are")
    options = parser.parse_args(words)
    try:
        options.items = chosen(options.only)
    except ValueError as error:
        parser.error(str(error))
    return options


def main(words: list[str] | None = None) -> int:
    options = parsed(words)
    if options.list:
        print("\n".join(f"{item.name:24} {item.seconds:4.0f} s  {item.what}" for item in PLAN))
        return 0
    lines: list[str] = []
    try:
        with tempfile.TemporaryDirectory(prefix="ddpm-gpu-") as name:
            return _run_in(Path(name), options, lines)
    finally:
        print("\n".join(["", "item, verdict, seconds, figure", *lines]), flush=True)


def _run_in(folder: Path, options: argparse.Namespace, lines: list[str]) -> int:
    """Run what is asked for, and put a line for each item into ``lines`` when it is over."""
    began = time.monotonic()
    results = folder / "results" if options.rehearse else ROOT / "docs" / "benchmarks"
    data = None if options.rehearse else fashion_mnist()
    items, is_bad = options.items, False
    if options.rehearse:  # on any machine, which may be busy
        items = [replace(item, seconds=_REHEARSAL) for item in items]
    with (
        Worker(folder, rehearse=options.rehearse, data=data) as worker,
        ending_after(60 * options.minutes),
    ):
        worker.start()
        if not worker.about["has_device"]:
            print("no CUDA device was found; --rehearse runs on the CPU")
            return 2
        print(worker.about["machine"], flush=True)
        output = options.output or results
        for item, found in run(items, worker, output, options.minutes, began=began):
            lines.append(line(item, found))
            is_bad |= found["verdict"] in BAD
            print(lines[-1], found.get("error", ""), flush=True)
    return int(is_bad)


if __name__ == "__main__":
    raise SystemExit(main())
