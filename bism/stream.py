"""What the steps of one configuration consume: minibatches and noise, for all seeds, a block of steps at a time.

What step t consumes for seed s is a function of the configuration and of (s, t) alone.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bism.compiler import Work
from bism.gradients import Shards
from bism.rng import CountingRng, Rng
from bism.tapes import Tapes

if TYPE_CHECKING:
    from bism.estimator import Estimator

_BLOCK_BYTES = 1 << 20  # noise and minibatches are drawn for about this many bytes of steps at once, per seed
_LONGEST_BLOCK = 256


@dataclasses.dataclass(frozen=True)
class Block:
    """What consecutive steps consume, [seeds, steps, ...]: minibatches and the tapes of their noise."""

    batches: Tensor
    uniforms: Tensor
    normals: Tensor

    def at(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """The part of one step; always laid out alike, so that one compiled program serves all steps."""
        return self.batches[:, index], self.uniforms[:, index], self.normals[:, index]


class Stream:
    """Minibatches of the training data, drawn with replacement, and noise.

    Args:
        model: as the estimator's ``noise`` takes it.
        data: the training data [n, *visible_shape], of the type and on the device of what is to be drawn.
        shards: into which a minibatch is cut.
        data_noise: standard deviation of what is added to the minibatches.

    Attributes:
        block_steps: how many steps' noise and minibatches are drawn at once.
        lengths: uniform and standard normal numbers that one step consumes.
        block: the memory that blocks lie in, one after the other.
    """

    def __init__(
        self,
        estimator: "Estimator",
        model: Any,
        data: Tensor,
        seeds: Sequence[int],
        batch_size: int,
        *,
        shards: int = 1,
        data_noise: float = 0.0,
    ) -> None:
        self.estimator, self.model, self.data, self.batch_size = estimator, model, data, batch_size
        self.shards, self.data_noise, self._seeds = shards, data_noise, len(seeds)
        counting = CountingRng(data.dtype, data.device)
        self.noise(counting)
        self.lengths = counting.uniform_count, counting.normal_count
        batch = estimator.minibatches * batch_size * math.prod(data.shape[1:])
        size = data.element_size() * (batch + sum(self.lengths))
        self.block_steps = max(1, min(_LONGEST_BLOCK, _BLOCK_BYTES // size))  # of the configuration alone
        self._tapes = Tapes(seeds, data.dtype, data.device, max(self.lengths))
        self.block = self._empty()
        self._drawn: int | None = None  # which block of the training's is in it

    def compile(self) -> None:
        """Compiles what makes the numbers; see ``Tapes.compile``."""
        self._tapes.compile()

    def noise(self, rng: Rng) -> Any:
        """The noise of a step: of all shards, where there are several, in their order."""
        shape = (self.batch_size // self.shards, *self.data.shape[1:])
        noises = [self.estimator.noise(self.model, shape, rng) for _ in range(self.shards)]
        return Shards(noises) if self.shards > 1 else noises[0]

    def at(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """What a step of the training consumes, [seeds, ...]: minibatches and the tapes of its noise.

        It lies in memory that a later call may overwrite.
        """
        index, offset = divmod(step, self.block_steps)
        if self._drawn != index:
            self.draw(self.data, index, "training", self.block_steps)
            self._drawn = index
        return self.block.at(offset)

    def draw(self, data: Tensor, index: int, purpose: str, steps: int) -> Block:
        """The first steps of block number ``index``: noise, and minibatches of ``data`` drawn with replacement.

        It lies in memory of its own that the next call overwrites.
        """
        block, seeds, (uniform, normal) = self.block, self._seeds, self.lengths
        self._tapes.fill("uniforms", purpose, index, block.uniforms.flatten(1)[:, : steps * uniform])
        self._tapes.fill("normals", purpose, index, block.normals.flatten(1)[:, : steps * normal])
        shape = (steps, self.estimator.minibatches, self.batch_size)
        words = torch.empty((seeds, math.prod(shape)), dtype=torch.int32, device=self.data.device)
        self._tapes.fill("words", purpose, index, words)
        for rows in self._tapes.groups:
            indices = ((words[rows].long() & 0xFFFFFFFF) * len(data)) >> 32  # from 32 bits to [0, n)
            block.batches[rows, :steps] = data[indices.reshape(-1, *shape)]
        if self.data_noise:
            batches = block.batches[:, :steps]
            noise = torch.empty((seeds, batches[0].numel()), dtype=self.data.dtype, device=self.data.device)
            self._tapes.fill("normals", f"{purpose}/data", index, noise)
            batches += self.data_noise * noise.reshape(batches.shape)
        self._drawn = None
        return block

    def work(self) -> Work:
        """The arithmetic and memory traffic of making what one step consumes, for all seeds."""
        uniform, normal = self.lengths
        indices = self.estimator.minibatches * self.batch_size
        normal += indices * self.data[0].numel() if self.data_noise else 0
        first, *others = (("uniforms", uniform), ("normals", normal), ("words", indices))
        return sum((self._tapes.work(*other) for other in others), start=self._tapes.work(*first))

    def _empty(self) -> Block:
        lead = (self._seeds, self.block_steps)
        kind: dict[str, Any] = {"dtype": self.data.dtype, "device": self.data.device}
        batches = empty_batches((*lead, self.estimator.minibatches), self.batch_size, self.data)
        uniforms, normals = (torch.empty((*lead, length), **kind) for length in self.lengths)
        return Block(batches, uniforms, normals)


def empty_batches(lead: Sequence[int], size: int, data: Tensor) -> Tensor:
    """Memory for minibatches [*lead, size, *visible_shape]. Their examples lie innermost where they outnumber the
    visible units, which is the rule of ``rng.laid_out``, for the same reason."""
    visible = data.shape[1:]
    kind: dict[str, Any] = {"dtype": data.dtype, "device": data.device}
    if size > visible.numel():
        flat = torch.empty((*lead, visible.numel(), size), **kind).transpose(-1, -2)
        unflattened: Tensor = flat.unflatten(-1, visible)  # type: ignore[no-untyped-call]  # torch does not annotate it
        return unflattened
    return torch.empty((*lead, size, *visible), **kind)
