"""Where a model's weights come from: the model that it was trained from, and which average it is.

    base_metadata(record)       {"base_model": "alice/digits", "base_model_relation": "finetune"}
    origin_lines(record, average)

``training_record.json`` says what a run started from, and ``average.json`` which average of a
run's snapshots the weights are.
"""

from __future__ import annotations

from typing import Any

from ddpm_pipeline.cards.markdown import number, plain

__all__ = ["base_metadata", "origin_lines"]


def base_metadata(record: dict[str, Any] | None) -> dict[str, str]:
    """Give what the Hub reads to show a model under the one that it was trained from.

    Nothing for a model that is not on the Hub, which its readers could not find.
    """
    base = _base(record)
    if not base.get("hub"):
        return {}
    return {"base_model": str(base["name"]), "base_model_relation": "finetune"}


def origin_lines(record: dict[str, Any] | None, average: dict[str, Any] | None) -> list[str]:
    """Say what the run started from, and which average the weights are, as far as it is known."""
    return [*_base_line(record), *_average_line(average)]


def _base(record: dict[str, Any] | None) -> dict[str, Any]:
    base = (record or {}).get("base")
    return base if isinstance(base, dict) and isinstance(base.get("name"), str) else {}


def _base_line(record: dict[str, Any] | None) -> list[str]:
    base = _base(record)
    if not base:
        return []
    name = plain(base["name"])
    if base.get("hub"):
        at = f" at {plain(base['revision'])}" if base.get("revision") else ""
        return [f"The run started from the weights of {name}{at} on the Hub."]
    return [f"The run started from the weights of another model, {name}, which is not on the Hub."]


def _average_line(average: dict[str, Any] | None) -> list[str]:
    if average is None:
        return []
    length, step = number(average["sigma_rel"], "g"), number(average["step"])
    count, error = number(average["num_snapshots"]), number(average["profile_error"], ".2g")
    text = (
        f"The weights are the average of σ\\_rel = {length} at update {step}, made after the "
        f"run of {count} snapshots (profile within {error})"
    )
    tried = average.get("tried")
    if tried:
        lengths = ", ".join(number(one["sigma_rel"], "g") for one in tried)
        text += f"; of {lengths} it was the best by {plain(average.get('measured'))}"
    return [f"{text}."]
