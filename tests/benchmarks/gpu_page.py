"""The chapter of docs/benchmarks.md on GPUs, of the files that ``make gpu`` writes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["FILES", "chapter", "table"]

FILES = {
    "gpu_checks": "What was checked",
    "gpu_ceilings": "What the GPU can do",
    "gpu_training": "Training on a GPU",
    "gpu_sampling": "Sampling on a GPU",
    "gpu_bound": "The bound and calibration on a GPU",
    "gpu_memory": "Checkpoints on a GPU",
    "gpu_quality": "Distance over seconds on a GPU",
}
"""The files, and the headings of what they hold."""

NOTHING = "Not run on a GPU yet: `make gpu` on a machine with one writes this chapter's numbers.\n"


def chapter(folder: Path) -> str:
    """Everything that was found on a GPU, or that nothing was run on one yet."""
    found = {title: folder / f"{name}.json" for name, title in FILES.items()}
    sections = [section(title, file) for title, file in found.items() if file.exists()]
    return "\n".join(["## On a GPU\n", *(sections or [NOTHING])])


def section(title: str, file: Path) -> str:
    """One file: a line for each item, its table if it has one, and where it comes from."""
    items = json.loads(file.read_text(encoding="utf-8"))["items"]
    heads = ("item", "what", "verdict", "figure", "seconds")
    rows = [
        [f"`{name}`", item["what"], item["verdict"], item["figure"], item["seconds"]]
        for name, item in items.items()
    ]
    parts = [f"### {title}\n", table(heads, rows)]
    for name, item in items.items():
        if item["rows"]:
            parts += [f"`{name}`, {item['what']}:\n", table(item["columns"], item["rows"])]
    parts.append(f"```sh\nmake gpu GPU_ONLY={','.join(items)}\n```\n")
    return "\n".join([*parts, *dict.fromkeys(map(origin, items.values()))])


def origin(item: Mapping[str, Any]) -> str:
    """When, where, and with what an item ran."""
    versions = item.get("versions") or {}
    names = ("python", "torch", "cuda", "cudnn", "diffusers", "accelerate")
    words = ", ".join(f"{name} {versions[name]}" for name in names if versions.get(name))
    machine = f"{item.get('gpu')}, driver {item.get('driver')}, {item.get('cores')} cores"
    return f"{item['date']}; {machine}; {words}; commit {item.get('commit')}.\n"


def table(columns: Sequence[str], rows: Sequence[Sequence[str | float | int]]) -> str:
    lines = [columns, ["---"] * len(columns), *(list(map(_cell, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cell(value: str | float) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else value
