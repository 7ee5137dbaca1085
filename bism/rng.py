"""Random numbers as a pure function of (seed, step, purpose).

Methods ask an ``Rng`` for what one step needs. While training, the numbers come from tapes (``bism.threefry``): flat
vectors of uniform and standard normal numbers that the engine fills for a block of steps and all seeds at once. So
there is no generator state to save in a checkpoint, a seed gets the same numbers alone or in a group, and the compiled
step only reads memory. What is drawn once (initial parameters, samples to look at) comes from a torch generator.
"""

import contextlib
import hashlib
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from bism.errors import InputError

LONGEST = 2**31 - 1  # random numbers that one step of a seed can consume: they are counted in 32 bits


def generator(seed: int, index: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for each (seed, index, purpose)."""
    digest = hashlib.blake2b(f"{seed}/{index}/{purpose}".encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)


def normal_(parameter: Tensor, std: float) -> None:
    """Fills a parameter with N(0, std^2) from torch's global generator.

    On the meta device, where there are no numbers, torch (2.13) would load its compiler for this, which takes seconds.
    """
    if not parameter.is_meta:
        torch.nn.init.normal_(parameter, std=std)


def laid_out(numbers: Tensor, shape: Sequence[int]) -> Tensor:
    """Flat numbers in ``shape``, the longest axis innermost in memory where it outweighs all that follow it.

    A minibatch of 100 vectors of 4 numbers then lies in memory as 4 rows of 100: loops over it fill the vector units.
    """
    longest = max(range(len(shape)), key=lambda axis: shape[axis], default=0)
    if shape and shape[longest] > math.prod(shape[longest + 1 :]):
        rest = [length for axis, length in enumerate(shape) if axis != longest]
        return numbers.reshape(*rest, shape[longest]).movedim(-1, longest)
    return numbers.reshape(tuple(shape))


class Rng:
    """Draws from one generator, in order. ``dtype`` is that of the numbers drawn."""

    def __init__(self, source: torch.Generator, dtype: torch.dtype = torch.float32) -> None:
        self.source, self.dtype, self.device = source, dtype, source.device

    def _uniforms(self, count: int) -> Tensor:
        return torch.rand(count, generator=self.source, dtype=self.dtype, device=self.device)

    def _normals(self, count: int) -> Tensor:
        return torch.randn(count, generator=self.source, dtype=self.dtype, device=self.device)

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Uniform on [0, 1)."""
        return laid_out(self._uniforms(math.prod(shape)), shape)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal."""
        return laid_out(self._normals(math.prod(shape)), shape)

    def logistic(self, shape: Sequence[int]) -> Tensor:
        """Standard logistic; ``logit + noise > 0`` is then a Bernoulli(sigmoid(logit)) draw."""
        tiny = 2.0**-25  # half the smallest uniform number of a tape: keeps both logarithms finite
        u = self.uniform(shape).clamp(tiny, 1 - 2 * tiny)
        return u.log() - (-u).log1p()

    def rademacher(self, shape: Sequence[int]) -> Tensor:
        """-1 or +1 with equal probability."""
        return 1 - 2 * (self.uniform(shape) < 0.5).to(self.dtype)

    def integers(self, high: int, shape: Sequence[int]) -> Tensor:
        """Integers in [0, high), for high well below 2^24."""
        return (self.uniform(shape) * high).long()

    @contextlib.contextmanager
    def seeding_torch(self) -> Iterator[None]:
        """Inside, torch's global CPU generator is seeded from here; outside, it is as it was.

        For code that draws from it, such as ``reset_parameters`` of ``torch.nn`` modules.
        """
        seed = int(torch.randint(1 << 62, (), generator=self.source, device=self.device))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield


class StoredRng(Rng):
    """Reads its numbers from two flat tapes, from the start; nothing of it is random."""

    def __init__(self, uniforms: Tensor, normals: Tensor) -> None:
        self.dtype, self.device = uniforms.dtype, uniforms.device
        self._tapes, self._read = {"uniform": uniforms, "normal": normals}, {"uniform": 0, "normal": 0}

    def _next(self, tape: str, count: int) -> Tensor:
        start = self._read[tape]
        self._read[tape] = start + count
        return self._tapes[tape][start : start + count]

    def _uniforms(self, count: int) -> Tensor:
        return self._next("uniform", count)

    def _normals(self, count: int) -> Tensor:
        return self._next("normal", count)


class CountingRng(Rng):
    """Gives zeros and counts them: how long the tapes of one step must be.

    Args:
        method: whose ``noise`` draws from it, for messages.
        most: that it may draw, of both kinds together.

    Raises:
        InputError: from where more is drawn, before there is memory taken for it.
    """

    def __init__(
        self, dtype: torch.dtype, device: torch.device, method: str = "this method", most: int = LONGEST
    ) -> None:
        self.dtype, self.device, self._method, self._most = dtype, device, method, most
        self.uniform_count = self.normal_count = 0

    def _uniforms(self, count: int) -> Tensor:
        self.uniform_count += count
        return self._zeros(count)

    def _normals(self, count: int) -> Tensor:
        self.normal_count += count
        return self._zeros(count)

    def _zeros(self, count: int) -> Tensor:
        total = self.uniform_count + self.normal_count
        if total > self._most:
            raise InputError(
                f"{self._method}: noise() asks for {total:,} random numbers for one step of a seed, and there can be "
                f"{self._most:,}"
            )
        return torch.zeros(count, dtype=self.dtype, device=self.device)
