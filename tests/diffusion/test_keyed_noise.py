"""Counter-based random numbers: the published test vectors, the distribution, and the keys."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import kstest

from ddpm_pipeline.diffusion.keyed_noise import keyed_normal, keyed_uniform, philox

# Known answers of philox4x32-10 from the authors' Random123 distribution.
KNOWN = [
    ([0x00000000] * 4, 0x0000000000000000, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, 0xFFFFFFFFFFFFFFFF, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        0x299F31D0A4093822,
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_philox_gives_the_published_words(counter: list[int], key: int, words: list[int]) -> None:
    assert [int(w) for w in philox([torch.tensor(c) for c in counter], key)] == words


def test_uniforms_and_normals_pass_kolmogorov_smirnov() -> None:
    examples, timesteps = torch.arange(2000), torch.arange(2000) % 7
    uniform = keyed_uniform(3, examples, timesteps, 33)
    normal = keyed_normal(3, examples, timesteps, (3, 11))
    assert normal.shape == (2000, 3, 11)
    assert kstest(uniform.flatten(), "uniform").pvalue > 1e-3
    assert kstest(normal.flatten(), "norm").pvalue > 1e-3
    # Neighbours in every direction of the key are uncorrelated.
    correlations = torch.corrcoef(normal.flatten(1).T).fill_diagonal_(0)
    assert correlations.abs().max() < 5 / 2000**0.5
    assert torch.corrcoef(torch.stack([normal[1:].flatten(), normal[:-1].flatten()]))[0, 1] < 0.02


def test_a_number_depends_on_its_key_alone() -> None:
    examples, timesteps = torch.tensor([5, 2**40 + 1, 5, 7]), torch.tensor([0, 3, 4, 3])
    rows = keyed_normal(11, examples, timesteps, (2, 3))
    for i in range(4):
        alone = keyed_normal(11, examples[i : i + 1], timesteps[i : i + 1], (2, 3))
        assert torch.equal(alone[0], rows[i])
    keys = [(11, 5, 0), (12, 5, 0), (11, 6, 0), (11, 5, 1), (11, 5 + 2**32, 0), (11 + 2**32, 5, 0)]
    draws = [keyed_normal(s, torch.tensor([i]), torch.tensor([t]), (4,)) for s, i, t in keys]
    assert len({tuple(d.flatten().tolist()) for d in draws}) == len(keys)
