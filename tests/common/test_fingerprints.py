"""Hashes know content again: through wrappers, precisions, layouts and moves, and nothing else."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ddpm_pipeline.common import fingerprints
from ddpm_pipeline.common.fingerprints import (
    check_weights,
    file_hash,
    tensors_hash,
    weights_hash,
    weights_hashes,
)


def make_network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


@pytest.fixture(scope="module", autouse=True)
def _group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A group of one process, which DistributedDataParallel asks for."""
    rendezvous = tmp_path_factory.mktemp("group") / "rendezvous"
    distributed.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=0, world_size=1
    )
    yield
    distributed.destroy_process_group()


WRAPPERS = {
    "compiled": torch.compile,
    "data parallel": nn.DataParallel,
    "distributed": DistributedDataParallel,
    "compiled, then distributed": lambda network: DistributedDataParallel(torch.compile(network)),
    "distributed, then compiled": lambda network: torch.compile(DistributedDataParallel(network)),
}


@pytest.mark.parametrize("wrap", WRAPPERS)
@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_a_wrapped_network_has_the_hash_of_the_bare_one(
    wrap: str, dtype: torch.dtype | None
) -> None:
    network = make_network()
    wrapped = WRAPPERS[wrap](network)
    assert weights_hash(wrapped, dtype) == weights_hash(network, dtype)
    assert weights_hashes(wrapped) == weights_hashes(network)
    check_weights(weights_hashes(network), wrapped)


def test_a_network_with_a_part_called_module_is_not_taken_for_a_wrapper() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module, self.head = nn.Linear(2, 2), nn.Linear(2, 1)

    pair = Pair()
    assert weights_hash(pair) != weights_hash(pair.module)
    before = weights_hash(pair)
    with torch.no_grad():
        pair.head.bias += 1
    assert weights_hash(pair) != before


def test_a_network_of_one_part_called_module_is_hashed_with_all_that_is_its_own() -> None:
    class Scaled(nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.module = nn.Linear(2, 2)
            self.register_buffer("scale", torch.tensor(scale))

    first, second = Scaled(1.0), Scaled(100.0)
    second.module.load_state_dict(first.module.state_dict())
    assert weights_hash(first) != weights_hash(second)
    assert weights_hash(first) == tensors_hash(first.state_dict())


def test_the_hash_of_weights_follows_values_and_names() -> None:
    torch.manual_seed(0)
    network = make_network()
    before = weights_hash(network)
    assert weights_hash(network.to(memory_format=torch.channels_last)) == before
    with torch.no_grad():
        network[0].bias[1] += 1e-7
    assert weights_hash(network) != before
    other = nn.ModuleDict({"a": nn.Linear(3, 2)})
    renamed = nn.ModuleDict({"b": other["a"]})
    assert weights_hash(other) != weights_hash(renamed)


def test_buffers_belong_to_the_weights() -> None:
    network = make_network()
    before = weights_hash(network)
    network[1].running_mean += 1
    assert weights_hash(network) != before


def test_a_hash_of_tensors_is_that_of_their_bytes_by_name() -> None:
    """By hand, from NumPy's bytes: the format that saved hashes have."""
    values = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array([1, 2], np.int64)}
    content = b"a torch.int64 (2,)\n" + values["a"].tobytes()
    content += b"b torch.float32 (2, 3)\n" + values["b"].tobytes()
    tensors = {name: torch.from_numpy(value) for name, value in values.items()}
    assert tensors_hash(tensors) == hashlib.sha256(content).hexdigest()
    assert tensors_hash(dict(reversed(tensors.items()))) == tensors_hash(tensors)


def test_a_layout_in_memory_does_not_count_and_a_shape_does() -> None:
    x = torch.randn(4, 6)
    before = tensors_hash({"x": x})
    assert tensors_hash({"x": x.T.contiguous().T}) == before
    assert tensors_hash({"x": torch.stack([x, x])[1]}) == before
    assert tensors_hash({"x": x.clone().requires_grad_()}) == before
    others = [x.view(6, 4), x.view(24), x.double(), -x]
    assert len({before, *(tensors_hash({"x": other}) for other in others)}) == 5
    assert tensors_hash({"x": torch.tensor(1.0)}) != tensors_hash({"x": torch.tensor([1.0])})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_are_known_in_every_precision_that_they_may_be_loaded_in(
    dtype: torch.dtype,
) -> None:
    torch.manual_seed(0)
    network = make_network().double()
    known = weights_hashes(network)
    assert list(known) == ["float64", "float32", "float16", "bfloat16"]
    name = str(dtype).removeprefix("torch.")
    rounded = make_network().to(dtype)
    rounded.load_state_dict(network.state_dict())
    assert weights_hash(rounded) == known[name]
    check_weights(known, rounded)


def test_rounded_weights_do_not_know_what_they_were_rounded_from() -> None:
    assert list(weights_hashes(make_network())) == ["float32", "float16", "bfloat16"]
    assert list(weights_hashes(make_network().half())) == ["float16"]
    assert list(weights_hashes(make_network().bfloat16())) == ["bfloat16"]
    assert weights_hashes(nn.ReLU()) == {}


def test_other_weights_are_refused() -> None:
    torch.manual_seed(0)
    first, second = make_network(), make_network()
    check_weights(weights_hashes(first), first)
    check_weights(None, second)
    with pytest.raises(ValueError, match="made for other weights than this model's"):
        check_weights(weights_hashes(first), second)


def test_changed_weights_are_seen_and_unchanged_ones_hashed_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = make_network()
    known, hashed = weights_hashes(network), []
    monkeypatch.setattr(
        fingerprints, "tensors_hash", lambda *a: hashed.append(1) or tensors_hash(*a)
    )
    for _ in range(3):
        check_weights(known, network)
    assert len(hashed) == 1
    with torch.no_grad():
        network[0].weight[0, 0] += 1
    with pytest.raises(ValueError, match="other weights"):
        check_weights(known, network)
    network[0].weight = nn.Parameter(network[0].weight.detach().clone())
    with pytest.raises(ValueError, match="other weights"):
        check_weights(known, network)
    assert len(hashed) == 3


def test_what_cannot_be_compared_passes_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    half = weights_hashes(make_network().half())
    check_weights(half, make_network())
    assert "knows the weights as float16 and cannot tell whether these, as float32" in caplog.text
    caplog.clear()
    check_weights(weights_hashes(make_network()), make_network().to("meta"))
    assert "cannot tell whether these" in caplog.text


def test_the_hash_of_a_file_is_that_of_its_content(tmp_path: Path) -> None:
    content = os.urandom(300_000)
    (tmp_path / "a").write_bytes(content)
    shutil.copy(tmp_path / "a", tmp_path / "b")
    expected = hashlib.sha256(content).hexdigest()
    assert file_hash(tmp_path / "a") == file_hash(tmp_path / "b") == expected
