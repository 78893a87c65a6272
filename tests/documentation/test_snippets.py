"""The code on the pages is true: names and options exist, and all of the README's runs."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import shutil
import tomllib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.hub_clients import running_client
from helpers.hubs import running_hub
from helpers.paths import DOCS, ROOT
from helpers.snippets import commands, imported, python_blocks, shell_lines, unknown_keywords
from helpers.unets import make_tiny_unet
from helpers.wrong_calls import WORKING_FEATURES
from PIL import Image

from ddpm_pipeline import DDPMPipeline, DDPMScheduler
from ddpm_pipeline.cli.commands import COMMANDS, main

README = ROOT / "README.md"
PAGES = [README, *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("notebooks/*.md"))]
WITH_PYTHON = [page for page in PAGES if python_blocks(page)]
WITH_COMMANDS = [page for page in PAGES if commands(page)]

# What makes the commands of a page small enough to run; later options count.
SMALL = {
    "train": "--max_train_steps 2 --train_batch_size 2 --ddpm_num_steps 20 --num_threads 1"
    " --ddpm_num_inference_steps 2 --checkpointing_steps 2 --post_hoc_steps 1"
    " --overwrite_output_dir",
    "sample": "--num_images 1 --num_inference_steps 2",
    "average": "",
    "edit": "--num_inference_steps 2 --num_results 1 --iterations 1",
    "export": "",
    "bound": "--num_timestep_samples 1",
    "score": "--num_timestep_samples 1",
    "calibrate": "--num_forwards 50 --num_inference_steps 2",
    "evaluate": "--num_images 20 --num_inference_steps 2 --bound_images 2",
}
# Names on the page that stand for something of the reader's.
STANDS_FOR = {"DIR": "features.py", "features": "features.py", "500": "2", "64": "8", "128": "8"}
# What there is when all commands of a page have run.
WRITTEN = {
    README: ["samples.png", "model015", "edited/sheet.png", "model500", "model/scores.csv"],
    DOCS / "situations.md": ["drawn.npz", "best/average.json", "two/evaluation.json"],
}
ON_THE_HUB = """
import json, sys
from unittest.mock import patch
from huggingface_hub import HfApi
from ddpm_pipeline import DDPMPipeline
from ddpm_pipeline.cli.commands import main

name, argvs, blocks = json.loads(sys.argv[1])
for argv in argvs:
    assert main(argv) == 0, argv
HfApi().create_tag(name, tag="v1")
names = {"DDPMPipeline": DDPMPipeline, "pipe": DDPMPipeline.from_pretrained("model")}
for block in blocks:
    exec(block, names)
"""


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# All pages: what is named exists.


@pytest.mark.parametrize("page", WITH_PYTHON, ids=relative)
def test_python_on_the_pages_names_only_what_is_there(page: Path) -> None:
    trees = [ast.parse(block) for block in python_blocks(page)]
    assert unknown_keywords(trees, imported(trees)) == set()


@cache
def help_of(command: str) -> str:
    """What `ddpm COMMAND --help` prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        main([command, "--help"])
    return printed.getvalue()


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=relative)
def test_commands_on_the_pages_have_these_options(page: Path) -> None:
    assert [command for command, *_ in commands(page) if command not in COMMANDS] == []
    named = {
        (command, word.partition("=")[0])
        for command, *words in commands(page)
        for word in words
        if word.startswith("--")
    }
    lost = [(c, word) for c, word in named if not re.search(rf"{word}(?![\w-])", help_of(c))]
    assert lost == []


def test_what_is_made_and_installed_exists() -> None:
    text = README.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"`?make ([a-z-]+)", text))
    assert {"demo", "demo-colour", "test", "docs"} <= targets
    assert [name for name in targets if f"\n{name}:" not in makefile] == []
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = set(re.findall(r'pip install [^`\n]*\[([a-z,]+)\]"', text))
    assert asked
    assert asked <= extras["optional-dependencies"].keys()


