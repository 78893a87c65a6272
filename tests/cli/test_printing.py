"""What a command prints, and where."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from ddpm_pipeline.cli.printing import complain, log_to_terminal, say

ODD = "a\x1b[2J\x07\u202eb"
SHOWN = "a\\x1b[2J\\x07\\u202eb"


def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    complain("ddpm bound", "two\n  lines")
    assert capsys.readouterr() == ("", "ddpm bound: error: two lines\n")


def test_an_error_does_nothing_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    complain("ddpm push", "no \x1b]0;owned\x07 \u202ehere")
    assert capsys.readouterr().err == "ddpm push: error: no \\x1b]0;owned\\x07 \\u202ehere\n"


def test_what_is_said_and_logged_does_nothing_either(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    say(f"{ODD}\nclasses", Path("as\x07it is"))
    assert capsys.readouterr().out == f"{SHOWN}\nclasses\n\nas\x07it is\n"
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    log_to_terminal()
    logging.getLogger("ddpm_pipeline").warning("%s\nof two lines", ODD)
    assert capsys.readouterr().err == f"{SHOWN}\nof two lines\n"


@pytest.mark.parametrize("is_main", [True, False])
def test_one_process_speaks_for_all(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, is_main: bool
) -> None:
    state = SimpleNamespace(is_main_process=is_main)
    monkeypatch.setattr("ddpm_pipeline.common.process_state", lambda: state)
    say("table", 3)
    say("beside it", to_errors=True)
    printed = ("table\n\n3\n", "beside it\n") if is_main else ("", "")
    assert capsys.readouterr() == printed
