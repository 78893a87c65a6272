r"""Muon for the kernels of convolutions, many of them at a time, beside AdamW for all the rest.

.. math::
    M \leftarrow \mu M + (1 - \mu) G, \qquad
    X_0 = \frac{N}{\lVert N \rVert_F}, \quad N = \mu M + (1 - \mu) G, \qquad
    X_{k+1} = a X_k + (b A_k + c A_k^2) X_k, \quad A_k = X_k X_k^\top

.. math::
    W \leftarrow (1 - \eta\lambda) W - 0.2\, \eta \sqrt{\max(n, m)}\; X_5

Matrix by matrix that is some 23 small operations for each of dozens of matrices, which takes a
GPU longer to be told than to do. Here the iteration runs on stacks (B, n, m). On a CPU a stack
holds the matrices of one shape, and gives the bits that ``torch.optim.Muon`` gives. Elsewhere
matrices of several shapes are padded with zeros, which the iteration leaves zero, to as few stacks
as cost no more than PADDING times the arithmetic; sums in another order then differ by the
rounding of bfloat16.

Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; Liu et al.
2025 (arXiv:2502.16982), the size of the steps.
"""

from __future__ import annotations

from itertools import combinations, pairwise
from math import sqrt
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["PADDING", "Muon"]


PADDING = 3.0
"""How many times the arithmetic of the matrices themselves a device may be given."""

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STEPS = 5
_LEAST_NORM = 1e-7

_MOST_ELEMENTS = 2**19  # of a stack on a CPU, which larger ones leave no faster memory
_LEAST_SIDE = 32  # of matrices that a CPU sums in the same order in a stack and alone

Shape = tuple[int, int]


class Muon(torch.optim.Optimizer):
    """``torch.optim.Muon`` for kernels, each seen as a matrix, with AdamW for all the rest.

    For ``Learner``, which sets its ``state`` by parameter: ``load_state_dict`` is not supported.

    Arguments:
        hidden: Parameters of two or more dimensions, (n, ...), that become matrices (n, m), or
            groups of them as optimisers take, with a weight_decay each.
        adamw: Optimiser of all other parameters; its learning rate is that of ``hidden`` too.
        weight_decay: Decoupled weight decay of ``hidden``, where it is no groups.
        momentum: μ.
        padding: Most arithmetic of padded stacks, in that of the matrices; 0 for a stack of each
            shape. None is 0 on CPUs and PADDING elsewhere.
    """

    def __init__(
        self,
        hidden: list[nn.Parameter] | list[dict[str, Any]],
        adamw: torch.optim.AdamW,
        *,
        weight_decay: float = 0.0,
        momentum: float,
        padding: float | None = None,
    ) -> None:
        self._adamw, self._momentum = adamw, momentum
        groups = hidden
        if isinstance(hidden[0], nn.Parameter):
            groups = [{"params": hidden, "weight_decay": weight_decay}]
        kernels = [p for group in groups for p in group["params"]]
        self._num_groups = len(groups)
        self._matrices = {p: _as_matrix(p, p.detach()) for p in kernels}
        on_cpu = all(p.device.type == "cpu" for p in kernels)
        self._padding = (0.0 if on_cpu else PADDING) if padding is None else padding
        self._stacks: dict[tuple[Shape, ...], list[_Stack]] = {}
        super().__init__([*groups, *adamw.param_groups], dict(adamw.defaults))
        # One state of each parameter, whoever asks for it: checkpoints do, by parameter.
        for group in adamw.param_groups:
            for parameter in group["params"]:
                self.state[parameter] = adamw.state[parameter]

    @torch.no_grad()
    def step(self) -> None:
        """Update all parameters by their gradients."""
        for group in self.param_groups[: self._num_groups]:
            moving = [p for p in group["params"] if p.grad is not None]
            if moving:
                self._move(moving, group)
        self._adamw.step()  # its groups are this optimiser's own

    def _move(self, moving: list[nn.Parameter], group: dict[str, Any]) -> None:
        """Update the kernels of a group."""
        matrices = [self._matrices[p] for p in moving]
        updates = self._averaged(moving)
        if group["weight_decay"]:
            torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
        for stack in self._stacks_of(matrices):
            stack.move(matrices, updates, group["lr"])

    def _averaged(self, moving: list[nn.Parameter]) -> list[Tensor]:
        """Average the gradients into the state, and look one step ahead, as Nesterov does."""
        grads = [_as_matrix(p, p.grad) for p in moving]
        for parameter, grad in zip(moving, grads, strict=True):
            if not self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(grad)
        averages = [self.state[p]["momentum_buffer"] for p in moving]
        torch._foreach_lerp_(averages, grads, 1 - self._momentum)
        return list(torch._foreach_lerp(grads, averages, self._momentum))  # noqa: SLF001

    def _stacks_of(self, matrices: list[Tensor]) -> list[_Stack]:
        shapes = tuple((len(m), m.shape[1]) for m in matrices)
        if shapes not in self._stacks:
            self._stacks[shapes] = make_stacks(shapes, self._padding, matrices[0].device)
        return self._stacks[shapes]


