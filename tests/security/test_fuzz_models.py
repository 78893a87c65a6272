"""Mutated models, calibrations, checkpoints, cards: they load, or one error says why not.

What comes out is counted and printed: `pytest -s tests/security`.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from compatibility.saved_recipes import SAVED
from helpers.manifests import sealed
from helpers.mutations import mutate

from ddpm_pipeline import Calibration, DDPMPipeline
from ddpm_pipeline.cards import renew_card
from ddpm_pipeline.hub import model_files
from ddpm_pipeline.training.storage.checkpoints import newest_checkpoint, read_checkpoint
from ddpm_pipeline.training.storage.export import open_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Libraries warn of what they are going to refuse.
pytestmark = pytest.mark.filterwarnings("ignore")

MODEL_FILES = (
    "model_index.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "scheduler/scheduler_config.json",
)
CHECKPOINT_FILES = ("manifest.json", "state.json", "model.safetensors")
LONGEST = 5  # seconds


@contextmanager
def ended_in_time() -> Iterator[None]:
    """Fail if the block does not end."""

    def fail(*_: object) -> None:
        raise RuntimeError(f"it hangs for over {LONGEST} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def a_model(folder: Path, generator: random.Random) -> tuple[str, Callable[[], object]]:
    shutil.copytree(SAVED / "calibrated", folder)
    said = mutate(folder / generator.choice(MODEL_FILES), generator)
    return said, lambda: DDPMPipeline.from_pretrained(folder)


def what_is_pushed(folder: Path, generator: random.Random) -> tuple[str, Callable[[], object]]:
    shutil.copytree(SAVED / "calibrated", folder)
    said = mutate(folder / "model_index.json", generator)
    return said, lambda: model_files(folder)


def a_card(folder: Path, generator: random.Random) -> tuple[str, Callable[[], object]]:
    shutil.copytree(SAVED / "calibrated", folder)
    (folder / "README.md").write_text(renew_card(folder, repo_id="alice/digits"))
    shutil.copy(SAVED / "run_adamw" / "training_config.json", folder)
    names = (*MODEL_FILES, "README.md", "calibration.json", "training_config.json")
    said = mutate(folder / generator.choice(names), generator)
    return said, lambda: renew_card(folder, repo_id="alice/digits")


def a_calibration(folder: Path, generator: random.Random) -> tuple[str, Callable[[], object]]:
    config = json.loads((SAVED / "calibrated/scheduler/scheduler_config.json").read_text())
    values = config["_ddpm_pipeline"]["calibration"]
    folder.mkdir()
    (folder / "x.json").write_text(
        json.dumps({k: v for k, v in values.items() if k != "last_noise_levels"})
    )
    said = mutate(folder / "x.json", generator)
    return said, lambda: Calibration.from_dict(parsed(folder / "x.json"))


def parsed(path: Path) -> object:
    """Read JSON, whose own error for depth is no fault of ours."""
    try:
        return json.loads(path.read_bytes())
    except RecursionError as error:
        raise ValueError(str(error)) from error


def a_checkpoint(folder: Path, generator: random.Random) -> tuple[str, Callable[[], object]]:
    path = folder / "checkpoints" / "step-0000007"
    shutil.copytree(SAVED / "run_adamw" / "checkpoints" / path.name, path)
    state = json.loads((path / "state.json").read_text())
    state["identity"]["config"]["model_config_name_or_path"] = str(SAVED / "unet.json")
    (path / "state.json").write_text(json.dumps(state))
    sealed(path)
    name = generator.choice(CHECKPOINT_FILES)
    said = mutate(path / name, generator)
    if name != "manifest.json" and generator.random() < 0.8:
        sealed(path)  # as somebody would who can write files

    def read() -> None:
        read_checkpoint(newest_checkpoint(folder / "checkpoints"))
        open_checkpoint(folder)

    return said, read


KINDS = (a_model, what_is_pushed, a_card, a_calibration, a_checkpoint)


def fuzz(kind: Callable, folder: Path, seeds: range) -> Counter[str]:
    """Try one mutation for each seed; count what comes of them."""
    counts: Counter[str] = Counter()
    for seed in seeds:
        place = folder / str(seed)
        said, attempt = kind(place, random.Random(f"{kind.__name__} {seed}"))
        try:
            with ended_in_time():
                attempt()
            counts["taken"] += 1
        except (ValueError, OSError) as error:
            if not str(error):
                pytest.fail(f"seed {seed}, {said}: nothing is said")
            counts[type(error).__name__] += 1
        except Exception as error:
            raise AssertionError(
                f"seed {seed}, {said}: {type(error).__name__}: {error}"
            ) from error
        shutil.rmtree(place, ignore_errors=True)
    print(f"{kind.__name__}: {len(seeds)} mutations,", dict(counts))  # noqa: T201 (the result)
    return counts


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_is_whole_is_taken(
    kind: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.mutate", lambda path, _: path.name)
    assert fuzz(kind, tmp_path, range(2)) == {"taken": 2}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_mutations_end_in_one_kind_of_error(kind: Callable, tmp_path: Path) -> None:
    counts = fuzz(kind, tmp_path, range(20))
    assert counts.total() - counts["taken"] >= 3


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_many_mutations_end_in_one_kind_of_error(kind: Callable, tmp_path: Path) -> None:
    fuzz(kind, tmp_path, range(100, 600))
