"""``torch.compile`` that does not fail on a damaged cache.

A process killed while it compiles may leave a library cut short in the cache that all of a user's
processes share, and the next one fails to load it. The network is then compiled once more, in a
new cache that only this process uses. The code, and so every bit of a run, is the same.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import nn

__all__ = ["CompiledNetwork"]

logger = logging.getLogger(__name__)


class CompiledNetwork:
    """A compiled network, called as the network is.

    Arguments:
        network: The module; its parameters stay where they are.
        on_cpu: Whether it runs on the CPU, where its code is C++.

    Raises:
        ValueError: If a C++ compiler is needed and there is none.
    """

    def __init__(self, network: nn.Module, *, on_cpu: bool) -> None:
        compilers = (os.environ.get("CXX"), "g++", "clang++")
        if on_cpu and not any(map(shutil.which, filter(None, compilers))):
            raise ValueError("compile needs a C++ compiler on the CPU: there is no g++ or clang++")
        self._network, self._call = network, torch.compile(network)
        self._has_own_cache = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Compute the network's output."""
        try:
            return self._call(*args, **kwargs)
        except _compilation_error() as error:
            if self._has_own_cache:
                raise
            logger.warning("compiling again, in a fresh cache: %s", str(error).partition("\n")[0])
        self._has_own_cache = True
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(prefix="ddpm-compile-")
        torch.compiler.reset()
        self._call = torch.compile(self._network)
        return self._call(*args, **kwargs)


def _compilation_error() -> type[Exception]:
    """Find torch's error of a network that could not be compiled.

    It is private, but every public class above it is one that the network itself may raise.
    Importing it takes a second, and so waits until a compilation failed.
    """
    from torch._dynamo.exc import BackendCompilerFailed

    return BackendCompilerFailed
