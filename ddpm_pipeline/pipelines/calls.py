"""One call of the pipeline: what was asked for, checked, and the chain that is its own.

    call = Call(unet, scheduler, forward, device, Request(batch_size=4, num_inference_steps=50))
    for share in call.shares:
        for step in call.steps(share):
            step.image

A call works with copies of the scheduler, one for each share: whatever else is drawn meanwhile,
in another thread, in a callback or by an iterator that is not finished, is drawn from other
copies. The scheduler that the pipeline holds is only read.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from diffusers import SchedulerMixin, UNet2DModel
from diffusers.configuration_utils import FrozenDict
from torch import Tensor

from ddpm_pipeline.common import moved
from ddpm_pipeline.networks import Condition, FastForward, image_channels
from ddpm_pipeline.pipelines.conditions import GivenCondition, given_condition, told_rows
from ddpm_pipeline.pipelines.denoising import Step, denoise
from ddpm_pipeline.pipelines.guidance import (
    GuidedNetwork,
    ModelGuidedNetwork,
    Network,
    by_timestep,
    in_turn,
)
from ddpm_pipeline.pipelines.guides import Guide, GuideStep, check_interval, guide_steps
from ddpm_pipeline.pipelines.inputs import (
    ClassLabels,
    Share,
    asked_solver,
    check_call,
    check_fit,
    check_noise,
    choose_chain,
    label_tensor,
    split_request,
    starting_noise,
)
from ddpm_pipeline.pipelines.room import check_room
from ddpm_pipeline.schedulers import DDPMScheduler, Generators, Solver

__all__ = ["Call", "GuidanceModel", "OutputType", "Request", "asked_image", "own_scheduler"]


logger = logging.getLogger(__name__)

OutputType = Literal["pil", "np", "pt", "array"]
GuidanceModel = Any
"""A pipeline with a unet and a scheduler, a network as of ``DDPMPipeline``, a folder or a name."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Request:
    """What a caller asks for, as it was passed: see ``DDPMPipeline.__call__``."""

    batch_size: int | None
    generator: Generators
    num_inference_steps: int | None
    output_type: OutputType
    timesteps: Sequence[int] | None
    class_labels: ClassLabels
    guidance_scale: float
    eta: float | None
    noise: Tensor | None
    solver: str | Solver | None
    condition: GivenCondition = None
    max_batch_size: int | None = None
    guidance_model: GuidanceModel = None
    guidance_interval: Sequence[int] | None = None
    takes_solver: bool = True  # false for tasks whose steps are not the scheduler's solver's


