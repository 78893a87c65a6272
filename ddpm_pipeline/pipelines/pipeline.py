r"""``DDPMPipeline``: from noise to images with a U-Net and any diffusers scheduler.

.. math::
    x_{T-1} \sim \mathcal N(0, I), \qquad
    x_s \sim p_\theta(x_s \mid x_t) \text{ down the scheduler's chain}, \qquad
    x_{-1} \in [-1, 1] \to \{0, \dots, 255\}

It is called, saved and loaded as diffusers' pipelines are:

    pipe = DDPMPipeline(unet, scheduler)
    images = pipe(batch_size=4, num_inference_steps=50).images
    pipe.save_pretrained("model")

A saved pipeline names only diffusers' own classes, so that stock diffusers opens it without this
package; a stock ``DDPMScheduler`` that it is given becomes ours. What is passed to a call is
checked in ``inputs``, the network is called by ``guidance``, and ``denoising`` holds the loop.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers import ImagePipelineOutput, SchedulerMixin, UNet2DModel
from torch import Tensor

from ddpm_pipeline.common import utf8_alias
from ddpm_pipeline.data import concatenated
from ddpm_pipeline.hub import PushOptions, PushResult, load, push_model
from ddpm_pipeline.networks import FastForward, InferencePrecision, device_of
from ddpm_pipeline.pipelines.calls import Call, GuidanceModel, OutputType, Request, asked_image
from ddpm_pipeline.pipelines.conditions import GivenCondition
from ddpm_pipeline.pipelines.denoising import known_x_0
from ddpm_pipeline.pipelines.fitting import check_network, usable_scheduler
from ddpm_pipeline.pipelines.guide_models import open_guide
from ddpm_pipeline.pipelines.inputs import ClassLabels, check_fit
from ddpm_pipeline.pipelines.model_folder import CheckedDownloads, load_checked
from ddpm_pipeline.pipelines.outputs import output_of
from ddpm_pipeline.pipelines.saving import forget_origin, save_whole, stock_index
from ddpm_pipeline.pipelines.tasks.image_tasks import ImageTasks
from ddpm_pipeline.schedulers import Generators, Solver

__all__ = ["DDPMPipeline"]

Images = list[PIL.Image.Image] | np.ndarray | Tensor
StepCallback = Callable[["DDPMPipeline", int, Any, dict[str, Tensor]], dict[str, Tensor] | None]


class DDPMPipeline(ImageTasks, CheckedDownloads):
    r"""Unconditional or class-conditional image generation with a U-Net in pixel space.

    Arguments:
        unet: Network on (B, C, H, W) in [-1, 1]; 2C output channels for learned variances.
        scheduler: Any diffusers scheduler of discrete timesteps (see ``fitting``); a plain
            ``diffusers.DDPMScheduler`` is replaced by ours with its config.
    Raises:
        TypeError: If the network cannot be called as a ``UNet2DModel`` is.
        ValueError: If the scheduler cannot take noise to images, or the U-Net's channels do not
            fit its variance type; says why, and what works.
    Source: Ho et al. 2020 (arXiv:2006.11239), algorithm 2.
    """

    model_cpu_offload_seq = "unet"
    _callback_tensor_inputs = ("image", "pred_original_sample")
    _fast: FastForward | None = None

    def __init__(self, unet: UNet2DModel, scheduler: SchedulerMixin) -> None:
        super().__init__()
        check_network(unet)
        scheduler = usable_scheduler(scheduler)
        check_fit(unet, scheduler)
        self.register_modules(unet=unet, scheduler=scheduler)

    def __setattr__(self, name: str, value: object) -> None:
        """Take another scheduler or U-Net if it works here; the U-Net is not optimized yet."""
        if name == "unet":
            check_network(value)
            self._fast = None
        super().__setattr__(name, usable_scheduler(value) if name == "scheduler" else value)

    def optimize(
        self,
        precision: InferencePrecision = "auto",
        *,
        channels_last: bool = False,
        compile: bool = False,  # noqa: A002 (the word of torch)
        cuda_graph: bool = False,
    ) -> "DDPMPipeline":
        """Make forward passes faster; the weights, and so what is saved, stay what they are.

        A call reads them once: a callback that changes weights changes the images of later calls.

        Without arguments: what was measured fastest for the device, bfloat16 under autocast on
        CPUs with instructions for it and float32 on others. Images then differ from the plain
        ones by rounding: under 1 grey level on average after 25 steps (docs/performance.md).
        ``pipe.optimize("float32")`` undoes it. On GPUs, which it was not run on, bfloat16 with
        channels_last and compile is likely to be best.

        Arguments:
            precision: Of the network's operations: "auto", "float32", "bfloat16" or "float16".
            channels_last: Keep the channels of a pixel together in memory.
            compile: Through torch.compile, which takes a minute at the first call of each shape.
            cuda_graph: Launch each call of the network as one CUDA graph; hooks do not run.
        Returns:
            The pipeline itself.
        Raises:
            ValueError: If an option is not allowed on the device.
        """
        self._fast = FastForward.of(
            self.unet,
            self._execution_device,
            precision=precision,
            channels_last=channels_last,
            compile=compile,
            cuda_graph=cuda_graph,
        )
        return self

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int | None = None,
        generator: Generators = None,
        num_inference_steps: int | None = None,
        output_type: OutputType = "pil",
        return_dict: bool = True,
        *,
        timesteps: Sequence[int] | None = None,
        max_batch_size: int | None = None,
        class_labels: ClassLabels = None,
        condition: GivenCondition = None,
        guidance_scale: float = 1.0,
        guidance_model: GuidanceModel = None,
        guidance_interval: tuple[int, int] | None = None,
        eta: float | None = None,
        noise: Tensor | None = None,
        solver: str | Solver | None = None,
        callback_on_step_end: StepCallback | None = None,
    ) -> ImagePipelineOutput | tuple[Images]:
        r"""Draw images.

        A call has its own copy of the scheduler, so that calls in threads, in callbacks and beside
        ``progressive`` do not disturb each other; its callback is told the chain of the call.

        Arguments:
            batch_size: Number of images, at least 1; as many as noise has, or 1, by default.
            generator: Source of all noise; or a list of one for each image, which fixes image i
                whatever else is drawn with it: every model call then has exactly max_batch_size
                rows (256 on CPUs, 16,384 on GPUs, for far fewer images); kernels round by size.
            num_inference_steps: K; by default what the scheduler's solver names, or all T.
            output_type: "pil", "np" (float32 in [0, 1], (N, H, W, C)) or "pt" (N, C, H, W).
            return_dict: Whether to return an object with ``images`` rather than a tuple.
            timesteps: The chain itself, strictly decreasing, instead of K.
            max_batch_size: Rows of one model call, which bounds the memory; larger requests are
                split. 256 by default, 16 with a list of generators.
            class_labels: Class of all images or of each, for models with class embeddings: its
                name, as in "cat", or the number of its embedding.
            condition: Of a model that has one, for all images or each: see ``given_condition``.
            guidance_scale: w; 1 is no guidance. The null class guides, or else guidance_model.
            guidance_model: A weaker model: a pipeline, a network for the same scheduler, or a
                saved one, which each call loads; others' schedules are converted: see ``guides``.
            guidance_interval: The lowest and highest timestep that is guided, as in (200, 800).
            eta: Of DDIM's steps, by ours and DDIMScheduler; beside solver "multistep" of its own.
            noise: Standard normal noise to start from, (N, C, H, W), instead of what the generator
                would draw first; a model without a sample_size takes the size from it.
            solver: Name of a ``Solver``, or one; the scheduler's by default, but DDIM with eta. By
                the name of the scheduler's own it has that one's options.
            callback_on_step_end: Called as f(pipe, step, t, tensors) after every step with the
                tensors "image" (x_s) and, where the scheduler gives it, "pred_original_sample";
                an "image" in the dict that it returns replaces x_s.
        Returns:
            ``ImagePipelineOutput`` with ``images``, or a tuple of them.
        Raises:
            ValueError: If an argument is not allowed, or the images are not finite.
        """
        request = Request(
            batch_size=batch_size,
            generator=generator,
            num_inference_steps=num_inference_steps,
            output_type=output_type,
            timesteps=timesteps,
            max_batch_size=max_batch_size,
            class_labels=class_labels,
            condition=condition,
            guidance_scale=guidance_scale,
            guidance_model=guidance_model,
            guidance_interval=guidance_interval,
            eta=eta,
            noise=noise,
            solver=solver,
        )
        call, finish = self._begin(request), output_of(self.unet, output_type)
        shares, finished = call.shares, []
        bars = self.progress_bar(total=len(shares) * call.num_steps)
        with bars as bar, call.keeping_casts():
            for share in shares:
                for step in call.steps(share, partial(asked_image, callback_on_step_end, self)):
                    image = step.image
                    bar.update()
                finished.append(finish(image))
        self.maybe_free_model_hooks()
        images = concatenated(finished)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def progressive(
        self,
        batch_size: int | None = None,
        generator: Generators = None,
        num_inference_steps: int | None = None,
        output_type: OutputType = "pil",
        *,
        timesteps: Sequence[int] | None = None,
        class_labels: ClassLabels = None,
        condition: GivenCondition = None,
        guidance_scale: float = 1.0,
        guidance_interval: tuple[int, int] | None = None,
        guidance_model: GuidanceModel = None,
        eta: float | None = None,
        noise: Tensor | None = None,
        solver: str | Solver | None = None,
    ) -> Iterator[tuple[int, Images]]:
        """Draw images and yield (t, what x_t says of x_0) at every timestep on the way.

        Arguments, errors and the type of the images are those of a call, whose images come last;
        the network sees all of batch_size at once. Other images may be drawn meanwhile.

        Source: Ho et al. 2020 (arXiv:2006.11239), section 4.3.
        """
        request = Request(
            timesteps=timesteps,
            batch_size=batch_size,
            generator=generator,
            num_inference_steps=num_inference_steps,
            output_type=output_type,
            noise=noise,
            solver=solver,
            eta=eta,
            class_labels=class_labels,
            condition=condition,
            guidance_scale=guidance_scale,
            guidance_model=guidance_model,
            guidance_interval=guidance_interval,
        )
        call = self._begin(request)
        steps, finish = call.steps(call.whole), output_of(self.unet, output_type)
        return ((int(step.t), finish(known_x_0(step))) for step in steps)

    def _begin(self, request: Request) -> Call:
        """Check a request, and give it what it works with."""
        forward = self._fast or FastForward(self.unet)
        device = device_of(self.unet, torch.device("cpu"))
        if hasattr(self.unet, "device"):  # as diffusers' models have, also offloaded ones
            device = self._execution_device
        load = DDPMPipeline.from_pretrained
        guide = open_guide(request.guidance_model, self.unet, forward, device, load)
        return Call(self.unet, self.scheduler, forward, device, request, guide)

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
        ask = super().from_pretrained
        with utf8_alias(name) as found:
            return load(partial(load_checked, ask, found, name, kwargs), name, kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: object) -> None:
        """Save so that stock diffusers opens it; weights as safetensors, no local path inside.

        What is there is replaced when all of it is written.

        Arguments:
            save_directory: Where to; created if it does not exist.
            kwargs: As for ``DiffusionPipeline.save_pretrained``; with push_to_hub=True also
                repo_id, the name of the folder by default, and the options of ``push_to_hub``.
        Raises:
            ValueError: If safe_serialization is passed as False.
            HubError: If it could not be pushed; it is saved all the same.
        """
        is_pushed = kwargs.pop("push_to_hub", False) and kwargs.get("is_main_process", True)
        options = {key: kwargs.pop(key) for key in PushOptions.names() if key in kwargs}
        repo_id = kwargs.pop("repo_id", None)
        if not kwargs.get("safe_serialization", True):
            raise ValueError(
                "safe_serialization must be True, got False: only safetensors are written"
            )
        for component in self.components.values():
            forget_origin(component)
        if kwargs.get("is_main_process", True):
            save = partial(super().save_pretrained, **kwargs)
            save_whole(self.components, Path(save_directory), save)
        if is_pushed:
            repo_id = repo_id or Path(save_directory).resolve().name
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
        license: str | None = None,  # noqa: A002 (the Hub's word)
    ) -> PushResult:
        """Push the pipeline and a card in one commit, or change nothing.

        What an earlier push brought beside the model, such as the configuration of the training
        run, stays as long as the weights do.

        Arguments:
            repo_id: OWNER/NAME, or NAME for one of the token's user; made if it is missing.
            revision, private, commit_message, token, create_pr: As in ``PushOptions``.
            license: The Hub's name of a licence; the one on the card unless given.
        Returns:
            Where it is.
        Raises:
            HubError: If it could not be pushed; says why in one line.
        """
        options = {"revision": revision, "private": private, "commit_message": commit_message}
        options |= {"token": token, "create_pr": create_pr, "license": license}
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return push_model(folder, repo_id, is_whole=False, **options)

    def to_json_string(self) -> str:
        """Give the content of model_index.json, which names only classes of diffusers."""
        index = stock_index(json.loads(super().to_json_string()))
        return json.dumps(index, indent=2, sort_keys=True) + "\n"
