"""All that is checked and measured on a GPU: where each item stands, and how long it may take.

An item is a function of its own name in ``checks/`` or ``benchmarks/``: ``f(place, found)``. This
file imports nothing that needs torch, so that what watches over the items starts at once.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CHECKS_END", "PLAN", "Item", "chosen"]

CHECKS_END = 230
"""Seconds from the start at which the last check must be over where benchmarks follow."""


@dataclass(frozen=True)
class Item:
    """One thing to find out.

    Arguments:
        name: Of the function, and in GPU_ONLY.
        module: Where the function is, below tests/gpu.
        seconds: Its deadline on one H100.
        what: What it finds out, in the results.
        file: gpu_FILE.json, in which it is written.
    """

    name: str
    module: str
    seconds: float
    what: str
    file: str = "checks"

    @property
    def is_check(self) -> bool:
        return self.module.startswith("checks.")


PLAN = (
    Item("preflight", "checks.preflight", 60, "versions, bfloat16, a finite product"),
    Item("random_words", "checks.mathematics", 10, "the words of Philox are the CPU's"),
    Item("formulas", "checks.mathematics", 20, "q, p and the losses against the CPU, float64"),
    Item("decoder_tails", "checks.mathematics", 15, "the discretized decoder far from its mean"),
    Item("no_synchronisation", "checks.synchronisation", 60, "updates wait for nothing"),
    Item("synchronisation_counts", "checks.synchronisation", 30, "sampling and the bound wait"),
    Item("one_update", "checks.training", 20, "losses and gradients against the CPU, float32"),
    Item("optimizers", "checks.training", 20, "Muon, AdamW and averages against references"),
    Item("loaders_agree", "checks.training", 15, "batches are the same however they come"),
    Item("bound_agrees", "checks.bound", 40, "bits/dim against the CPU, twice, by batch size"),
    Item("calibration_agrees", "checks.calibration", 30, "tables against the CPU, and twice"),
    Item("sampling_agrees", "checks.sampling", 30, "images against the CPU, float32 and bf16"),
    Item("image_in_any_batch", "checks.sampling", 20, "image i whatever is drawn beside it"),
    Item("exact_resume", "checks.resume", 90, "killed, and gone on with: 0 differing bits"),
    Item("precisions", "checks.training", 40, "the loss in bf16 and fp16 beside float32's"),
    Item("memory_orders", "checks.training", 20, "checkpoints of either memory order open"),
    Item("memory", "checks.memory", 30, "the peak by parameters, and no growth"),
    Item("one_process_group", "checks.distributed", 60, "DDP and FSDP of size 1"),
    Item("evaluation", "checks.whole", 20, "Fréchet, KID, precision and recall against the CPU"),
    Item("commands", "checks.whole", 45, "train, sample, bound, calibrate by the commands"),
    Item("one_graph", "checks.compiling", 75, "torch.compile: one graph, nothing compiled twice"),
    Item("graph_is_eager", "checks.compiling", 45, "a replayed update is the eager one"),
    Item("ceilings", "benchmarks.ceilings", 30, "what the GPU can do", "ceilings"),
    Item("training_small", "benchmarks.training", 100, "small, 28 px, batch 64", "training"),
    Item("sampling_small", "benchmarks.sampling", 50, "small, 28 px, K = 50", "sampling"),
    Item("training_ddpm", "benchmarks.training", 140, "ddpm, 32 px, batch 128", "training"),
    Item("sampling_ddpm", "benchmarks.sampling", 45, "ddpm, 32 px, K = 50", "sampling"),
    Item("bound_speed", "benchmarks.measures", 25, "forwards a second of the bound", "bound"),
    Item("calibration_speed", "benchmarks.measures", 25, "10,000 forwards", "bound"),
    Item("checkpoints", "benchmarks.stalls", 40, "how long a checkpoint stops a run", "memory"),
    Item("training_small_512", "benchmarks.training", 60, "small, 28 px, batch 512", "training"),
    Item("quality", "benchmarks.quality", 120, "distance over seconds of training", "quality"),
)
"""In the order in which they run: what is learnt soonest first, what is wanted least last."""


def chosen(only: str) -> list[Item]:
    """The items of a list of names, or all of them for an empty one.

    Raises:
        ValueError: If a name is unknown.
    """
    names = {item.name: item for item in PLAN}
    wanted = [word for word in only.replace(",", " ").split() if word]
    if unknown := [word for word in wanted if word not in names]:
        raise ValueError(f"GPU_ONLY must name some of {', '.join(names)}, got {unknown}")
    return [item for item in PLAN if not wanted or item.name in wanted]
