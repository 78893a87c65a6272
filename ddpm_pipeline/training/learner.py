r"""One update of the weights: what it draws, its losses, the optimiser's step.

.. math::
    x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon, \qquad
    \theta \leftarrow \mathrm{optimiser}\Big(\theta, \nabla_\theta
    \tfrac1N \sum_n L(x_0^{(n)}, \epsilon^{(n)}, t^{(n)}), \eta_i\Big), \qquad
    \bar\theta \leftarrow d_i \bar\theta + (1 - d_i)\, \theta

The N examples of update i are those of all its micro-steps on all processes. Timesteps are drawn
for all N at once from (seed, i), everything else from (seed, i, micro-step, process).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ddpm_pipeline.common import moved, stream_generator, stream_seed
from ddpm_pipeline.data import augmentation_size
from ddpm_pipeline.diffusion import make_timestep_sampler
from ddpm_pipeline.networks import (
    CompiledNetwork,
    condition_on,
    evaluating,
    facts_of,
    gathered,
    joined,
    keep_freed_memory,
    like,
    network_inputs,
    own_part,
    shard,
    told_of,
    told_tensors,
    unconditioned,
    use_float32_attention,
    use_matrix_products,
    whole,
)
from ddpm_pipeline.training.averages import WeightAverages
from ddpm_pipeline.training.draws import draw_update, inputs_of
from ddpm_pipeline.training.graphs import CapturedGradients
from ddpm_pipeline.training.optimizers import (
    clip_gradients,
    learning_rates,
    make_optimizer,
    set_learning_rate,
    state_value,
)
from ddpm_pipeline.training.setup import make_objective

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from accelerate import Accelerator
    from diffusers import UNet2DModel
    from torch import Tensor

    from ddpm_pipeline.data import Batch
    from ddpm_pipeline.diffusion import ChosenTimesteps, NoiseSchedule
    from ddpm_pipeline.networks import Told
    from ddpm_pipeline.training.config import TrainingConfig
    from ddpm_pipeline.training.draws import MicroDraws

__all__ = ["Learner"]


_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Learner:
    """The network of a run, and all that an update needs or changes.

    Arguments:
        config: Resolved.
        schedule: The noise schedule.
        unet: The network; moved to the accelerator's device, and trained in place.
        accelerator: Without mixed precision of its own.
    """

    def __init__(
        self,
        config: TrainingConfig,
        schedule: NoiseSchedule,
        unet: UNet2DModel,
        accelerator: Accelerator,
    ) -> None:
        self.config, self.schedule, self.accelerator = config, schedule, accelerator
        self.device = accelerator.device
        self._layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self._take_network(unet)
        self._make_optimizer()
        self.timestep_sampler = make_timestep_sampler(config.timestep_sampler, len(schedule))
        self.objective = make_objective(config, schedule, self.device, facts_of(unet).scale)
        self._noise = torch.Generator(self.device)
        self._captured: CapturedGradients | None = None
        if config.cuda_graph:
            parameters = self.parameters.values()
            self._captured = CapturedGradients(self._mean_loss, parameters, self.device)

    def _take_network(self, unet: UNet2DModel) -> None:
        """Keep the network, on the device; wrapped as ``model``, compiled as ``forward``."""
        config, on_cpu = self.config, self.device.type == "cpu"
        if config.augment:
            draws = stream_generator("init", config.seed, 1)
            condition_on(unet, augmentation_size(config.augment), draws)
        self.unet = unet.to(self.device, memory_format=self._layout)
        if on_cpu:
            keep_freed_memory()
            use_float32_attention(unet)
            if not config.channels_last:
                use_matrix_products(unet)
        if config.gradient_checkpointing:
            unet.enable_gradient_checkpointing()
        if config.fsdp:
            shard(unet)
        self.model: nn.Module = unet if config.fsdp else self.accelerator.prepare_model(unet)
        self.forward: Callable[..., Any] = self.model
        if config.compile:
            self.forward = CompiledNetwork(
                self.model, on_cpu=on_cpu, deterministic=config.deterministic
            )
        self.parameters = {n: p for n, p in self.unet.named_parameters() if p.requires_grad}
        self._is_frozen = len(self.parameters) < len(list(self.unet.parameters()))
        self._drops_out = any(m.p > 0 for m in unet.modules() if isinstance(m, nn.Dropout))

    def _make_optimizer(self) -> None:
        """Make all that turns gradients into new weights, and averages these."""
        config = self.config
        names = dict(self.unet.named_parameters())
        self.optimizer = make_optimizer(self.parameters, config, names)
        self.learning_rate = learning_rates(config, config.max_train_steps)
        is_fp16 = config.mixed_precision == "fp16"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=is_fp16)
        self.averages = WeightAverages(
            {name: own_part(parameter) for name, parameter in self.parameters.items()},
            config.ema_decay if config.use_ema else (),
            inv_gamma=config.ema_inv_gamma,
            power=config.ema_power,
            sigma_rels=config.post_hoc_sigma_rels if config.post_hoc_steps else (),
        )

    def unwrap(self) -> None:
        """Let go of the wrapper for several processes; no update can follow."""
        self.model = self.forward = self.unet

    # The loss.

    def autocast(self) -> AbstractContextManager:
        """Compute in the precision of the config's forward passes for a while."""
        dtype = _DTYPES.get(self.config.mixed_precision)
        return torch.autocast(
            self.device.type,
            dtype=dtype,
            enabled=dtype is not None,
            # The casts of all blocks would outlive the blocks' whole weights.
            cache_enabled=not self.config.fsdp,
        )

    @contextmanager
    def evaluating(self, decay: float | None = None) -> Iterator[None]:
        """Evaluate the network for a while: without dropout or gradients, with averaged weights.

        Arguments:
            decay: Of the average that takes the weights' place; None is the first, if there is
                any.
        """
        with self.averages.applied(decay), evaluating(self.unet), unconditioned(self.unet):
            yield

    def losses(
        self,
        x_0: Tensor,
        labels: Told,
        eps: Tensor,
        t: Tensor,
        network: Callable[..., Any] | None = None,
    ) -> Tensor:
        """Compute the weighted loss of each example.

        Arguments:
            x_0: Clean images in [-1, 1], shape (B, C, H, W).
            labels: Classes, int64, shape (B,), or a condition, or None.
            eps: The noise, of the shape of x_0.
            t: Timesteps, int64, shape (B,), on the CPU.
            network: What is called; the bare, uncompiled UNet unless given.
        Returns:
            Losses of shape (B,).
        """
        return self._losses_at(self.objective.at(t), x_0, labels, eps, network or self.unet)

    def _losses_at(
        self,
        chosen: ChosenTimesteps,
        x_0: Tensor,
        labels: Told,
        eps: Tensor,
        network: Callable[..., Any],
    ) -> Tensor:
        x_t = chosen.noisy(x_0, eps).contiguous(memory_format=self._layout)
        x_t.requires_grad_(self._is_frozen)  # torch 2.13 crashes on CPUs where frozen layers begin
        x, labels = network_inputs(self.unet, x_t, labels)
        with self.autocast():
            output = network(x, chosen.t, labels, return_dict=False)[0]
        return self.objective.losses(chosen, output, x_0, eps, x_t)

    def update(self, step: int, batches: Iterator[Batch]) -> tuple[Tensor, Tensor]:
        """Make update number ``step``.

        Arguments:
            step: How many updates were made before.
            batches: This process's batches, of which each micro-step takes the next.
        Returns:
            This process's mean loss and the gradients' norm before clipping, both still on the
            device.
        """
        config, world = self.config, self.accelerator.num_processes
        micro_steps, size = config.gradient_accumulation_steps, config.train_batch_size
        t, weights = self.timestep_sampler.sample(
            micro_steps * world * size, stream_generator("timesteps", config.seed, step)
        )
        draws = self._draws(step, self._mine(t))
        if self.timestep_sampler.weighs:
            weights = moved(self._mine(weights), self.device)
        loss, seen = torch.zeros((), device=self.device), []
        for micro, drawn in enumerate(draws):
            x_0, labels, eps = self._micro_inputs(step, micro, next(batches), drawn)
            if self._captured is not None:
                loss += self._captured(x_0, eps, drawn.chosen.t, *told_tensors(labels))
                continue
            with self._sync(last=micro == micro_steps - 1):
                losses = self._losses_at(drawn.chosen, x_0, labels, eps, self.forward)
                weighted = losses * weights[micro] if self.timestep_sampler.weighs else losses
                mean = weighted.mean() / micro_steps
                self.scaler.scale(mean).backward()
            loss += mean.detach()
            seen.append(losses.detach())
        self._remember(t, seen)
        return loss, self._apply(step)

    def _mine(self, values: Tensor) -> Tensor:
        """Take this process's part of what is drawn for all: (micro-steps, B)."""
        micro_steps, size = self.config.gradient_accumulation_steps, self.config.train_batch_size
        return values.view(micro_steps, -1, size)[:, self.accelerator.process_index]

    def _draws(self, step: int, t: Tensor) -> list[MicroDraws]:
        """Draw all but the noise of an update at the timesteps t, (micro-steps, B)."""
        rank, told = self.accelerator.process_index, facts_of(self.unet).conditioned_on
        return draw_update(self.config, self.objective, t, step, rank, told)

    def rehearse(self, batch: Batch) -> None:
        """Compute what an update of a batch of the run's shape computes, and change nothing."""
        t = torch.zeros(1, len(batch.images), dtype=torch.int64)
        drawn = self._draws(0, t)[0]
        x_0, labels, eps = self._micro_inputs(0, 0, batch, drawn)
        self._losses_at(drawn.chosen, x_0, labels, eps, self.forward).mean().backward()
        self.optimizer.zero_grad(set_to_none=True)

    def _sync(self, *, last: bool) -> AbstractContextManager:
        """Have gradients averaged over processes after the last micro-step only."""
        if self.config.fsdp:
            self.unet.set_requires_gradient_sync(last)
        return nullcontext() if last or self.config.fsdp else self.accelerator.no_sync(self.model)

    def _micro_inputs(
        self, step: int, micro: int, batch: Batch, drawn: MicroDraws
    ) -> tuple[Tensor, Told, Tensor]:
        """Give x_0, the labels and the noise of one micro-step, and seed its dropout."""
        config, place = self.config, (step, micro, self.accelerator.process_index)
        x_0, labels = inputs_of(batch, drawn, config, self.unet.config)
        self._noise.manual_seed(stream_seed("noise", config.seed, *place))
        eps = torch.randn(x_0.shape, generator=self._noise, device=self.device)
        if self._drops_out:  # by the global generators
            torch.manual_seed(stream_seed("network", config.seed, *place))
        return x_0, labels, eps

    def _mean_loss(self, x_0: Tensor, eps: Tensor, t: Tensor, *labels: Tensor) -> Tensor:
        """Compute the mean loss from tensors on the device alone, as a graph can."""
        chosen = self.objective.choose(t, None)
        told = told_of(labels, self.unet)
        return self._losses_at(chosen, x_0, told, eps, self.forward).mean()

    def _remember(self, t: Tensor, seen: list[Tensor]) -> None:
        """Tell the timestep sampler the losses of the global batch, if it wants them."""
        if self.timestep_sampler.wants_losses:
            gathered = [self.accelerator.gather(losses) for losses in seen]
            self.timestep_sampler.update(t, torch.cat(gathered))

    def _apply(self, step: int) -> Tensor:
        """Change the weights by their gradients, and the averages by the weights."""
        self.scaler.unscale_(self.optimizer)
        norm = whole(clip_gradients(self.parameters.values(), self.config.max_grad_norm))
        set_learning_rate(self.optimizer, self.learning_rate(step))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.averages.update()
        return norm

    # Checkpoints and the model.

    def state(self, *, copied: bool = False) -> dict[str, dict[str, Tensor]]:
        """Give all that updates change, as named groups of whole tensors.

        Every process must call this, and the main process gets them; with ``copied`` in memory of
        their own, which the next update leaves alone.
        """
        optimizer = {
            f"{name}.{key}": value
            for name, parameter in self.parameters.items()
            for key, value in self.optimizer.state[parameter].items()
        }
        groups = {"model": self.unet.state_dict(), "optimizer": optimizer}
        groups |= {name: self._joined(ts) for name, ts in self.averages.groups().items()}
        groups["timesteps"] = self.timestep_sampler.state_dict()
        keep = self.accelerator.is_main_process
        return {name: gathered(ts, keep=keep, copied=copied) for name, ts in groups.items()}

    def weights(self, decay: float | None) -> dict[str, Tensor]:
        """Give the network's state with the weights of an average, or its own for None.

        Every process must call this, and the main process gets them.
        """
        return self.state_with({} if decay is None else self.averages.state(decay))

    def state_with(self, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give the network's state with an average's parts in the weights' place, as above."""
        state = self.unet.state_dict() | self._joined(parts)
        return gathered(state, keep=self.accelerator.is_main_process)

    def _joined(self, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: joined(self.parameters[name], part) for name, part in parts.items()}

    def load(self, state: Mapping[str, Mapping[str, Tensor]], step: int) -> None:
        """Go on from a ``state`` after that many updates."""
        own = self.unet.state_dict()
        self.unet.load_state_dict({n: like(own[n], value) for n, value in state["model"].items()})
        for full_name, value in state["optimizer"].items():
            name, key = full_name.rsplit(".", 1)
            parameter = self.parameters[name]
            self.optimizer.state[parameter][key] = state_value(self.optimizer, parameter, value)
        self.timestep_sampler.load_state_dict(dict(state["timesteps"]))
        averages = {
            group: {k: own_part(like(p, state[group][k])) for k, p in self.parameters.items()}
            for group in self.averages.groups()
        }
        self.averages.load_groups(averages, updates=step)
