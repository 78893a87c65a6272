"""A device that is not there, and what is asked of it: kernels, copies, waits.

    with stand_in_device():
        learner = make_it_on(DEVICE)
        with DeviceCounts() as counts:
            learner.update(0, batches)
    assert not counts.waits

The device is torch's "meta": tensors on it have shapes and no values, so that code runs as on an
accelerator whose host never waits. Where the host must wait on CUDA, it is told in ``waits``, and
gets ones for values. What is counted on the CPU (``DeviceCounts("cpu")``) is computed as well.

A *wait* is what ``torch.cuda.set_sync_debug_mode`` calls a synchronisation: the host stands still
until the device has done all that it was given. A copy from memory that is not pinned is none if
it is asked for with ``non_blocking=True``, but the host copies it once more; it is ``unpinned``.
"""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self
from unittest.mock import patch
from weakref import WeakSet

import torch
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

__all__ = ["DEVICE", "DeviceCounts", "stand_in_device"]


DEVICE = torch.device("meta")

_READS = {"_local_scalar_dense", "is_nonzero", "equal"}
_OF_UNKNOWN_SIZE = {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive"}
_COPIES = {"_to_copy", "copy_"}

_pinned: WeakSet[torch.UntypedStorage] = WeakSet()


class DeviceCounts(TorchDispatchMode):
    """Counts what is asked of a device while the mode is on, in the backward pass too.

    Arguments:
        device: The device; of "cpu", operators and reads are counted, and no copies.
    """

    def __init__(self, device: torch.device | str = DEVICE) -> None:
        super().__init__()
        self.device = torch.device(device)
        self.kernels: Counter[str] = Counter()
        """Operators that compute or copy on the device, by name; views are none."""
        self.waits: list[str] = []
        """What the host waits for, each with the line of the package that asks for it."""
        self.pinned: list[str] = []
        """Copies to the device beside the host's work, out of pinned memory."""
        self.unpinned: list[str] = []
        """Copies to the device that the host makes once more before it goes on."""

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        tensors = [t for t in (*args, *kwargs.values()) if isinstance(t, torch.Tensor)]
        here = self._is_here(args, kwargs)
        if here and not _is_view(func):
            self.kernels[name] += 1
        if here and self._waits_by_itself(name, args):
            self.waits.append(_place(name))
            if self.device == DEVICE and not _indices_of_host(name, args):
                return _made_up(name, tensors)
        if name in _COPIES and self.device.type != "cpu":
            return self._copy(name, func, tensors, args, kwargs)
        if name.startswith("_fused_") and here and self.device == DEVICE:
            return None
        return func(*args, **kwargs)

    def _is_here(self, args: tuple, kwargs: dict[str, Any]) -> bool:
        given = kwargs.get("device")
        if given is not None:
            return torch.device(given).type == self.device.type
        return any(t.device.type == self.device.type for t in _all_tensors(args))

    def _waits_by_itself(self, name: str, args: tuple) -> bool:
        """Tell whether an operator reads values, or finds out only on the device how many."""
        if name in _READS | _OF_UNKNOWN_SIZE:
            return True
        masks = [i for i in _indices(name, args) if i.dtype in {torch.bool, torch.uint8}]
        return bool(masks) or (self.device.type != "cpu" and _indices_of_host(name, args))

    def _copy(
        self, name: str, func: Any, tensors: list[Tensor], args: tuple, kwargs: dict[str, Any]
    ) -> Any:
        """Sort a copy by its ends, and make one up where there are no values to copy."""
        source = tensors[-1]
        target = torch.device(kwargs.get("device") or tensors[0].device)
        asynchronous = kwargs.get("non_blocking", False) or (
            name == "copy_" and args[2:] == (True,)
        )
        if target.type == source.device.type:
            return func(*args, **kwargs)
        if target.type == self.device.type:
            if not asynchronous:
                self.waits.append(_place(name))
            elif source.untyped_storage() in _pinned:
                self.pinned.append(_place(name))
            else:
                self.unpinned.append(_place(name))
            return func(*args, **kwargs)
        if not asynchronous:
            self.waits.append(_place(name))
        if name == "copy_":
            return tensors[0]
        return torch.ones(source.shape, dtype=kwargs.get("dtype") or source.dtype)


def _is_view(func: Any) -> bool:
    """Tell whether an operator only looks at memory that is there."""
    name = func.overloadpacket.__name__
    returns = func._schema.returns
    alias = returns[0].alias_info if returns else None
    return name == "detach" or (alias is not None and not alias.is_write)


def _indices(name: str, args: tuple) -> list[Tensor]:
    given = args[1] if name in {"index", "index_put_"} else ()
    return [index for index in given if index is not None]


def _indices_of_host(name: str, args: tuple) -> bool:
    """Tell whether something on the device is indexed from the host, by a copy that blocks."""
    return any(index.device.type == "cpu" for index in _indices(name, args))


def _all_tensors(args: tuple) -> Iterator[Tensor]:
    for arg in args:
        if isinstance(arg, torch.Tensor):
            yield arg
        elif isinstance(arg, (list, tuple)):
            yield from _all_tensors(tuple(arg))


def _made_up(name: str, tensors: list[Tensor]) -> Any:
    """Give what an operator might have read."""
    if name == "_local_scalar_dense":
        return torch.ones((), dtype=tensors[0].dtype).item()
    if name in _READS:
        return True
    raise NotImplementedError(f"{name} makes a tensor of what only values tell")


def _place(name: str) -> str:
    """Say where in the package an operator is asked for."""
    frame = sys._getframe(2)
    while frame is not None:
        path = frame.f_code.co_filename
        if "ddpm_pipeline/" in path:
            return f"{name} at {path.rpartition('ddpm_pipeline/')[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return f"{name} outside the package"


class _Generator(torch.Generator):
    """A generator of the CPU for the device that has none."""

    def __new__(cls, device: torch.device | str = "cpu") -> Self:
        return super().__new__(cls, "cpu" if torch.device(device) == DEVICE else device)


def _by_a_copy(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Make tensors of the host's values as on CUDA: on the CPU, then by a copy."""

    def made(data: object, *, device: torch.device | str | None = None, **options: Any) -> Tensor:
        if device is None or torch.device(device) != DEVICE:
            return make(data, device=device, **options)
        return make(data, **options).to(device)

    return made


@contextmanager
def stand_in_device() -> Iterator[None]:
    """Let code pin memory and draw on the device that is not there.

    Its generators are the CPU's, and kernels are fused and take many tensors as on CUDA.
    """

    def pin_memory(tensor: Tensor, *_: object) -> Tensor:
        copy = tensor.clone()
        _pinned.add(copy.untyped_storage())
        return copy

    def new_tensor(tensor: Tensor, data: object, **options: Any) -> Tensor:
        return torch.tensor(data, **({"dtype": tensor.dtype, "device": tensor.device} | options))

    with (
        patch("torch.Generator", _Generator),
        patch("torch.tensor", _by_a_copy(torch.tensor)),
        patch("torch.as_tensor", _by_a_copy(torch.as_tensor)),
        patch("torch.Tensor.new_tensor", new_tensor),
        patch("torch.Tensor.pin_memory", pin_memory),
        patch(
            "torch.optim.optimizer._get_fused_kernels_supported_devices",
            lambda: ["meta", "cpu", "cuda"],
        ),
        patch(
            "torch.utils._foreach_utils._get_foreach_kernels_supported_devices",
            lambda: ["meta", "cuda"],
        ),
    ):
        yield
