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


def _philox_in_integers(counter: list[int], key: int) -> list[int]:
    """Follow the paper's figure with Python's integers, one word at a time."""
    right, left = counter[::2], counter[1::2]
    keys = [key % 2**32, key // 2**32]
    for _ in range(10):
        (high_0, low_0), (high_1, low_1) = (
            divmod(r * m, 2**32) for r, m in zip(right, (0xD2511F53, 0xCD9E8D57), strict=True)
        )
        right = [high_1 ^ left[0] ^ keys[0], high_0 ^ left[1] ^ keys[1]]
        left = [low_1, low_0]
        keys = [(keys[0] + 0x9E3779B9) % 2**32, (keys[1] + 0xBB67AE85) % 2**32]
    return [right[0], left[0], right[1], left[1]]


@pytest.mark.parametrize("key", [0, 2**32 - 1, 2**63 + 5, 2**64 - 1])
def test_broadcast_counters_give_the_words_of_single_ones(key: int) -> None:
    columns = torch.tensor([0, 1, 2**31, 2**32 - 1])
    rows = torch.randint(2**32, (3, 2, 1))
    words = torch.stack(philox((columns, rows[:, 0], rows[:, 1], columns[:1]), key), dim=-1)
    assert words.shape == (3, 4, 4)
    for i, j in torch.cartesian_prod(torch.arange(3), torch.arange(4)).tolist():
        counter = [int(columns[j]), *rows[i, :, 0].tolist(), 0]
        assert words[i, j].tolist() == _philox_in_integers(counter, key)


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
