"""Refusing options, in one line that names the option, its value and what is allowed.

    check_integer("batch_size", batch_size)                       at least 1
    check_integer("num_inference_steps", K, most=T)               from 1 to T
    check_choice("decoder", decoder, DECODERS)

They cost nothing to import, for what a command refuses it refuses at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import index

__all__ = ["check_above_zero", "check_at_least", "check_choice", "check_integer", "is_integer"]


def is_integer(value: object) -> bool:
    """Tell whether a value can stand for a whole number; bools cannot."""
    if isinstance(value, bool):
        return False
    try:
        index(value)
    except TypeError:  # also of tensors that are no integer, which have an __index__ all the same
        return False
    return True


def check_integer(
    name: str, value: object, *, least: int = 1, most: int | None = None, note: str = ""
) -> int:
    """Give the value back as an int.

    Arguments:
        name: The option's name.
        value: Its value.
        least, most: The smallest and the largest that is allowed; None for no largest.
        note: What the message says after the range.
    Raises:
        ValueError: If it is no integer, or outside the range.
    """
    if is_integer(value) and value >= least and (most is None or value <= most):
        return int(value)
    allowed = f"of at least {least}" if most is None else f"from {least} to {most}"
    raise ValueError(f"{name} must be an integer {allowed}{note}, got {value!r}")


def check_choice(name: str, value: object, allowed: Iterable[object]) -> None:
    """Refuse a value that is not one of a few.

    Raises:
        ValueError: If it is not.
    """
    allowed = list(allowed)
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}, got {value!r}")


def check_above_zero(**values: float | None) -> None:
    """Refuse numbers that are not above 0, by the names of their options; None is not given.

    Raises:
        ValueError: For the first that is not.
    """
    for name, value in values.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be above 0 or None, got {value}")


def check_at_least(options: object, **bounds: int) -> None:
    """Refuse options, fields of an object, that are below their bounds.

    Arguments:
        options: The object; fields that are None are not given, and not looked at.
        bounds: The least value of each field.
    Raises:
        ValueError: For the first that is below its bound; names it.
    """
    for name, least in bounds.items():
        value = getattr(options, name)
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
