"""Groups of one process: over NCCL, with DDP and with shards, against no group at all."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu.runs import run_options
from gpu.training_process import differing_tensors, log_of, start
from safetensors.torch import load_file

if TYPE_CHECKING:
    from gpu.found import Found
    from gpu.place import Place


def one_process_group(place: Place, found: Found) -> None:
    """In float32 by AdamW, deterministic: the same work three times, side by side."""
    wanted = {name: _options(place, name) for name in ("alone", "group", "shards")}
    processes = {
        "alone": start(place, wanted["alone"]),
        "group": start(place, wanted["group"], **_group_of_one()),
        "shards": start(place, wanted["shards"], shards=True, **_group_of_one()),
    }
    for name, process in processes.items():
        process.join()
        found.at_most(f"code of the run {name}", abs(process.exitcode), 0)
    folders = {name: options["output_dir"] for name, options in wanted.items()}
    differing = differing_tensors(folders["alone"], folders["group"])
    found.at_most("tensors that a group of one changes", differing, 0)
    gap = _largest_gap(folders["group"], folders["shards"])
    found.at_most("weights with shards from those without", gap, 1e-5)
    log = log_of(wanted["shards"]).read_text(encoding="utf-8", errors="replace")
    found.note(shards_said=log.strip().splitlines()[-3:])


def _options(place: Place, name: str) -> dict[str, Any]:
    shutil.rmtree(place.folder / f"group-{name}", ignore_errors=True)
    return run_options(
        place,
        f"group-{name}",
        max_train_steps=place.pick(20, 3),
        optimizer="adamw",
        mixed_precision="no",
        allow_tf32=False,
        deterministic=True,
    )


def _group_of_one() -> dict[str, str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    numbers = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    return {**numbers, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def _largest_gap(first: str, second: str) -> float:
    file = "unet/diffusion_pytorch_model.safetensors"
    one, two = load_file(Path(first, file)), load_file(Path(second, file))
    return max(float((one[name] - two[name]).abs().max()) for name in one)
