"""Updates on the device: losses, gradients, optimisers, averages, batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from diffusers.training_utils import EMAModel
from gpu.place import CPU
from gpu.runs import a_learner, a_trainer, run_options, some_images
from torch import Tensor, nn

from ddpm_pipeline import TrainingConfig, train
from ddpm_pipeline.common import float32_arithmetic
from ddpm_pipeline.data import Prefetcher
from ddpm_pipeline.training.averages import WeightAverages
from ddpm_pipeline.training.optimizers import hidden_kernels, make_optimizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpu.found import Found
    from gpu.place import Place

    from ddpm_pipeline.data import Batch


def relative(ours: Tensor, reference: Tensor) -> float:
    """The norm of a difference, by that of the reference."""
    ours, reference = ours.detach().cpu().double(), reference.detach().cpu().double()
    return float((ours - reference).norm() / reference.norm().clamp(min=1e-30))


def one_update(place: Place, found: Found) -> None:
    """Losses and gradients of the same images, noise and weights, in IEEE float32."""
    x_0 = some_images(place, 16)
    generator = torch.Generator().manual_seed(0)
    eps = torch.randn(x_0.shape, generator=generator)
    t = torch.linspace(0, place.T - 1, 16).long()
    losses, gradients = {}, {}
    for device in (CPU, place.device):
        learner = a_learner(place, device, mixed_precision="no")
        with float32_arithmetic(tf32=False):
            found_losses = learner.losses(x_0.to(device), None, eps.to(device), t)
            found_losses.mean().backward()
        losses[device] = found_losses.detach()
        gradients[device] = {k: p.grad for k, p in learner.unet.named_parameters()}
    found.at_most("losses from the CPU's", relative(losses[place.device], losses[CPU]), 1e-5)
    gaps = {k: relative(gradients[place.device][k], v) for k, v in gradients[CPU].items()}
    worst = max(gaps, key=gaps.__getitem__)
    found.note(worst_gradient=worst)
    found.at_most("the worst gradient from the CPU's", gaps[worst], 1e-3)


def optimizers(place: Place, found: Found) -> None:
    """Three steps with gradients that were drawn; the reference is torch's own, one by one."""
    options = {"optimizer": "muon", "adam_weight_decay": 0.01, "learning_rate": 1e-2}
    learner = a_learner(place, place.device, mixed_precision="no", **options)
    parameters = {k: p.detach().cpu().clone() for k, p in learner.parameters.items()}
    copies = {k: nn.Parameter(p.clone()) for k, p in parameters.items()}
    ours = {k: nn.Parameter(p.to(place.device, copy=True)) for k, p in parameters.items()}
    optimizer = make_optimizer(ours, learner.config)
    kernels = set(map(id, hidden_kernels(copies)))
    references = [_reference(p, is_hidden=id(p) in kernels) for p in copies.values()]
    averages = WeightAverages(ours, (0.9,), inv_gamma=19.0, power=1.0)
    average = EMAModel(copies.values(), decay=0.9, use_ema_warmup=True, inv_gamma=19.0, power=1.0)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        for name, parameter in copies.items():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
            ours[name].grad = parameter.grad.to(place.device)
        optimizer.step()
        for reference in references:
            reference()
        averages.update()
        average.step(copies.values())
    moved = {
        k: relative(ours[k].cpu() - parameters[k], p - parameters[k]) for k, p in copies.items()
    }
    hidden = {k for k, p in copies.items() if id(p) in kernels}
    found.at_most("steps of Muon from torch's", max(moved[k] for k in hidden), 0.03)
    found.at_most(
        "steps of AdamW from torch's", max(moved[k] for k in moved.keys() - hidden), 1e-4
    )
    shadows = dict(zip(copies, average.shadow_params, strict=True))
    state = averages.state(0.9)
    found.at_most("averages", max(relative(state[k], shadows[k]) for k in state), 3e-3)


def _reference(parameter: nn.Parameter, *, is_hidden: bool):  # noqa: ANN202
    """One step of torch's optimiser of a parameter alone, on the CPU."""
    decay = 0.01 if parameter.ndim > 1 else 0.0
    if not is_hidden:
        return torch.optim.AdamW(
            [parameter], 1e-2, betas=(0.9, 0.99), weight_decay=decay, foreach=False
        ).step
    matrix = nn.Parameter(parameter.detach().flatten(1))  # over the same memory
    muon = torch.optim.Muon(
        [matrix], 1e-2, weight_decay=decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )

    def step() -> None:
        matrix.grad = parameter.grad.flatten(1)
        muon.step()

    return step


def loaders_agree(place: Place, found: Found) -> None:
    """Images on the device, ahead of it or one batch at a time: the same bytes."""
    config = TrainingConfig(**run_options(place, "loaders"))
    with a_trainer(config) as trainer:
        loader = trainer.data.loader(0, 1)
        plain = [next(loader) for _ in range(5)]
        ahead = Prefetcher(trainer.data.loader(0, 1), place.device, background=True)
        with ahead as batches:
            _same_bytes(found, "made ahead by a thread", batches, plain)
        _same_bytes(found, "as a run takes them", trainer.batches, plain)


def _same_bytes(found: Found, name: str, ours: Iterator[Batch], plain: list[Batch]) -> None:
    differing = sum(int((next(ours).images.cpu() != batch.images).sum()) for batch in plain)
    found.at_most(f"differing bytes of {len(plain)} batches, {name}", differing, 0)


def precisions(place: Place, found: Found) -> None:
    """The mean loss of the last half of short runs from the same seed, by precision."""
    steps, losses = place.pick(200, 4), {}
    for precision in ("no", "bf16", *place.pick(("fp16",), ())):
        logged: list[float] = []
        options = {"mixed_precision": precision, "optimizer": "adamw", "max_train_steps": steps}
        options = run_options(place, f"precision-{precision}", **options)
        config = TrainingConfig(**options, overwrite_output_dir=True)
        train(config, on_log=lambda _, values, logged=logged: logged.append(values["loss"]))
        losses[precision] = sum(logged[len(logged) // 2 :]) / len(logged[len(logged) // 2 :])
    found.note(losses=losses)
    for precision in losses.keys() - {"no"}:
        gap = abs(losses[precision] / losses["no"] - 1)
        found.at_most(f"loss in {precision} from float32's", gap, place.pick(0.02, 0.2))


def memory_orders(place: Place, found: Found) -> None:
    """What one memory order saves is, bit for bit, what the other has after loading it."""
    saved, steps = {}, 3
    for order in (False, True):
        config = TrainingConfig(**run_options(place, f"order-{order}", channels_last=order))
        with a_trainer(config) as trainer:
            for step in range(steps):
                trainer.learner.update(step, trainer.batches)
            saved[order] = _copied(trainer.learner.state())
    for order in (False, True):
        config = TrainingConfig(**run_options(place, f"order-{order}", channels_last=order))
        with a_trainer(config) as trainer:
            trainer.learner.load(saved[not order], steps)
            differing = _differing(saved[not order], trainer.learner.state())
            loss = float(trainer.learner.update(steps, trainer.batches)[0])
        found.at_most(f"tensors changed by loading, channels_last {order}", differing, 0)
        found.at_most(f"loss after it, channels_last {order}", loss, 10.0)


def _differing(one: dict, other: dict) -> int:
    return sum(
        not torch.equal(value, other[group][name].cpu())
        for group, tensors in one.items()
        for name, value in tensors.items()
    )


def _copied(state: dict) -> dict:
    return {
        group: {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
        for group, tensors in state.items()
    }