def _as_matrix(parameter: Tensor, values: Tensor) -> Tensor:
    """View values of a parameter's shape (n, ...) as (n, m), in the parameter's memory order."""
    if not parameter.is_contiguous():  # channels_last, of which flatten would make a copy
        values = values.movedim(1, -1)
    return values.flatten(1)


def orthogonal(matrices: Tensor) -> Tensor:
    """Give matrices of singular values near 1, in bfloat16, for one or a stack with n <= m.

    Arguments:
        matrices: bfloat16, (n, m) or (B, n, m).
    """
    a, b, c = _COEFFICIENTS
    product, sum_of = (torch.mm, torch.addmm) if matrices.ndim == 2 else (torch.bmm, torch.baddbmm)
    norms = torch.linalg.vector_norm(matrices, dim=(-2, -1), keepdim=True)
    x = matrices / norms.clamp(min=_LEAST_NORM)
    for _ in range(_STEPS):
        gram = product(x, x.mT)
        polynomial = sum_of(gram, gram, gram, beta=b, alpha=c)
        x = sum_of(x, polynomial, x, beta=a)
    return x


class _Stack(Protocol):
    """Some of the matrices, which are made orthogonal together."""

    def move(self, matrices: list[Tensor], updates: list[Tensor], lr: float | Tensor) -> None:
        """Move those of all matrices that the stack holds by their updates."""


class _OneShape:
    """Matrices of one shape, by their places among all."""

    def __init__(self, places: list[int], shape: Shape) -> None:
        self._places, self._shape = places, shape

    def move(self, matrices: list[Tensor], updates: list[Tensor], lr: float | Tensor) -> None:
        own = [updates[i].bfloat16() for i in self._places]
        stack = own[0] if len(own) == 1 else torch.stack(own)
        is_tall = self._shape[0] > self._shape[1]
        result = orthogonal(stack.mT).mT if is_tall else orthogonal(stack)
        moves = [result] if len(own) == 1 else list(result)
        torch._foreach_add_(
            [matrices[i] for i in self._places], moves, alpha=-lr * _ratio(self._shape)
        )


