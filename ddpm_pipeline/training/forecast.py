"""Counting what a run would do and need, without doing it: ``ddpm train --dry_run``.

Operations and saved activations are counted on a network without memory (torch's meta device),
forward and backward, for one image. The memory is the sum of

    weights 4P, gradients 4P, AdamW 8P, averages 4P each (those of snapshots too), casts 2P
    (weights in half precision, kept for the backward pass), activations (batch size × one image's)

bytes for P parameters, where Muon keeps one average of the gradient and AdamW two; kernels'
workspaces and the framework itself come on top. Attention is counted as its fused kernels keep it:
queries, keys, values, results and one number for each query, and not a weight for each pair.

With ``fsdp`` each of n processes has 1/n of the
first four, and one block's whole weights and gradients come on top; gradients are whole where
several are accumulated. With ``gradient_checkpointing`` the activations are the inputs of the
parts that are computed again, and the largest part's own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from ddpm_pipeline.common import sides_of
from ddpm_pipeline.networks import blank_inputs, set_facts
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.data import TrainingData
from ddpm_pipeline.training.description import classes_of
from ddpm_pipeline.training.optimizers import hidden_kernels
from ddpm_pipeline.training.rehearsal import UpdateTime
from ddpm_pipeline.training.setup import make_unet

__all__ = ["DryRun", "describe_run"]


@dataclass(frozen=True)
class DryRun:
    """Sizes and costs of a run.

    Arguments:
        config: Resolved.
        num_parameters: P, of the network.
        flops_per_image: Floating-point operations of one image in one update, forward and
            backward, an addition and a multiplication counting as two.
        memory: Bytes on each process, by what they are for.
        num_processes: How many processes train.
        num_images: Images in an epoch; None for a stream.
        num_validation_images: Held-out images.
        classes: Their names and how many training images each has; None without classes.
        update_time: How long an update takes here, if some were made.
    """

    config: TrainingConfig
    num_parameters: int
    flops_per_image: int
    memory: dict[str, int]
    num_processes: int
    num_images: int | None
    num_validation_images: int
    classes: str | None = None
    update_time: UpdateTime | None = None

    def timed(self, update_time: UpdateTime) -> DryRun:
        """Say how long an update takes."""
        return replace(self, update_time=update_time)

    @property
    def images_per_update(self) -> int:
        """Count the images that an update takes, those of all processes together."""
        config = self.config
        return config.train_batch_size * config.gradient_accumulation_steps * self.num_processes

    def __str__(self) -> str:
        steps, batch = self.config.max_train_steps, self.images_per_update
        parts = ", ".join(f"{name} {_mebibytes(size)}" for name, size in self.memory.items())
        images = "unknown" if self.num_images is None else f"{self.num_images:,}"
        lines = [
            json.dumps(self.config.to_dict(), indent=2),
            f"parameters         {self.num_parameters:,}",
            f"FLOPs per image    {self.flops_per_image:,} (forward and backward)",
            f"FLOPs of the run   {self.flops_per_image * batch * steps:.3g}",
            f"memory             {_mebibytes(sum(self.memory.values()))} ({parts})",
            f"processes          {self.num_processes}",
            f"images per epoch   {images}",
            f"validation images  {self.num_validation_images:,}",
            f"images per update  {batch:,}",
            f"updates            {steps:,}",
        ]
        if self.num_images is not None:
            lines.append(f"epochs             {steps * batch / self.num_images:.2f}")
        if self.config.post_hoc_steps:
            number, size = _snapshots(self.config, self.num_parameters)
            lines.append(f"post-hoc averages  {number} snapshots, {_mebibytes(size)} of disk")
        if self.classes is not None:
            lines.append(f"classes            {self.classes}")
        return "\n".join(lines + self._measurements() + self._times())

    def _measurements(self) -> list[str]:
        """Say what is measured of samples, and what the run keeps and stops by."""
        config, lines = self.config, []
        if config.validate_fid_steps:
            times = math.ceil(config.max_train_steps / config.validate_fid_steps)
            forwards = config.validate_fid_images * config.ddpm_num_inference_steps
            lines.append(
                f"distances          {config.validate_fid_images:,} samples, {forwards:,} forward "
                f"passes of an image, {times:,} times"
            )
        if config.keep == "best":
            lines.append(f"kept weights       the best by {config.best_by}")
        if config.early_stop:
            lines.append(
                f"ends early         after {config.early_stop} measurements of {config.best_by} "
                "without a better one"
            )
        return lines

    def _times(self) -> list[str]:
        """Say how long the run would take, with the uncertainty of the measurement."""
        time = self.update_time
        if time is None:
            return []
        updates = self.config.max_train_steps
        run, error = updates * time.seconds, updates * time.standard_error
        spread = f"± {time.standard_error:.2g} s (measured on {time.count} updates)"
        rest = "beside validation, sample grids and savings"
        return [
            f"time per update    {time.seconds:.3g} s {spread}",
            f"time of the run    {_duration(run)} ± {_duration(error)}, {rest}",
        ]


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


def _duration(seconds: float) -> str:
    """Give a time in the unit that suits it."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.2g} s"


