"""Options from the command line: names, mistakes in one line, and the nearest that there is."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest
from helpers.command_lines import error_of

from ddpm_pipeline.cli.arguments import parse


@dataclass(frozen=True, kw_only=True)
class Inner:
    """Options of a part."""

    batch_size: int = 1
    """How many."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a test."""

    inner: Inner
    model: str = "m"
    """Its folder."""
    data: str = "d"
    """The images."""
    save: bool = True
    """Whether to save."""


def parsed(*argv: str) -> Options:
    positional = ("model", "data")
    return parse(Options, argv, prog="ddpm test", positional=positional)


def test_hyphens_and_nested_options_need_no_more() -> None:
    options = parsed("--batch-size", "3", "--no-save")
    assert (options.inner.batch_size, options.save) == (3, False)


def test_the_first_arguments_may_come_without_their_options() -> None:
    assert parsed("a", "b") == parsed("--model", "a", "--data", "b")
    assert parsed("a", "--save", "--data", "b") == parsed("--data", "b", "--model", "a")
    assert parsed("a", "--batch_size", "2").data == "d"
    assert parsed("--data", "b").model == "m"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--dat", "x"], "Unrecognized options: --dat (did you mean --data?)"),
        (["--batch-sise=2"], "--batch-sise (did you mean --batch_size?)"),
        (["--no_sav", "--modl", "x"], "--no_sav (did you mean --no_save?), --modl (did you mean"),
        (["--qqqqq", "1"], "Unrecognized options: --qqqqq; see ddpm test --help"),
        (["--batch_size", "x"], "--batch_size must be an integer, got 'x'"),
        (["a", "b", "c"], "Unrecognized options: c"),
    ],
)
def test_a_mistake_is_one_line_and_the_nearest_option_is_named(
    capsys: pytest.CaptureFixture[str], argv: list[str], said: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        parsed(*argv)
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.endswith("; see ddpm test --help\n")
    assert printed.count("\n") == 1


def test_a_missing_tyro_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tyro", None)
    code, printed = error_of(capsys, "train")
    assert code == 1
    assert "pip install ddpm_pipeline[train]" in printed


@dataclass(frozen=True, kw_only=True)
class Switches:
    strict: bool | None = None
    """Left to a default."""
    save: bool = True
    """Plain."""


@pytest.mark.parametrize(
    ("argv", "strict"),
    [
        ([], None),
        (["--strict"], True),
        (["--no-strict"], False),
        (["--no_strict", "--save"], False),
        (["--strict", "--no_save"], True),
        (["--strict", "False"], False),
        (["--strict", "None"], None),
    ],
)
def test_a_switch_may_be_left_to_a_default(argv: list[str], strict: bool | None) -> None:
    found = parse(Switches, argv, prog="ddpm test")
    assert found.strict is strict
    assert found.save is ("--no_save" not in argv)
