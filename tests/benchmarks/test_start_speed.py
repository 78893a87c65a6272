"""How soon a command answers, as a ratio to ``import torch`` in the same run.

Run by ``make bench ARGS="-k start_speed"``; it prints the medians of five and records nothing.
"""

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import pytest

from ddpm_pipeline.cli.commands import COMMANDS

RUNS = 5
DDPM = ("-m", "ddpm_pipeline.cli")
HELP, COMMAND_HELP, MISTAKE = 0.1, 0.35, 0.5
CALLS: list[tuple[str, float]] = [
    ("--help", HELP),
    *((f"{name} --help", COMMAND_HELP) for name in COMMANDS),
    ("bound model --dataa photos", MISTAKE),
    ("train --resolutionn 8", MISTAKE),
    ("sample nowhere", MISTAKE),
    ("bound nowhere --data photos", MISTAKE),
    ("calibrate model --data ./nowhere", MISTAKE),
    ("train --train_data_dir nowhere", MISTAKE),
    ("sample model --output there.png", MISTAKE),
]


def seconds(folder: Path, *arguments: str) -> float:
    """How long Python runs with these arguments."""
    start = time.perf_counter()
    command = [sys.executable, *arguments]
    subprocess.run(command, cwd=folder, capture_output=True, check=False)
    return time.perf_counter() - start


@pytest.mark.parametrize(("line", "allowed"), CALLS)
def test_an_answer_takes_a_part_of_importing_torch(
    tmp_path: Path, line: str, allowed: float
) -> None:
    (tmp_path / "model").mkdir()
    for name in ("model/model_index.json", "there.png"):
        (tmp_path / name).write_text("{}")
    ratios, answers = [], []
    for _ in range(RUNS):
        torch = seconds(tmp_path, "-c", "import torch")
        answers.append(seconds(tmp_path, *DDPM, *line.split()))
        ratios.append(answers[-1] / torch)
    print(f"\nddpm {line}: {median(ratios):.3f} of import torch, {median(answers):.2f} s")
    assert median(ratios) <= allowed