class Call:
    """A request that was checked, with a scheduler of its own whose chain is chosen.

    Arguments:
        unet: The network.
        scheduler: That of the pipeline, which stays as it is.
        forward: How the network is called.
        device: Where it is.
        request: What is asked for.
        guide: Its guidance_model, opened.
    Raises:
        ValueError: If anything that was passed is not allowed.
    """

    def __init__(
        self,
        unet: UNet2DModel,
        scheduler: SchedulerMixin,
        forward: FastForward,
        device: torch.device,
        request: Request,
        guide: Guide | None = None,
    ) -> None:
        self._guide = guide
        generator, noise = request.generator, request.noise
        self._request, self._unet = request, unet
        self._forward, self._device = forward, device
        self._generator = list(generator) if isinstance(generator, tuple) else generator
        condition = given_condition(unet, request.condition)
        rows = len(condition) if condition is not None and noise is None else None
        asked = rows if request.batch_size is None else request.batch_size
        self._size = check_noise(noise, unet, asked)
        check_call(request.output_type, self._generator, self._size)
        check_fit(unet, scheduler)
        check_interval(request.guidance_interval, scheduler.config.num_train_timesteps)
        null_scale = request.guidance_scale if guide is None else 1.0
        labels = label_tensor(unet, request.class_labels, null_scale, self._size)
        told = told_rows(unet, labels, condition, self._size)
        self._labels = None if told is None else moved(told, device)
        self._scheduler = own_scheduler(scheduler)
        if request.solver is not None:
            # The tables follow with the chain.
            asked = asked_solver(scheduler, request.solver, request.eta)
            self._scheduler.solver, step_eta = asked
            self._request = request = replace(request, eta=step_eta)
        self._check_steps()
        choose_chain(
            self._scheduler,
            request.num_inference_steps,
            request.timesteps,
            default=self._own_steps,
        )
        self._plan = self._guided_steps(labels, condition)

    def _guided_steps(
        self, labels: Tensor | None, condition: Condition | None
    ) -> list[GuideStep | None]:
        """Say how a guide is asked at each timestep; None at those that nothing guides."""
        request, guide = self._request, self._guide
        timesteps = self._asked_timesteps
        low, high = request.guidance_interval or (-math.inf, math.inf)
        guided = [t for t in timesteps if low <= t <= high and request.guidance_scale != 1]
        asks = guide is not None or request.guidance_interval is not None
        if asks and not guided:
            logger.warning("%s", _idle(request))
        steps = dict.fromkeys(guided, GuideStep())
        if guide is not None:
            guide.check_fit(self._unet, self._device)
            told = guide.told(self._unet, labels, condition, self._size)
            self._guide_labels = None if told is None else moved(told, self._device)
            found = guide_steps(guide, self._scheduler, guided)
            steps = dict(zip(guided, found, strict=True))
        return [steps.get(t) for t in timesteps]

    @property
    def _asked_timesteps(self) -> list[float]:
        """When the network is called: whole timesteps in tasks whose steps are their own."""
        chain = self._scheduler.timesteps.tolist()
        return chain if self._request.takes_solver else [int(t) for t in chain]

    def _check_steps(self) -> None:
        """Refuse steps of our scheduler that lack their calibration, before the network runs."""
        if not isinstance(self._scheduler, DDPMScheduler):
            return
        config, noise = self._unet.config, self._request.noise
        side = config.sample_size
        sides = (side, side) if isinstance(side, int) else tuple(side or ())
        shape = (image_channels(self._unet), *sides) if noise is None else tuple(noise.shape[1:])
        self._scheduler.check_steps(shape, eta=self._request.eta)

    @property
    def _own_steps(self) -> int | None:
        """The K that the scheduler's solver was chosen for; None for all T, as for other steps."""
        solver, request = getattr(self._scheduler, "solver", None), self._request
        is_own = isinstance(solver, Solver) and request.eta is None and request.takes_solver
        return solver.num_inference_steps if is_own else None

    @property
    def shares(self) -> list[Share]:
        """Split the request into shares of at most ``max_batch_size`` images.

        Raises:
            ValueError: If a call of the network cannot fit into memory.
        """
        request = self._request
        shares = split_request(
            self._size,
            self._generator,
            self._labels,
            request.max_batch_size,
            request.noise,
            self._device,
        )
        rows = max(s.call_rows or s.size for s in shares)
        check_room(self._unet, rows, self._device)
        if self._guide is not None:
            check_room(self._guide.unet, rows, self._device)
        return shares

    @property
    def whole(self) -> Share:
        """Make one share of the request, which the network sees at once."""
        return Share(self._size, self._generator, self._labels, noise=self._request.noise)

    @contextmanager
    def keeping_casts(self) -> Iterator[None]:
        """Have the networks' weights cast once for all steps of a block."""
        forwards = [self._forward, *([] if self._guide is None else [self._guide.forward])]
        with ExitStack() as stack:
            for forward in forwards:
                stack.enter_context(forward.keeping_casts(self._device))
            yield

    @property
    def num_steps(self) -> int:
        """Count the steps that a share takes."""
        return len(self._scheduler.timesteps)

    def steps(
        self, share: Share, edit: Callable[[Step], Tensor | None] | None = None
    ) -> Iterator[Step]:
        """Draw the noise of a share, and take it down the chain step by step."""
        scheduler = own_scheduler(self._scheduler)
        return denoise(
            in_turn(self._networks(share)),
            scheduler,
            starting_noise(self._unet, scheduler, share, self._device),
            scheduler.timesteps,
            generator=share.generator,
            eta=self._request.eta,
            edit=edit,
        )

    def parts(self, share: Share) -> tuple[Network, SchedulerMixin]:
        """Give a share's network, at any timestep, and a scheduler whose chain is chosen.

        With a guidance_model or a guidance_interval, at any timestep of the chain.
        """
        if self._guide is not None or self._request.guidance_interval is not None:
            networks = dict(zip(self._asked_timesteps, self._networks(share), strict=True))
            return by_timestep(networks), own_scheduler(self._scheduler)
        network = GuidedNetwork(
            self._unet,
            self._forward,
            share.labels,
            self._request.guidance_scale,
            share.call_rows,
            share.most_rows,
        )
        return network, own_scheduler(self._scheduler)

    @property
    def scheduler(self) -> SchedulerMixin:
        """The scheduler that its shares have copies of; to be read."""
        return self._scheduler

    @property
    def eta(self) -> float | None:
        """Noise of DDIM's steps, where it was asked for."""
        return self._request.eta

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self._device

    def _networks(self, share: Share) -> list[GuidedNetwork | ModelGuidedNetwork]:
        """Give what is called at each timestep."""
        request, guide = self._request, self._guide
        rows = (share.call_rows, share.most_rows)
        plain = GuidedNetwork(self._unet, self._forward, share.labels, 1.0, *rows)
        if guide is None:
            guided = replace(plain, guidance_scale=request.guidance_scale)
            return [plain if step is None else guided for step in self._plan]
        labels = None if self._guide_labels is None else self._guide_labels[share.rows]
        other = GuidedNetwork(guide.unet, guide.forward, labels, 1.0, *rows)
        asked = [step.t for step in self._plan if step is not None and step.t is not None]
        on_device = iter(moved(torch.tensor(asked), self._device).unbind() if asked else ())
        return [
            plain
            if step is None
            else ModelGuidedNetwork(
                plain,
                other,
                request.guidance_scale,
                step,
                None if step.t is None else next(on_device),
            )
            for step in self._plan
        ]