def describe_run(
    config: TrainingConfig,
    data: TrainingData,
    num_processes: int,
    network: UNet2DModel | None = None,
) -> DryRun:
    """Count the sizes and costs of a run.

    Arguments:
        config: Resolved.
        data: The images.
        num_processes: How many processes train.
        network: Of the run, with what is not trained frozen; by the options unless given.
    """
    with torch.device("meta"):
        if network is None:
            conditioning = data.conditioning(config)
            unet = make_unet(config, data.channels, data.num_classes, conditioning)
            set_facts(unet, data.facts(config))
            unet.train()
        else:
            unet = _without_weights(network).train()
    recompute, size = config.gradient_checkpointing, 4 if config.mixed_precision == "no" else 2
    x_t = torch.empty(1, data.channels, *sides_of(config.resolution), device="meta")
    activations = _saved_per_image(unet, x_t, recompute=recompute)
    if recompute:
        unet.enable_gradient_checkpointing()
    count = sum(parameter.numel() for parameter in unet.parameters())
    trained = {name: p for name, p in unet.named_parameters() if p.requires_grad}
    moving = sum(parameter.numel() for parameter in trained.values())
    share = math.ceil(count / num_processes) if config.fsdp else count
    moving_share = math.ceil(moving / num_processes) if config.fsdp else moving
    hidden = hidden_kernels(trained)
    with_muon = sum(p.numel() for p in hidden) if config.optimizer == "muon" else 0
    accumulates = config.gradient_accumulation_steps > 1
    return DryRun(
        config=config,
        num_parameters=count,
        flops_per_image=_flops_per_image(unet, x_t),
        memory={
            "weights": 4 * share,
            "gradients": 4 * (moving if accumulates else moving_share),
            "optimizer": 8 * moving_share - 4 * with_muon,
            "averages": 4 * moving_share * _num_averages(config),
            **({"best weights": 4 * moving_share} if config.keep == "best" else {}),
            "casts": 0 if size == 4 else 2 * count,
            "activations": size * activations * config.train_batch_size,
        },
        num_processes=num_processes,
        num_images=data.length,
        num_validation_images=0 if data.validation is None else len(data.validation),
        classes=None if data.num_classes is None else classes_of(data),
    )


def _num_averages(config: TrainingConfig) -> int:
    """Count the averages of the weights that a run keeps."""
    post_hoc = len(config.post_hoc_sigma_rels) if config.post_hoc_steps else 0
    return post_hoc + (len(config.ema_decay) if config.use_ema else 0)


def _snapshots(config: TrainingConfig, num_parameters: int) -> tuple[int, int]:
    """Count the snapshots of averages that a run leaves, the last at its end, and their bytes."""
    number = math.ceil(config.max_train_steps / config.post_hoc_steps)
    return number, 4 * num_parameters * len(config.post_hoc_sigma_rels) * number


def _without_weights(network: UNet2DModel) -> UNet2DModel:
    """Make a network like another one, without memory and with the same weights frozen."""
    unet = type(network).from_config(network.config)
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return unet


def _output(unet: UNet2DModel, x_t: Tensor) -> Tensor:
    """Call the network at t = 0."""
    t = torch.zeros(1, dtype=torch.int64, device="meta")
    x, labels = blank_inputs(unet, x_t)
    return unet(x, t, labels, return_dict=False)[0]


def _flops_per_image(unet: UNet2DModel, x_t: Tensor) -> int:
    """Count the operations of one image, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        _output(unet, x_t).sum().backward()
    return counter.get_total_flops()


def _saved_per_image(unet: UNet2DModel, x_t: Tensor, *, recompute: bool) -> int:
    """Count the numbers that the backward pass needs of one image, at most at a time."""
    weights = {_storage(parameter) for parameter in unet.parameters()}
    kept: dict[int, int] = {}
    parts: list[dict[int, int]] = [{}]

    def note(tensor: Tensor, where: dict[int, int]) -> Tensor:
        if _storage(tensor) not in weights:
            where[_storage(tensor)] = tensor.untyped_storage().nbytes() // tensor.element_size()
        return tensor

    def saving(where: dict[int, int]) -> AbstractContextManager:
        return saved_tensors_hooks(lambda tensor: note(tensor, where), lambda tensor: tensor)

    def run_part(module: nn.Module, *inputs: Tensor) -> Tensor:
        for tensor in inputs:
            note(tensor, kept)
        parts.append({})
        with saving(parts[-1]):
            return module(*inputs)

    if recompute:
        unet.enable_gradient_checkpointing(run_part)
    with _FusedAttention(), saving(kept):
        _graph = _output(unet, x_t)  # which holds the storages, lest one be counted as another
    return sum(kept.values()) + max(sum(part.values()) for part in parts)


class _FusedAttention(TorchFunctionMode):
    """Attention by a fused kernel, as on processors; a device without memory has none by itself.

    Where something is asked for that not all of these kernels do, as a mask, it is not fused.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Call a function of torch."""
        options = kwargs or {}
        if func is scaled_dot_product_attention and _is_plain(args, options):
            return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*args)[0]  # noqa: SLF001
        return func(*args, **options)


def _is_plain(args: Sequence[Any], options: dict[str, Any]) -> bool:
    """Tell whether attention is that of queries, keys and values of one width, with no option."""
    widths = {tensor.shape[-1] for tensor in args if tensor.ndim == 4}
    return (
        len(args) == 3
        and len(widths) == 1
        and not any(isinstance(value, Tensor) or value for value in options.values())
    )


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata  # noqa: SLF001
