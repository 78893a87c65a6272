r"""Images at scale: any number of samples, the same set however they are drawn.

.. math:: \text{image}_i = f(\text{model}, \text{scheduler}, \text{seed}, i)

All noise of image i comes from a generator seeded by (seed, i), and every model call has the same
number of rows, so that neither the number of processes nor what else is drawn beside it changes a
byte. Images are written in shards of consecutive i; a run that was killed goes on with the shards
that are missing.

    sample_images(SampleConfig(model="model", num_images=50_000, output="samples"))

    samples/000000.png ...          format "png"
    samples/000000-000255.tar ...   format "webdataset": 000000.png, and 000000.cls with classes
    samples.npz                     format "npz": arr_0 uint8 (N, H, W, C), labels the classes
    samples/sampling.json           what determines the images
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from diffusers import DDIMScheduler, SchedulerMixin
from tqdm.auto import tqdm

from ddpm_pipeline.common import (
    discard_unfinished,
    on_main,
    process_state,
    write_json,
)
from ddpm_pipeline.diffusion import check_num_steps
from ddpm_pipeline.pipelines.condition_files import opened_condition
from ddpm_pipeline.pipelines.config import SampleConfig, SamplingOptions
from ddpm_pipeline.pipelines.image_sampler import ImageSampler
from ddpm_pipeline.pipelines.inputs import label_tensor
from ddpm_pipeline.pipelines.manifest import (
    SAMPLES_MANIFEST,
    check_manifest,
    check_not_foreign,
    npz_manifest,
)
from ddpm_pipeline.pipelines.outputs import check_format_of_bands
from ddpm_pipeline.pipelines.pipeline import DDPMPipeline
from ddpm_pipeline.pipelines.writing import FORMATS, ShardFormat, grouped, join_parts, split
from ddpm_pipeline.schedulers import DDPMScheduler, Solver

__all__ = ["ImageSampler", "load_image_sampler", "sample_images"]


_SCHEDULERS = {"ddpm": DDPMScheduler, "ddim": DDIMScheduler}


def load_image_sampler(
    options: SamplingOptions, device: torch.device | str = "cpu"
) -> ImageSampler:
    """Load a model and draw its images by these options.

    Arguments:
        options: The options that determine image i.
        device: Where the network runs.
    Raises:
        OSError: If the model cannot be loaded.
        ValueError: If an option does not fit the model.
    """
    pipe = DDPMPipeline.from_pretrained(options.model, dtype=getattr(torch, options.precision))
    saved = pipe.scheduler
    pipe = DDPMPipeline(pipe.unet, _chosen_scheduler(options, saved))
    pipe.set_progress_bar_config(disable=True)
    pipe.unet.eval()
    condition, told = opened_condition(options, pipe.unet)
    sampler = ImageSampler(
        pipe.to(device), options, saved, _guide(options, device), condition, told
    )
    sampler.image_shape  # noqa: B018 (refuses a model that does not tell it)
    check_num_steps(sampler.num_steps, sampler.pipe.scheduler.config.num_train_timesteps)
    _check_classes(sampler)
    return sampler


def _guide(options: SamplingOptions, device: torch.device | str) -> DDPMPipeline | None:
    """Load the model that guides; None without."""
    if options.guidance_model is None:
        return None
    precision = getattr(torch, options.precision)
    return DDPMPipeline.from_pretrained(options.guidance_model, dtype=precision).to(device)


def _chosen_scheduler(options: SamplingOptions, saved: SchedulerMixin) -> SchedulerMixin:
    """Give the scheduler that the options ask for, from the one that the model was saved with.

    Raises:
        ValueError: If eta is given and could be that of DDIM or of the model's own solver.
    """
    if options.solver is not None:
        chosen = DDPMScheduler.from_config(saved.config, solver=options.solver)
        if options.eta is not None:
            chosen.set_solver(chosen.solver.with_eta(options.eta)[0])
        return chosen
    own = saved.solver if isinstance(saved, DDPMScheduler) else Solver()
    is_asked = options.eta is not None and options.scheduler in (None, "as_saved")
    if is_asked and own.name == "multistep":
        raise ValueError(
            "eta must come with solver='multistep' or solver='ddim' where the model was saved "
            f"with solver 'multistep', got eta={options.eta}"
        )
    is_own = own != Solver() and options.eta is None
    name = options.scheduler or ("as_saved" if is_own else "ddim")
    if name == "as_saved":
        return saved
    is_ours = _SCHEDULERS[name] is DDPMScheduler
    return _SCHEDULERS[name].from_config(saved.config, **{"solver": "ddpm"} if is_ours else {})


def _check_classes(sampler: ImageSampler) -> None:
    """Refuse classes that the model has not, or has not been trained on."""
    if sampler.classes is not None:
        labels = torch.tensor(sampler.classes)
        label_tensor(sampler.pipe.unet, labels, sampler.options.null_guidance, len(labels))


def sample_images(config: SampleConfig) -> Path:
    """Draw and write images, shared out among the processes of `accelerate launch`.

    A second call goes on where the first was stopped. Several machines must see the same output
    folder.

    Arguments:
        config: All options.
    Returns:
        The path of the directory or file.
    Raises:
        ValueError: If the output holds images that other options made, or an option is not
            allowed.
    """
    state = process_state()
    sampler = load_image_sampler(config, state.device).sized(config.num_images)
    check_format_of_bands(config.resolved_format, sampler.image_shape[-1], sampler.picture_bands)
    output = Path(config.output)
    manifest = {
        **sampler.describe(),
        "num_images": config.num_images,
        "shard_size": config.shard_size,
        "format": config.resolved_format,
        **({"picture_bands": list(sampler.picture_bands)} if sampler.picture_bands else {}),
    }
    is_npz = config.resolved_format == "npz"
    folder = output.with_name(output.name + ".parts") if is_npz else output
    if is_npz and output.exists():
        check_manifest(manifest, npz_manifest(output), output)
        shutil.rmtree(folder, ignore_errors=True)  # a run was killed between joining and this
        return output
    on_main(lambda: _claim(folder, manifest), state)
    size, total = config.shard_size, config.num_images
    shards = [range(i, min(i + size, total)) for i in range(0, total, size)]
    _write_shards(sampler, FORMATS[config.resolved_format], folder, shards, state)
    if is_npz:
        labels = sampler.labels(range(total))
        on_main(lambda: join_parts(folder, shards, output, labels, manifest), state)
    return output


def _claim(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest into a new folder; refuse a folder that has another one."""
    path = folder / SAMPLES_MANIFEST
    if path.exists():
        check_manifest(manifest, json.loads(path.read_text()), folder)
        discard_unfinished(folder)
        return
    check_not_foreign(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, manifest)


