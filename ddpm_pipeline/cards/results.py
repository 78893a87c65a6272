"""The numbers for a model card: what was measured of a model, and with what.

    evaluation.json, bound.json  ->  EvalResult(type, value, args)

Every result says in its arguments what it was measured with, and the hash of the weights that were
measured: a number of other weights is never shown for these.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import EvalResult

from ddpm_pipeline.common import PRIVATE_KEY, load_tensors, tensors_hash

__all__ = [
    "BITS_PER_DIM",
    "COMMANDS",
    "COPIED",
    "MARK",
    "TASK",
    "ModelWeights",
    "one_bound",
    "read_calibration",
    "read_results",
]

logger = logging.getLogger(__name__)


TASK, _TASK_NAME = "unconditional-image-generation", "Unconditional image generation"
MARK, BITS_PER_DIM = "measured_with", "bits_per_dim"
COPIED = "copied_share"
COMMANDS = _EVALUATE, _BOUND = "ddpm evaluate", "ddpm bound"
_WEIGHTS_NAME = "diffusion_pytorch_model"
_PRECISIONS = (None, torch.float32, torch.bfloat16, torch.float16)


class ModelWeights:
    """The weights in a model's folder, by which numbers of other weights are told.

    Arguments:
        folder: A saved pipeline.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "unet"
        self._hashes: dict[torch.dtype | None, str] = {}

    @cached_property
    def _tensors(self) -> dict[str, torch.Tensor]:
        index = self._folder / f"{_WEIGHTS_NAME}.safetensors.index.json"
        whole = self._folder / f"{_WEIGHTS_NAME}.safetensors"
        if index.is_file():
            names = set(json.loads(index.read_bytes())["weight_map"].values())
            files = [self._folder / name for name in sorted(names)]
        else:
            files = [whole] if whole.is_file() else sorted(self._folder.glob("*.safetensors"))
        return {name: value for file in files for name, value in load_tensors(file).items()}

    def have_hash(self, expected: str) -> bool:
        """Tell whether these weights, in one of the precisions, have that ``weights_hash``."""
        return any(self._hash(dtype) == expected for dtype in _PRECISIONS)

    def _hash(self, dtype: torch.dtype | None) -> str:
        if dtype not in self._hashes:
            self._hashes[dtype] = tensors_hash(self._tensors, dtype)
        return self._hashes[dtype]

    @cached_property
    def _reverse_process(self) -> dict[str, Any]:
        """Give what a bound depends on beside the weights, as the arguments of results."""
        path = self._folder.parent / "scheduler" / "scheduler_config.json"
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        options = (config.get(PRIVATE_KEY) or {}).get("options", {})
        own = {name: option["value"] for name, option in options.items()}
        names = ("variance_type", "prediction_type", "num_train_timesteps")
        return {name: value for name, value in (config | own).items() if name in names}

    def are_bound_by(self, result: EvalResult) -> bool:
        """Tell whether a bound is that of the model with the reverse moves that it is saved with.

        Calibrating a model, for one, changes the variances of its moves and so its bound.
        """
        given = self._reverse_process
        return all(result.metric_args.get(name, value) == value for name, value in given.items())

    @property
    def as_saved(self) -> str:
        """Give the ``weights_hash`` in the precision that they are saved in."""
        return self._hash(None)

    @property
    def num_parameters(self) -> int:
        """Count the numbers in them."""
        return sum(value.numel() for value in self._tensors.values())


def read_results(folder: Path, weights: ModelWeights) -> list[EvalResult]:
    """Read what was measured of the model in a folder; warn of a file of other weights."""
    readers = {"evaluation.json": _evaluation_results, "bound.json": _bound_results}
    return [
        result
        for name, read in readers.items()
        for result in _read_file(folder, name, read, weights)
    ]


