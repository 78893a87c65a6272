r"""The optimiser and its learning rate, counted in updates of the weights.

.. math:: \eta_i = \eta \cdot f(i), \qquad i = 0, \dots, N - 1

f is one of diffusers' learning-rate schedules. It sees the number of the update and nothing else:
neither accumulation nor the number of processes stretches it, and there is no state to save.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from diffusers.optimization import get_scheduler
from torch import Tensor, nn

if TYPE_CHECKING:
    from ddpm_pipeline.training_config import TrainingConfig

__all__ = ["clip_gradients", "learning_rates", "make_optimizer", "set_learning_rate"]

_FUSED = {"cpu", "cuda", "mps", "xpu"}


def make_optimizer(
    parameters: dict[str, nn.Parameter], config: TrainingConfig
) -> torch.optim.AdamW:
    """Fused AdamW; vectors (norms and biases) decay only with ``decay_norms_and_biases``."""
    vectors = [p for p in parameters.values() if p.ndim < 2]
    matrices = [p for p in parameters.values() if p.ndim >= 2]
    decay = config.adam_weight_decay
    groups = [
        {"params": matrices, "weight_decay": decay},
        {"params": vectors, "weight_decay": decay if config.decay_norms_and_biases else 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        fused=all(p.device.type in _FUSED for p in parameters.values()),
    )


def learning_rates(config: TrainingConfig, num_updates: int) -> Callable[[int], float]:
    """The learning rate of each update i, 0 <= i < N.

    Warm-up takes at most half of the run.
    """
    placeholder = torch.optim.SGD([torch.zeros(1)], lr=config.learning_rate)
    schedule = get_scheduler(
        config.lr_scheduler,
        placeholder,
        num_warmup_steps=min(config.lr_warmup_steps, num_updates // 2),
        num_training_steps=num_updates,
    )
    factor = schedule.lr_lambdas[0]
    return lambda update: config.learning_rate * factor(update)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Use this learning rate from the next update on."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale gradients down to ``max_norm`` unless it is 0; their norm before, not read back."""
    limit = max_norm if max_norm > 0 else float("inf")
    return nn.utils.clip_grad_norm_(parameters, limit, foreach=True)
