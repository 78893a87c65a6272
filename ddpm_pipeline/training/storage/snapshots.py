"""Snapshots of power-function averages, of which any other is made when the run is done.

    output_dir/post-hoc/step-0000500.safetensors

Each file holds all averages of one update, in the precision of the weights, and in its header what
the network is and the hash of the tensors. A file appears when it is whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ddpm_pipeline.common import tensors_hash, write_bytes

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Snapshot", "read_snapshots", "snapshot_path", "write_snapshot"]


_PREFIX, _SUFFIX = "step-", ".safetensors"
_HEADER = "post_hoc"  # one entry, since the library writes several in any order


@dataclass(frozen=True)
class Snapshot:
    """A file of averages.

    Arguments:
        path: The file.
        step: Updates made.
        sigma_rels: Lengths of the averages in it.
        network: The config of the network.
        hash: Of its tensors.
    """

    path: Path
    step: int
    sigma_rels: tuple[float, ...]
    network: dict[str, Any]
    hash: str

    def averages(self) -> dict[float, dict[str, Tensor]]:
        """Read the averages, by their length.

        Raises:
            ValueError: If the file is damaged; names it.
        """
        tensors = {}
        try:
            with safe_open(self.path, "pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise _damaged(self.path) from error
        if tensors_hash(tensors) != self.hash:
            raise _damaged(self.path)
        return {
            sigma_rel: {
                key.removeprefix(f"{sigma_rel}:"): tensor
                for key, tensor in tensors.items()
                if key.startswith(f"{sigma_rel}:")
            }
            for sigma_rel in self.sigma_rels
        }


def snapshot_path(folder: Path, step: int) -> Path:
    """Name the place of a step's averages in a folder of snapshots."""
    return folder / f"{_PREFIX}{step:07d}{_SUFFIX}"


def write_snapshot(
    path: Path,
    step: int,
    averages: Mapping[float, Mapping[str, Tensor]],
    network: Mapping[str, Any],
) -> None:
    """Write the averages of an update.

    Arguments:
        path: Where to; its folder is made if it is missing.
        step: Updates made.
        averages: The network's state with each average, by its length.
        network: The config of the network.
    Raises:
        OSError: If it cannot be written; names it.
    """
    tensors = {
        f"{sigma_rel}:{name}": tensor.detach().cpu().contiguous()
        for sigma_rel, state in _apart(averages).items()
        for name, tensor in state.items()
    }
    header = {
        "step": step,
        "sigma_rels": list(averages),
        "network": {k: v for k, v in network.items() if k != "_name_or_path"},
        "hash": tensors_hash(tensors),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, save(tensors, {_HEADER: json.dumps(header)}))


def _apart(averages: Mapping[float, Mapping[str, Tensor]]) -> dict[float, dict[str, Tensor]]:
    """Give weights that are not trained, one tensor for all averages, to each as its own."""
    seen: set[int] = set()
    own: dict[float, dict[str, Tensor]] = {}
    for sigma_rel, state in averages.items():
        own[sigma_rel] = {k: v.clone() if v.data_ptr() in seen else v for k, v in state.items()}
        seen |= {tensor.data_ptr() for tensor in state.values()}
    return own


def read_snapshots(folder: Path) -> list[Snapshot]:
    """Read what is in a folder of snapshots, without the weights; the earliest first.

    Raises:
        ValueError: If a file is damaged or of another network; names it.
    """
    found = [_read(path) for path in sorted(folder.glob(f"{_PREFIX}*{_SUFFIX}"))]
    for snapshot in found[1:]:
        if snapshot.network != found[0].network:
            raise ValueError(
                f"{str(snapshot.path)!r} holds averages of another network than "
                f"{found[0].path.name}; move those of one of them elsewhere"
            )
    return sorted(found, key=lambda snapshot: snapshot.step)


def _read(path: Path) -> Snapshot:
    try:
        with safe_open(path, "pt") as file:
            header = json.loads(file.metadata()[_HEADER])
        lengths = tuple(map(float, header["sigma_rels"]))
        return Snapshot(path, int(header["step"]), lengths, header["network"], header["hash"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> ValueError:
    return ValueError(f"{str(path)!r} is damaged; delete it, and averages are made of the others")
