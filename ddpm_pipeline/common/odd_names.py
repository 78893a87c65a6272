"""Reading safetensors in folders whose names are no UTF-8, which their library refuses.

    tensors = load_tensors(folder / "model.safetensors")
    with utf8_alias(folder) as name:                      for other libraries: the same folder
        from_pretrained(name)

Names of files are bytes, and Python keeps those that are no UTF-8 as surrogates.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["load_tensors", "utf8_alias"]


def load_tensors(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read a file of safetensors, of any name.

    Raises:
        SafetensorError: If it is damaged.
    """
    from safetensors.torch import load, load_file

    return load_file(path) if _is_utf8(os.fspath(path)) else load(Path(path).read_bytes())


@contextmanager
def utf8_alias(path: str | os.PathLike, *, special: Iterable[str] = ()) -> Iterator[str]:
    """Give a path by which libraries find what is at it.

    Arguments:
        path: That is given itself wherever it is UTF-8 and holds nothing special.
        special: What a library reads as more than a part of a name.
    """
    name = os.fspath(path)
    is_plain = _is_utf8(name) and not any(part in name for part in special)
    if is_plain or not Path(name).exists():
        yield name
        return
    with TemporaryDirectory() as folder:
        link = Path(folder, "alias")
        link.symlink_to(Path(name).absolute())
        yield str(link)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
