"""The scheduler that drops into diffusers, and the calibration that it carries."""

from typing import TYPE_CHECKING

from ddpm_pipeline.common.faces import lazy_face

if TYPE_CHECKING:
    from ddpm_pipeline.schedulers.calibration import (
        ESTIMATES,
        MEASURED_TABLES,
        OPTIONAL_TABLES,
        Calibration,
        Estimate,
        schedule_fingerprint,
    )
    from ddpm_pipeline.schedulers.config import PRIVATE_KEY
    from ddpm_pipeline.schedulers.optimal import (
        CALIBRATED_SPACINGS,
        chain_bits_per_dim,
        chain_decoder_cost,
        timesteps_of,
    )
    from ddpm_pipeline.schedulers.scheduler import DDPMScheduler

__getattr__, __dir__, __all__ = lazy_face(
    __name__,
    {
        "calibration": [
            "Calibration",
            "ESTIMATES",
            "Estimate",
            "MEASURED_TABLES",
            "OPTIONAL_TABLES",
            "schedule_fingerprint",
        ],
        "config": ["PRIVATE_KEY"],
        "optimal": [
            "CALIBRATED_SPACINGS",
            "chain_bits_per_dim",
            "chain_decoder_cost",
            "timesteps_of",
        ],
        "scheduler": ["DDPMScheduler"],
    },
)
