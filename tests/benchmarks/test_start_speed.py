"""How soon a command answers, as a ratio to ``import torch`` in the same run.

Run by ``make bench ARGS="-k start_speed"``; it prints the medians of five and records nothing.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import pytest

from ddpm_pipeline.cli.commands import COMMANDS

RUNS = 5
MEASURING = ("bound", "score", "calibrate", "evaluate")
DDPM = ("-m", "ddpm_pipeline.cli")
HELP, COMMAND_HELP, MISTAKE = 0.1, 0.35, 0.5
CALLS: list[tuple[str, float]] = [
    ("--help", HELP),
    *((f"{name} --help", COMMAND_HELP) for name in COMMANDS),
    ("--version", HELP),
    *((f"{name} --modell x", MISTAKE) for name in COMMANDS),
    *((f"{name} nowhere --data photos", MISTAKE) for name in MEASURING),
    *((f"{name} empty --data photos", MISTAKE) for name in MEASURING),
    *((f"{name} model --data ./nowhere", MISTAKE) for name in MEASURING),
    *((f"{name} model --data photos --output_dir there.png", MISTAKE) for name in MEASURING),
    *((f"{name} model --data photos --num_inference_steps 21", MISTAKE) for name in MEASURING),
    *((f"{name} model --data photos --batch_size 0", MISTAKE) for name in MEASURING),
    ("train", MISTAKE),
    ("train --train_data_dir nowhere", MISTAKE),
    ("train --train_data_dir photos --output_dir there.png", MISTAKE),
    ("train --train_data_dir photos --resolution 0", MISTAKE),
    ("train --train_data_dir photos --resume_from_checkpoint nowhere", MISTAKE),
    ("sample nowhere", MISTAKE),
    ("sample empty", MISTAKE),
    ("sample model --output there.png", MISTAKE),
    ("sample model --output model", MISTAKE),
    ("sample model --output there.png/new.png", MISTAKE),
    ("sample model --num_inference_steps 21", MISTAKE),
    ("sample model --eta 2", MISTAKE),
    ("sample model --class_labels 4", MISTAKE),
    ("sample model --class_labels cow", MISTAKE),
    ("evaluate model --data photos --class_labels cow", MISTAKE),
    ("evaluate model --data photos --samples nowhere", MISTAKE),
    ("evaluate model --data photos --features nowhere.py", MISTAKE),
    ("calibrate model --data photos --samplers ddpm", MISTAKE),
    ("bound model --data photos --variance_type nosuch", MISTAKE),
    ("score model --data photos --clip_x_0 -1", MISTAKE),
    ("export nowhere --output new", MISTAKE),
    ("export empty --output new", MISTAKE),
    ("export run --output photos", MISTAKE),
    ("export run --output new --checkpoint 7", MISTAKE),
    ("export --run model", MISTAKE),
    ("push nowhere alice/digits", MISTAKE),
    ("push empty alice/digits", MISTAKE),
    ("push model a/b/c", MISTAKE),
    ("push model", MISTAKE),
]
FOLDERS = ("model/unet", "model/scheduler", "empty", "photos", "run/checkpoints/step-0000005")
CONFIGS = {
    "model_index.json": {},
    "scheduler/scheduler_config.json": {"num_train_timesteps": 20},
    "unet/config.json": {"num_class_embeds": 4},
}


def run(folder: Path, *arguments: str) -> tuple[float, int]:
    """How long Python runs with these arguments, and its exit code."""
    start = time.perf_counter()
    command = [sys.executable, *arguments]
    code = subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode
    return time.perf_counter() - start, code


@pytest.mark.parametrize(("line", "allowed"), CALLS)
def test_an_answer_takes_a_part_of_importing_torch(
    tmp_path: Path, line: str, allowed: float
) -> None:
    for name in FOLDERS:
        (tmp_path / name).mkdir(parents=True)
    for name, config in CONFIGS.items():
        (tmp_path / "model" / name).write_text(json.dumps(config))
    for name in ("there.png", "photos/mine"):
        (tmp_path / name).write_text("")
    ratios, answers = [], []
    for _ in range(RUNS):
        torch, _ = run(tmp_path, "-c", "import torch")
        answer, code = run(tmp_path, *DDPM, *line.split())
        assert code == (0 if allowed < MISTAKE else 2)
        answers.append(answer)
        ratios.append(answer / torch)
    print(f"\nddpm {line}: {median(ratios):.3f} of import torch, {median(answers):.2f} s")
    assert median(ratios) <= allowed