def _write_shards(
    sampler: ImageSampler,
    shard_format: ShardFormat,
    folder: Path,
    shards: list[range],
    state: PartialState,
) -> None:
    unfinished = [shard for shard in shards if not shard_format.is_finished(folder, shard)]
    state.wait_for_everyone()  # before anyone adds to what the others still have to list
    queues = [unfinished[r :: state.num_processes] for r in range(state.num_processes)]
    own, others = queues[state.process_index], queues[state.process_index + 1 :]
    total, left = shards[-1].stop, sum(map(len, unfinished))
    is_main, rows = state.is_main_process, sampler.options.batch_size
    draw = sampler.values if shard_format is FORMATS["npz"] else sampler
    with tqdm(total=total, initial=total - left, unit=" images", disable=not is_main) as bar:
        for group in grouped(own, rows):
            images = []
            for batch in split([i for shard in group for i in shard], rows):
                images.append(draw(batch))
                bar.update(len(batch))
            _write_group(folder, shard_format, group, np.concatenate(images), sampler)
            if is_main:
                bar.update(sum(shard_format.pop_finished(queue, folder) for queue in others))
        state.wait_for_everyone()
        bar.update(total - bar.n)


def _write_group(
    folder: Path,
    shard_format: ShardFormat,
    shards: list[range],
    images: np.ndarray,
    sampler: ImageSampler,
) -> None:
    """Write every shard of a group, whose images lie one after the other."""
    bands, start = sampler.picture_bands, 0
    if bands is not None and shard_format is not FORMATS["npz"]:
        images = images[..., list(bands)]
    for shard in shards:
        own = images[start : start + len(shard)]
        shard_format.write(folder, shard, own, sampler.labels(shard))
        start += len(shard)
