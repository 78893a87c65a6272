r"""``ImageSampler``: a pipeline that draws image i from (seed, i), whatever is drawn with it.

.. math:: \text{image}_i = f(\text{model}, \text{scheduler}, \text{seed}, i)

All noise of image i comes from a generator seeded by (seed, i), and every model call has the same
number of rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from diffusers import SchedulerMixin

from ddpm_pipeline.common import sides_of, stream_generator, weights_hash
from ddpm_pipeline.data import uint8_from_unit_range
from ddpm_pipeline.networks import (
    Condition,
    check_asked_classes,
    class_numbers,
    facts_of,
    image_channels,
    rows_per_call,
)
from ddpm_pipeline.pipelines.calls import OutputType
from ddpm_pipeline.pipelines.config import SamplingOptions
from ddpm_pipeline.pipelines.guide_models import config_hash, described_guidance
from ddpm_pipeline.pipelines.outputs import bands_of
from ddpm_pipeline.pipelines.pipeline import DDPMPipeline
from ddpm_pipeline.schedulers import Solver

__all__ = ["ImageSampler"]


# Rows of a call on a CPU, and of small sets; elements of a call on a GPU.
_ROWS, _ELEMENTS_ON_GPUS = 16, 2**20
_STEPS = 50


@dataclass(frozen=True, eq=False)
class ImageSampler:
    """A pipeline that draws image i from (seed, i), whatever else is drawn with it.

    Arguments:
        pipe: The pipeline.
        options: The options that determine image i.
        saved_scheduler: The scheduler that the model was saved with.
        guide: The model of guidance_model.
        condition: What images are conditioned on in turn: image i on row i mod the rows.
        condition_key: What tells that condition from others, as a JSON value.
    """

    pipe: DDPMPipeline
    options: SamplingOptions
    saved_scheduler: SchedulerMixin
    guide: DDPMPipeline | None = None
    condition: Condition | None = None
    condition_key: Any = None

    def __call__(self, indices: Sequence[int]) -> np.ndarray:
        """Draw the images of these numbers, uint8 (N, H, W, C)."""
        return uint8_from_unit_range(self._drawn(indices, "pt"))

    def values(self, indices: Sequence[int]) -> np.ndarray:
        """Draw them in the type and unit of the training images, (N, H, W, C)."""
        return self._drawn(indices, "array")

    def _drawn(self, indices: Sequence[int], output_type: OutputType) -> Any:  # noqa: ANN401
        options, at = self.options, self.pipe.device
        extra = {} if self._step_eta is None else {"eta": self._step_eta}
        return self.pipe(
            batch_size=len(indices),
            generator=[stream_generator("samples", options.seed, i, device=at) for i in indices],
            num_inference_steps=self.num_steps,
            max_batch_size=self.sized(len(indices)).options.batch_size,
            class_labels=None if self.classes is None else torch.tensor(self.labels(indices)),
            condition=self._conditions(indices),
            guidance_scale=options.guidance_scale,
            guidance_model=self.guide,
            guidance_interval=options.guidance_interval,
            output_type=output_type,
            **extra,
        ).images

    def _conditions(self, indices: Sequence[int]) -> Condition | None:
        if self.condition is None:
            return None
        return self.condition[torch.tensor(indices) % len(self.condition)]

    @property
    def is_conditioned(self) -> bool:
        """Tell whether the model is conditioned on more than classes."""
        return facts_of(self.pipe.unet).conditioned_on is not None

    def sized(self, count: int) -> ImageSampler:
        """Settle the rows of a call, if the options leave them open, for a set of images.

        On a GPU they are as many as pay (see ``rows_per_call``), or fewer for fewer images, which
        would be filled up for nothing. Draw all images of a set with the same sampler.

        Arguments:
            count: How many images there are in all.
        """
        if self.options.batch_size is not None:
            return self
        enough = max(_ROWS, 2 ** math.ceil(math.log2(max(1, count))))
        height, width, channels = self.image_shape
        shape = (channels, height, width)
        most = rows_per_call(
            self.pipe.unet, shape, self.pipe.device, on_cpu=_ROWS, elements=_ELEMENTS_ON_GPUS
        )
        return replace(self, options=replace(self.options, batch_size=min(enough, most)))

    @cached_property
    def classes(self) -> list[int] | None:
        """The numbers of the classes that are drawn in turn; None without classes.

        Raises:
            ValueError: If the model has no such class.
        """
        labels, unet = self.options.class_labels, self.pipe.unet
        if labels is None:
            return None
        check_asked_classes(unet, labels, self.options.null_guidance)
        return class_numbers(unet, labels)

    def labels(self, indices: Sequence[int]) -> list[int] | None:
        """Give the classes of the images of these numbers; None without classes."""
        labels = self.classes
        return None if labels is None else [labels[i % len(labels)] for i in indices]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Give the shape of an image, (H, W, C).

        Raises:
            ValueError: If the U-Net does not say.
        """
        config = self.pipe.unet.config
        if config.sample_size is None:
            raise ValueError(
                "the model has no sample_size that says how large its images are; "
                "pipe.unet.register_to_config(sample_size=...) gives it one, to be saved"
            )
        return (*sides_of(config.sample_size), image_channels(config))

    @property
    def picture_bands(self) -> tuple[int, ...] | None:
        """Give the channels that pictures show, where these options or the model name them."""
        return bands_of(self.pipe.unet, getattr(self.options, "picture_bands", None))

    @property
    def num_steps(self) -> int:
        """K."""
        steps, scheduler = self.options.num_inference_steps, self.pipe.scheduler
        if steps is not None:
            return steps
        own = self._own_solver.num_inference_steps
        return own or min(_STEPS, scheduler.config.num_train_timesteps)

    @property
    def _own_solver(self) -> Solver:
        """Our scheduler's; of another's schedulers the plain one."""
        return getattr(self.pipe.scheduler, "solver", Solver())

    @property
    def _step_eta(self) -> float | None:
        """The eta of DDIM's steps; that of solver multistep is its scheduler's."""
        return self._own_solver.with_eta(self.options.eta)[1]

    def _solver(self) -> dict[str, str]:
        """Name the solver of our scheduler, where it is not that of DDPM or asked for by eta."""
        is_ddpm = self._own_solver.name == "ddpm" or self._step_eta is not None
        return {} if is_ddpm else {"solver": self._own_solver.name}

    def describe(self) -> dict[str, Any]:
        """Describe what determines the images, as JSON values without a path or a host."""
        options = self.options
        return {
            "weights": weights_hash(self.pipe.unet),
            "scheduler": type(self.pipe.scheduler).__name__,
            "scheduler_config": config_hash(self.pipe.scheduler),
            "num_inference_steps": self.num_steps,
            "eta": self._own_solver.eta or options.eta,
            **self._solver(),
            "class_labels": self.classes,
            "guidance_scale": options.guidance_scale,
            **described_guidance(self.guide, options.guidance_interval),
            **({} if self.condition_key is None else {"condition": self.condition_key}),
            "precision": options.precision,
            "seed": options.seed,
        }
