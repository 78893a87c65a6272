"""The code on the pages: blocks of Python, commands of the shell, cells of notebooks."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from ddpm_pipeline import DDPMPipeline
from ddpm_pipeline.pipelines.tasks.task import TaskOptions

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["cells", "commands", "imported", "python_blocks", "shell_lines", "unknown_keywords"]


def cells(notebook: Path) -> list[tuple[bool, str]]:
    """The cells of code of a notebook, and whether each holds the parameters."""
    text = notebook.read_text(encoding="utf-8")
    found = _fenced(text, r"\{code-cell\} ipython3")
    assert len(found) == text.count("{code-cell}")
    return [(":tags: [parameters]" in cell, re.sub(r"\A:tags:.*\n", "", cell)) for cell in found]


def python_blocks(page: Path) -> list[str]:
    """The blocks of Python on a page."""
    return _fenced(page.read_text(encoding="utf-8"), "python")


def shell_lines(page: Path) -> list[str]:
    """The lines of its blocks for the shell, with those that a backslash continues joined."""
    text = page.read_text(encoding="utf-8")
    blocks = _fenced(text, "(?:sh|bash)?")
    blocks += re.findall(r"(?<=\n\n)(?: {4}.*\n)+", text)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip()]


def commands(page: Path) -> list[list[str]]:
    """The calls of `ddpm` on a page, as arguments: of blocks for the shell, and in sentences."""
    prose = re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    lines = [line for line in shell_lines(page) if line.startswith("ddpm ")]
    lines += re.findall(r"`(ddpm [a-z]+[^`]*)`", prose)
    split = [shlex.split(line, comments=True)[1:] for line in lines]
    return [words for words in split if words and words[0].isalpha()]


def imported(trees: list[ast.Module]) -> dict[str, Any]:
    """What blocks import from the package, by name; fails if there is no such thing."""
    own: dict[str, Any] = {}
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("ddpm_pipeline"):
            module = importlib.import_module(node.module)
            own |= {alias.name: getattr(module, alias.name) for alias in node.names}
    return own


def unknown_keywords(trees: list[ast.Module], own: dict[str, Any]) -> set[str]:
    """The keywords in calls of the package's own, and of a ``pipe``, that these do not have."""
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {
        f"{ast.unparse(call.func)}({word.arg}=)"
        for call in calls
        for word in call.keywords
        if word.arg is not None and word.arg not in _known(call.func, own, word.arg)
    }


def _known(called: ast.expr, own: dict[str, Any], otherwise: str) -> set[str]:
    """The keywords of what is called; ``otherwise`` if it is not ours, or takes any."""
    if isinstance(called, ast.Name) and called.id in own:
        function = own[called.id]
    elif ast.unparse(called) == "pipe":
        function = DDPMPipeline.__call__
    elif isinstance(called, ast.Attribute) and ast.unparse(called.value) == "pipe":
        function = getattr(DDPMPipeline, called.attr)
    else:
        return {otherwise}
    if is_dataclass(function):
        return {field.name for field in fields(function)}
    parameters = inspect.signature(function).parameters
    if "options" in parameters:  # of a task
        return {*parameters, *TaskOptions.__annotations__}
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    return {otherwise} if takes_any else {*parameters}


def _fenced(text: str, language: str) -> list[str]:
    """The blocks of one language; blocks of others are passed over whole."""
    blocks = re.findall(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for name, block in blocks if re.fullmatch(language, name)]
