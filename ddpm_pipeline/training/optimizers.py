r"""The optimiser and its learning rate, counted in updates of the weights.

Every weight follows AdamW, or hidden convolutions follow Muon: a matrix W moves roughly along the
orthogonal matrix nearest to its averaged gradient, by steps as large as AdamW's are on average.

.. math::
    M \leftarrow \mu M + (1 - \mu) G, \qquad
    W \leftarrow W - 0.2\, \eta \sqrt{\max(n, m)}\; U V^\top, \qquad
    U \Sigma V^\top = \mu M + (1 - \mu) G

The kernels of a convolution are the rows of one matrix. The first and the last layer, attention,
embeddings, norms and biases stay with AdamW: with the small matrices under Muon too, an update
takes a fifth longer on a CPU and does no more good.

.. math:: \eta_i = \eta \cdot f(i), \qquad i = 0, \dots, N - 1

f is one of diffusers' learning-rate schedules, or constant_with_cooldown, which is

.. math:: f(i) = \min\big(1,\; i / \text{warm-up},\; 5\, (N - i) / N\big)

It sees the number of the update and nothing else: neither accumulation nor the number of processes
stretches it, and there is no state to save.

Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; Liu et al.
2025 (arXiv:2502.16982), the size of the steps; Hägele et al. 2024 (arXiv:2405.18392), the
cooldown.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from fractions import Fraction
from typing import Any

import torch
from diffusers.optimization import get_scheduler
from torch import Tensor, nn

from ddpm_pipeline.networks import like
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.muon import Muon
from ddpm_pipeline.training.parts import rate_factors

__all__ = [
    "COOLDOWN",
    "clip_gradients",
    "hidden_kernels",
    "learning_rates",
    "make_optimizer",
    "rates_depend_on_length",
    "set_learning_rate",
    "state_value",
    "steps_before_cooldown",
]


_FUSED = {"cpu", "cuda", "mps", "xpu"}
_OUTER = ("conv_in.", "conv_out.")

COOLDOWN = Fraction(1, 5)
"""The share of a run in which constant_with_cooldown cools."""


def make_optimizer(
    parameters: dict[str, nn.Parameter],
    config: TrainingConfig,
    among: Collection[str] | None = None,
) -> torch.optim.Optimizer:
    """Make a fused AdamW, with Muon for hidden convolutions if the resolved config says so.

    Each level of the network learns at a rate of its own by ``layer_decay`` (see ``parts``).
    Vectors (norms and biases) decay only with ``decay_norms_and_biases``.

    Arguments:
        parameters: What is trained.
        config: Resolved.
        among: The names of all parameters of the network, trained or not; those unless given.
    """
    hidden = hidden_kernels(parameters) if config.optimizer == "muon" else []
    factors = rate_factors(parameters, config.layer_decay, among)
    factor_of = {id(p): factors[name] for name, p in parameters.items()}
    taken = set(map(id, hidden))
    vectors = [p for p in parameters.values() if p.ndim < 2]
    matrices = [p for p in parameters.values() if p.ndim >= 2 and id(p) not in taken]
    decay = config.adam_weight_decay
    groups = [
        *_groups(matrices, factor_of, decay),
        *_groups(vectors, factor_of, decay if config.decay_norms_and_biases else 0.0),
    ]
    adamw = torch.optim.AdamW(
        groups,
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        fused=all(p.device.type in _FUSED for p in parameters.values()),
    )
    if not hidden:
        return adamw
    return Muon(_groups(hidden, factor_of, decay), adamw, momentum=config.muon_momentum)


def _groups(
    parameters: list[nn.Parameter], factor_of: dict[int, float], weight_decay: float
) -> list[dict[str, Any]]:
    """Put parameters of the same learning rate together, as groups of an optimiser."""
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(factor_of[id(parameter)], []).append(parameter)
    groups = groups or {1.0: []}
    return [
        {"params": some, "weight_decay": weight_decay, "factor": factor}
        for factor, some in groups.items()
    ]


def hidden_kernels(parameters: dict[str, nn.Parameter]) -> list[nn.Parameter]:
    """List the kernels of a UNet's convolutions, but for those of its first and last layer."""
    return [p for name, p in parameters.items() if p.ndim > 2 and not name.startswith(_OUTER)]


def learning_rates(config: TrainingConfig, num_updates: int) -> Callable[[int], float]:
    """Give the learning rate as a function of the update i, 0 <= i < N.

    Arguments:
        config: Resolved.
        num_updates: N.
    """
    peak, name = config.learning_rate, config.lr_scheduler
    cools = name == "constant_with_cooldown"
    schedule = get_scheduler(
        "constant_with_warmup" if cools else name,
        torch.optim.SGD([torch.zeros(1)], lr=peak),
        num_warmup_steps=config.lr_warmup_steps,
        num_training_steps=num_updates,
    )
    factor = schedule.lr_lambdas[0]
    if not cools:
        return lambda i: peak * factor(i)
    return lambda i: peak * min(factor(i), float((num_updates - i) / (num_updates * COOLDOWN)))


def rates_depend_on_length(name: str, num_updates: int, *, shortest: int) -> bool:
    """Tell whether a run's first learning rates depend on how long it is.

    Arguments:
        name: Of the learning-rate schedule.
        num_updates: How many of the first rates.
        shortest: The smallest of the lengths in question, in updates.
    """
    if name == "constant_with_cooldown":
        return num_updates - 1 > (1 - COOLDOWN) * shortest  # the last of them is update n - 1
    return name not in {"constant", "constant_with_warmup"}


def steps_before_cooldown(num_updates: int) -> int:
    """Count the first updates whose rates do not depend on how much longer the run is.

    Arguments:
        num_updates: Of a run with a cooldown.
    """
    return min(num_updates, int((1 - COOLDOWN) * num_updates) + 1)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Use this learning rate from the next update on, times the factor of each group."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("factor", 1.0)


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale gradients down to a norm, and give the norm before, still on the device.

    Arguments:
        parameters: Whose gradients.
        max_norm: The norm; 0 leaves them alone.
    """
    if max_norm > 0:
        return nn.utils.clip_grad_norm_(parameters, max_norm, foreach=True)
    return nn.utils.get_total_norm(
        [p.grad for p in parameters if p.grad is not None], foreach=True
    )


def state_value(
    optimizer: torch.optim.Optimizer, parameter: nn.Parameter, value: Tensor
) -> Tensor:
    """Bring a saved value of an optimiser's state to where the optimiser wants it."""
    if value.shape == parameter.shape:
        # In the memory order of the parameter, which fused kernels rely on.
        return torch.empty_like(parameter, requires_grad=False).copy_(like(parameter, value))
    if value.ndim > 0:  # a kernel's average, as a matrix
        return value.to(parameter.device, copy=True)
    return value.to(parameter.device) if optimizer.defaults["fused"] else value
