"""Every scheduler class of the installed diffusers, made as far as it can be."""

from __future__ import annotations

import inspect

import diffusers

from ddpm_pipeline import DDPMScheduler

__all__ = ["SCHEDULER_NAMES", "WORKING", "made"]

_NEEDED = {
    "AmusedScheduler": {"mask_token_id": 0},
    "RFD4ProteinaScheduler": {
        "schedule_mode": "log",
        "noise_mode": "tan",
        "tsr_k": 1.0,
        "tsr_sigma": 1.0,
    },
    "VQDiffusionScheduler": {"num_vec_classes": 4},
}
SCHEDULER_NAMES = sorted(
    name
    for name in dir(diffusers)
    if name.endswith("Scheduler") and inspect.isclass(getattr(diffusers, name))
)
WORKING = (
    "ours",
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
)


def made(name: str, **config: object) -> diffusers.SchedulerMixin:
    """Make a scheduler with the defaults of its class; "ours" is ours."""
    if name == "ours":
        return DDPMScheduler(**config)
    return getattr(diffusers, name)(**_NEEDED.get(name, {}), **config)
