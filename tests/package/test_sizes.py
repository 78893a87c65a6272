"""Functions and files stay short enough to be read at one sitting, and say nothing twice."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.paths import PACKAGE

LONGEST_FUNCTION, LONGEST_FILE, SAME_LINES = 50, 350, 6
# Files that may be longer, and why.
EXCEPTIONS: dict[str, str] = {}
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def code_lines(function: ast.FunctionDef, lines: list[str]) -> int:
    """Lines of a function but for docstrings, comments and blanks."""
    docstrings: set[int] = set()
    for node in ast.walk(function):
        is_own = isinstance(node, ast.FunctionDef | ast.ClassDef)
        if is_own and ast.get_docstring(node) is not None:
            first = node.body[0]
            docstrings |= set(range(first.lineno, first.end_lineno + 1))
    numbers = range(function.lineno, function.end_lineno + 1)
    own = (lines[number - 1].strip() for number in numbers if number not in docstrings)
    return sum(bool(line) and not line.startswith("#") for line in own)


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Every function of a file, with its number of code lines."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, code_lines(node, source.splitlines())


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_function_is_longer_than_a_screen(path: Path) -> None:
    assert [(name, count) for name, count in functions(path) if count > LONGEST_FUNCTION] == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_file_is_long_without_a_reason(path: Path) -> None:
    count = len(path.read_text(encoding="utf-8").splitlines())
    assert count <= LONGEST_FILE or name_of(path) in EXCEPTIONS


def test_what_is_counted_are_lines_of_code() -> None:
    lines = [
        "def f():",
        '    """Two',
        '    lines."""',
        "",
        "    # a comment",
        "    return (1,",
        "    )",
    ]
    source = "\n".join(lines)
    assert code_lines(ast.parse(source).body[0], lines) == 3


def own_lines(path: Path) -> list[tuple[int, str]]:
    """Numbered lines of a file but for imports, docstrings, comments, blanks and lone brackets."""
    source = path.read_text(encoding="utf-8")
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_text or isinstance(node, ast.Import | ast.ImportFrom):
            left_out |= set(range(node.lineno, node.end_lineno + 1))
    lines = [(i, line.strip()) for i, line in enumerate(source.splitlines(), start=1)]
    return [
        (i, text)
        for i, text in lines
        if i not in left_out and any(map(str.isalnum, text)) and not text.startswith("#")
    ]


def test_no_six_lines_stand_in_two_places() -> None:
    seen: dict[tuple[str, ...], str] = {}
    twice = []
    for path in FILES:
        lines = own_lines(path)
        for start in range(len(lines) - SAME_LINES + 1):
            window = lines[start : start + SAME_LINES]
            place = f"{name_of(path)}:{window[0][0]}"
            first = seen.setdefault(tuple(text for _, text in window), place)
            if first != place:
                twice.append(f"{first} = {place}")
    assert twice == []
