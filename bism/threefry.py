"""Random numbers without state: a number is a function of (seed, purpose, step, position) and nothing else.

Threefry-2x32 with 20 rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), written in torch
operations: vectorised over all seeds, compiled like any other program, and the same on every device. Position p of a
step's tape is word (p // 32) mod 2 of the pair of words number 32 (p // 64) + p mod 32: first words and second words
take turns in runs of 32, which vector units can write.
"""

import functools
import hashlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bism.compiler import Program, Work, compile_program, count_work

TILE = 64  # numbers; the tape of a step is a whole number of tiles
CHUNK = 1 << 13  # numbers per seed that one call makes on a CPU: one compiled program serves tapes of every length
LARGE_CHUNK = 1 << 16  # the same for models whose steps consume that much: fewer calls, and work for several threads
_GPU_CALL = 1 << 24  # numbers of all seeds that one call makes on a GPU, about: launches cost nothing beside them
_GROUP = 16  # seeds that one call on a CPU makes numbers for: its intermediate results stay in the cache
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_RUN = TILE // 2


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


def uniform(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Multiples of 2^-24 in [0, 1), one from each word."""
    return _shift_right(bits, 8).to(dtype) * 2.0**-24


def uniforms(first: Tensor, second: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Two uniform numbers from two words."""
    return uniform(first, dtype), uniform(second, dtype)


def normals(first: Tensor, second: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Two standard normal numbers from two words, by the transformation of Box and Muller."""
    radius = (-2 * (1 - uniform(first, dtype)).log()).sqrt()
    angle = 2 * math.pi * uniform(second, dtype)
    return radius * angle.cos(), radius * angle.sin()


_KINDS = {"uniforms": uniforms, "normals": normals}


def padded(length: int) -> int:
    """The length of a tape that holds so many numbers."""
    return TILE * -(-length // TILE)


class Threefry:
    """Fills tapes with words, uniforms or normals, for all seeds at once.

    Args:
        longest: numbers per seed that one step consumes at most; decides how many a call makes.

    Attributes:
        compiled: whether compiled programs make the numbers.
    """

    def __init__(self, seeds: Sequence[int], dtype: torch.dtype, device: torch.device, longest: int = 0) -> None:
        self._seeds, self._device, self._dtype = list(seeds), device, dtype
        self._keys, self._places = dict[str, Tensor](), dict[tuple[int, int], tuple[Tensor, Tensor]]()
        self._chunk = LARGE_CHUNK if longest > LARGE_CHUNK // 2 else CHUNK
        if device.type != "cpu":
            self._chunk = max(CHUNK, 1 << (_GPU_CALL // len(self._seeds)).bit_length() - 1)
        self.compiled = False

    def groups(self, rows: slice) -> list[slice]:
        """Which of some seeds' numbers are made at once; all of one size, so that the last may overlap."""
        count = rows.stop - rows.start
        size = min(_GROUP, count) if self._device.type == "cpu" else count
        starts = [rows.start + min(start, count - size) for start in range(0, count, size)]
        return [slice(start, start + size) for start in starts]

    def compile(self, kinds: Sequence[str], rows: slice) -> None:
        """Compiles what makes such numbers; words and uniforms stay the same exactly, normals to rounding."""
        for kind in ("words", *kinds):
            _compiled(kind, self._dtype, self._chunk, _length(self.groups(rows)[0]), self._device)
        self.compiled = True

    def fill(self, kind: str, purpose: str, step: int, length: int, tape: Tensor, rows: slice | None = None) -> None:
        """Writes the numbers of consecutive steps to ``tape``.

        Args:
            step: the first of them.
            length: of a step's tape, a whole number of tiles.
            tape: [seeds, steps * length].
            rows: the seeds, by their places; all of them, if not given.
        """
        chosen = rows or slice(0, len(self._seeds))
        all_keys = self._key(f"{purpose}/{kind}")
        first = torch.full((), step, dtype=torch.int32, device=self._device)  # not copied there: nothing waits
        for start in range(0, tape.shape[1], self._chunk):
            counters = self._counters(length, start)
            for group in self.groups(chosen):
                both = self._program("words", group)(all_keys[group], *counters, first)
                if kind != "words":
                    both = self._program(kind, group)(*both)
                part = tape[group.start - chosen.start : group.stop - chosen.start, start : start + self._chunk]
                runs = part.view(len(part), -1, 2, _RUN)
                for place, numbers in enumerate(both):
                    runs[:, :, place].copy_(numbers[:, : part.shape[1] // 2].reshape(len(part), -1, _RUN))

    def work(self, kind: str, numbers: int) -> Work:
        """The work of filling a tape of so many numbers for each seed."""
        first = torch.zeros((), dtype=torch.int32, device=self._device)
        at = [self._key("work"), *self._counters(TILE, 0), first]
        make = _maker("words", self._dtype)
        work = count_work(make, at)
        if kind != "words":
            work += count_work(_maker(kind, self._dtype), make(*at))
        return work * (numbers / self._chunk)

    def _key(self, purpose: str) -> Tensor:
        if purpose not in self._keys:
            self._keys[purpose] = keys(self._seeds, purpose).to(self._device)
        return self._keys[purpose]

    def _counters(self, length: int, start: int) -> tuple[Tensor, Tensor]:
        """For each pair of words of a chunk that begins at a position its number in its step, and its step after the
        first."""
        if (length, start) in self._places:
            return self._places[length, start]
        pair = torch.arange(start // 2, (start + self._chunk) // 2, dtype=torch.int32, device=self._device)
        found = pair % (length // 2), pair // (length // 2)
        if self._device.type == "cpu":  # on a GPU they are large, and made in no time
            self._places[length, start] = found
        return found

    def _program(self, kind: str, group: slice) -> Program:
        if not self.compiled:
            return _maker(kind, self._dtype)
        return _compiled(kind, self._dtype, self._chunk, _length(group), self._device)


def _length(rows: slice) -> int:
    return int(rows.stop - rows.start)


def _maker(kind: str, dtype: torch.dtype) -> Program:
    """What makes a chunk of numbers, [seeds, chunk / 2] from the first words and as many from the second: "words" from
    keys [seeds, 2], pairs [chunk / 2], steps [chunk / 2] and the first step, the others from those."""

    def make(key: Tensor, pairs: Tensor, steps: Tensor, first: Tensor) -> list[Tensor]:
        return list(threefry(key[:, :1], key[:, 1:], pairs[None], steps[None] + first))

    def convert(first: Tensor, second: Tensor) -> list[Tensor]:
        return list(_KINDS[kind](first, second, dtype))

    return make if kind == "words" else convert


@functools.cache  # one process trains many configurations with the same number of seeds
def _compiled(kind: str, dtype: torch.dtype, chunk: int, rows: int, device: torch.device) -> Program:
    """``_maker``, compiled for so many seeds at once."""
    of_pairs: dict[str, Any] = {"dtype": torch.int32, "device": device}
    if kind != "words":
        return compile_program(_maker(kind, dtype), [torch.zeros((rows, chunk // 2), **of_pairs) for _ in range(2)])
    key, first = torch.zeros((rows, 2), **of_pairs), torch.zeros((), **of_pairs)
    counters = [torch.zeros(chunk // 2, **of_pairs) for _ in range(2)]
    return compile_program(_maker(kind, dtype), [key, *counters, first])
