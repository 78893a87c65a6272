"""What an item finds: bounds that hold or do not, numbers, one table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Found", "NotBuilt", "spread"]

Cell = str | float | int


class NotBuilt(Exception):  # noqa: N818 - it is no error
    """What an item is about does not exist in this version of the package."""


@dataclass
class Found:
    """What an item has found so far.

    Arguments:
        judges_speed: Whether bounds of speed are held against it; on a GPU only.
    """

    judges_speed: bool = True
    bounds: list[dict[str, Any]] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    rows: list[list[Cell]] = field(default_factory=list)

    def at_most(self, what: str, value: float, limit: float) -> None:
        """Hold a value against a bound from above; nan holds no bound."""
        self._bound(what, value, "≤", limit, holds=value <= limit)

    def at_least(self, what: str, value: float, limit: float) -> None:
        """Hold a value against a bound from below."""
        self._bound(what, value, "≥", limit, holds=value >= limit)

    def speed_at_least(self, what: str, value: float, limit: float) -> None:
        """The same for a speed, which says nothing in a rehearsal."""
        self._bound(what, value, "≥", limit, holds=value >= limit or not self.judges_speed)

    def speed_at_most(self, what: str, value: float, limit: float) -> None:
        """The same for a time or a share of it."""
        self._bound(what, value, "≤", limit, holds=value <= limit or not self.judges_speed)

    def _bound(self, what: str, value: float, relation: str, limit: float, *, holds: bool) -> None:
        bound = {"what": what, "value": value, "relation": relation, "limit": limit}
        self.bounds.append({**bound, "holds": holds})

    def note(self, **numbers: Any) -> None:
        """Keep values that nothing is held against."""
        self.numbers |= numbers

    def table(self, *columns: str) -> None:
        """Name the columns of the item's table, before its rows."""
        self.columns = columns

    def row(self, *cells: Cell) -> None:
        self.rows.append(list(cells))

    @property
    def verdict(self) -> str:
        if not all(bound["holds"] for bound in self.bounds):
            return "misses"
        return "holds" if self.bounds else "measured"

    @property
    def figure(self) -> str:
        """The bound that is nearest to be missed, or is missed most; for the table at the end."""
        if not self.bounds:
            return ", ".join(f"{k} {v}" for k, v in self.numbers.items() if isinstance(v, Cell))
        worst = max(self.bounds, key=lambda bound: (not bound["holds"], _tightness(bound)))
        value, limit = worst["value"], worst["limit"]
        return f"{worst['what']}: {value:.3g} ({worst['relation']} {limit:g})"

    def to_dict(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "figure": self.figure[:110],
            "bounds": self.bounds,
            "numbers": self.numbers,
            "columns": list(self.columns),
            "rows": self.rows,
        }


def _tightness(bound: dict[str, Any]) -> float:
    """The value as a share of a bound from above; the inverse for one from below."""
    value, limit = bound["value"], bound["limit"]
    if bound["relation"] == "≤":
        return value / limit if limit else float(value > 0)
    return limit / value if value else float(limit > 0)


def spread(seconds: Sequence[float]) -> dict[str, Any]:
    """The median of repeats, and all of them."""
    return {"median": statistics.median(seconds), "all": [round(s, 6) for s in seconds]}