class _Padded:
    """Matrices of several shapes, by their places among all, padded with zeros to one.

    One gather takes all elements to their places in the stack, and one brings them back.
    """

    def __init__(self, places: list[int], shapes: Sequence[Shape], device: torch.device) -> None:
        self._places, self._shapes = places, [shapes[i] for i in places]
        self._size = (
            len(places),
            max(map(min, self._shapes)),
            max(map(max, self._shapes)),
        )
        where = torch.arange(torch.Size(self._size).numel()).view(self._size)
        slots = [_lying(where[i], shape) for i, shape in enumerate(self._shapes)]
        back = torch.cat([slot.flatten() for slot in slots])
        there = torch.full((where.numel(),), len(back))  # a zero that follows all elements
        there[back] = torch.arange(len(back))
        self._there, self._back = (index.to(device, torch.int32) for index in (there, back))
        ratios = torch.tensor([_ratio(shape) for shape in self._shapes])
        self._ratios = ratios.view(-1, 1, 1).to(device)
        self._zero = torch.zeros(1, device=device)

    def move(self, matrices: list[Tensor], updates: list[Tensor], lr: float | Tensor) -> None:
        flat = torch.cat([*(updates[i].flatten() for i in self._places), self._zero]).bfloat16()
        result = orthogonal(flat.index_select(0, self._there).view(self._size))
        moves = (result * (self._ratios * -lr)).flatten().index_select(0, self._back)
        own = [matrices[i] for i in self._places]
        parts = moves.split([m.numel() for m in own])
        torch._foreach_add_(own, [p.view_as(m) for p, m in zip(parts, own, strict=True)])


def _lying(slot: Tensor, shape: Shape) -> Tensor:
    """Take the part of a slot that a matrix fills, which lies on its longer side."""
    part = slot[: min(shape), : max(shape)]
    return part.T if shape[0] > shape[1] else part


def _ratio(shape: Shape) -> float:
    """Give the size of a step in learning rates, which is AdamW's on average."""
    return 0.2 * sqrt(max(shape))


def make_stacks(shapes: Sequence[Shape], padding: float, device: torch.device) -> list[_Stack]:
    """Divide matrices into stacks.

    Arguments:
        shapes: Of the matrices.
        padding: As in ``Muon``.
        device: Where they are.
    """
    by_shape = {shape: [i for i, s in enumerate(shapes) if s == shape] for shape in shapes}
    if padding == 0:
        return [
            _OneShape(some, shape)
            for shape, places in by_shape.items()
            for some in _parts(places, _stack_size(shape))
        ]
    limit = padding * sum(len(places) * _work([shape]) for shape, places in by_shape.items())
    return [
        _Padded([i for shape in group for i in by_shape[shape]], shapes, device)
        for group in _fewest(sorted(by_shape, key=lambda s: (min(s), max(s))), by_shape, limit)
    ]


def _stack_size(shape: Shape) -> int:
    """Give how many matrices of a shape a CPU multiplies together, with the bits of each alone."""
    if min(shape) < _LEAST_SIDE:
        return 1
    return max(1, _MOST_ELEMENTS // (shape[0] * shape[1]))


def _parts(places: list[int], size: int) -> list[list[int]]:
    return [places[i : i + size] for i in range(0, len(places), size)]


def _fewest(
    shapes: list[Shape], by_shape: dict[Shape, list[int]], limit: float
) -> list[list[Shape]]:
    """Cut shapes, in order of their shorter sides, into the fewest groups within the limit."""
    sides = [min(shape) for shape in shapes]
    steps = [i for i, (a, b) in enumerate(pairwise(sides), 1) if a != b]
    for count in range(len(steps) + 1):
        divisions = [_divided(shapes, cuts) for cuts in combinations(steps, count)]
        works = [_padded_work(groups, by_shape) for groups in divisions]
        if min(works) <= limit:
            return divisions[works.index(min(works))]
    return [[shape] for shape in shapes]


def _divided(shapes: list[Shape], cuts: Iterable[int]) -> list[list[Shape]]:
    return [shapes[a:b] for a, b in pairwise([0, *cuts, len(shapes)])]


def _padded_work(groups: list[list[Shape]], by_shape: dict[Shape, list[int]]) -> int:
    return sum(sum(len(by_shape[s]) for s in group) * _work(group) for group in groups)


def _work(shapes: Iterable[Shape]) -> int:
    """Count the multiplications of a step for a matrix that is padded to hold any of these."""
    short, long = max(map(min, shapes)), max(map(max, shapes))
    return 2 * short**2 * long + short**3
