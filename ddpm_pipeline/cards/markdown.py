"""Markdown: text, tables and code that cannot change the page around them.

    plain("a_b")                      a, an escaped underscore, b
    table(["K", "bits/dim"], rows)    | K | bits/dim | ...
    fenced("x = 1", "python")         ```python ...

Whatever comes from data, files or people goes through ``plain`` before it stands on a card.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["fenced", "plain", "table"]


def plain(text: object) -> str:
    """Put text into one line that Markdown and HTML leave as it is."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\`*_{}\[\]<>#|~$!&])", r"\\\1", line)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table of texts that are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fenced(code: str, language: str) -> str:
    """Put code into a block whose fence is longer than any in the code."""
    longest = max(map(len, re.findall("`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{code}\n{fence}"
