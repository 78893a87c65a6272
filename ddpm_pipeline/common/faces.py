"""Faces of folders: public names that are imported from their modules when they are used.

    __getattr__, __dir__, __all__ = lazy_face(__name__, {"forward_process": "marginal posterior"})

So ``from ddpm_pipeline.diffusion import marginal`` imports one module and not the folder, and
``import ddpm_pipeline`` costs nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module

__all__ = ["lazy_face"]


def lazy_face(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """Make a package's ``__getattr__``, ``__dir__`` (PEP 562) and ``__all__``.

    Arguments:
        package: Its ``__name__``.
        modules: The public names of each module, separated by spaces, by the module's name in the
            package. No name may be that of a module in the package, which importing that module
            would put in its place.
    """
    homes = {name: module for module, names in modules.items() for name in names.split()}

    def get(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return get, names, sorted(homes)
