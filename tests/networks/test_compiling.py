"""Compiled networks give the same losses, and a damaged cache is not the end of a run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._inductor.exc import InductorError

from ddpm_pipeline.networks.compiling import CompiledNetwork

# Compile, run a forward and a backward pass, and print the gradient; then the cache's libraries.
SCRIPT = """
import logging, os, sys, torch
from torch import nn
from ddpm_pipeline.networks.compiling import CompiledNetwork
logging.basicConfig()
torch.manual_seed(0)
network = nn.Sequential(nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 1))
x = torch.randn(4, 8)
expected = torch.autograd.grad(network(x).square().sum(), list(network.parameters()))
got = torch.autograd.grad(CompiledNetwork(network, on_cpu=True)(x).square().sum(),
                          list(network.parameters()))
for a, b in zip(expected, got):
    torch.testing.assert_close(a, b)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_library_cut_short_is_compiled_again(tmp_path: Path) -> None:
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "TMPDIR": str(tmp_path)}

    def run() -> str:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    assert "compiling again" not in run()
    # Not those by which torch finds out what the processor can do.
    libraries = [path for path in tmp_path.rglob("*.so") if b"kernel" in path.read_bytes()]
    assert libraries
    for library in libraries:
        library.write_bytes(library.read_bytes()[:100])
    assert "compiling again, in a fresh cache" in run()


def test_compilation_is_tried_twice_and_no_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    tries = []

    def failing(_: object) -> object:
        def call(*_: object) -> None:
            tries.append(1)
            raise InductorError(ImportError("invalid ELF header"), None)

        return call

    monkeypatch.setattr(torch, "compile", failing)
    with pytest.raises(InductorError, match="invalid ELF header"):
        CompiledNetwork(torch.nn.Linear(1, 1), on_cpu=True)(torch.zeros(1))
    assert len(tries) == 2


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ValueError, match=r"compile needs a C\+\+ compiler"):
        CompiledNetwork(torch.nn.Linear(1, 1), on_cpu=True)
    CompiledNetwork(torch.nn.Linear(1, 1), on_cpu=False)
