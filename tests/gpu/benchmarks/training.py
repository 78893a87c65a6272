"""Images per second of training: stock, bare and ours take turns, a few updates at a time."""

from __future__ import annotations

import contextlib
import statistics
import time
from typing import TYPE_CHECKING

import torch
from gpu.benchmarks.ceilings import matmul_flops
from gpu.benchmarks.loops import Loop, flops_of_update, ours, stock_and_bare, variants
from gpu.found import spread
from helpers.training_runs import TINY_UNET
from stock_training import Setting

from ddpm_pipeline.networks.unets import unet_config

if TYPE_CHECKING:
    from gpu.found import Found
    from gpu.place import Place

STOCK, OURS = "stock, its defaults", "ours, our defaults"
FREE = "ours, not deterministic"
TIMING_SHARE = 0.35  # of the time of an item, which is kept for timing


def training_small(place: Place, found: Found) -> None:
    setting = setting_of(place, "small", 28, 1, 64)
    seconds = _compare(place, found, setting, warm=10, rounds=5, steps=20)
    found.speed_at_least("images/s by stock's", seconds[STOCK] / seconds[OURS], 8.0)
    _hold_price(found)


def training_ddpm(place: Place, found: Found) -> None:
    setting = setting_of(place, "ddpm", 32, 3, 128)
    seconds = _compare(place, found, setting, warm=5, rounds=3, steps=15)
    found.speed_at_least("images/s by stock's", seconds[STOCK] / seconds[OURS], 3.0)
    share = found.numbers["share of the peak"]
    found.speed_at_least("of the measured peak in bf16", share, 0.33)
    _hold_price(found)


def _hold_price(found: Found) -> None:
    """Being deterministic is the default for as long as it costs little."""
    if "price_of_determinism" in found.numbers:
        price = found.numbers["price_of_determinism"]
        found.speed_at_most("time that determinism adds", price, 0.10)


def training_small_512(place: Place, found: Found) -> None:
    _compare(place, found, setting_of(place, "small", 28, 1, 512), warm=5, rounds=3, steps=10)


def setting_of(place: Place, size: str, side: int, channels: int, batch: int) -> Setting:
    """A network and its batch, or tiny ones."""
    if place.rehearses:
        return Setting({**TINY_UNET, "dropout": 0.0}, 4, place.device)
    config = unet_config(size, resolution=side, channels=channels)
    return Setting(config, batch, place.device)


def _compare(
    place: Place, found: Found, setting: Setting, *, warm: int, rounds: int, steps: int
) -> dict[str, float]:
    """Time all loops in turns; the median seconds of an update of each."""
    warm, rounds, steps = place.pick((warm, rounds, steps), (1, 2, 2))
    times: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(place.compiling())
        loops = _warm_loops(place, found, setting, stack, warm)
        flops = flops_of_update(setting)
        peak = statistics.median(matmul_flops(place, torch.bfloat16))
        for _ in range(rounds):
            for name, loop in loops.items():
                times.setdefault(name, []).append(_seconds(place, loop, steps) / steps)
            _report(found, setting, times, flops, peak)
    return {name: statistics.median(values) for name, values in times.items()}


def _warm_loops(
    place: Place, found: Found, setting: Setting, stack: contextlib.ExitStack, warm: int
) -> dict[str, Loop]:
    """Make each loop, and make its first updates, in which it allocates and compiles.

    The two that are compared come first: where compiling takes long, there is no time for all.
    """
    makers = dict(stock_and_bare(place, setting))
    for name, options in variants().items():
        makers[name] = lambda options=options: stack.enter_context(ours(place, setting, options))
    loops, first, enough = {}, {}, TIMING_SHARE * found.left
    for name in sorted(makers, key=lambda name: name not in {STOCK, OURS}):
        make, began = makers[name], time.perf_counter()
        if found.left < enough:
            found.note(**{f"left out for want of time: {name}": True})
            continue
        loops[name] = make()
        _seconds(place, loops[name], warm)
        first[name] = round(time.perf_counter() - began, 2)
    found.note(seconds_to_warm=first)
    return loops


def _seconds(place: Place, loop: Loop, steps: int) -> float:
    with loop.settings():
        place.wait()
        began = time.perf_counter()
        for _ in range(steps):
            loop.step()
        place.wait()
        return time.perf_counter() - began


def _report(
    found: Found, setting: Setting, times: dict[str, list[float]], flops: int, peak: float
) -> None:
    seconds = {name: statistics.median(values) for name, values in times.items()}
    found.table("loop", "images/s", "ms/update", "lowest ms", "× stock", "of the bf16 peak")
    for name, median in seconds.items():
        speed, ratio = setting.batch / median, seconds[STOCK] / median
        share = flops / median / peak
        found.row(name, speed, 1000 * median, 1000 * min(times[name]), ratio, share)
    found.note(
        seconds={name: spread(values) for name, values in times.items()},
        flops_of_update=flops,
        peak_TFLOPs=peak / 1e12,
        dtype="bf16 where not said, by autocast from float32 weights",
    )
    found.note(**{"share of the peak": flops / seconds[OURS] / peak})
    if FREE in seconds:
        found.note(price_of_determinism=seconds[OURS] / seconds[FREE] - 1)
    found.say(f"{setting.batch / seconds[OURS]:,.0f} images/s, {setting.batch} an update")
