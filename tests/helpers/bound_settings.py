"""The settings of a small exact bound, of which tests change what they are about."""

from __future__ import annotations

from ddpm_pipeline.likelihood.report import BoundSettings

__all__ = ["SETTINGS"]

SETTINGS = BoundSettings(
    chain=(9, 5, 2, 0),
    num_train_timesteps=10,
    dims=4,
    prediction_type="epsilon",
    variance_type="fixed_large",
    decoder="discretized",
    decoder_variance="model",
    clip_x_0=None,
    num_timestep_samples=None,
    timestep_sampler="rate",
    seed=7,
)
