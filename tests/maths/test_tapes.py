"""The random numbers of training: the published generator, its distributions, and what they are a function of."""

import math

import pytest
import torch
from torch import Tensor

from bism.rng import TapeRng
from bism.tapes import CHUNK, LARGE_CHUNK, Tapes, keys, normals, threefry, uniforms, words

CPU = torch.device("cpu")


def signed(word: int) -> Tensor:
    return torch.tensor(word - (1 << 32) if word >= 1 << 31 else word, dtype=torch.int32)


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [  # Threefry-2x32-20 in the known-answer tests of Random123 (Salmon et al. 2011)
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_known_answers(key: tuple[int, int], counter: tuple[int, int], expected: tuple[int, int]) -> None:
    found = threefry(*map(signed, key), *map(signed, counter))
    assert tuple(int(word) & 0xFFFFFFFF for word in found) == expected


def tape(kind: str, seeds: tuple[int, ...] = (0,), block: int = 0, length: int = 5 * CHUNK) -> Tensor:
    out = torch.empty((len(seeds), length), dtype=torch.int32 if kind == "words" else torch.float64)
    Tapes(seeds, torch.float64, CPU).fill(kind, "training", block, out)
    return out


def largest_gap(numbers: Tensor, cdf: Tensor) -> float:
    """Kolmogorov's statistic times sqrt(n): above 2.0 with probability 0.0007."""
    n = numbers.numel()
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    return float(torch.maximum((cdf - steps[:-1]).abs(), (steps[1:] - cdf).abs()).max()) * math.sqrt(n)


def test_uniforms_are_uniform_and_normals_normal() -> None:
    u, z = tape("uniforms").flatten().sort().values, tape("normals").flatten().sort().values
    assert u.min() >= 0
    assert u.max() < 1
    assert largest_gap(u, u) < 2
    assert largest_gap(z, torch.special.ndtr(z)) < 2
    assert float((z**4).mean()) == pytest.approx(3, abs=0.15)


def test_words_fill_32_bits_evenly() -> None:
    bits = (tape("words").flatten().long()[:, None] >> torch.arange(32)) & 1
    assert (bits.double().mean(0) - 0.5).abs().max() < 5 * 0.5 / math.sqrt(len(bits))


def test_neighbours_do_not_resemble_each_other() -> None:
    # seeds, blocks, positions, and the two halves of a chunk that come from the same counters
    z = tape("normals", seeds=(0, 1))
    streams = [z[0], z[1], tape("normals", block=1)[0], z[0].roll(1), z[0].roll(CHUNK // 2), tape("normals", (2,))[0]]
    correlations = torch.corrcoef(torch.stack(streams)).fill_diagonal_(0)
    assert correlations.abs().max() < 5 / math.sqrt(z.shape[1])


def test_a_number_depends_on_seed_purpose_block_and_position_alone() -> None:
    together, alone = tape("uniforms", (3, 5, 8)), tape("uniforms", (5,))
    assert torch.equal(together[1], alone[0])
    assert torch.equal(alone[:, :100], tape("uniforms", (5,), length=100))
    assert not torch.equal(keys([5], "training"), keys([5], "validation"))
    first = torch.zeros((), dtype=torch.int32)
    numbers = words(keys([5], "a"), first, first)
    assert torch.equal(words(keys([5], "a"), first, first + 1)[0, : CHUNK // 2 - 1], numbers[0, 1 : CHUNK // 2])


@pytest.mark.parametrize("longest", [0, LARGE_CHUNK])  # numbers are made in chunks of either size
def test_many_seeds_are_drawn_in_groups_and_get_the_same_numbers(longest: int) -> None:
    def filled(seeds: range) -> Tensor:
        out = torch.full((len(seeds), LARGE_CHUNK + 10), math.nan)
        Tapes(seeds, torch.float32, CPU, longest).fill("normals", "training", 0, out)
        return out

    together = filled(range(37))
    for seed in (0, 15, 16, 30, 31, 36):  # the edges of the groups; the last ones overlap
        assert torch.equal(together[seed : seed + 1], filled(range(seed, seed + 1)))


def test_words_become_numbers_as_documented() -> None:
    bits = torch.tensor([[0, -1, 1 << 8, -(1 << 31)]], dtype=torch.int32)
    assert uniforms(bits, torch.float64).tolist() == [[0, 1 - 2.0**-24, 2.0**-24, 0.5]]
    u, w = 1 - 2.0**-24, 0.5  # the pairs are (first half, second half)
    expected = math.sqrt(-2 * math.log(1 - u)) * math.cos(2 * math.pi * w)
    assert float(normals(bits, torch.float64)[0, 1]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.long
def test_compiled_tapes_are_the_same() -> None:
    plain, compiled = Tapes(range(20), torch.float32, CPU), Tapes(range(20), torch.float32, CPU)
    compiled.compile()
    for kind, tolerance in (("words", 0.0), ("uniforms", 0.0), ("normals", 1e-5)):
        a, b = (torch.empty((20, CHUNK + 10), dtype=torch.int32 if kind == "words" else torch.float32) for _ in "ab")
        plain.fill(kind, "training", 7, a)
        compiled.fill(kind, "training", 7, b)
        assert (a - b).abs().max() <= tolerance


def test_the_longest_axis_lies_innermost_where_it_outweighs_the_rest() -> None:
    for shape, innermost in (((100, 4), 0), ((3, 100, 4), 1), ((100, 560), 1), ((100, 1, 8, 8), 0), ((20, 5, 8), 2)):
        numbers = torch.arange(math.prod(shape), dtype=torch.float64)
        drawn = TapeRng(numbers, numbers).normal(shape)
        assert drawn.shape == shape
        assert drawn.stride(innermost) == 1
        assert torch.equal(drawn.flatten().sort().values, numbers)
