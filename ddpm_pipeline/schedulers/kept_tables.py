"""Tensors of a chain's steps that a device keeps, as long as they are small together.

tables = KeptTables()
tables.get(key, make)                      make() at the first call, and what it gave after that
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from torch import Tensor

__all__ = ["KeptTables"]


_MOST_BYTES = 2**28


class KeptTables:
    """Tables by key, up to 256 MiB; what is above that is made anew each time.

    The first ones stay, and not the last: walks of a chain come by in the same order, so that the
    last ones would be dropped before they are asked for again.
    """

    def __init__(self) -> None:
        self._tables: dict[Hashable, tuple[Tensor, ...]] = {}
        self._nbytes = 0

    def get(self, key: Hashable, make: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Give the tables of a key, from ``make`` unless they are kept."""
        found = self._tables.get(key)
        if found is not None:
            return found
        made = make()
        nbytes = sum(table.nbytes for table in made)
        if self._nbytes + nbytes <= _MOST_BYTES:
            self._tables[key] = made
            self._nbytes += nbytes
        return made
