"""Denoising diffusion probabilistic models: exact, audited, and open wherever diffusers is.

The public names, each imported from its module when it is first used, so that
``import ddpm_pipeline`` costs nothing:

    from ddpm_pipeline import DDPMPipeline, DDPMScheduler, NoiseSchedule, Gaussian
    from ddpm_pipeline import marginal, posterior, reverse
    from ddpm_pipeline import variational_bound, BoundReport
    from ddpm_pipeline import calibrate, Calibration
    from ddpm_pipeline import TrainingConfig, train
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ddpm_pipeline.bound import BoundReport, variational_bound
    from ddpm_pipeline.calibration import Calibration, calibrate
    from ddpm_pipeline.gaussian import Gaussian
    from ddpm_pipeline.pipeline import DDPMPipeline
    from ddpm_pipeline.process import marginal, posterior, reverse
    from ddpm_pipeline.schedule import NoiseSchedule
    from ddpm_pipeline.scheduler import DDPMScheduler
    from ddpm_pipeline.training import TrainingConfig, train

__all__ = [
    "BoundReport",
    "Calibration",
    "DDPMPipeline",
    "DDPMScheduler",
    "Gaussian",
    "NoiseSchedule",
    "TrainingConfig",
    "calibrate",
    "marginal",
    "posterior",
    "reverse",
    "train",
    "variational_bound",
]

__version__ = "0.1.0"

_MODULES = {
    "BoundReport": "bound",
    "Calibration": "calibration",
    "DDPMPipeline": "pipeline",
    "DDPMScheduler": "scheduler",
    "Gaussian": "gaussian",
    "NoiseSchedule": "schedule",
    "TrainingConfig": "training",
    "calibrate": "calibration",
    "marginal": "process",
    "posterior": "process",
    "reverse": "process",
    "train": "training",
    "variational_bound": "bound",
}


def __getattr__(name: str) -> object:
    """Import a public name from its module at its first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(globals().keys() | _MODULES.keys())
