"""Names that look the same, told to be the same: of classes, of files.

    normalized("cafe\\u0301 ")         "café"

Systems store one accented letter in two ways, and tables leave spaces around words.
"""

from __future__ import annotations

import unicodedata

__all__ = ["normalized"]


def normalized(name: str) -> str:
    """Give a name with composed letters (Unicode's NFC), and with single spaces inside only."""
    return " ".join(unicodedata.normalize("NFC", name).split())