def one_bound(
    results: Sequence[EvalResult], older: Sequence[EvalResult], weights: ModelWeights
) -> list[EvalResult]:
    """Keep one bits/dim of several, that of the model as it is saved, and all other results.

    Of those that are valid a fresh one comes before an older one, the full chain before others,
    the discretized decoder before others, `ddpm bound` before `ddpm evaluate`, and then the one
    with the least standard error.

    Arguments:
        results: Read from the model's folder; a warning tells of those that are not valid.
        older: That a card has.
        weights: The model's.
    """
    bounds = [r for r in (*results, *older) if r.metric_type == BITS_PER_DIM]
    valid = [result for result in bounds if weights.are_bound_by(result)]
    for result in results:
        if result.metric_type == BITS_PER_DIM and result not in valid:
            logger.warning(
                "the bits/dim of %s is left out of the card: it is of other variances (%s) than "
                "the model samples with; measure again",
                result.metric_args[MARK],
                result.metric_args.get("variance_type"),
            )
    kept = sorted(valid, key=lambda result: (result not in results, *_rank(result)))[:1]
    return [r for r in (*older, *results) if r.metric_type != BITS_PER_DIM or r in kept]


def _rank(result: EvalResult) -> tuple[bool, bool, bool, float]:
    """Order bounds of one model, the most telling first."""
    args = result.metric_args
    error = args.get("standard_error")
    return (
        args.get("num_inference_steps") != args.get("num_train_timesteps"),
        args.get("decoder") != "discretized" or args.get("clip_x_0") is not None,
        args.get(MARK) != _BOUND,
        math.inf if error is None else error,
    )


def read_calibration(folder: Path, weights: ModelWeights) -> dict[str, Any] | None:
    """Read calibration.json if it is there and was measured of the weights in the folder."""
    return next(
        iter(_read_file(folder, "calibration.json", lambda c: [_checked(c)], weights)), None
    )


def _checked(calibration: dict[str, Any]) -> dict[str, Any]:
    needed = ("bits_per_dim", "standard_error", "num_images", "num_forwards")
    missing = [name for name in needed if name not in calibration["report"]]
    if missing:
        raise KeyError(missing[0])
    return {**calibration, "weights": calibration["measured"]["weights"]}


def _read_file(
    folder: Path,
    name: str,
    read: Callable[[dict[str, Any]], list[Any]],
    weights: ModelWeights,
) -> list[Any]:
    """Read results out of a JSON file; none, with a warning, if it says too little of them."""
    path = folder / name
    if not path.is_file():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = read(content)
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        reason = f"it does not say {error}" if isinstance(error, KeyError) else error
        logger.warning("%s is left out of the card: %s; measure again", name, reason)
        return []
    kept = [item for item in found if weights.have_hash(_weights_of(item))]
    if len(kept) < len(found):
        logger.warning("%s is left out of the card: it is of other weights than these", name)
    return kept


def _weights_of(item: EvalResult | dict[str, Any]) -> str:
    return item.metric_args["weights"] if isinstance(item, EvalResult) else item["weights"]


def _result(
    kind: str, value: float, name: str, data: str, split: str | None, args: dict[str, Any]
) -> EvalResult:
    if not isinstance(value, float | int) or not math.isfinite(value):
        raise ValueError(f"its {name} is {value}")
    return EvalResult(
        task_type=TASK,
        task_name=_TASK_NAME,
        dataset_type=data,
        dataset_name=data,
        dataset_split=split,
        metric_type=kind,
        metric_value=value,
        metric_name=name,
        metric_args=args,
    )


def _evaluation_results(report: dict[str, Any]) -> list[EvalResult]:
    bound = report["bound"]
    weights = report["sampler"]["weights"]  # images of other programs have none
    found = _distances(report) + _copying(report)
    if bound is not None:
        # The bound of an evaluation is that of the full chain.
        args = _bound_args({**bound, "chain": range(bound["num_train_timesteps"])})
        args |= {MARK: _EVALUATE, "weights": weights, "versions": report["versions"]}
        args |= {"data_fingerprint": bound["fingerprint"], "data_changes": bound["changes"]}
        found.append(_bits_per_dim(bound, bound["data"], bound["split"], args))
    return found


