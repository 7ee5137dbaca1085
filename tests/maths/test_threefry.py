"""The random numbers of training: the published generator, its distributions, and what they are a function of."""

import math

import pytest
import torch
from torch import Tensor

from bism.rng import StoredRng
from bism.stream import block_steps
from bism.threefry import CHUNK, LARGE_CHUNK, TILE, Threefry, keys, normals, padded, threefry, uniforms

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


def tape(kind: str, seeds: tuple[int, ...] = (0,), step: int = 0, length: int = 5 * CHUNK, steps: int = 1) -> Tensor:
    out = torch.empty((len(seeds), steps * length), dtype=torch.int32 if kind == "words" else torch.float64)
    Threefry(seeds, torch.float64, CPU).fill(kind, "training", step, length, out)
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
    # seeds, steps, positions, and the two words that come from the same counters
    z = tape("normals", seeds=(0, 1))
    streams = [z[0], z[1], tape("normals", step=1)[0], z[0].roll(1), z[0].roll(TILE // 2), tape("normals", (2,))[0]]
    correlations = torch.corrcoef(torch.stack(streams)).fill_diagonal_(0)
    assert correlations.abs().max() < 5 / math.sqrt(z.shape[1])


def test_a_number_depends_on_seed_purpose_step_and_position_alone() -> None:
    together, alone = tape("uniforms", (3, 5, 8), step=4), tape("uniforms", (5,), step=4)
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(keys([5], "training"), keys([5], "validation"))
    # neither on how long tapes are, nor on how many steps are drawn at once, nor on the size of chunks
    for length, steps in ((TILE, 300), (3 * TILE, 77), (5 * CHUNK, 2)):
        many = tape("uniforms", (5,), step=4, length=length, steps=steps).reshape(steps, length)
        assert torch.equal(many[0], alone[0, :length])
        assert torch.equal(many[-1], tape("uniforms", (5,), step=3 + steps, length=length)[0])
    in_large_chunks = torch.empty((1, 5 * CHUNK), dtype=torch.float64)
    Threefry((5,), torch.float64, CPU, LARGE_CHUNK).fill("uniforms", "training", 4, 5 * CHUNK, in_large_chunks)
    assert torch.equal(in_large_chunks, alone)


@pytest.mark.parametrize("longest", [0, LARGE_CHUNK])  # numbers are made in chunks of either size
def test_many_seeds_are_drawn_in_groups_and_get_the_same_numbers(longest: int) -> None:
    length = LARGE_CHUNK + TILE

    def filled(seeds: range, rows: slice | None = None) -> Tensor:
        out = torch.full((len(seeds) if rows is None else rows.stop - rows.start, length), math.nan)
        Threefry(seeds, torch.float32, CPU, longest).fill("normals", "training", 0, length, out, rows)
        return out

    together = filled(range(37))
    for seed in (0, 15, 16, 30, 31, 36):  # the edges of the groups; the last ones overlap
        assert torch.equal(together[seed : seed + 1], filled(range(seed, seed + 1)))
    assert torch.equal(together[13:31], filled(range(37), slice(13, 31)))


def test_words_become_numbers_as_documented() -> None:
    first, second = (torch.tensor([word], dtype=torch.int32) for word in (-1, -(1 << 31)))
    assert [float(x) for x in uniforms(first, second, torch.float64)] == [1 - 2.0**-24, 0.5]
    small = torch.tensor([0, 1 << 8], dtype=torch.int32)
    assert uniforms(small, small, torch.float64)[0].tolist() == [0, 2.0**-24]
    u, w = 1 - 2.0**-24, 0.5
    expected = math.sqrt(-2 * math.log(1 - u)) * math.cos(2 * math.pi * w)
    assert float(normals(first, second, torch.float64)[0]) == pytest.approx(expected, abs=1e-12)


def test_positions_take_words_as_documented() -> None:
    drawn = tape("words", (7,), step=9, length=3 * TILE)[0]
    key = keys([7], "training/words")
    for position in (0, 31, 32, 63, 64, 100, 3 * TILE - 1):
        pair = 32 * (position // 64) + position % 32
        both = threefry(key[0, 0], key[0, 1], torch.tensor(pair, dtype=torch.int32), torch.tensor(9, dtype=torch.int32))
        assert int(drawn[position]) == int(both[position // 32 % 2])
    assert [padded(length) for length in (0, 1, 64, 65)] == [0, 64, 64, 128]


@pytest.mark.long
def test_compiled_tapes_are_the_same() -> None:
    plain, compiled = Threefry(range(20), torch.float32, CPU), Threefry(range(20), torch.float32, CPU)
    compiled.compile(("uniforms", "normals"), slice(0, 20))
    for kind, tolerance in (("words", 0.0), ("uniforms", 0.0), ("normals", 1e-5)):
        a, b = (torch.empty((20, CHUNK + TILE), dtype=torch.int32 if kind == "words" else torch.float32) for _ in "ab")
        plain.fill(kind, "training", 7, CHUNK + TILE, a)
        compiled.fill(kind, "training", 7, CHUNK + TILE, b)
        assert (a - b).abs().max() <= tolerance


def test_the_longest_axis_lies_innermost_where_it_outweighs_the_rest() -> None:
    for shape, innermost in (((100, 4), 0), ((3, 100, 4), 1), ((100, 560), 1), ((100, 1, 8, 8), 0), ((20, 5, 8), 2)):
        numbers = torch.arange(math.prod(shape), dtype=torch.float64)
        drawn = StoredRng(numbers, numbers).normal(shape)
        assert drawn.shape == shape
        assert drawn.stride(innermost) == 1
        assert torch.equal(drawn.flatten().sort().values, numbers)


def test_blocks_fit_a_cpu_s_cache_or_a_share_of_a_gpu_s_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class Card:
        total_memory = 80 << 30

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Card)
    gpu = torch.device("cuda")
    assert [block_steps(size, 10, CPU) for size in (1 << 10, 1 << 16, 1 << 30)] == [256, 16, 1]
    assert block_steps(1 << 10, 10, gpu) == 1000  # no more than that, however small
    assert block_steps(20_000, 1000, gpu) == 20  # 512 MiB for all seeds together, in whole replays
    assert block_steps(1 << 27, 1, gpu) == 4  # where not even one replay fits
    Card.total_memory = 8 << 30  # type: ignore[misc]
    assert block_steps(1 << 20, 10, gpu) == 10  # 128 MiB
    assert block_steps(1 << 40, 1, gpu) == 1
