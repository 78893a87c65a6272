"""What a model's best reverse variances and best few steps follow from, measured in one pass."""

from typing import TYPE_CHECKING

from ddpm_pipeline.common.faces import lazy_face

if TYPE_CHECKING:
    from ddpm_pipeline.calibration.config import CalibrateConfig, without_bound
    from ddpm_pipeline.calibration.network import calibrate
    from ddpm_pipeline.calibration.report import CalibrationReport
    from ddpm_pipeline.calibration.saved_model import calibrate_saved_model

__getattr__, __dir__, __all__ = lazy_face(
    __name__,
    {
        "config": "CalibrateConfig without_bound",
        "network": "calibrate",
        "report": "CalibrationReport",
        "saved_model": "calibrate_saved_model",
    },
)
