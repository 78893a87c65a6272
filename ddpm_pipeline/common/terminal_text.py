r"""Text from elsewhere, in a form that a terminal and a log line only show.

    printable("a\x1b[2J\nb")         a\x1b[2J\nb, with no escape character and no line break in it

Names of files, classes and repositories may hold what moves a cursor, renames a window, begins a
line of its own or turns the direction of writing.
"""

from __future__ import annotations

from unicodedata import bidirectional, category

__all__ = ["printable"]

# Control characters, surrogates, and the separators of lines and paragraphs.
_UNSHOWN = {"Cc", "Cs", "Zl", "Zp"}
# Of the characters that only format text, those that turn its direction.
_TURNING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def printable(text: str) -> str:
    """Give a text on one line, for any terminal or file.

    Bytes that are not UTF-8, ends of lines, controls and what turns the direction of writing are
    written as escapes.
    """
    return "".join(_escaped(c) if _is_unshown(c) else c for c in text)


def _is_unshown(character: str) -> bool:
    return category(character) in _UNSHOWN or bidirectional(character) in _TURNING


def _escaped(character: str) -> str:
    byte = ord(character) - 0xDC00  # as Python keeps a byte of a file's name that is no UTF-8
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else ascii(character)[1:-1]
