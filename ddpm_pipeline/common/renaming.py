"""``accept_old_names``: options that were renamed go on under their old names too.

    @accept_old_names(output="output_dir")
    @dataclass(frozen=True, kw_only=True)
    class Config: ...

    Config(output="report").output_dir        "report"; the command line takes --output likewise

Old names stand in no help and no documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import TypeVar

__all__ = ["accept_old_names", "old_names"]

T = TypeVar("T")

_ATTRIBUTE = "_old_names"


def accept_old_names(**names: str) -> Callable[[type[T]], type[T]]:
    """Let a dataclass take options by their old names as well.

    Arguments:
        names: The new name by each old one.
    """

    def decorate(options: type[T]) -> type[T]:
        init = options.__init__

        @wraps(init)
        def renamed(self: T, *args: object, **values: object) -> None:
            for old, new in names.items():
                if old in values:
                    if new in values:
                        raise TypeError(f"{old} is the old name of {new}: give one of them")
                    values[new] = values.pop(old)
            init(self, *args, **values)

        options.__init__ = renamed
        setattr(options, _ATTRIBUTE, names)
        return options

    return decorate


def old_names(options: type) -> Mapping[str, str]:
    """Give the new name of each option of a dataclass that had another one."""
    return getattr(options, _ATTRIBUTE, {})
