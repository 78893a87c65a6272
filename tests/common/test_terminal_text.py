"""Text from elsewhere, shown and not obeyed."""

from __future__ import annotations

import os

import pytest

from ddpm_pipeline.common import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain name 1.png", "plain name 1.png"),
        ("a\nINFO all is well", r"a\nINFO all is well"),
        ("\x1b[2J\x1b]0;owned\x07", r"\x1b[2J\x1b]0;owned\x07"),
        ("\r\t\x00\x7f\x9b", r"\r\t\x00\x7f\x9b"),
        ("a\u2028b\u2029c\x85d", r"a\u2028b\u2029c\x85d"),
        ("gnp\u202egpj.exe\u2066", r"gnp\u202egpj.exe\u2066"),
        (os.fsdecode(b"\xff.png"), r"\xff.png"),
        ("\ud800", r"\ud800"),
        ("日本 é 👩\u200d🚀\u3000x", "日本 é 👩\u200d🚀\u3000x"),
    ],
)
def test_what_is_not_shown_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown
    shown.encode()