def _idle(request: Request) -> str:
    """Say why nothing is guided, where guidance was asked for."""
    asked = "guidance_interval" if request.guidance_model is None else "guidance_model"
    if request.guidance_scale == 1:
        return f"{asked} has no effect with guidance_scale=1: give another weight"
    return (
        f"guidance_interval={tuple(request.guidance_interval)} holds none of the chain's "
        "timesteps, and nothing is guided"
    )


def asked_image(callback: Callable[..., Any] | None, pipe: object, step: Step) -> Tensor | None:
    """Call a user's callback, if there is one, and give the image that it replaces x_s by."""
    if callback is None:
        return None
    tensors = {"image": step.image}
    if step.predicted_x_0 is not None:
        tensors["pred_original_sample"] = step.predicted_x_0
    return (callback(pipe, step.index, step.t, tensors) or {}).get("image")


def own_scheduler(scheduler: SchedulerMixin) -> SchedulerMixin:
    """Copy a scheduler with all that its steps may change.

    Those of others keep a count of their steps and the last outputs of the network. Ours changes
    nothing that it keeps in place, so that a copy shares its tables. A scheduler with methods that
    were replaced on the object is given back as it is: those are bound to it.
    """
    if any(callable(v) and hasattr(type(scheduler), name) for name, v in vars(scheduler).items()):
        return scheduler
    own = copy.copy(scheduler)
    if type(scheduler) is not DDPMScheduler:
        memo = {id(scheduler): own}
        vars(own).update({name: _copied(v, memo) for name, v in vars(scheduler).items()})
    return own


def _copied(value: object, memo: dict[int, object]) -> object:
    """Copy a value that a scheduler keeps; of tensors without the graph that made them."""
    if isinstance(value, FrozenDict):  # the config
        return value
    if isinstance(value, Tensor):
        return value.detach().clone()
    if type(value) in (list, tuple):
        return type(value)(_copied(item, memo) for item in value)
    if type(value) is dict:
        return {key: _copied(item, memo) for key, item in value.items()}
    return copy.deepcopy(value, memo)