def _distances(report: dict[str, Any]) -> list[EvalResult]:
    common = _drawn(report) | {
        "num_images": report["num_images"],
        "num_reference_images": report["num_reference"],
        "reference_fingerprint": report["reference"],
        "reference_changes": report["reference_changes"],
        "reference_overlap": report.get("reference_overlap"),
    }
    kept = {"num_kept": report["num_kept"]}
    is_fid = report["features"].startswith("Inception")
    kid_args = kept | {
        "standard_error": report["kid_standard_error"],
        "num_subsets": report["kid_subsets"],
    }
    ball_args = kept | {"neighbors": report["neighbors"]}
    distance = ("fid", "FID") if is_fid else ("frechet_distance", "Fréchet distance")
    rows = [
        (*distance, "frechet_distance", {"warnings": report["warnings"]}),
        ("kid", "KID", "kid", kid_args),
        ("precision", "precision", "precision", ball_args),
        ("recall", "recall", "recall", ball_args),
    ]
    data, split = report["reference_data"], report["reference_split"]
    return [
        _result(kind, report[key], name, data, split, common | args)
        for kind, name, key, args in rows
    ]


def _drawn(report: dict[str, Any]) -> dict[str, Any]:
    """Give what a number of an evaluation depends on, beside the images that it is about."""
    sampler = report["sampler"]
    return {
        MARK: _EVALUATE,
        "weights": sampler["weights"],
        "features": report["features"],
        "feature_dim": report["feature_dim"],
        "resize": report["resize"],
        "sampler": sampler.get("solver", sampler["scheduler"]),
        "num_inference_steps": sampler["num_inference_steps"],
        "eta": _eta(sampler),
        "guidance_scale": sampler["guidance_scale"],
        **{k: sampler[k] for k in ("guidance_model", "guidance_interval") if k in sampler},
        "class_labels": sampler["class_labels"],
        "precision": sampler["precision"],
        "seed": sampler["seed"],
        "versions": report["versions"],
    }


def _copying(report: dict[str, Any]) -> list[EvalResult]:
    """Read the test of copying; nothing where it was not made."""
    found = report.get("copying") or {"not_tested": None}
    if "not_tested" in found:
        return []
    args = _drawn(report) | {
        "num_images": found["num_samples"],
        "num_reference_images": found["num_train"],
        "num_held_out": found["num_held_out"],
        "reference_fingerprint": found["train_fingerprint"],
        "held_out_fingerprint": found["held_out_fingerprint"],
        "held_out_data": found["held_out_data"],
        "held_out_split": found["held_out_split"],
    }
    args |= {name: found[name] for name in ("standard_error", "p_value", "copies", "level")}
    args |= {"bound_gap": found["bound_gap"], "warnings": found["warnings"]}
    name = "share drawn to training images"
    return [_result(COPIED, found["share"], name, found["train_data"], found["train_split"], args)]


def _eta(sampler: dict[str, Any]) -> float | None:
    is_ddim = sampler["eta"] is None and sampler["scheduler"] == "DDIMScheduler"
    return 0.0 if is_ddim else sampler["eta"]


def _bound_results(report: dict[str, Any]) -> list[EvalResult]:
    data = report["data"]
    args = _bound_args(report)
    args |= {MARK: _BOUND, "weights": report["weights"], "versions": report["versions"]}
    args |= {"data_fingerprint": data["fingerprint"], "data_changes": data["changes"]}
    return [_bits_per_dim(report, data["name"], data["split"], args)]


def _bits_per_dim(
    bound: dict[str, Any], data: str, split: str | None, args: dict[str, Any]
) -> EvalResult:
    return _result(BITS_PER_DIM, bound["bits_per_dim"], "bits/dim", data, split, args)


def _bound_args(bound: dict[str, Any]) -> dict[str, Any]:
    drawn = bound["num_timestep_samples"]
    return {
        "num_images": bound["num_images"],
        "standard_error": bound["standard_error"],
        "decoder": bound["decoder"],
        "decoder_variance": bound["decoder_variance"],
        "num_inference_steps": len(bound["chain"]),
        "num_train_timesteps": bound["num_train_timesteps"],
        "prediction_type": bound["prediction_type"],
        "variance_type": bound["variance_type"],
        "estimator": "exact sum" if drawn is None else f"{drawn} timesteps per image",
        "timestep_sampler": None if drawn is None else bound["timestep_sampler"],
        "clip_x_0": bound["clip_x_0"],
        "seed": bound["seed"],
        "warnings": bound["warnings"],
    }
