"""What an item finds: bounds that hold or do not, numbers, one table."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
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
        until: When the item is ended, on the clock of ``time.monotonic``.
        kept: A file that holds what was found so far, whole at any moment.
    """

    judges_speed: bool = True
    until: float = math.inf
    kept: Path | None = None
    headline: str = ""
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
        self._bound(what, value, "≥", limit, holds=value >= limit if self.judges_speed else None)

    def speed_at_most(self, what: str, value: float, limit: float) -> None:
        """The same for a time or a share of it."""
        self._bound(what, value, "≤", limit, holds=value <= limit if self.judges_speed else None)

    def _bound(
        self, what: str, value: float, relation: str, limit: float, *, holds: bool | None
    ) -> None:
        bound = {"what": what, "value": value, "relation": relation, "limit": limit}
        self.bounds.append({**bound, "holds": holds})
        self._keep()

    def note(self, **numbers: Any) -> None:
        """Keep values that nothing is held against."""
        self.numbers |= numbers
        self._keep()

    def say(self, figure: str) -> None:
        """Give the figure for the table at the end, where nothing is held against a bound."""
        self.headline = figure

    def table(self, *columns: str) -> None:
        """Name the columns of the item's table, whose rows begin anew."""
        self.columns, self.rows = columns, []

    def row(self, *cells: Cell) -> None:
        self.rows.append(list(cells))
        self._keep()

    @property
    def left(self) -> float:
        """Seconds until the item is ended."""
        return self.until - time.monotonic()

    def _keep(self) -> None:
        if self.kept is not None:
            aside = self.kept.with_suffix(".partial")
            aside.write_text(json.dumps(self.to_dict(), default=str), encoding="utf-8")
            aside.replace(self.kept)

    @property
    def verdict(self) -> str:
        judged = [bound["holds"] for bound in self.bounds if bound["holds"] is not None]
        if not judged:
            return "measured"
        return "holds" if all(judged) else "misses"

    @property
    def figure(self) -> str:
        """The bound that is nearest to be missed, or is missed most; for the table at the end."""
        if not self.bounds:
            return self.headline
        worst = max(self.bounds, key=lambda bound: (bound["holds"] is False, _tightness(bound)))
        value, limit = worst["value"], worst["limit"]
        return f"{worst['what']}: {value:.3g} ({worst['relation']} {limit:g})"

    def to_dict(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "figure": self.figure,
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
