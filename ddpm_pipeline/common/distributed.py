"""The processes of a run: which one this is, and what one of them does for all.

    state = process_state()
    on_main(lambda: folder.lock(), state)        done once; its result, or its error, everywhere
    seed = draw_seed(generator, accelerator)     one seed on all processes

One process alone needs no group, and all of this costs it nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list, parse_flag_from_env
from torch import distributed

if TYPE_CHECKING:
    Processes = Accelerator | PartialState

__all__ = [
    "draw_seed",
    "join_restarted_processes",
    "on_main",
    "process_state",
    "shared_accelerator",
]

T = TypeVar("T")


def process_state() -> PartialState:
    """Tell which process this is of those that `accelerate launch` or torchrun started.

    Without an accelerator, or where ACCELERATE_USE_CPU says so, they meet over gloo.
    """
    only_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    return PartialState(cpu=only_cpu)


def shared_accelerator() -> Accelerator | None:
    """Make an accelerator for work that several processes share; None for one process alone."""
    state = process_state()
    return Accelerator(cpu=state.device.type == "cpu") if state.num_processes > 1 else None


def on_main(function: Callable[[], T], processes: Processes) -> T:
    """Call a function on the main process, and give its result to all.

    Every process must call this, or the others wait for it.

    Raises:
        Exception: What the function raised, on every process.
    """
    outcome: list[Any] = [None, None]
    if processes.is_main_process:
        try:
            outcome[0] = function()
        except Exception as error:
            if processes.num_processes == 1:
                raise
            outcome[1] = error
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def draw_seed(
    generator: torch.Generator | None,
    accelerator: Accelerator | None = None,
    *,
    saved: int | None = None,
) -> int:
    """Draw a seed, the same on all processes.

    Arguments:
        generator: Where the main process draws it from; None is torch's global generator.
        accelerator: The processes, or None for one.
        saved: The seed of an interrupted run, which is taken unless a generator is given.
    """
    if generator is None and saved is not None:
        return saved
    device = "cpu" if generator is None else generator.device
    seed = torch.randint(2**63 - 1, (1,), generator=generator, device=device)
    if accelerator is not None and accelerator.num_processes > 1:
        seed = seed.to(accelerator.device) * accelerator.is_main_process
        seed = accelerator.reduce(seed, reduction="sum")
    return int(seed)


def join_restarted_processes() -> None:
    """Let workers that torchrun restarted meet apart from the workers that they replace.

    On one machine torchrun keeps one store through all restarts, and gloo would find the addresses
    of the processes that are gone in it (torch 2.13). On several machines the restarts are not
    counted alike, and TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in torchrun's environment is the way.
    """
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    alone = os.environ.get("GROUP_WORLD_SIZE") == "1"
    if restart == "0" or not alone or distributed.is_initialized():
        return
    store, rank, world_size = next(distributed.rendezvous("env://"))
    distributed.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo",
        store=distributed.PrefixStore(f"restart-{restart}", store),
        rank=rank,
        world_size=world_size,
    )
