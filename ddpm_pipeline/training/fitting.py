r"""What is taken from a pretrained model, and the rules by which options change it.

    taken_options(found, given)         {"resolution": 32, "prediction_type": "epsilon", ...}
    check_fit(found, config, given)     refuses what no rule covers, all of it in one message
    fitted_unet(found, config, ...)     the network, and what of it is new
    fitted_scheduler(found, config)     the scheduler that is trained for and saved

===================  ==================================================================
resolution           any that the U-Net can halve as often as it does
channels             grey ↔ colour, by sums and means (``networks.adapting``)
classes              by name (``matching``); none at all, by the null class for all images
conditions           added to a model without any, or as it has them (``conditions``)
depth and unit       as the model has them (``units``)
dropout              as given
variance             fixed_small ↔ fixed_large; either → learned_range, whose second half
                     says at first the variance of before: o = -1 or 1, from u = (o + 1)/2
prediction type,     not at all, unless the noise schedule has the same table under another
noise schedule       name
===================  ==================================================================

Why not: :math:`v = (\epsilon - \sigma_t x_t) / \alpha_t` has factors of t and a term in the input,
which no change of a U-Net's weights adds to its output; and a network knows the noise level of its
input by t alone, so another schedule asks it at levels that it has not learnt.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ddpm_pipeline.common import PRIVATE_KEY, Resolution, as_resolution, sides_of
from ddpm_pipeline.data import ReadingOptions
from ddpm_pipeline.diffusion import LEARNED_VARIANCES
from ddpm_pipeline.networks import (
    Conditioning,
    adapted_unet,
    downsampling,
    facts_of,
    image_channels,
)
from ddpm_pipeline.training.conditions import condition_problems, taken_conditions
from ddpm_pipeline.training.noise_levels import schedule_options
from ddpm_pipeline.training.pretrained import OPTION
from ddpm_pipeline.training.setup import make_scheduler, wide_enough

if TYPE_CHECKING:
    from diffusers import UNet2DModel

    from ddpm_pipeline.schedulers import DDPMScheduler
    from ddpm_pipeline.training.config import TrainingConfig
    from ddpm_pipeline.training.matching import ClassPlan
    from ddpm_pipeline.training.pretrained import Pretrained

__all__ = ["Fitted", "check_fit", "fitted_scheduler", "fitted_unet", "taken_options"]


_READING = (
    "fit",
    "center_crop",
    "value_range",
    "background",
    "tiff_bands",
    "stack_pattern",
)
# What a variance type is that training does not know: the same, or what it was measured on.
_TRAINED_VARIANCES = {
    "fixed_small_log": "fixed_small",
    "fixed_large_log": "fixed_large",
    "analytic": "fixed_small",
    "spectral": "fixed_small",
}
_FIRST_OUTPUTS = {"fixed_small": -1.0, "fixed_large": 1.0}
_CALIBRATED_SPACINGS = ("optimal", "optimal_samples")


@dataclass(frozen=True, eq=False)
class Fitted:
    """A network that was made to fit a run.

    Arguments:
        unet: The network.
        changed: The names of its weights that are new, or made of others.
        notes: What was changed, in words; nothing if it is as it was.
    """

    unet: UNet2DModel
    changed: frozenset[str]
    notes: tuple[str, ...]

    @property
    def is_same(self) -> bool:
        """Tell whether it says of the same images what the model said."""
        return not self.changed and not self.notes


def taken_options(found: Pretrained, given: TrainingConfig) -> dict[str, Any]:
    """Give the options that say what the model is, of those that nobody gave.

    Raises:
        ValueError: If something must be given that the model does not say.
    """
    config = found.unet.config
    reading = ReadingOptions.from_dict(facts_of(found.unet).reading or {})
    options = {name: getattr(reading, name) for name in _READING}
    depth = given.depth if "depth" in given.given else reading.depth
    if depth == "exact" and not given.streaming:
        options |= {"depth": depth, "outside_range": reading.outside_range}
    if given.streaming:
        del options["value_range"], options["stack_pattern"]  # which have no meaning there
    options |= taken_conditions(found, given)
    options["channels"] = image_channels(config)
    options["resolution"] = config.sample_size and as_resolution(config.sample_size)
    options["class_conditional"] = config.num_class_embeds is not None
    own = options["resolution"]
    resolution = given.resolution if "resolution" in given.given else own
    options |= _scheduler_options(found, given, resolution)
    wanted = given.variance_type if "variance_type" in given.given else options["variance_type"]
    options["loss"] = "hybrid" if wanted in LEARNED_VARIANCES else "simple"
    if "prediction_type" in given.given and given.prediction_type == "epsilon":
        # Which does not go with zero terminal SNR, and is refused where the model has it.
        options["rescale_betas_zero_snr"] = False
    return {k: v for k, v in options.items() if k not in given.given and v is not None}


def _scheduler_options(
    found: Pretrained, given: TrainingConfig, resolution: Resolution | None
) -> dict[str, Any]:
    """Give what a model's scheduler says, in the words of options."""
    if found.scheduler is None:
        missing = [n for n in ("prediction_type", "ddpm_beta_schedule") if n not in given.given]
        if missing:
            raise ValueError(
                f"{OPTION}: {found.origin}, does not say what it predicts at which noise levels: "
                f"give {' and '.join(missing)}"
            )
        config = found.unet.config
        learned = config.out_channels == 2 * image_channels(config)
        return {"variance_type": "learned_range" if learned else "fixed_small"}
    return {
        "prediction_type": found.scheduler.config.prediction_type,
        "variance_type": _variance(found.scheduler),
        **schedule_options(found.scheduler, resolution),
    }


