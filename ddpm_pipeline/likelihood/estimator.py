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

from ddpm_pipeline.common import moved, precise_dtype
from ddpm_pipeline.diffusion import (
    Gaussian,
    Levels,
    ReverseProcess,
    decoder_nats,
    keyed_normal,
    marginal,
    prior_nats,
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


class _Share(NamedTuple):
    """Rows of one call of the network, on the host: examples at steps of the chain.

    For transitions also which draw of its example each is, and its weight.
    """

    examples: Tensor
    steps: Tensor
    draws: Tensor | None = None
    weights: Tensor | None = None


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
        levels: Those of the data; None for bytes, and for data with a density.
    """

    model: Denoiser
    process: ReverseProcess
    settings: BoundSettings
    sampler: TransitionSampler
    batch_size: int
    device: torch.device
    accelerator: "Accelerator | None" = None
    levels: Levels | None = None

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
        """Sum the terms of a block, over all processes; the sums may be infinite or NaN.

        The device computes a number for each row, all of them are read at once, and the sums are
        made on the host, in the order of the rows: they have the same digits every time, which
        those of a GPU's atomic additions do not.
        """
        size = len(block.x_0)
        shares = [*self._decoder_shares(size), *self._transition_shares(block.first, size)]
        sums = BoundTotals.zeros(size, len(self.settings.chain), self.rows_per_example - 1)
        for share, nats, errors in self._measured(block, shares, sums):
            if share.draws is None:
                self._add_decoder(sums, share, nats, errors)
            else:
                _add_transitions(sums, share, nats, errors)
        values = sums.flatten()
        if self.processes[1] > 1:
            precise = precise_dtype(self.device)
            values = self.accelerator.reduce(values.to(self.device, precise), reduction="sum")
        return sums.unflatten(values)

    def _measured(
        self, block: Block, shares: list[_Share], sums: BoundTotals
    ) -> Iterator[tuple[_Share, Tensor, Tensor]]:
        """Give the nats and the squared error of every row of every share, on the host.

        What needs no forward is written into the sums.
        """
        is_first = self.processes[0] == 0
        rows = [torch.stack([share.examples, share.steps]) for share in shares]
        block = Block(block.first, *(b if b is None else self._move(b) for b in block[1:]))
        places = self._move(torch.cat(rows, dim=1)).split([row.shape[1] for row in rows], dim=1)
        found = [prior_nats(self.process.schedule, block.x_0, self._chain[0])]
        found.append(block.off_grid(self.levels).to(found[0]))
        for share, place in zip(shares, places, strict=True):
            found += self._terms(self._forward(block, *place), is_last=share.draws is None)
        lengths = [len(part) for part in found]
        prior, off_grid, *found = torch.cat(found).cpu().double().split(lengths)
        if is_first:
            sums.prior.copy_(prior)
            sums.off_grid.copy_(off_grid)
        return zip(shares, found[::2], found[1::2], strict=True)

    def _move(self, tensor: Tensor) -> Tensor:
        return moved(tensor, self.device)

    def _terms(self, rows: _Rows, *, is_last: bool) -> tuple[Tensor, Tensor]:
        """Give the nats and the squared error of every row, (B,) each."""
        error = self.process.squared_error(rows.output, rows.x_0, rows.x_t, rows.t, rows.s)
        if not is_last:
            move = rows.output, rows.x_0, rows.x_t, rows.t, rows.s
            return transition_nats(self.process, *move), error
        if self.settings.decoder_variance == "best":  # of all examples, when they are summed up
            return torch.zeros_like(error), error
        return self._decoder_nats(rows), error

    def _decoder_nats(self, rows: _Rows) -> Tensor:
        chain, variance = self.settings.chain, self.settings.decoder_variance
        above = chain[-2] if len(chain) > 1 else self.settings.num_train_timesteps
        p = self.process.decoder(rows.output, rows.x_t, rows.t, above)
        if variance != "model":
            p = Gaussian(p.mean, torch.full_like(p.mean[:1], variance).log())
        return decoder_nats(p, rows.x_0, self.settings.decoder, self.levels)

    def _decoder_shares(self, size: int) -> Iterator[_Share]:
        for i in self._shares(size):
            yield _Share(i, torch.full_like(i, len(self.settings.chain) - 1))

    def _transition_shares(self, first: int, size: int) -> Iterator[_Share]:
        draws = self.rows_per_example - 1
        steps, weights = self.sampler.draw(self.settings.seed, torch.arange(first, first + size))
        for row in self._shares(size * draws):
            i, j = row // draws, row % draws
            yield _Share(i, steps[i, j], j, weights[i, j])

    def _add_decoder(self, sums: BoundTotals, share: _Share, nats: Tensor, errors: Tensor) -> None:
        last = len(self.settings.chain) - 1
        sums.last_error.index_add_(0, share.examples, errors)
        sums.step_errors[last] += errors.sum()
        sums.step_counts[last] += len(errors)
        sums.decoder.index_add_(0, share.examples, nats)

    def _shares(self, count: int) -> Iterator[Tensor]:
        """Give the rows of this process among ``count``, in even parts of at most batch_size.

        There are equally many parts on every process, so that the last may be empty.
        """
        rank, world = self.processes
        mine = torch.arange(count)[rank::world]
        calls = -(-len(mine) // self.batch_size)
        most = -(-math.ceil(count / world) // self.batch_size)
        parts = mine.tensor_split(calls) if calls else ()
        return itertools.chain(parts, itertools.repeat(mine[:0], most - calls))

    def _forward(self, block: Block, i: Tensor, k: Tensor) -> _Rows:
        """Run the network on examples i at steps k of the chain; int64, (B,), on the device."""
        if len(i) == 0:
            # A sharded network computes on all processes or on none.
            one = self._forward(block, *i.new_zeros(2, 1))
            return _Rows(*(part[:0] for part in one))
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
            rows = self._forward(one, *torch.tensor([[0], [k]], device=self.device))
            if not rows.output.isfinite().all():
                found = "NaN" if rows.output.isnan().any() else "infinite"
                return f"the model's output is {found} for {name} at timestep {int(rows.t)}"
        return f"the bound is not finite for {name}, although the model's output is"


def _add_transitions(sums: BoundTotals, share: _Share, nats: Tensor, errors: Tensor) -> None:
    weighted = nats * share.weights
    sums.transitions.index_add_(0, share.examples, weighted)
    sums.step_nats.index_add_(0, share.steps, weighted)
    sums.stratum_nats.index_add_(0, share.draws, weighted)
    sums.squares.add_(weighted.square().sum())
    sums.step_errors.index_add_(0, share.steps, errors)
    sums.step_counts.index_add_(0, share.steps, torch.ones_like(errors))
