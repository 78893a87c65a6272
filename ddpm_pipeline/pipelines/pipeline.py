r"""``DDPMPipeline``: from noise to images with a U-Net and any diffusers scheduler.

.. math::
    x_{T-1} \sim \mathcal N(0, I), \qquad
    x_s \sim p_\theta(x_s \mid x_t) \text{ down the scheduler's chain}, \qquad
    x_{-1} \in [-1, 1] \to \{0, \dots, 255\}

Guidance with class labels uses the last class embedding as the empty label:

.. math:: \tilde f = f(x_t, t, \varnothing) + w\,(f(x_t, t, c) - f(x_t, t, \varnothing))

A saved pipeline names only diffusers' own classes, so that stock diffusers opens it without this
package; a stock ``DDPMScheduler`` that it is given becomes ours.
"""

import inspect
import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import diffusers
import numpy as np
import PIL.Image
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, SchedulerMixin, UNet2DModel
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from ddpm_pipeline.data import OUTPUTS, concatenated, unit_range
from ddpm_pipeline.hub import PushResult, load, push_model
from ddpm_pipeline.networks import FastForward, InferencePrecision, fast_forward
from ddpm_pipeline.pipelines.denoising import (
    DDPM_SCHEDULERS,
    predicted_x_0,
    run_rows,
    step_options,
    takes_variance,
)
from ddpm_pipeline.pipelines.inputs import Generators, check_call, rows_per_call
from ddpm_pipeline.pipelines.saving import drop_stale_weights, forget_origin
from ddpm_pipeline.schedulers import DDPMScheduler

if TYPE_CHECKING:
    from ddpm_pipeline.hub import PushResult

__all__ = ["DDPMPipeline"]

StepCallback = Callable[["DDPMPipeline", int, Any, dict[str, Tensor]], dict[str, Tensor] | None]

_PUSH_OPTIONS = (
    "repo_id",
    "revision",
    "private",
    "commit_message",
    "token",
    "create_pr",
)
# Rows of one model call unless max_batch_size says otherwise: with one generator, and with a list.
_BATCH_SIZE = 256
_LIST_BATCH_SIZE = 16


