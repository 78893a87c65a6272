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
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import nn

__all__ = ["CompiledNetwork", "compiles_for_cuda"]

logger = logging.getLogger(__name__)


class CompiledNetwork:
    """A compiled network, called as the network is.

    Arguments:
        network: The module; its parameters stay where they are.
        on_cpu: Whether it runs on the CPU, where its code is C++.
        deterministic: On GPUs, choose kernels by no measurement of time, which may choose others
            the next time, with other last digits.

    Raises:
        ValueError: If a C++ compiler is needed and there is none.
    """

    def __init__(self, network: nn.Module, *, on_cpu: bool, deterministic: bool = False) -> None:
        compilers = (os.environ.get("CXX"), "g++", "clang++")
        if on_cpu and not any(map(shutil.which, filter(None, compilers))):
            raise ValueError("compile needs a C++ compiler on the CPU: there is no g++ or clang++")
        self._network = network
        untimed = deterministic and not on_cpu
        self._options = {"options": {"deterministic": True}} if untimed else {}
        self._call = torch.compile(network, **self._options)
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
        self._call = torch.compile(self._network, **self._options)
        return self._call(*args, **kwargs)


def compiles_for_cuda() -> bool:
    """Tell whether what torch.compile writes kernels for CUDA in is installed."""
    return find_spec("triton") is not None


def _compilation_error() -> type[Exception]:
    """Find torch's error of a network that could not be compiled.

    It is private, but every public class above it is one that the network itself may raise.
    Importing it takes a second, and so waits until a compilation failed.
    """
    from torch._dynamo.exc import BackendCompilerFailed

    return BackendCompilerFailed
