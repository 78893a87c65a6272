r"""Any network :math:`y_\theta(x_t, t)` behind one signature.

A denoiser may be a plain function, a ``torch.nn.Module`` or a diffusers model that answers with an
object. What differs between them is settled here once: where it lives, in which precision it
computes, what it is told beside t, and that dropout is off while it is measured.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ddpm_pipeline.networks.condition import Told, network_inputs

__all__ = ["Denoiser", "device_of", "dtype_of", "evaluating", "run_denoiser"]


Denoiser = Callable[..., object]


def device_of(model: Denoiser, default: torch.device) -> torch.device:
    """Find the device of the model's parameters; the default if it has none."""
    parameter = _parameter(model)
    return default if parameter is None else parameter.device


def dtype_of(model: Denoiser, default: torch.dtype) -> torch.dtype:
    """Find the precision that the model says it has, or else that of its parameters."""
    dtype = getattr(model, "dtype", None)
    if not isinstance(dtype, torch.dtype):
        parameter = _parameter(model)
        dtype = default if parameter is None else parameter.dtype
    return dtype if dtype.is_floating_point else default


def _parameter(model: Denoiser) -> Tensor | None:
    return next(model.parameters(), None) if isinstance(model, nn.Module) else None


def run_denoiser(model: Denoiser, x_t: Tensor, t: Tensor, class_labels: Told = None) -> Tensor:
    """Compute the model's output at x_t, in the dtype of x_t.

    Arguments:
        model: Called as model(x_t, t) or model(x_t, t, class_labels=...); returns a tensor or an
            object with one as ``sample``.
        x_t: Noisy data, shape (B, C, *).
        t: Timesteps, int64, shape (B,).
        class_labels: int64, shape (B,), or what a ``Condition`` says; None without either.
    Returns:
        Shape (B, C', *): the channels are for the caller to check.
    Raises:
        TypeError: If the model cannot be called so, or the output is not a tensor.
        ValueError: If its shape differs from that of x_t in more than the channels, or a model
            with classes or a condition is given none.
    """
    config = getattr(getattr(model, "module", model), "config", None)  # also of a wrapped one
    if class_labels is None and getattr(config, "num_class_embeds", None) is not None:
        raise ValueError("class_labels must be given, one for each image: the model has classes")
    x, class_labels = network_inputs(model, x_t, class_labels)
    labels = {} if class_labels is None else {"class_labels": class_labels}
    inputs = x.to(dtype_of(model, x_t.dtype)), t
    try:
        output = model(*inputs, **labels)
    except TypeError:
        _check_takes(model, *inputs, **labels)
        raise
    output = getattr(output, "sample", output)
    if not isinstance(output, Tensor):
        raise TypeError(
            "model must return a tensor or an object with one as `sample`, got "
            f"{type(output).__name__}"
        )
    if output.ndim != x_t.ndim or (len(output), *output.shape[2:]) != (len(x_t), *x_t.shape[2:]):
        raise ValueError(
            f"model must return the shape of x_t, {(*x_t.shape,)}, but for the channels, got "
            f"{(*output.shape,)}"
        )
    return output.to(x_t.dtype)


def _check_takes(model: Denoiser, *inputs: Tensor, **labels: Tensor) -> None:
    """Raise TypeError if a model does not take such arguments; says what it must take."""
    try:
        signature = inspect.signature(getattr(model, "forward", model))
        signature.bind(*inputs, **labels)
    except TypeError as error:
        wanted = ", ".join(["x_t", "t", *labels])
        raise TypeError(
            f"model must be called as model({wanted}), got a {type(model).__name__}: {error}"
        ) from None
    except ValueError:  # it does not tell its signature
        return


@contextmanager
def evaluating(model: Denoiser) -> Iterator[None]:
    """Turn gradients off and put a module into evaluation mode, for the length of a block."""
    modules = [m for m in model.modules() if m.training] if isinstance(model, nn.Module) else []
    try:
        for module in modules:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module in modules:
            module.training = True