def _variance(scheduler: DDPMScheduler) -> str:
    """Name a scheduler's variance type as training does."""
    return _TRAINED_VARIANCES.get(scheduler.variance_type, scheduler.variance_type)


def check_fit(found: Pretrained, config: TrainingConfig, given: Collection[str]) -> None:
    """Refuse options that no rule makes of a model; names all of them.

    Arguments:
        found: The model.
        config: With the model's options where none were given.
        given: The names of those that were.
    Raises:
        ValueError: If there are any.
    """
    problems = [*_network_problems(found, config, given), *_variance_problems(found, config)]
    if found.scheduler is not None:
        problems += _schedule_problems(found.scheduler, config, given)
    if problems:
        name = config.pretrained_model_name_or_path
        raise ValueError(f"{OPTION}={name!r} does not fit: {'; '.join(problems)}")


def _network_problems(
    found: Pretrained, config: TrainingConfig, given: Collection[str]
) -> list[str]:
    """Say which options no U-Net of these weights can have."""
    unet, problems = found.unet.config, []
    step = downsampling(found.unet)
    if unet.sample_size is None and "resolution" not in given:
        problems.append("it does not say how large its images are: give resolution")
    elif any(side % step for side in sides_of(config.resolution)):
        problems.append(
            f"resolution={config.resolution} must be a multiple of {step}, by which it scales down"
        )
    channels = image_channels(unet)
    both = {config.channels or channels, channels}
    if len(both) == 2 and both != {1, 3}:
        problems.append(
            f"channels={config.channels} cannot be made of its {channels}: there are "
            "rules for 1 and 3 alone"
        )
    conditioned = facts_of(found.unet).conditioned_on
    problems += condition_problems(found, config)
    if unet.class_embed_type is not None and conditioned is None:
        problems.append(f"its class_embed_type={unet.class_embed_type!r} takes no class labels")
    elif (
        unet.num_class_embeds is not None
        and not config.class_conditional
        and not facts_of(found.unet).trains_null_class
    ):
        problems.append(
            "class_conditional cannot be turned off: as far as it says, its null class, which all "
            "images would have, was not trained"
        )
    return problems


def _variance_problems(found: Pretrained, config: TrainingConfig) -> list[str]:
    """Say what variance cannot be made of the model's."""
    unet = found.unet.config
    is_learned = unet.out_channels == 2 * image_channels(unet)
    before = "fixed_small" if found.scheduler is None else _variance(found.scheduler)
    if found.scheduler is None and is_learned:
        before = config.variance_type if config.variance_type in LEARNED_VARIANCES else "learned"
    after = config.variance_type
    if before in LEARNED_VARIANCES and after not in LEARNED_VARIANCES:
        said = f"variance_type={after!r} would leave half of its outputs unused, which say the"
        return [f"{said} variance; leave it out, for {before!r}"]
    if before != after and after == "learned":
        said = "variance_type='learned' is a variance that a new half of its outputs cannot begin"
        return [f"{said} with, since it depends on t; learned_range can"]
    if before == "learned" and after == "learned_range":
        return ["variance_type='learned_range' is another scale than its 'learned'; leave it out"]
    return []


