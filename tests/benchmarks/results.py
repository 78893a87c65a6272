"""What a benchmark found, as a JSON file beside docs/benchmarks.md, and that page made of them.

    python tests/benchmarks/results.py      # writes docs/benchmarks.md anew

Every number on the page comes from such a file, and every file names the command, the machine and
the versions that it came from. ``make bench`` and the scripts in this folder write the files.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gpu_page import chapter, table

__all__ = ["SECTIONS", "page", "record"]

DOCS = Path(__file__).parents[2] / "docs"
FOLDER = DOCS / "benchmarks"
PACKAGES = ("torch", "diffusers", "accelerate")

SECTIONS: dict[str, tuple[str, ...]] = {
    "Quality of training": (
        "recipes",
        "time_to_quality",
        "bound_training",
        "copy_test",
        "fine_tuning",
        "post_hoc_averages",
        "autoguidance",
    ),
    "Quality of few steps": (
        "few_steps",
        "calibrated_distance",
        "calibrated_bound",
        "spectral_bound",
        "jacobian_covariances",
    ),
    "Tasks on given images": ("posterior", "inversion"),
    "Conditions": ("condition_vector", "super_resolution"),
    "Speed": (
        "scheduler_step",
        "training_speed",
        "sampling_speed",
        "input_pipeline",
        "bound_speed",
        "cost_curves",
    ),
}
"""Chapters of the page, and the results in each."""

INTRODUCTION = """# Benchmarks

Everything but the last chapter was measured on a shared machine with 2 CPU cores and no GPU, so
times are compared within one run and never between runs. "Stock" is diffusers of the version named
in the section: its `DDPMScheduler` and `DDPMPipeline`, and the loop of its example
`train_unconditional.py`. Fréchet distances are taken in the 64 features of a small classifier of
Fashion-MNIST (`examples/train_features.py`), not in Inception's: they compare with one another and
with nothing else. This page is written by `python tests/benchmarks/results.py` from
`docs/benchmarks/*.json`.
"""


def record(
    name: str,
    *,
    title: str,
    command: str,
    text: str = "",
    columns: Sequence[str] = (),
    rows: Sequence[Sequence[str | float | int]] = (),
    picture: str | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write docs/benchmarks/NAME.json; set BENCHMARKS_RECORD=0 to measure without writing.

    Arguments:
        name: One of those in `SECTIONS`.
        title: Heading.
        command: What a reader runs to measure again.
        text: What was measured, and what it shows.
        columns: Names of the table's columns, with units.
        rows: Its rows; floats are shown to four digits.
        picture: A file below docs/.
        notes: Lines below the table.
    """
    if os.environ.get("BENCHMARKS_RECORD", "1") == "0":
        return
    if not any(name in names for names in SECTIONS.values()):
        raise ValueError(f"name must be one of those in SECTIONS, got {name!r}")
    result: dict[str, Any] = {
        "title": title,
        "command": command,
        "text": text,
        "columns": list(columns),
        "rows": [list(row) for row in rows],
        "picture": picture,
        "notes": list(notes),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
    }
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps(result, indent=1, ensure_ascii=False)
    (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def page() -> str:
    """docs/benchmarks.md, from the results that there are."""
    parts = [INTRODUCTION]
    for title, names in SECTIONS.items():
        found = [name for name in names if (FOLDER / f"{name}.json").exists()]
        if found:
            parts += [f"## {title}\n", *(_section(_read(name)) for name in found)]
    return "\n".join([*parts, chapter(FOLDER)])


def _read(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def _section(result: Mapping[str, Any]) -> str:
    parts = [f"### {result['title']}\n"]
    if result["text"]:
        parts.append(f"{result['text']}\n")
    if result["rows"]:
        parts.append(table(result["columns"], result["rows"]))
    if result["picture"]:
        parts.append(f"![{result['title']}]({result['picture']})\n")
    parts += [f"- {note}" for note in result["notes"]]
    if result["notes"]:
        parts.append("")
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    parts.append(f"```sh\n{result['command']}\n```\n")
    parts.append(f"{result['date']}; {result['machine']}; {versions}.\n")
    return "\n".join(parts)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def main() -> None:
    (DOCS / "benchmarks.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
