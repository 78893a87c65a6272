"""The key under which configs of diffusers' classes hold what only this package knows.

Stock diffusers keeps and saves config keys that start with an underscore, without a warning. The
scheduler's config has our own options and the calibration under it, the U-Net's what is known of
its training.
"""

from __future__ import annotations

__all__ = ["PRIVATE_KEY"]

PRIVATE_KEY = "_ddpm_pipeline"
