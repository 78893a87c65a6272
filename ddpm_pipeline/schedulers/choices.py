"""The options of the scheduler beside stock's, by name, which cost nothing to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from ddpm_pipeline.common import check_choice, check_integer
from ddpm_pipeline.diffusion import MAX_ORDER, MULTISTEP_KINDS, MultistepKind, check_eta

__all__ = [
    "CALIBRATED_SPACINGS",
    "CALIBRATED_VARIANCES",
    "OBJECTIVES",
    "SOLVERS",
    "VARIANCE_ESTIMATES",
    "Objective",
    "Solver",
    "SolverName",
    "VarianceEstimate",
    "check_solver_eta",
]

VarianceEstimate = Literal["error", "moment"]
VARIANCE_ESTIMATES: tuple[str, ...] = get_args(VarianceEstimate)
"""What the analytic variance is made of: the error of x_0, or the paper's moment of the noise."""

CALIBRATED_VARIANCES = ("analytic", "spectral")
"""Variance types that need a calibration."""

Objective = Literal["likelihood", "samples"]
OBJECTIVES: tuple[str, ...] = get_args(Objective)
"""What the timesteps of a chain are the best for: see optimal.py."""

CALIBRATED_SPACINGS: dict[str, Objective] = {
    "optimal": "likelihood",
    "optimal_samples": "samples",
}
"""Spacings that follow from a calibration, and what they are the best for."""

SolverName = Literal["ddpm", "ddim", "multistep", "spectral"]
SOLVERS: tuple[str, ...] = get_args(SolverName)
"""How a step is taken: see ``Solver``."""

# Those whose steps can have a share of noise.
_SOLVERS_WITH_ETA = ("ddim", "multistep")

_DEFAULT_ORDER = 2


@dataclass(frozen=True)
class Solver:
    """How a scheduler takes its steps.

    Arguments:
        name: "ddpm" draws from p(x_s | x_t) with the scheduler's variances; "ddim" takes steps of
            DDIM, with eta = 0 unless a step is given another; "multistep" uses the
            predictions of earlier steps again (see ``diffusion.multistep``), whatever the
            variance type, of which only the prediction's half of learned outputs matters to it;
            "spectral" does so with steps that are exact for Gaussian data of the spectrum that
            was measured (see ``diffusion.spectral_solver``), and needs a calibration.
        order: Of multistep, 1 to 3 and at most K, or of spectral, 1 or 2; None is 2, or 1 for a
            single step.
        corrector: Whether multistep corrects each step by the prediction that it led to, which
            takes no call of the network.
        kind: B(h) of multistep, "bh1" or "bh2".
        num_inference_steps: The K that it was chosen for, which `ddpm sample` takes unless told;
            None for any.
        eta: Share of noise in the steps of multistep, in [0, 1]; 0 draws nothing. Noise makes up
            for errors of earlier steps; with it orders above 2 converge with order 2.
    Raises:
        ValueError: If a value is not allowed, or one of multistep's is given to another solver.
    """

    name: SolverName = "ddpm"
    order: int | None = None
    corrector: bool = True
    kind: MultistepKind = "bh2"
    num_inference_steps: int | None = None
    eta: float = 0.0

    def __post_init__(self) -> None:
        check_choice("solver", self.name, SOLVERS)
        if self.order is not None:
            most = _DEFAULT_ORDER if self.name == "spectral" else MAX_ORDER
            check_integer("order of solver", self.order, most=most)
        if not isinstance(self.corrector, bool):
            raise ValueError(
                f"corrector of solver must be one of True, False, got {self.corrector!r}"
            )
        check_choice("kind of solver", self.kind, MULTISTEP_KINDS)
        check_eta(self.eta)
        object.__setattr__(self, "eta", float(self.eta))  # one solver, one JSON value
        if self.num_inference_steps is not None:
            check_integer("num_inference_steps of solver", self.num_inference_steps)
        if self.name != "multistep":
            self._check_no_option_of_multistep()

    def _check_no_option_of_multistep(self) -> None:
        given = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name in ("order", "corrector", "kind", "eta")
            and getattr(self, field.name) != field.default
        }
        if self.name == "spectral":
            given.pop("order", None)
        if given:
            raise ValueError(
                "order, corrector, kind and eta of solver are for 'multistep' alone, got "
                f"{', '.join(f'{name}={value!r}' for name, value in given.items())} for "
                f"{self.name!r}; 'spectral' takes an order"
            )

    @classmethod
    def of(cls, solver: str | Solver, **options: object) -> Solver:
        """Make a solver of its name and options, or of one with some options changed."""
        return replace(solver, **options) if isinstance(solver, Solver) else cls(solver, **options)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Solver:
        """Make the solver again of which ``to_dict`` gave these values.

        Raises:
            ValueError: If a newer version of this package wrote it, or it is not a solver.
        """
        known = [field.name for field in fields(cls)]
        if unknown := [name for name in values if name not in known]:
            raise ValueError(
                f"the solver's options must be among {', '.join(known)}, got "
                f"{', '.join(map(repr, unknown))}; a newer ddpm_pipeline may read it"
            )
        return cls(**values)

    def asked(self, solver: str | Solver) -> Solver:
        """Give the solver that is asked for; by its own name, this one with its options."""
        return self if solver == self.name else Solver.of(solver)

    def with_eta(self, eta: float | None) -> tuple[Solver, float | None]:
        """Give it with an eta asked for beside it, and the eta that is left for its steps.

        That of multistep is the solver's own; that of DDIM is the step's.
        """
        if eta is None or self.name != "multistep":
            return self, eta
        return replace(self, eta=eta), None

    @property
    def is_multistep(self) -> bool:
        """Whether it uses earlier predictions."""
        return self.name in ("multistep", "spectral")

    def order_for(self, K: int) -> int:
        """Give the order in a chain of K steps.

        Raises:
            ValueError: If the order that was asked for is above K.
        """
        if self.order is None:
            return min(_DEFAULT_ORDER, K)
        if self.order > K:
            raise ValueError(f"order of solver must be at most K = {K}, got {self.order}")
        return self.order

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON values, from which ``from_dict`` makes it again.

        No share of noise is left out, so that versions that know none read it too.
        """
        return {name: value for name, value in asdict(self).items() if name != "eta" or value}


def check_solver_eta(solver: str, eta: float | None) -> None:
    """Refuse a share of noise for a solver that has none.

    Raises:
        ValueError: If eta is given for it, or is not a number in [0, 1].
    """
    if eta is None:
        return
    check_eta(eta)
    if solver not in _SOLVERS_WITH_ETA:
        names = " and ".join(map(repr, _SOLVERS_WITH_ETA))
        raise ValueError(f"eta is for solvers {names}, got eta={eta} and solver={solver!r}")