# The README, word by word.


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the README's reader has: photos, a hole, a model of the demo."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDPM_PIPELINE_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for folder, count in (
        ("photos/train", 40),
        ("photos/test", 20),
        ("icons", 4),
        ("xrays", 20),
        ("pictures", 60),
    ):
        Path(folder).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            if folder == "xrays":
                pixels = rng.integers(0, 4096, (8, 8), dtype=np.uint16)
            Image.fromarray(pixels).save(Path(folder, f"{i}.png"))
    shutil.copy("photos/test/0.png", "photo.png")
    Image.fromarray(np.pad(np.full((4, 4), 255, np.uint8), 2)).save("hole.png")
    Path("features.py").write_text(WORKING_FEATURES)
    demo = make_tiny_unet(num_class_embeds=11)
    DDPMPipeline(demo, DDPMScheduler(50)).save_pretrained("runs/demo/model")
    for i, name in enumerate(("one", "two")):
        DDPMPipeline(make_tiny_unet(3, seed=i), DDPMScheduler(50)).save_pretrained(name)
    return tmp_path


def small(argv: list[str]) -> list[str]:
    """A command of a page as it is run here."""
    words = [STANDS_FOR.get(word, word) for word in argv]
    return [*words, *SMALL[words[0]].split()]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", WRITTEN, ids=relative)
def test_every_command_of_a_page_runs(page: Path, place: Path) -> None:
    lines = [line for line in shell_lines(page) if line.startswith("ddpm ")]
    argvs = [words for words in commands(page)[: len(lines)] if words[0] != "push"]
    assert len(argvs) >= 8
    for argv in argvs:
        assert main(small(argv)) == 0, argv
    assert [name for name in WRITTEN[page] if not (place / name).exists()] == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_block_of_python_in_the_readme_runs(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ddpm_pipeline import training

    made = training.TrainingConfig
    trained = []

    def tiny(**options: object) -> training.TrainingConfig:
        few = dict.fromkeys(["max_train_steps", "train_batch_size", "ddpm_num_inference_steps"], 2)
        trained.append(options)
        return made(**(options | {"resolution": 8}), num_threads=1, **few)

    names = {"x_0": torch.ones(2, 1, 8, 8)}
    monkeypatch.setattr("ddpm_pipeline.TrainingConfig", tiny)
    for block in python_blocks(README):
        if "push_to_hub" in block:
            continue  # below
        if "variational_bound" in block:  # of a model without classes
            names["pipe"] = DDPMPipeline(make_tiny_unet(), DDPMScheduler(50))
        exec(compile(block, "README.md", "exec"), names)
    assert len(trained) == 1
    assert (place / "three.png").exists()
    assert (place / "model" / "model_index.json").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_page_of_calibration_runs(place: Path) -> None:
    """Its commands, those in sentences too, its Python, and stock on the steps that it has."""
    page = DOCS / "calibration.md"
    DDPMPipeline(make_tiny_unet(3), DDPMScheduler(50)).save_pretrained("model")
    shutil.copytree("photos", "fashion-mnist")
    argvs = [words for words in commands(page) if any(map(Path.is_dir, map(Path, words)))]
    assert [argv[0] for argv in argvs] == ["calibrate", "sample", "calibrate", "sample"]
    for argv in argvs:
        assert main(small(argv)) == 0, argv
    assert (place / "samples25.png").is_file()
    names: dict = {}
    for block in python_blocks(page):
        exec(compile(block, page.name, "exec"), names)
    pipe, stock = names["pipe"], names["stock"]
    assert pipe.scheduler.solver.name == "spectral"
    assert stock.timesteps.tolist() == pipe.scheduler.calibrated_timesteps(8, "multistep")
    x = torch.randn(2, 3, 8, 8)
    for t in stock.timesteps:
        x = stock.step(torch.zeros_like(x), t, x).prev_sample
    assert x.isfinite().all()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_the_readme_says_of_the_hub_runs(place: Path) -> None:
    DDPMPipeline(make_tiny_unet(), DDPMScheduler(50)).save_pretrained("model")
    name = "alice/digits"
    argvs = [argv for argv in commands(README) if argv[0] == "push" and len(argv) > 1]
    argvs = [[name if word == "USER/NAME" else word for word in argv] for argv in argvs]
    blocks = [b.replace("USER/NAME", name) for b in python_blocks(README) if "push_to_hub" in b]
    assert len(argvs) >= 2
    assert len(blocks) == 1
    script = place / "hub.py"
    script.write_text(ON_THE_HUB)
    with running_hub(place / "hub") as hub, running_client(hub.environment(), place) as client:
        outcome = client.run(json.dumps([name, argvs, blocks]), script=str(script))
    assert outcome.code == 0, outcome.log
