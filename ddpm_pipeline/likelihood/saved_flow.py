"""``ddpm bound --ode``: the likelihood of a saved model's flow beside its bound.

ddpm bound model --data photos/ --split test --ode
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ddpm_pipeline.common import on_main, process_state, stream_generator, weights_hash
from ddpm_pipeline.data import ModelBatches
from ddpm_pipeline.likelihood.config import BoundConfig
from ddpm_pipeline.likelihood.ode import check_solver, ode_likelihood
from ddpm_pipeline.likelihood.ode_report import OdeReport
from ddpm_pipeline.likelihood.report import BoundReport
from ddpm_pipeline.likelihood.saved_model import images_in_order, output_folder
from ddpm_pipeline.networks import facts_of
from ddpm_pipeline.pipelines import DDPMPipeline
from ddpm_pipeline.schedulers import DDPMScheduler

__all__ = ["FlowBesideBound", "check_flow", "flow_of_saved_model"]


@dataclass(frozen=True)
class FlowBesideBound:
    """The likelihood of a flow, and the bound of the same images.

    Arguments:
        flow: Of the flow.
        bound: Bits per dimension.
        gap_error: The standard error of the bound less the flow's, image by image.
    """

    flow: OdeReport
    bound: float
    gap_error: float

    def __str__(self) -> str:
        gap = self.bound - self.flow.bits_per_dim
        rows = [
            ("bound of these images", f"{self.bound:.4f}"),
            ("bound less flow", f"{gap:.4f} ± {self.gap_error:.4f}"),
        ]
        return "\n".join([str(self.flow), *(f"{name:<22}{value}" for name, value in rows)])


def check_flow(config: BoundConfig) -> None:
    """Refuse a model whose flow is not measured, before its bound is.

    Raises:
        ImportError: If SciPy is not installed.
        OSError: If the model cannot be loaded.
        ValueError: If its values are no bytes.
    """
    check_solver()
    _check_bytes(DDPMPipeline.from_pretrained(config.model))


def _check_bytes(pipe: DDPMPipeline) -> None:
    scale = facts_of(pipe.unet).scale
    if scale is not None:
        raise ValueError(f"ode is for models of bytes; this one is of exact {scale.dtype}")


def flow_of_saved_model(config: BoundConfig, report: BoundReport) -> FlowBesideBound | None:
    """Measure the flow on the first images that the bound was measured on; write ode.json.

    Arguments:
        config: The options of the bound.
        report: Its report.
    Returns:
        What was found; None on all processes but the main one, which does it alone.
    Raises:
        ImportError: If SciPy is not installed.
        ValueError: If the flow is not finite.
    """
    found: list[FlowBesideBound] = []
    on_main(lambda: found.append(_measured(config, report)), process_state())
    return found[0] if found else None


def _measured(config: BoundConfig, report: BoundReport) -> FlowBesideBound:
    pipe = DDPMPipeline.from_pretrained(config.model).to(process_state().device)
    _check_bytes(pipe)
    scheduler = pipe.scheduler
    if config.variance_type is not None:
        scheduler = DDPMScheduler.from_config(scheduler.config, variance_type=config.variance_type)
    data = images_in_order(config, pipe, shuffled=True)
    count = min(config.ode_images, report.num_images)
    flow = ode_likelihood(
        pipe.unet,
        scheduler,
        ModelBatches(data.subset(torch.arange(count))),
        num_probes=config.ode_probes,
        decoder=config.decoder or "discretized",
        batch_size=config.batch_size,
        generator=stream_generator("measured_noise", config.seed),
        progress=True,
    )
    bounds = report.per_example[:count]
    gaps = bounds - flow.per_example
    error = gaps.std().item() / math.sqrt(count) if count > 1 else math.nan
    beside = FlowBesideBound(flow, bounds.mean().item(), error)
    more = {"bound": beside.bound, "weights": weights_hash(pipe.unet)}
    flow.to_json(output_folder(config) / "ode.json", **more)
    return beside
