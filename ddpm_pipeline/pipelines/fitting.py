r"""Which networks and schedulers the pipeline works with, found out when it is made.

    check_network(unet)
    usable_scheduler(EulerDiscreteScheduler.from_config(pipe.scheduler.config))

A scheduler works if it takes normal noise to images through a chain of the timesteps that the
network was trained with, on the noise schedule of its config, with one call of the network a step:

.. math::
    x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon, \qquad
    t \in \{0, \dots, T - 1\}

What is known of diffusers' schedulers is told by name; any other takes a few steps on a pixel
first. Schedules that end at, or next to, zero signal are where solvers of others break: see
``_signal_fault``.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Mapping
from typing import Any

import diffusers
import torch
from diffusers import SchedulerMixin
from torch import nn

from ddpm_pipeline.pipelines.calls import own_scheduler
from ddpm_pipeline.pipelines.denoising import denoise, takes_variance
from ddpm_pipeline.schedulers import DDPMScheduler

__all__ = ["check_network", "check_scheduler", "check_whole", "usable_scheduler"]


_CONFIG_KEYS = ("sample_size", "in_channels", "out_channels", "num_class_embeds")
_USE = "use DDPMScheduler, DDIMScheduler, EulerDiscreteScheduler or UniPCMultistepScheduler"
_USE_CLIPPING = "use DDPMScheduler or DDIMScheduler, with clip_sample"
_FAULTS: dict[str, tuple[str, ...]] = {
    "it asks the network at continuous noise levels, not at timesteps 0 ... T-1": (
        "CMStochasticIterativeScheduler",
        "CosineDPMSolverMultistepScheduler",
        "DDPMWuerstchenScheduler",
        "EDMDPMSolverMultistepScheduler",
        "EDMEulerScheduler",
        "KarrasVeScheduler",
        "SCMScheduler",
        "ScoreSdeVeScheduler",
    ),
    "it is for flow matching, with other noisy images than those of a diffusion model": (
        "FlowMapEulerDiscreteScheduler",
        "FlowMatchEulerDiscreteScheduler",
        "FlowMatchHeunDiscreteScheduler",
        "FlowMatchLCMScheduler",
        "HeliosDMDScheduler",
        "HeliosScheduler",
        "LTXEulerAncestralRFScheduler",
        "MiniMaxH3Scheduler",
        "PiflowScheduler",
        "RFD4ProteinaScheduler",
    ),
    "it is for discrete tokens, not for pixels": (
        "AmusedScheduler",
        "BlockRefinementScheduler",
        "DiscreteDDIMScheduler",
        "EntropyBoundScheduler",
        "VQDiffusionScheduler",
    ),
    "it leads from images to noise": (
        "DDIMInverseScheduler",
        "DPMSolverMultistepInverseScheduler",
    ),
    "it has a noise schedule of its own, whatever its config says": ("IPNDMScheduler",),
    "its step needs more than the network's output, t and x_t": (
        "CogVideoXDPMScheduler",
        "RePaintScheduler",
        "UnCLIPScheduler",
    ),
}
_FAULT_OF = {name: fault for fault, names in _FAULTS.items() for name in names}
# Below this alpha_bar an error of the noise is one of x_0 a thousand times as large.
_FAINT = 1e-6
# Of the signal in x_T, which another schedule may have more of without a visible difference.
_LARGEST_SHIFT = 0.05
_TRIAL_STEPS = (5, 10)
_SECOND_ORDER = {"HeunDiscreteScheduler", "KDPM2AncestralDiscreteScheduler"}


def check_network(network: object, argument: str = "unet") -> None:
    """Refuse a network that cannot be called as a ``UNet2DModel`` is.

    Arguments:
        network: What was passed.
        argument: The name that it was passed by.
    Raises:
        TypeError: If it is wrapped, is no module, or another kind of one; names what is wrong.
    """
    fault = _network_fault(network)
    if fault is not None:
        name = type(network).__name__
        raise TypeError(f"{argument} must be a diffusers UNet2DModel, got a {name}{fault}")


def _network_fault(network: object) -> str | None:
    if isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return " around one; pass unet.module"
    if not isinstance(network, nn.Module):
        return ""
    config = getattr(network, "config", None)
    if missing := [key for key in _CONFIG_KEYS if not hasattr(config, key)]:
        return f", whose config has no {', '.join(missing)}"
    parameters = inspect.signature(network.forward).parameters.values()
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if needed := [p.name for p in named[2:] if p.default is p.empty]:
        return f", which also needs {', '.join(needed)}"
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if not takes_any and "class_labels" not in [p.name for p in named]:
        return ", which takes no class_labels"
    return None


def check_whole(network: nn.Module, name: str) -> None:
    """Refuse a network that was loaded from a file which lacks some of its weights.

    Arguments:
        network: As diffusers loads it: weights that the file lacks are on the device "meta".
        name: Of the folder or repository.
    Raises:
        OSError: If any is missing.
    """
    missing = [key for key, value in network.state_dict().items() if value.is_meta]
    if missing:
        raise OSError(
            f"cannot load {name!r}: the file of its weights lacks {len(missing)} of them, such as "
            f"{missing[0]}; save or download it again"
        )


def usable_scheduler(component: object) -> object:
    """Make a plain stock DDPMScheduler ours; give any other back if it works here."""
    if type(component) is diffusers.DDPMScheduler:
        return DDPMScheduler.from_config(component.config)
    check_scheduler(component)
    return component


def check_scheduler(scheduler: SchedulerMixin) -> None:
    """Refuse a scheduler that cannot take noise to the images of a diffusion model.

    Raises:
        ValueError: If it cannot; names it, the reason, and what works.
    """
    if type(scheduler) is DDPMScheduler:
        return
    fault = _fault(scheduler) or _signal_fault(scheduler) or _trial(scheduler)
    if fault is not None:
        name = type(scheduler).__name__
        raise ValueError(f"scheduler {name} cannot draw images here: {fault}")


def _fault(scheduler: SchedulerMixin) -> str | None:
    """Say what keeps a scheduler from working, as far as its class and its config tell."""
    if known := [_FAULT_OF[name] for name in _bases(scheduler) if name in _FAULT_OF]:
        return f"{known[0]}; {_USE}"
    lacking = [n for n in ("config", "set_timesteps", "step") if not hasattr(scheduler, n)]
    config = getattr(scheduler, "config", {})
    if "num_train_timesteps" not in config:
        lacking.append("num_train_timesteps")
    if lacking:
        return f"it has no {', '.join(lacking)}; {_USE}"
    if config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction":
        return f"with use_flow_sigmas or flow_prediction it is for flow matching; {_USE}"
    if config.get("timestep_type", "discrete") != "discrete":
        return "it asks the network at continuous noise levels; pass timestep_type='discrete'"
    if config.get("snr_shift_scale", 1.0) != 1.0:
        return (
            f"snr_shift_scale={config['snr_shift_scale']} shifts its noise schedule away from "
            "that of its betas; pass snr_shift_scale=1.0"
        )
    return None


def _signal_fault(scheduler: SchedulerMixin) -> str | None:
    """Say what is wrong with a scheduler where the noise schedule ends at hardly any signal.

    Measured on data whose exact denoiser is known, with small errors of the network: the tests
    run all schedulers on it.
    """
    last, config = _last_alpha_bar(scheduler), scheduler.config
    if last is None:
        return None
    options = inspect.signature(type(scheduler).__init__).parameters
    follows = "rescale_betas_zero_snr" in options or not config.get("rescale_betas_zero_snr")
    if not follows and last**0.5 > _LARGEST_SHIFT:
        return (
            "it does not know rescale_betas_zero_snr, and would take x_T to hold "
            f"{last**0.5:.0%} of the image; {_USE}"
        )
    if last >= _FAINT:
        return None
    end = f"alpha_bar is {last:.2g} at the last timestep (zero terminal SNR), where"
    if config.get("prediction_type") == "epsilon" and last == 0:
        return f"{end} epsilon says nothing of the image; the network must predict v or x_0"
    if config.get("prediction_type") == "epsilon" and not _limits_x_0(config, options):
        return (
            f"{end} epsilon says next to nothing of the image, and it does not clip what it makes "
            f"of it; {_USE_CLIPPING}"
        )
    is_second_order = not _SECOND_ORDER.isdisjoint(_bases(scheduler))
    return f"{end} its steps of second order break down; {_USE}" if is_second_order else None


def _limits_x_0(config: Mapping[str, Any], options: Collection[str]) -> bool:
    """Tell whether a scheduler keeps the predicted x_0 in the range of images, by its config."""
    clips = config.get("clip_sample") and "clip_sample" in options
    is_clamped = config.get("lambda_min_clipped", -math.inf) > -math.inf
    return bool(clips or config.get("thresholding") or is_clamped)


def _trial(scheduler: SchedulerMixin) -> str | None:
    """Take a few steps on one pixel; say what goes wrong if they fail in chains of any length."""
    T = scheduler.config.num_train_timesteps
    lengths = dict.fromkeys(min(K, T) for K in _TRIAL_STEPS)
    problems = []
    for K in [*lengths, max(1, T // 2)] if max(_TRIAL_STEPS) > T else lengths:
        problem = _trial_of(scheduler, K)
        if problem is None:
            return None
        problems.append(problem)
    if _last_alpha_bar(scheduler) == 0:
        return (
            "alpha_bar is 0 at the last timestep (zero terminal SNR), where it divides by zero; "
            "use DDPMScheduler or DDIMScheduler"
        )
    return problems[0]


def _trial_of(scheduler: SchedulerMixin, K: int) -> str | None:
    """Take K steps with a network that answers zero; say what goes wrong, if anything does."""
    own = own_scheduler(scheduler)
    channels = 2 if takes_variance(scheduler) else 1
    with torch.random.fork_rng(devices=[]):
        try:
            own.set_timesteps(K)
            *_, step = denoise(
                lambda image, _: image.new_zeros(1, channels, 1, 1),
                own,
                torch.full((1, 1, 1, 1), 0.5) * own.init_noise_sigma,
                own.timesteps,
                generator=torch.Generator().manual_seed(0),
            )
        except Exception as error:  # noqa: BLE001 (whatever it is, images would fail at it too)
            return str(error).strip().partition("\n")[0] or type(error).__name__
    return None if step.image.isfinite().all() else "its steps are not finite"


def _last_alpha_bar(scheduler: SchedulerMixin) -> float | None:
    """Give alpha_bar at T - 1 as a scheduler has it; None if it has none."""
    alpha_bars = getattr(scheduler, "alphas_cumprod", None)
    return None if alpha_bars is None else float(alpha_bars[-1])


def _bases(scheduler: SchedulerMixin) -> list[str]:
    """Name the classes that a scheduler is of."""
    return [base.__name__ for base in type(scheduler).__mro__]
