"""Denoising diffusion probabilistic models: exact, audited, and open wherever diffusers is.

The public names, each imported when it is first used, so that ``import ddpm_pipeline`` costs
nothing:

    from ddpm_pipeline import DDPMPipeline, DDPMScheduler, NoiseSchedule, Gaussian
    from ddpm_pipeline import marginal, posterior, reverse
    from ddpm_pipeline import variational_bound, BoundReport
    from ddpm_pipeline import calibrate, Calibration
    from ddpm_pipeline import TrainingConfig, train

Each folder has a face of its own, for more than these: see docs/design.md.
"""

from typing import TYPE_CHECKING

from ddpm_pipeline.common.faces import lazy_face
from ddpm_pipeline.common.version import __version__

if TYPE_CHECKING:
    from ddpm_pipeline.calibration import calibrate
    from ddpm_pipeline.diffusion import Gaussian, NoiseSchedule, marginal, posterior, reverse
    from ddpm_pipeline.likelihood import BoundReport, variational_bound
    from ddpm_pipeline.pipelines import DDPMPipeline
    from ddpm_pipeline.schedulers import Calibration, DDPMScheduler
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

__getattr__, __dir__, _ = lazy_face(
    __name__,
    {
        "calibration": "calibrate",
        "diffusion": "Gaussian NoiseSchedule marginal posterior reverse",
        "likelihood": "BoundReport variational_bound",
        "pipelines": "DDPMPipeline",
        "schedulers": "Calibration DDPMScheduler",
        "training": "TrainingConfig train",
    },
)
