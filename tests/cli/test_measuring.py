"""What bound, score, calibrate and evaluate share: the order of their questions, and the end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.command_lines import error_of

from ddpm_pipeline.cli.measuring import run_measurement


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure something."""

    model: str
    """What."""
    data: str
    """On what."""
    output_dir: str | None = None
    """Where to."""
    num_inference_steps: int | None = None
    """How many."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "model"):
        (tmp_path / name).mkdir()
    (tmp_path / "model/model_index.json").write_text("{}")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "photos/a.png").touch()
    return tmp_path


def measured(*argv: str, measure: object = lambda _: ["table", "note"]) -> None:
    run_measurement(Options, argv, prog="ddpm test", measure=measure)


def test_what_was_measured_is_printed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured("model", "--data", "photos")
    assert capsys.readouterr().out == "table\n\nnote\n"


def test_an_error_names_the_option_as_it_is_typed_and_leaves_no_folder(here: Path) -> None:
    def fail(config: Options) -> Iterator[str]:
        Path(config.output_dir).mkdir(parents=True)
        raise ValueError("output_dir must be another")
        yield

    with pytest.raises(ValueError, match=r"^--output_dir must be another$"):
        measured("model", "--data", "photos", "--output_dir", "a/b", measure=fail)
    assert not (here / "a").exists()


@pytest.mark.parametrize("command", ["bound", "score", "calibrate", "evaluate"])
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("model --data mnist --output_dir file", "--output_dir='file' cannot be written"),
        ("alice/digits --data no.npz --output_dir new", "--data='no.npz' does not exist"),
        ("alice/digits --data mnist --output_dir file/x", "--output_dir='file/x' cannot be"),
    ],
)
def test_the_hub_is_asked_last(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    line: str,
    said: str,
) -> None:
    def asked(*_: object) -> None:
        pytest.fail("the Hub was asked")

    monkeypatch.setattr("ddpm_pipeline.hub.check_on_hub", asked)
    more = ["--no_save"] if command == "calibrate" else []
    code, printed = error_of(capsys, command, *line.split(), *more)
    assert code == 2
    assert said in printed


def test_samples_are_drawn_after_the_same_questions(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ddpm_pipeline.hub.check_on_hub", lambda *_: pytest.fail("asked"))
    code, printed = error_of(capsys, "sample", "alice/digits", "--output", "file/a.png")
    assert (code, "--output='file/a.png' cannot be written" in printed) == (2, True)
