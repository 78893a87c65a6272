"""``renew_index``: our results in a card's model-index are renewed, all others left alone.

One of our results that is on a card already stays for as long as the weights do, even if the file
that it came from is gone.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.repocard_data import model_index_to_eval_results

from ddpm_pipeline.cards.results import COMMANDS, MARK, ModelWeights, one_bound

__all__ = ["CardIndex", "renew_index"]


@dataclass(frozen=True)
class CardIndex:
    """The results of a model.

    Arguments:
        entries: The model-index for the card's metadata; empty if nothing is measured.
        ours: Those of its results that this package measured.
    """

    entries: list[dict[str, Any]]
    ours: list[EvalResult]


def renew_index(
    index: object, fresh: list[EvalResult], weights: ModelWeights, *, model_name: str
) -> CardIndex:
    """Bring our results in a card's model-index up to date.

    Arguments:
        index: The card's present model-index, or None.
        fresh: Results that were read from the model's folder.
        weights: The model's; older results of ours stay if they are of these weights.
        model_name: What the model is called if the index does not say.
    Raises:
        ValueError: If what stands in the index's place is not one.
    """
    entries, older = _without_ours(copy.deepcopy(index or []))
    replaced = {_key(result) for result in fresh}
    older = [
        result
        for result in older
        if _key(result) not in replaced and weights.have_hash(result.metric_args["weights"])
    ]
    ours = one_bound(fresh, older, weights)
    if ours:
        entries = entries or [{"name": model_name, "results": []}]
        name = entries[0]["name"]
        card = ModelCardData(model_name=name, eval_results=ours).to_dict()
        entries[0]["results"] += card["model-index"][0]["results"]
    return CardIndex([entry for entry in entries if entry["results"]], ours)


def _without_ours(index: Any) -> tuple[list[dict[str, Any]], list[EvalResult]]:  # noqa: ANN401
    """Take our results out of a model-index, which is changed; give back both."""
    ours = []
    try:
        for entry in index:
            others = []
            for result in entry["results"]:
                mine = [metric for metric in result["metrics"] if _is_ours(metric)]
                if mine:
                    alone = {"name": entry["name"], "results": [{**result, "metrics": mine}]}
                    ours += model_index_to_eval_results([alone])[1]
                result["metrics"] = [m for m in result["metrics"] if not _is_ours(m)]
                others += [result] if result["metrics"] or not mine else []
            entry["results"] = others
    except (KeyError, TypeError, AttributeError):
        raise ValueError("model-index must be a list of models with names and results") from None
    return index, ours


def _is_ours(metric: dict[str, Any]) -> bool:
    args = metric.get("args")
    return isinstance(args, dict) and args.get(MARK) in COMMANDS and "weights" in args


def _key(result: EvalResult) -> tuple[object, ...]:
    """Give what a newer result has in common with the older one that it replaces."""
    place = (result.dataset_name, result.dataset_split)
    return (result.metric_args[MARK], result.metric_type, *place)