def _schedule_problems(
    scheduler: DDPMScheduler, config: TrainingConfig, given: Collection[str]
) -> list[str]:
    """Say which changes of the prediction type and the noise schedule are none of the weights."""
    own, problems = scheduler.config, []
    if config.prediction_type != own.prediction_type:
        problems.append(
            f"prediction_type={config.prediction_type!r} cannot be made of its "
            f"{own.prediction_type!r}: one follows from the other by factors of t and a term in "
            "the input, which weights cannot add; leave it out"
        )
    said = schedule_options(scheduler, config.resolution)
    others = [
        f"{name}={getattr(config, name)!r}"
        for name in said
        if name in given and getattr(config, name) not in {said[name], "auto"}
    ]
    if others and not _is_same_schedule(scheduler, config):
        asked = ", ".join(f"{name}={value!r}" for name, value in said.items())
        problems.append(
            f"{', '.join(others)} is another noise schedule than its own ({asked}), whose levels "
            "it knows by the timestep alone; leave it out"
        )
    return problems


def _is_same_schedule(scheduler: DDPMScheduler, config: TrainingConfig) -> bool:
    """Tell whether options stand for the table of noise levels that a scheduler has."""
    zero_snr = config.rescale_betas_zero_snr
    settled = scheduler.config.rescale_betas_zero_snr if zero_snr == "auto" else zero_snr
    prediction = scheduler.config.prediction_type
    if settled and prediction == "epsilon":
        return False
    options = config.replace(rescale_betas_zero_snr=bool(settled), prediction_type=prediction)
    wanted = make_scheduler(options).schedule.log_alpha_bar
    own = scheduler.schedule.log_alpha_bar
    return len(own) == len(wanted) and torch.allclose(own, wanted, rtol=1e-9, atol=0)


def fitted_unet(
    found: Pretrained,
    config: TrainingConfig,
    channels: int,
    plan: ClassPlan | None,
    conditioning: Conditioning | None = None,
) -> Fitted:
    """Make the network of a run.

    Arguments:
        found: The model.
        config: Of the run.
        channels: Of the images.
        plan: Of their classes; None if they have no labels.
        conditioning: What the images are conditioned on beside classes, as the model or anew.
    Raises:
        ValueError: If images that were open already do not fit.
    """
    unet = found.unet
    before, notes = unet.config, []
    own, variance = image_channels(unet), None
    if config.variance_type in LEARNED_VARIANCES and before.out_channels == own:
        was = "fixed_small" if found.scheduler is None else _variance(found.scheduler)
        variance = _FIRST_OUTPUTS[was]
        notes.append(f"variance: {was} → {config.variance_type}, which begins as {was}")
    folded = None
    if plan is None and before.num_class_embeds is not None:
        folded = before.num_class_embeds - 1
        notes.append("classes: none any more, the null class for all images")
    if channels != own:
        notes.append(f"channels: {own} → {channels}, by sums and means of kernels")
    new = conditioning if facts_of(unet).conditioned_on is None else None
    if new is not None:
        wide_enough(before, new)
        notes.append(f"conditions: {new}; told nothing, it begins as it was")
    was = before.sample_size and as_resolution(before.sample_size)
    if was != config.resolution:
        notes.append(f"resolution: {was} → {config.resolution}, with the same weights")
    made, changed = adapted_unet(
        unet,
        sample_size=None if was == config.resolution else config.resolution,
        channels=channels,
        variance_output=variance,
        rows=None if plan is None else plan.rows,
        folded_row=folded,
        dropout=config.dropout if "dropout" in config.given else None,
        conditioning=new,
    )
    return Fitted(made, frozenset(changed), tuple(notes))


def fitted_scheduler(
    found: Pretrained, config: TrainingConfig, *, is_same: bool
) -> tuple[DDPMScheduler, tuple[str, ...]]:
    """Make the scheduler of a run, and say what was changed.

    Arguments:
        found: The model.
        config: Of the run, resolved.
        is_same: Whether the saved model will have the weights of this one.
    """
    scheduler = found.scheduler
    if scheduler is None:
        return make_scheduler(config), ()
    if is_same and _variance(scheduler) == config.variance_type:
        return scheduler, ()
    from ddpm_pipeline.schedulers import DDPMScheduler

    changes, notes = {}, []
    private = dict(scheduler.config.get(PRIVATE_KEY, {}))
    if private.pop("calibration", None) is not None:
        notes.append("calibration: dropped, it is of other weights")
    if scheduler.timestep_spacing in _CALIBRATED_SPACINGS:
        changes["timestep_spacing"] = "trailing"
    if scheduler.solver.name == "spectral":
        private.pop("solver", None)
    if _variance(scheduler) != config.variance_type or scheduler.uses_calibration:
        changes["variance_type"] = config.variance_type
        if config.variance_type not in LEARNED_VARIANCES:
            notes.append(f"variance: {scheduler.variance_type} → {config.variance_type}")
    if not changes and not notes:
        return scheduler, ()
    settings = {**scheduler.config, PRIVATE_KEY: private}
    return DDPMScheduler.from_config(settings, **changes), tuple(notes)
