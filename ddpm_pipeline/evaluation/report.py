"""The record of an evaluation: its numbers, and all that they depend on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ddpm_pipeline.evaluation.class_frequencies import AS_OFTEN
from ddpm_pipeline.evaluation.pairs import pairs_text

__all__ = ["EvaluationReport"]

_SHOWN_CLASSES = 12


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """The numbers of an evaluation, and everything that they depend on."""

    frechet_distance: float
    """Squared Fréchet distance; FID if the features are Inception's."""
    kid: float
    """Kernel distance, unbiased at any number of images."""
    kid_standard_error: float
    precision: float
    recall: float
    bound: dict[str, Any] | None
    """The variational bound in bits/dim with its error, parts and data; None if left out."""
    seconds_per_image: float | None
    """Time of one process to draw an image; None for images drawn before."""
    num_images: int
    num_reference: int
    num_kept: int
    """Images of each set, at most, that KID, precision and recall looked at."""
    kid_subsets: int
    neighbors: int
    features: str
    feature_dim: int
    resize: str
    """How the extractor brings images to its own size."""
    reference: str
    """Hash of the reference images and of their preparation."""
    reference_data: str
    """What they are called: a name of the Hub, or the last part of their path."""
    reference_split: str | None
    reference_changes: dict[str, int]
    """How many reference images were resized, cropped or converted."""
    reference_overlap: dict[str, int | None] | None = None
    """How many reference images the model was trained on, or validated on; None where unknown."""
    sampler: dict[str, Any]
    """Weights, scheduler, K, seed and all else that determines the images."""
    class_counts: dict[str, int] | None = None
    """Images drawn of each class, by name or number; None if the options or nobody chose them."""
    nearest: list[dict[str, Any]]
    """For some images, the reference images nearest in the features, and their distances."""
    pairs: dict[str, Any] | None = None
    """PSNR and SSIM of samples and the images of their conditions; None without such."""
    copying: dict[str, Any] | None = None
    """Whether samples are copies of training images, with the worst pairs and the gap between
    the bounds; why it was "not_tested", if so."""
    device: str
    versions: dict[str, str]
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Give all of it as JSON values."""
        return asdict(self)

    def table(self) -> str:
        """Write the numbers and what they depend on as a table in text."""
        name = "FID" if self.features.startswith("Inception") else "Fréchet distance"
        rows = {
            name: f"{self.frechet_distance:.4g}",
            "KID": f"{self.kid:.3g} ± {self.kid_standard_error:.2g}",
            "precision": f"{self.precision:.3f}",
            "recall": f"{self.recall:.3f}",
        }
        if self.bound is not None:
            rows["bits/dim"] = _bound_text(self.bound)
        if self.pairs is not None:
            rows |= pairs_text(self.pairs)
        if self.copying is not None:
            rows |= _copying_rows(self.copying)
        if self.seconds_per_image is not None:
            rows["seconds per image"] = f"{self.seconds_per_image:.3g}"
        rows |= {
            "images": f"{self.num_images:,} against {self.num_reference:,}",
            "features": f"{self.features}, {self.feature_dim} dimensions",
            "resize": self.resize,
            "sampler": _sampler_text(self.sampler),
        }
        if self.reference_overlap is not None:
            rows["reference"] = _overlap_text(self.reference_overlap)
        if self.class_counts is not None:
            rows["classes"] = _classes_text(self.class_counts)
        width = max(map(len, rows))
        lines = [f"{key:{width}}  {value}" for key, value in rows.items()]
        warnings = [*self.warnings, *(self.copying or {}).get("warnings", ())]
        return "\n".join([*lines, *(f"warning: {text}" for text in warnings)])


def _bound_text(bound: dict[str, Any]) -> str:
    value = f"{bound['bits_per_dim']:.4g} ± {bound['standard_error']:.2g}"
    data = " ".join(filter(None, [bound["data"], bound["split"]]))
    return f"{value} on {bound['num_images']:,} images of {data}"


def _copying_rows(copying: dict[str, Any]) -> dict[str, str]:
    """Say whether the model copies, and how that is known."""
    if "not_tested" in copying:
        return {"copying": f"not tested: {copying['not_tested']}"}
    said = "COPIES its training images" if copying["copies"] else "none found"
    sets = f"{copying['num_train']:,} training and {copying['num_held_out']:,} held-out images"
    rows = {
        "copying": f"{said}: share {copying['share']:.2f} ± {copying['standard_error']:.2f}, "
        f"p = {copying['p_value']:.2g} ({copying['num_samples']:,} samples, {sets})",
        "nearer than held out": f"{copying['nearer']:.3f} ± "
        f"{copying['nearer_standard_error']:.2g}, p = {copying['nearer_p_value']:.2g}",
    }
    if copying["bound_gap"] is not None:
        gap = copying["bound_gap"]
        rows["bits/dim gap"] = (
            f"{gap['bits_per_dim']:.3g} ± {gap['standard_error']:.2g} from {gap['num_images']:,} "
            f"training images ({gap['train']:.4g}) to as many held-out ones"
        )
    return rows


def _overlap_text(overlap: dict[str, int | None]) -> str:
    """Say how many reference images the model met in its training."""
    if overlap["train"] is None:
        return "could not be checked for training images"
    held_out = overlap["validation"]
    more = "" if held_out is None else f", {held_out:,} of validation"
    return f"{overlap['train']:,} training images{more}"


def _classes_text(counts: dict[str, int]) -> str:
    """Say how many images of which classes were drawn, of the first if there are many."""
    shown = [f"{name} {count:,}" for name, count in list(counts.items())[:_SHOWN_CLASSES]]
    more = len(counts) - len(shown)
    return f"{AS_OFTEN}: {', '.join(shown)}" + (f" and {more:,} more classes" if more else "")


def _sampler_text(sampler: dict[str, Any]) -> str:
    if not sampler:
        return "unknown"
    eta = "" if sampler["eta"] is None else f", eta = {sampler['eta']}"
    steps = sampler["num_inference_steps"]
    solver = f", solver {sampler['solver']}" if "solver" in sampler else ""
    return f"{sampler['scheduler']}{solver}, K = {steps}{eta}, seed {sampler['seed']}"
