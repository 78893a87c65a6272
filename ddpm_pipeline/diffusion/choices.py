"""The options of the mathematics by name, which cost nothing to import.

Each is a ``Literal`` for annotations and the tuple of its values. What a value means stands where
it is computed, under the same name.
"""

from __future__ import annotations

from typing import Literal, get_args

from ddpm_pipeline.common import check_choice, check_integer

__all__ = [
    "DECODERS",
    "LEARNED_VARIANCES",
    "LOSSES",
    "LOSS_WEIGHTINGS",
    "MAX_ORDER",
    "MAX_TIMESTEPS",
    "MULTISTEP_KINDS",
    "PREDICTION_TYPES",
    "PROCESS_VARIANCES",
    "SPACINGS",
    "TIMESTEP_SAMPLERS",
    "VARIANCE_TYPES",
    "Decoder",
    "Loss",
    "LossWeighting",
    "MultistepKind",
    "PredictionType",
    "ProcessVariance",
    "Spacing",
    "TimestepSamplerName",
    "VarianceType",
    "check_eta",
    "check_loss",
    "check_num_steps",
    "check_num_train_timesteps",
]

MAX_TIMESTEPS = 100_000
"""The largest T: a hundred times what models are trained with. Tables of ten million steps take
minutes and gigabytes, and a model's config may come from anywhere."""

PredictionType = Literal["epsilon", "sample", "v_prediction", "score", "mean"]
PREDICTION_TYPES: tuple[str, ...] = get_args(PredictionType)
"""What a network predicts: see predictions.py."""

VarianceType = Literal[
    "fixed_small",
    "fixed_small_log",
    "fixed_large",
    "fixed_large_log",
    "learned",
    "learned_range",
    "analytic",
]
VARIANCE_TYPES: tuple[str, ...] = get_args(VarianceType)
LEARNED_VARIANCES = ("learned", "learned_range")
"""The variance of p(x_s | x_t) in every pixel: see reverse_process.py."""

ProcessVariance = VarianceType | Literal["spectral"]
PROCESS_VARIANCES: tuple[str, ...] = (*VARIANCE_TYPES, "spectral")
"""These, and one variance for each frequency: see spectral.py."""

Spacing = Literal["leading", "trailing", "linspace", "quadratic"]
SPACINGS: tuple[str, ...] = get_args(Spacing)
"""Which K of the T timesteps a chain has: see spacing.py."""

MultistepKind = Literal["bh1", "bh2"]
MULTISTEP_KINDS: tuple[str, ...] = get_args(MultistepKind)
MAX_ORDER = 3
"""B(h) of steps of high order, h or 1 - exp(-h), and their highest order: see multistep.py."""

Decoder = Literal["discretized", "continuous", "discretized_tanh"]
DECODERS: tuple[str, ...] = get_args(Decoder)
"""What -log p(x_0 | x_t) is of: see bound_terms.py."""

Loss = Literal["simple", "vlb", "hybrid"]
LOSSES: tuple[str, ...] = get_args(Loss)
LossWeighting = Literal["uniform", "snr", "min_snr", "p2"]
LOSS_WEIGHTINGS: tuple[str, ...] = get_args(LossWeighting)
"""What is trained for, and how timesteps weigh in it: see losses.py."""

TimestepSamplerName = Literal[
    "uniform", "low_discrepancy", "importance", "low_discrepancy_importance"
]
TIMESTEP_SAMPLERS: tuple[str, ...] = get_args(TimestepSamplerName)
"""How training draws t: see timesteps.py."""


def check_loss(loss: str, variance_type: str, loss_weighting: str = "uniform") -> None:
    """Refuse a combination that cannot be trained as it says.

    ``simple`` cannot learn a variance and ``hybrid`` does nothing else in its second term;
    ``vlb`` has the bound's own weights.

    Raises:
        ValueError: If it cannot.
    """
    check_choice("loss", loss, LOSSES)
    learned = variance_type in LEARNED_VARIANCES
    allowed = " or ".join(LEARNED_VARIANCES)
    if loss == "simple" and learned:
        raise ValueError(
            f"variance_type {variance_type!r} must be trained with loss vlb or hybrid, got "
            "'simple', which has no variance in it"
        )
    if loss == "hybrid" and not learned:
        raise ValueError(f"loss 'hybrid' needs variance_type {allowed}, got {variance_type!r}")
    if loss == "vlb" and loss_weighting != "uniform":
        raise ValueError(
            f"loss_weighting must be uniform for loss 'vlb', which has its own weights, got "
            f"{loss_weighting!r}"
        )


def check_num_steps(K: object, T: int) -> int:
    """Give the length of a chain, num_inference_steps, back as an int.

    Arguments:
        K: The number of timesteps to keep.
        T: Number of timesteps of the full chain.
    Raises:
        ValueError: If K is no integer from 1 to T.
    """
    note = " (the timesteps the model was trained with)"
    return check_integer("num_inference_steps", K, most=T, note=note)


def check_eta(eta: float) -> None:
    """Refuse an eta that is not a number in [0, 1].

    Raises:
        ValueError: If it is not.
    """
    if isinstance(eta, bool) or not isinstance(eta, int | float) or not 0 <= eta <= 1:
        raise ValueError(f"eta must be a number in [0, 1], got {eta!r}")


def check_num_train_timesteps(T: object) -> None:
    """Refuse a T that no schedule can have.

    Raises:
        ValueError: If it is not from 1 to MAX_TIMESTEPS.
    """
    check_integer("num_train_timesteps", T, most=MAX_TIMESTEPS)
