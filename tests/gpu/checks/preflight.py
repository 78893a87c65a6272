"""What the machine is, and whether it computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ddpm_pipeline.networks import computes_in_bfloat16

if TYPE_CHECKING:
    from gpu.found import Found
    from gpu.place import Place


def preflight(place: Place, found: Found) -> None:
    import gpu.runs  # noqa: F401 - fails here if a package is missing, before all others do

    x = torch.randn(512, 512, device=place.device)
    product = (x.bfloat16() @ x.bfloat16()).float()
    error = (product - x @ x).norm() / (x @ x).norm()
    found.at_most("relative error of a product in bf16", float(error), 0.02)
    found.note(bf16=computes_in_bfloat16(place.device), threads=torch.get_num_threads())
    if place.on_gpu:
        found.at_least("computes in bf16", float(computes_in_bfloat16(place.device)), 1.0)
        free, total = torch.cuda.mem_get_info()
        found.note(free_GiB=round(free / 2**30, 1), total_GiB=round(total / 2**30, 1))
