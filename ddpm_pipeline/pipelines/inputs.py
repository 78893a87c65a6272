"""TODO pipelines.inputs."""

import torch

from ddpm_pipeline.common import check_integer
from ddpm_pipeline.data import OUTPUTS

__all__ = []


Generators = torch.Generator | list[torch.Generator] | None


def check_call(output_type: str, generator: Generators, batch_size: int) -> None:
    if output_type not in OUTPUTS:
        raise ValueError(f"output_type must be one of {', '.join(OUTPUTS)}, got {output_type!r}")
    check_integer("batch_size", batch_size)
    if isinstance(generator, list):
        if len(generator) != batch_size:
            raise ValueError(
                f"generator must be one or a list of batch_size = {batch_size}, "
                f"got {len(generator)}"
            )
    elif not isinstance(generator, torch.Generator | None):
        raise ValueError(f"generator must be a torch.Generator or a list, got {generator!r}")


def rows_per_call(max_batch_size: int | None, default: int) -> int:
    if max_batch_size is None:
        return default
    check_integer("max_batch_size", max_batch_size)
    return int(max_batch_size)
