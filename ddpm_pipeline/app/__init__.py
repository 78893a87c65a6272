"""A page in the browser to try models on: ``ddpm app``."""

from typing import TYPE_CHECKING

from ddpm_pipeline.common.faces import lazy_face

if TYPE_CHECKING:
    from ddpm_pipeline.app.config import AppConfig
    from ddpm_pipeline.app.serving import run_as_space, serve

__getattr__, __dir__, __all__ = lazy_face(
    __name__,
    {"config": "AppConfig", "serving": "run_as_space serve"},
)
