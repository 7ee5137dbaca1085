"""Random numbers without state: a number is a function of (seed, purpose, block, position) and nothing else.

Threefry-2x32 with 20 rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), written in torch
operations: vectorised over all seeds, compiled like any other program, and the same on every device.
"""

import functools
import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bism.compiler import Program, Work, compile_program, count_work

CHUNK = 1 << 13  # numbers per seed that one call makes: one compiled program serves tapes of every length
LARGE_CHUNK = 1 << 16  # the same for models whose steps consume that much: fewer calls, and work for several threads
_GROUP = 16  # seeds that one call on a CPU makes numbers for: its intermediate results stay in the cache
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def threefry(key0: Tensor, key1: Tensor, counter0: Tensor, counter1: Tensor) -> tuple[Tensor, Tensor]:
    """Two 32-bit words for each key and counter of two words each; all are int32 and broadcast."""
    keys = (key0, key1, key0 ^ key1 ^ _PARITY)
    x, y = counter0 + key0, counter1 + key1
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x = x + y
            y = _rotate(y, rotation) ^ x
        x = x + keys[(group + 1) % 3]
        y = y + keys[(group + 2) % 3] + (group + 1)
    return x, y


def _rotate(x: Tensor, by: int) -> Tensor:
    return (x << by) | _shift_right(x, 32 - by)


def _shift_right(x: Tensor, by: int) -> Tensor:
    """Zeros move in from the left; torch's own shift of a signed number copies the sign."""
    return (x >> by) & ((1 << (32 - by)) - 1)


def keys(seeds: Sequence[int], purpose: str) -> Tensor:
    """A key of its own for each seed and purpose, [seeds, 2] of int32."""
    digests = [hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest() for seed in seeds]
    return torch.frombuffer(bytearray(b"".join(digests)), dtype=torch.int32).reshape(-1, 2)


def words(key: Tensor, block: Tensor, first: Tensor, count: int = CHUNK) -> Tensor:
    """A chunk of random 32-bit words, [seeds, count] of int32.

    Args:
        key: [seeds, 2].
        block: number of the block; a scalar of int32, as is
        first: number of the chunk's first pair of words in it.
    """
    pairs = first + torch.arange(count // 2, dtype=torch.int32, device=key.device)
    return torch.cat(threefry(key[:, :1], key[:, 1:], pairs[None], block), dim=1)


def uniforms(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Multiples of 2^-24 in [0, 1), one from each word."""
    return _shift_right(bits, 8).to(dtype) * 2.0**-24


def normals(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Standard normal numbers by the transformation of Box and Muller, two from each pair of words."""
    u, angle = uniforms(bits, dtype).chunk(2, dim=1)
    radius, angle = (-2 * (1 - u).log()).sqrt(), 2 * math.pi * angle
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)


class Tapes:
    """Fills tapes with words, uniforms or normals, for all seeds at once.

    Args:
        longest: numbers per seed that one step consumes at most; decides the size of chunks.

    Attributes:
        groups: the seeds whose numbers are made at once.
    """

    def __init__(self, seeds: Sequence[int], dtype: torch.dtype, device: torch.device, longest: int = 0) -> None:
        self._seeds, self._device = list(seeds), device
        self._dtype, self._keys = dtype, dict[str, Tensor]()
        count = len(self._seeds)
        size = min(_GROUP, count) if device.type == "cpu" else count
        starts = [min(start, count - size) for start in range(0, count, size)]  # all of one size: the last may overlap
        self.groups = [slice(start, start + size) for start in starts]
        self._chunk = LARGE_CHUNK if longest > LARGE_CHUNK // 2 else CHUNK
        self._words, self._convert = _programs(dtype, self._chunk)

    def compile(self) -> None:
        """Compiles what makes the numbers; words and uniforms stay the same exactly, normals to rounding."""
        rows = self.groups[0].stop - self.groups[0].start
        self._words, self._convert = _compiled(self._dtype, self._chunk, rows, self._device)

    def fill(self, kind: str, purpose: str, block: int, tape: Tensor) -> None:
        """Writes the first numbers of a block to ``tape`` [seeds, numbers]."""
        all_keys, number, first = self._at(f"{purpose}/{kind}", block)
        for rows in self.groups:
            for start in range(0, tape.shape[1], self._chunk):
                (numbers,) = self._convert[kind](*self._words(all_keys[rows], number, first + start // 2))
                part = tape[rows, start : start + self._chunk]
                part.copy_(numbers[:, : part.shape[1]])

    def work(self, kind: str, numbers: int) -> Work:
        """The work of filling a tape of so many numbers for each seed."""
        make, convert = _programs(self._dtype, self._chunk)
        at = self._at("work", 0)
        return (count_work(make, at) + count_work(convert[kind], make(*at))) * (numbers / self._chunk)

    def _at(self, purpose: str, block: int) -> tuple[Tensor, Tensor, Tensor]:
        """The keys, the block's number and its first pair."""
        if purpose not in self._keys:
            self._keys[purpose] = keys(self._seeds, purpose).to(self._device)
        number = torch.tensor(block, dtype=torch.int32, device=self._device)
        return self._keys[purpose], number, torch.zeros_like(number)


@functools.cache  # one process trains many configurations with the same number of seeds
def _compiled(dtype: torch.dtype, chunk: int, rows: int, device: torch.device) -> tuple[Program, dict[str, Program]]:
    """The programs of ``_programs``, compiled for so many seeds at once."""
    make, convert = _programs(dtype, chunk)
    number = torch.zeros((), dtype=torch.int32, device=device)
    at = [torch.zeros((rows, 2), dtype=torch.int32, device=device), number, number.clone()]
    bits = make(*at)
    compiled = {kind: compile_program(convert[kind], bits) for kind in ("uniforms", "normals")}
    return compile_program(make, at), {**convert, **compiled}


def _programs(dtype: torch.dtype, chunk: int) -> tuple[Program, dict[str, Program]]:
    """What makes words, and what makes numbers of each kind from them."""
    return lambda key, block, first: [words(key, block, first, chunk)], {
        "words": lambda bits: [bits],
        "uniforms": lambda bits: [uniforms(bits, dtype)],
        "normals": lambda bits: [normals(bits, dtype)],
    }
