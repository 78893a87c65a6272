"""The tables of a model card: every number beside all that it depends on.

    results_text(results)        what evaluate and bound measured
    calibration_text(content)    what calibrate found for each K

Names that come from data or files go through ``plain``, so that they cannot change the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from huggingface_hub import EvalResult

from ddpm_pipeline.cards.markdown import number, plain, table
from ddpm_pipeline.cards.results import BITS_PER_DIM, COPIED, MARK

__all__ = ["calibration_text", "results_text"]


_HEADER = ("", "value", "")


def results_text(results: Sequence[EvalResult]) -> str | None:
    """Write all results in tables, each below what its numbers depend on, then the warnings."""
    groups: dict[str, list[list[str]]] = {}
    for result in results:
        words = _circumstances(result)
        groups.setdefault(words, []).append([_metric(result), _value(result), _note(result)])
    parts = [text for words, rows in groups.items() for text in (words, table(_HEADER, rows))]
    warnings = dict.fromkeys(w for r in results for w in r.metric_args.get("warnings") or [])
    if warnings:
        parts.append("\n".join(f"- {plain(text)}" for text in warnings))
    return "\n\n".join(parts) or None


def calibration_text(
    calibration: dict[str, Any] | None, results: Sequence[EvalResult] = ()
) -> str | None:
    """Write the tables over K of a calibration.json, and what they were measured on.

    The full chain's bits/dim are left out where results hold a bits/dim, which was measured
    without the calibration's approximations: a model has one.
    """
    if calibration is None:
        return None
    report, measured = calibration["report"], calibration["measured"]
    split = "" if measured["split"] is None else f", split {plain(measured['split'])}"
    data = f"{plain(measured['data'])}{split}{_changed(measured['changes'])}"
    rows = report["bits_per_dim"]
    if any(result.metric_type == BITS_PER_DIM for result in results):
        full = max((int(K) for row in rows.values() for K in row), default=0)
        rows = {
            name: {K: v for K, v in row.items() if int(K) < full} for name, row in rows.items()
        }
    text = (
        f"Of `ddpm calibrate`, from {number(report['num_forwards'])} forward passes over "
        f"{number(report['num_images'])} images of {data}; seed {plain(measured['seed'])}."
    )
    parts = [text]
    if any(rows.values()):
        error = number(report["standard_error"], ".2g")
        parts[0] += f" Bits/dim (discretized decoder; standard error {error} at K = T):"
        parts.append(_table_over_steps(rows, ".3f"))
    if report["frechet_distance"]:
        text = (
            f"Fréchet distance of {number(report['num_frechet_images'])} samples to these images; "
            f"features {plain(report['features'])}:"
        )
        parts += [text, _table_over_steps(report["frechet_distance"], ".4g")]
    return "\n\n".join(parts)


def _metric(result: EvalResult) -> str:
    return plain(result.metric_name or result.metric_type)


def _value(result: EvalResult) -> str:
    error = result.metric_args.get("standard_error")
    value = number(result.metric_value, ".4g")
    return value if error is None else f"{value} ± {number(error, '.2g')}"


def _note(result: EvalResult) -> str:
    """Say what must be known of one number and not of the others beside it."""
    args = result.metric_args
    if result.metric_type == BITS_PER_DIM:
        return "upper bound; ± is the standard error"
    if result.metric_type == COPIED:
        return _copying_note(args)
    notes = {
        "num_subsets": "± is the standard error, from {} subsets",
        "neighbors": "{} nearest neighbours",
        "num_kept": "at most {} images of each set",
    }
    return "; ".join(t.format(number(args[k])) for k, t in notes.items() if k in args)


def _copying_note(args: dict[str, Any]) -> str:
    """Say what the test of copying found, and beside which held-out images."""
    get, split, gap = args.get, args.get("held_out_split"), args.get("bound_gap")
    said = "**the model copies training images**" if get("copies") else "no copies found"
    words = (
        f"{said} (p = {number(get('p_value'), '.2g')}; 0 is none, 1 is all), beside "
        f"{number(get('num_held_out'))} held-out images of {plain(get('held_out_data'))}"
    )
    if split is not None:
        words += f", split {plain(split)}"
    if isinstance(gap, dict):
        value, error = (gap.get(name) for name in ("bits_per_dim", "standard_error"))
        words += (
            "; bits/dim of held-out images less those of training images: "
            f"{number(value, '.3g')} ± {number(error, '.2g')}"
        )
    return words


def _circumstances(result: EvalResult) -> str:
    """Say in one sentence what a number depends on."""
    args, split = result.metric_args, result.dataset_split
    data = plain(result.dataset_name) + ("" if split is None else f", split {plain(split)}")
    is_bound = result.metric_type == BITS_PER_DIM
    terms = _bound_terms(args, data) if is_bound else _distance_terms(args, data)
    known = [*terms, f"seed {plain(args.get('seed'))}"]
    return f"{'; '.join(known)}. Measured with `{args[MARK]}`:"


def _bound_terms(args: dict[str, Any], data: str) -> list[str]:
    get, T = args.get, number(args.get("num_train_timesteps"))
    sampler, clip = get("timestep_sampler"), get("clip_x_0")
    return [
        f"{number(get('num_images'))} images of {data}{_changed(get('data_changes'))}",
        f"{plain(get('decoder'))} decoder (variance: {plain(get('decoder_variance'))})",
        f"chain of {number(get('num_inference_steps'))} of T = {T} steps",
        f"variance type {plain(get('variance_type'))}",
        plain(get("estimator")) + ("" if sampler is None else f", drawn by {plain(sampler)}"),
        *([] if clip is None else [f"predicted x₀ clamped to ± {number(clip, 'g')}"]),
    ]


def _distance_terms(args: dict[str, Any], data: str) -> list[str]:
    get, eta, labels = args.get, args.get("eta"), args.get("class_labels")
    changes = _changed(get("reference_changes"))
    known = _known_images(get("reference_overlap"))
    reference = f"{number(get('num_reference_images'))} images of {data}{changes}{known}"
    chain = f"{plain(get('sampler'))}, K = {number(get('num_inference_steps'))}"
    guidance, precision = get("guidance_scale"), get("precision")
    size = number(get("feature_dim"))
    return [
        f"{number(get('num_images'))} samples against {reference}",
        f"features {plain(get('features'))} ({size} dimensions; resize: {plain(get('resize'))})",
        chain + ("" if eta is None else f", eta = {number(eta, 'g')}"),
        *([] if guidance == 1 else [_guidance(args)]),
        *([] if labels is None else [_classes(labels)]),
        *([] if precision == "float32" else [plain(precision)]),
    ]


def _guidance(args: dict[str, Any]) -> str:
    """Say by which weight images were guided, and by what and where if not as usual."""
    words = f"guidance {number(args['guidance_scale'], 'g')}"
    if (model := args.get("guidance_model")) is not None:
        words += f" by the model with weights {plain(model)[:12]}"
    if (interval := args.get("guidance_interval")) is not None:
        words += f" at timesteps {plain(interval)}"
    return words


def _classes(labels: object) -> str:
    """Say of which classes images were drawn: of those that were given, or in words."""
    return f"classes {plain(labels)}" + (" in turn" if isinstance(labels, list) else "")


def _changed(changes: object) -> str:
    """Say how many images were resized, cropped, ... before they were measured."""
    known = changes if isinstance(changes, dict) else {}
    words = ", ".join(f"{number(count)} {plain(name)}" for name, count in known.items())
    return f" ({words})" if words else ""


def _known_images(overlap: object) -> str:
    """Say how many reference images the model was trained on; nothing of an older report."""
    if not isinstance(overlap, dict):
        return ""
    if overlap.get("train") is None:
        return " (whether it was trained on them could not be checked)"
    return f" ({number(overlap['train'])} of them training images)"


def _table_over_steps(numbers: dict[str, dict[str, float]], form: str) -> str:
    """Write a row for each sampler and spacing, a column for each K."""
    steps = sorted({int(K) for row in numbers.values() for K in row})
    rows = [
        [plain(name), *(number(row[str(K)], form) if str(K) in row else "" for K in steps)]
        for name, row in numbers.items()
    ]
    return table(["sampler and spacing", *(f"K = {K}" for K in steps)], rows)
