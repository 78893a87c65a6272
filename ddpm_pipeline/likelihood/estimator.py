r"""``BoundEstimator``: the terms of the bound of one block of examples, from forward passes.

A row is an example at one timestep of the chain. Rows of all examples and timesteps share the
calls of the network, and the processes share the rows.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ddpm_pipeline.diffusion import (
    Gaussian,
    ReverseProcess,
    decoder_nats,
    keyed_normal,
    marginal,
    prior_nats,
    sum_elements,
    transition_nats,
)
from ddpm_pipeline.likelihood.blocks import Block
from ddpm_pipeline.likelihood.report import BoundSettings
from ddpm_pipeline.likelihood.totals import BoundTotals
from ddpm_pipeline.likelihood.transitions import TransitionSampler
from ddpm_pipeline.networks import Denoiser, run_denoiser

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["BoundEstimator"]


class _Rows(NamedTuple):
    """Examples at timesteps t that move to s, and the network's output there."""

    x_0: Tensor
    x_t: Tensor
    t: Tensor
    s: Tensor
    output: Tensor


@dataclass(frozen=True, eq=False)
class BoundEstimator:
    """All that it takes to estimate the bound of a block of examples.

    Arguments:
        model: The network.
        process: The reverse process around it.
        settings: What is measured.
        sampler: Which transitions each example looks at.
        batch_size: Rows of one call of the model.
        device: Where to compute.
        accelerator: Whose processes share the rows, or None.
    """

    model: Denoiser
    process: ReverseProcess
    settings: BoundSettings
    sampler: TransitionSampler
    batch_size: int
    device: torch.device
    accelerator: "Accelerator | None" = None

    @property
    def rows_per_example(self) -> int:
        """How many forwards each example takes: its transitions, and one for the decoder."""
        return 1 + min(self.sampler.count, len(self.settings.chain) - 1)

    @property
    def processes(self) -> tuple[int, int]:
        """(index of this process, how many there are)."""
        a = self.accelerator
        return (0, 1) if a is None else (a.process_index, a.num_processes)

    @cached_property
    def _chain(self) -> Tensor:
        """The timesteps, and -1 for the data, on the device."""
        return torch.tensor([*self.settings.chain, -1], device=self.device)

    def __call__(self, block: Block) -> BoundTotals:
        """Sum the terms of a block, over all processes; the sums may be infinite or NaN."""
        block = Block(block.first, *(b if b is None else b.to(self.device) for b in block[1:]))
        sums = BoundTotals.zeros(
            len(block.x_0),
            len(self.settings.chain),
            self.rows_per_example - 1,
            device=self.device,
            dtype=sum_elements(block.x_0[:1]).dtype,
        )
        if self.processes[0] == 0:
            sums.prior.copy_(prior_nats(self.process.schedule, block.x_0, self._chain[0]))
            sums.off_grid.copy_(block.off_grid())
        self._add_decoder(sums, block)
        self._add_transitions(sums, block)
        values = sums.flatten()
        if self.processes[1] > 1:
            values = self.accelerator.reduce(values, reduction="sum")
        return sums.unflatten(values)

    def _add_decoder(self, sums: BoundTotals, block: Block) -> None:
        last = len(self.settings.chain) - 1
        for share in self._shares(len(block.x_0)):
            rows = self._forward(block, share, torch.full_like(share, last))
            i = share.to(self.device)
            error = self.process.squared_error(rows.output, rows.x_0, rows.x_t, rows.t, rows.s)
            sums.last_error.index_add_(0, i, error)
            sums.step_errors[last] += error.sum()
            sums.step_counts[last] += len(i)
            if self.settings.decoder_variance != "best":
                sums.decoder.index_add_(0, i, self._decoder_nats(rows))

    def _decoder_nats(self, rows: _Rows) -> Tensor:
        chain, variance = self.settings.chain, self.settings.decoder_variance
        above = chain[-2] if len(chain) > 1 else self.settings.num_train_timesteps
        p = self.process.move(rows.output, rows.x_t, rows.t, rows.s, above)
        if variance != "model":
            p = Gaussian(p.mean, torch.full_like(p.mean[:1], variance).log())
        return decoder_nats(p, rows.x_0, self.settings.decoder)

    def _add_transitions(self, sums: BoundTotals, block: Block) -> None:
        size, draws = len(block.x_0), self.rows_per_example - 1
        examples = torch.arange(block.first, block.first + size)
        steps, weights = self.sampler.draw(self.settings.seed, examples)
        for row in self._shares(size * draws):
            i, j = row // draws, row % draws
            k = steps[i, j]
            rows = self._forward(block, i, k)
            nats = transition_nats(self.process, rows.output, rows.x_0, rows.x_t, rows.t, rows.s)
            error = self.process.squared_error(rows.output, rows.x_0, rows.x_t, rows.t, rows.s)
            weighted = nats * weights[i, j].to(nats)
            i, j, k = i.to(self.device), j.to(self.device), k.to(self.device)
            sums.transitions.index_add_(0, i, weighted)
            sums.step_nats.index_add_(0, k, weighted)
            sums.stratum_nats.index_add_(0, j, weighted)
            sums.squares.add_(weighted.square().sum())
            sums.step_errors.index_add_(0, k, error)
            sums.step_counts.index_add_(0, k, torch.ones_like(error))

    def _shares(self, count: int) -> Iterator[Tensor]:
        """Give the rows of this process among ``count``, in even parts of at most batch_size.

        There are equally many parts on every process, so that the last may be empty.
        """
        rank, world = self.processes
        mine = torch.arange(rank, count, world)
        calls = -(-len(mine) // self.batch_size)
        most = -(-math.ceil(count / world) // self.batch_size)
        parts = mine.tensor_split(calls) if calls else ()
        return itertools.chain(parts, itertools.repeat(mine[:0], most - calls))

    def _forward(self, block: Block, i: Tensor, k: Tensor) -> _Rows:
        """Run the network on examples i at steps k of the chain; int64, shape (B,), on the CPU."""
        if len(i) == 0:
            # A sharded network computes on all processes or on none.
            one = self._forward(block, *torch.zeros(2, 1, dtype=torch.int64))
            return _Rows(*(part[:0] for part in one))
        i, k = i.to(self.device), k.to(self.device)
        x_0, t, s = block.x_0[i], self._chain[k], self._chain[k + 1]
        eps = keyed_normal(self.settings.seed, block.first + i, t, x_0.shape[1:])
        x_t = marginal(self.process.schedule, x_0, t).reparameterize(eps.to(x_0))
        labels = None if block.class_labels is None else block.class_labels[i]
        return _Rows(x_0, x_t, t, s, run_denoiser(self.model, x_t, t, labels))

    def explain(self, block: Block, sums: BoundTotals) -> str:
        """Say which example and timestep made the sums of a block infinite or NaN, and why."""
        values = sums.transitions + sums.decoder + sums.last_error
        i = int((~values.isfinite()).nonzero()[0])
        one = Block(
            block.first + i, *(b if b is None else b[i : i + 1].to(self.device) for b in block[1:])
        )
        name = f"image {one.first}"
        for k in range(len(self.settings.chain)):
            rows = self._forward(one, torch.zeros(1, dtype=torch.int64), torch.tensor([k]))
            if not rows.output.isfinite().all():
                found = "NaN" if rows.output.isnan().any() else "infinite"
                return f"the model's output is {found} for {name} at timestep {int(rows.t)}"
        return f"the bound is not finite for {name}, although the model's output is"
