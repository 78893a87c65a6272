"""``SavedBound``: the file that an interrupted bound goes on from, with its sums and settings."""

from __future__ import annotations

import os
from dataclasses import asdict, fields, replace
from typing import Any

from torch import Tensor

from ddpm_pipeline.common import StateFile
from ddpm_pipeline.diffusion import ErrorSpectrum, ValueDecoder
from ddpm_pipeline.likelihood.blocks import BoundData
from ddpm_pipeline.likelihood.report import BoundSettings
from ddpm_pipeline.likelihood.totals import BoundTotals

__all__ = ["SavedBound"]

# At most this share of the time goes into the state file.
_SAVING_SHARE = 0.05


class SavedBound:
    """The sums of an interrupted bound; without a path it keeps nothing.

    Arguments:
        path: Where they are, or None.
        data: The examples that they are sums over.
        variances: The tables of a calibrated variance, which may have been calibrated anew.
        any_seed: Whether the sums may have another seed than the settings.
        writes: Whether this process saves them.
    """

    def __init__(
        self,
        path: str | os.PathLike | None,
        data: BoundData,
        variances: dict[str, Tensor | ErrorSpectrum | ValueDecoder],
        *,
        any_seed: bool,
        writes: bool,
    ) -> None:
        self._file = StateFile(path, writes=writes, largest_share=_SAVING_SHARE)
        self._free = ("seed",) if any_seed else ()
        # Enough to notice other data, whatever order of sums another machine prefers.
        self._check = {"first_image": round(data.example.double().mean().item(), 9)}
        for name, v in variances.items():
            table = v.ratios if isinstance(v, ErrorSpectrum) else v
            table = v.variance if isinstance(v, ValueDecoder) else table
            self._check[f"mean log {name}"] = round(table.log().mean().item(), 5)

    def load(self, settings: BoundSettings) -> tuple[BoundSettings, BoundTotals | None]:
        """Give the settings, with the seed of a saved run unless one was asked for, and its sums.

        Raises:
            ValueError: If they are sums of something else; names the first difference.
        """
        state = self._file.load()
        if state is None:
            return settings, None
        saved = state["settings"]
        for name, value in self._described(settings).items():
            if name not in self._free and saved.get(name) != value:
                raise ValueError(
                    f"state_file {str(self._file.path)!r} is of another bound: it has {name} = "
                    f"{saved.get(name)!r}, here it is {value!r}; delete the file or name another"
                )
        return replace(settings, seed=saved["seed"]), BoundTotals(**state["totals"])

    def save(self, totals: BoundTotals, settings: BoundSettings) -> None:
        """Write the sums, unless that was done a moment ago."""
        sums = {f.name: getattr(totals, f.name) for f in fields(totals)}
        self._file.save({"settings": self._described(settings), "totals": sums})

    def delete(self) -> None:
        """Remove the file."""
        self._file.delete()

    def _described(self, settings: BoundSettings) -> dict[str, Any]:
        return asdict(settings) | self._check
