"""Markdown: text, tables and code that cannot change the page around them.

    plain("a_b")                      a, an escaped underscore, b
    code("epsilon")                   `epsilon`
    number(1234)                      1,234
    table(["K", "bits/dim"], rows)    | K | bits/dim | ...
    fenced("x = 1", "python")         ```python ...

Whatever comes from data, files or people goes through ``plain`` before it stands on a card.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ddpm_pipeline.common import printable

__all__ = ["code", "fenced", "number", "plain", "table"]


def plain(text: object) -> str:
    """Put text into one line that Markdown and HTML leave as it is.

    Addresses in it become no links, and names no mentions.
    """
    line = printable(" ".join(str(text).split()))
    line = re.sub(r"([\\`*_{}\[\]<>#|~$!&@])", r"\\\1", line)
    return re.sub(r"(?i)(?<=\bwww)\.|:(?=//)|(?<=\bmailto):", lambda found: f"\\{found[0]}", line)


def code(text: object) -> str:
    """Put a word into the letters of code; leave what is no word as plain text."""
    word = str(text)
    return f"`{word}`" if re.fullmatch(r"[\w.+-]+", word) else plain(word)


def number(value: object, form: str = ",") -> str:
    """Format a number; show as text whatever else somebody wrote in its place."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        return format(value, form) if is_number else plain(value)
    except OverflowError:  # an integer that no float holds, as a damaged report may
        return plain(value)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table of texts that are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fenced(code: str, language: str) -> str:
    """Put code into a block whose fence is longer than any in the code."""
    longest = max(map(len, re.findall("`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{code}\n{fence}"