class DDPMPipeline(DiffusionPipeline):
    r"""Unconditional or class-conditional image generation with a U-Net in pixel space.

    Arguments:
        unet: Network on (B, C, H, W) in [-1, 1]; 2C output channels for learned variances.
        scheduler: Any diffusers scheduler; a plain ``diffusers.DDPMScheduler`` is replaced by
            ``ddpm_pipeline.DDPMScheduler`` with its config.
    Raises:
        ValueError: If the U-Net's channels do not fit the scheduler's variance type.
    Source: Ho et al. 2020 (arXiv:2006.11239), algorithm 2.
    """

    model_cpu_offload_seq = "unet"
    _callback_tensor_inputs = ("image", "pred_original_sample")
    _fast: FastForward | None = None

    def __init__(self, unet: UNet2DModel, scheduler: SchedulerMixin) -> None:
        super().__init__()
        scheduler = _upgraded(scheduler)
        _check_fit(unet, scheduler)
        self.register_modules(unet=unet, scheduler=scheduler)

    def __setattr__(self, name: str, value: object) -> None:
        """Also a scheduler that is put in later is upgraded; another U-Net is not optimized."""
        super().__setattr__(name, _upgraded(value) if name == "scheduler" else value)
        if name == "unet":
            self._fast = None

    def optimize(
        self,
        precision: InferencePrecision = "auto",
        *,
        channels_last: bool = False,
        compile: bool = False,  # noqa: A002 (the word of torch)
    ) -> "DDPMPipeline":
        """Make forward passes faster; the weights, and so what is saved, stay what they are.

        Without arguments: what was measured fastest for the device, bfloat16 under autocast on
        CPUs with instructions for it and float32 on others. Images then differ from the plain
        ones by rounding: under 1 grey level on average after 25 steps (docs/performance.md).
        ``pipe.optimize("float32")`` undoes it. On GPUs, which it was not run on, bfloat16 with
        channels_last and compile is likely to be best.

        Arguments:
            precision: Of the network's operations: "auto", "float32", "bfloat16" or "float16".
            channels_last: Keep the channels of a pixel together in memory.
            compile: Through torch.compile, which takes a minute at the first call of each shape.
        Returns:
            The pipeline itself.
        Raises:
            ValueError: If an option is not allowed on the device.
        """
        self._fast = fast_forward(
            self.unet,
            self._execution_device,
            precision=precision,
            channels_last=channels_last,
            compile=compile,
        )
        return self

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        generator: Generators = None,
        num_inference_steps: int | None = None,
        output_type: Literal["pil", "np", "pt"] = "pil",
        return_dict: bool = True,
        *,
        timesteps: Sequence[int] | None = None,
        max_batch_size: int | None = None,
        class_labels: int | Sequence[int] | Tensor | None = None,
        guidance_scale: float = 1.0,
        eta: float | None = None,
        callback_on_step_end: StepCallback | None = None,
    ) -> ImagePipelineOutput | tuple[list[PIL.Image.Image] | np.ndarray | Tensor]:
        r"""Draw images.

        Arguments:
            batch_size: Number of images, at least 1.
            generator: Source of all noise; or a list of one for each image, which fixes image i
                whatever else is drawn with it: every model call then has exactly max_batch_size
                rows, since kernels for other batch sizes round differently.
            num_inference_steps: K; all T timesteps of the scheduler by default.
            output_type: "pil", "np" (float32 in [0, 1], (N, H, W, C)) or "pt" (the same as
                (N, C, H, W), on the model's device).
            return_dict: Whether to return an object with ``images`` rather than a tuple.
            timesteps: The chain itself, strictly decreasing, instead of K.
            max_batch_size: Rows of one model call, which bounds the memory; larger requests are
                split. 256 by default, 16 with a list of generators.
            class_labels: Class of all images or of each, for models with class embeddings.
            guidance_scale: w; 1 is no guidance.
            eta: Steps of DDIM, for schedulers whose ``step`` takes it: ours and DDIMScheduler.
            callback_on_step_end: Called as f(pipe, step, t, tensors) after every step with the
                tensors "image" (x_s) and, where the scheduler gives it, "pred_original_sample";
                an "image" in the dict that it returns replaces x_s.
        Returns:
            ``ImagePipelineOutput`` with ``images``, or a tuple of them.
        Raises:
            ValueError: If an argument is not allowed, or the images are not finite.
        """
        generator = list(generator) if isinstance(generator, tuple) else generator
        check_call(output_type, generator, batch_size)
        _check_fit(self.unet, self.scheduler)
        batch_size = int(batch_size)
        labels = self._labels(class_labels, guidance_scale, batch_size)
        set_timesteps = partial(self._set_timesteps, num_inference_steps, timesteps)
        set_timesteps()
        is_list = isinstance(generator, list)
        rows = rows_per_call(max_batch_size, _LIST_BATCH_SIZE if is_list else _BATCH_SIZE)
        chunks = [slice(i, min(i + rows, batch_size)) for i in range(0, batch_size, rows)]
        finished = []
        with self.progress_bar(total=len(chunks) * len(self.scheduler.timesteps)) as bar:
            for chunk in chunks:
                set_timesteps()  # anew: some schedulers count their steps
                steps = self._denoise(
                    chunk.stop - chunk.start,
                    generator[chunk] if is_list else generator,
                    padded_rows=rows if is_list else None,
                    labels=None if labels is None else labels[chunk],
                    guidance_scale=guidance_scale,
                    eta=eta,
                )
                for i, t, tensors in steps:
                    bar.update()
                    if callback_on_step_end is not None:
                        tensors.update(callback_on_step_end(self, i, t, tensors) or {})
                finished.append(OUTPUTS[output_type](unit_range(tensors["image"])))
        self.maybe_free_model_hooks()
        images = concatenated(finished)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def progressive(
        self,
        batch_size: int = 1,
        generator: Generators = None,
        num_inference_steps: int | None = None,
        output_type: Literal["pil", "np", "pt"] = "pil",
        *,
        timesteps: Sequence[int] | None = None,
        class_labels: int | Sequence[int] | Tensor | None = None,
        guidance_scale: float = 1.0,
        eta: float | None = None,
    ) -> Iterator[tuple[int, list[PIL.Image.Image] | np.ndarray | Tensor]]:
        """Draw images and yield (t, what x_t says of x_0) at every timestep on the way.

        Arguments, errors and the type of the images are those of a call, whose images come last;
        the network sees all of batch_size at once.

        Source: Ho et al. 2020 (arXiv:2006.11239), section 4.3.
        """
        check_call(output_type, generator, batch_size)
        _check_fit(self.unet, self.scheduler)
        labels = self._labels(class_labels, guidance_scale, batch_size)
        self._set_timesteps(num_inference_steps, timesteps)
        steps = self._denoise(
            batch_size,
            generator,
            padded_rows=None,
            labels=labels,
            guidance_scale=guidance_scale,
            eta=eta,
        )
        convert = OUTPUTS[output_type]
        return ((int(t), convert(unit_range(predicted_x_0(now)))) for _, t, now in steps)

    @torch.no_grad()
    def _denoise(
        self,
        batch_size: int,
        generator: Generators,
        *,
        padded_rows: int | None,
        labels: Tensor | None,
        guidance_scale: float,
        eta: float | None,
    ) -> Iterator[tuple[int, Tensor, dict[str, Tensor]]]:
        """Yield (i, t, tensors) after every step; tensors["image"] is read back, then goes on."""
        scheduler, device = self.scheduler, self._execution_device
        shape = (batch_size, self.unet.config.in_channels, *self._image_size())
        image = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        image = image * scheduler.init_noise_sigma
        options = step_options(scheduler, generator=generator, eta=eta)
        for i, t in enumerate(scheduler.timesteps):
            model_input = scheduler.scale_model_input(image, t)
            output = self._predict(model_input, t, labels, guidance_scale, padded_rows)
            if not takes_variance(scheduler):
                output = output[:, : image.shape[1]]
            result = scheduler.step(output, t, image, **options)
            tensors = {"image": result.prev_sample}
            if getattr(result, "pred_original_sample", None) is not None:
                tensors["pred_original_sample"] = result.pred_original_sample
            yield i, t, tensors
            image = tensors["image"]

    def _predict(
        self,
        image: Tensor,
        t: Tensor,
        labels: Tensor | None,
        guidance_scale: float,
        padded_rows: int | None,
    ) -> Tensor:
        """The U-Net's output in float32, guided if asked, from calls of at most padded_rows."""
        image = image.to(self.unet.dtype)
        fast = self._fast or FastForward(self.unet)
        if labels is None:
            return run_rows(fast, image, t, None, padded_rows)
        conditional = run_rows(fast, image, t, labels, padded_rows)
        if guidance_scale == 1:
            return conditional
        empty = torch.full_like(labels, self.unet.config.num_class_embeds - 1)
        unconditional = run_rows(fast, image, t, empty, padded_rows)
        return unconditional + guidance_scale * (conditional - unconditional)

    def _image_size(self) -> tuple[int, int]:
        size = self.unet.config.sample_size
        return (size, size) if isinstance(size, int) else tuple(size)

    def _set_timesteps(
        self, num_inference_steps: int | None, timesteps: Sequence[int] | None
    ) -> None:
        scheduler, T = self.scheduler, self.scheduler.config.num_train_timesteps
        if timesteps is None:
            steps = T if num_inference_steps is None else num_inference_steps
            if isinstance(steps, bool) or not hasattr(steps, "__index__") or not 1 <= steps <= T:
                raise ValueError(
                    f"num_inference_steps must be an integer from 1 to {T}, got {steps!r}"
                )
            scheduler.set_timesteps(int(steps))
            if scheduler.timesteps.min() < 0:
                raise ValueError(
                    f"num_inference_steps={steps} makes {type(scheduler).__name__} step below 0, "
                    "a defect of its trailing spacing; choose another number, or DDPMScheduler"
                )
            return
        if num_inference_steps is not None:
            raise ValueError(
                "pass only one of num_inference_steps and timesteps, got "
                f"num_inference_steps={num_inference_steps} and timesteps={timesteps}"
            )
        if "timesteps" not in inspect.signature(scheduler.set_timesteps).parameters:
            name = type(scheduler).__name__
            raise ValueError(f"timesteps cannot be chosen for a {name}; pass num_inference_steps")
        scheduler.set_timesteps(timesteps=timesteps)

    def _labels(
        self,
        class_labels: int | Sequence[int] | Tensor | None,
        guidance_scale: float,
        batch_size: int,
    ) -> Tensor | None:
        """Labels of shape (batch_size,) on the model's device, or None for a plain model."""
        count = self.unet.config.num_class_embeds
        if count is None:
            if class_labels is not None or guidance_scale != 1:
                raise ValueError(
                    "class_labels and guidance_scale need a class-conditional model, got "
                    f"class_labels={class_labels} and guidance_scale={guidance_scale} for a U-Net "
                    "without num_class_embeds"
                )
            return None
        if class_labels is None:
            raise ValueError(
                f"class_labels must be given, 0 to {count - 1}: the model has classes (if it was "
                f"trained here with label_dropout, {count - 1} is the null class, any of them)"
            )
        labels = torch.as_tensor(class_labels, device="cpu")
        is_integer = not labels.is_floating_point() and labels.dtype != torch.bool
        if not is_integer or labels.shape not in ((), (batch_size,)):
            raise ValueError(
                f"class_labels must be one integer or {batch_size} of them, got {class_labels}"
            )
        if ((labels < 0) | (labels >= count)).any():
            raise ValueError(f"class_labels must lie in [0, {count - 1}], got {class_labels}")
        return labels.long().expand(batch_size).to(self._execution_device)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: object
    ) -> "DDPMPipeline":
        """Load a pipeline that this package or stock diffusers saved, in any of its layouts.

        Arguments:
            pretrained_model_name_or_path: A directory, or a repository on the Hub.
            kwargs: As for ``DiffusionPipeline.from_pretrained``: revision, token,
                local_files_only, ... ``use_safetensors`` is True by default: pickled ``.bin``
                weights are refused unless it is passed as False.
        Raises:
            OSError: If nothing can be loaded, or only pickled weights could be; a ``HubError``
                says in one line what is wrong on the Hub or on the way to it.
            ValueError: If code from a repository is asked for: it is never run.
        """
        if kwargs.get("use_safetensors") is None:
            kwargs["use_safetensors"] = True
        name = os.fspath(pretrained_model_name_or_path)
        return load(partial(super().from_pretrained, name, **kwargs), name, kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: object) -> None:
        """Save so that stock diffusers opens it; weights as safetensors, no local path inside.

        Arguments:
            save_directory: Where to; created if it does not exist.
            kwargs: As for ``DiffusionPipeline.save_pretrained``; with push_to_hub=True also
                repo_id, the name of the folder by default, and the options of ``push_to_hub``.
        Raises:
            ValueError: If safe_serialization is passed as False.
            HubError: If it could not be pushed; it is saved all the same.
        """
        is_pushed = kwargs.pop("push_to_hub", False) and kwargs.get("is_main_process", True)
        options = {key: kwargs.pop(key) for key in _PUSH_OPTIONS if key in kwargs}
        if not kwargs.get("safe_serialization", True):
            raise ValueError(
                "safe_serialization must be True, got False: only safetensors are written"
            )
        for component in self.components.values():
            forget_origin(component)
        super().save_pretrained(os.fspath(save_directory), **kwargs)
        for component in self.components:
            drop_stale_weights(Path(save_directory, component))
        if is_pushed:
            name = Path(save_directory).resolve().name
            repo_id = options.pop("repo_id", None) or name
            push_model(save_directory, repo_id, is_whole=False, **options)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        revision: str | None = None,
        private: bool | None = None,
        commit_message: str | None = None,
        token: str | bool | None = None,
        create_pr: bool = False,
    ) -> PushResult:
        """Push the pipeline and a card in one commit, or change nothing.

        What an earlier push brought beside the model, such as the configuration of the training
        run, stays as long as the weights do.

        Arguments:
            repo_id: OWNER/NAME, or NAME for one of the token's user; made if it is missing.
            revision: Branch, made if it is missing; "main" by default.
            private: Of a repository that is made.
            commit_message: Its title.
            token: As huggingface_hub takes it; that of the login by default.
            create_pr: Open a pull request instead.
        Returns:
            Where it is.
        Raises:
            HubError: If it could not be pushed; says why in one line.
        """
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return push_model(
                folder,
                repo_id,
                is_whole=False,
                revision=revision,
                private=private,
                commit_message=commit_message,
                token=token,
                create_pr=create_pr,
            )

    def to_json_string(self) -> str:
        """The content of model_index.json, which names only classes of diffusers."""
        index = json.loads(super().to_json_string())
        index.pop("_name_or_path", None)
        if index["scheduler"] == [DDPMScheduler.__module__, DDPMScheduler.__name__]:
            index["scheduler"] = ["diffusers", "DDPMScheduler"]
        return json.dumps(index, indent=2, sort_keys=True) + "\n"


def _upgraded(scheduler: object) -> object:
    """A plain stock DDPMScheduler as ours; anything else as it is."""
    if type(scheduler) is diffusers.DDPMScheduler:
        return DDPMScheduler.from_config(scheduler.config)
    return scheduler


def _check_fit(unet: UNet2DModel, scheduler: SchedulerMixin) -> None:
    channels, outputs = unet.config.in_channels, unet.config.out_channels
    allowed = (2 * channels,) if takes_variance(scheduler) else (channels,)
    if not isinstance(scheduler, DDPM_SCHEDULERS):
        allowed = (channels, 2 * channels)  # no learned variance: its half is dropped
    if outputs not in allowed:
        raise ValueError(
            f"the U-Net must have {' or '.join(map(str, allowed))} output channels for {channels} "
            f"image channels and variance_type {scheduler.config.get('variance_type')!r}, "
            f"got {outputs}"
        )
    if isinstance(scheduler, DDPMScheduler):
        scheduler.check_weights(unet)
