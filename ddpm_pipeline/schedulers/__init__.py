"""The scheduler that drops into diffusers, and the calibration that it carries."""

from typing import TYPE_CHECKING

from ddpm_pipeline.common.faces import lazy_face

if TYPE_CHECKING:
    from ddpm_pipeline.schedulers.calibration import (
        MEASURED_TABLES,
        OPTIONAL_TABLES,
        Calibration,
        rounded_value_decoder,
        schedule_fingerprint,
    )
    from ddpm_pipeline.schedulers.choices import (
        CALIBRATED_SPACINGS,
        CALIBRATED_VARIANCES,
        SOLVERS,
        VARIANCE_ESTIMATES,
        Solver,
        SolverName,
        VarianceEstimate,
        check_solver_eta,
    )
    from ddpm_pipeline.schedulers.drawing import Generators, standard_normal
    from ddpm_pipeline.schedulers.optimal import (
        chain_bits_per_dim,
        chain_costs,
        timesteps_of,
    )
    from ddpm_pipeline.schedulers.scheduler import DDPMScheduler
    from ddpm_pipeline.schedulers.spectral import needed_spectrum, variance_spectrum
    from ddpm_pipeline.schedulers.spectrum import MeasuredSpectrum

__getattr__, __dir__, __all__ = lazy_face(
    __name__,
    {
        "calibration": (
            "Calibration MEASURED_TABLES OPTIONAL_TABLES rounded_value_decoder "
            "schedule_fingerprint"
        ),
        "choices": (
            "CALIBRATED_SPACINGS CALIBRATED_VARIANCES SOLVERS Solver SolverName "
            "VARIANCE_ESTIMATES VarianceEstimate check_solver_eta"
        ),
        "drawing": "Generators standard_normal",
        "optimal": "chain_bits_per_dim chain_costs timesteps_of",
        "scheduler": "DDPMScheduler",
        "spectral": "needed_spectrum variance_spectrum",
        "spectrum": "MeasuredSpectrum",
    },
)
