"""What the steps of one configuration consume: minibatches and noise, for all seeds, a block of steps at a time.

What step t consumes for seed s is a function of the configuration and of (s, t) alone, whatever the size of blocks.
"""

import dataclasses
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bism.compiler import Work
from bism.gradients import Shards
from bism.hooks import Hooks
from bism.rng import CountingRng, Rng
from bism.stages import Stage
from bism.threefry import Threefry, padded

Noise = Callable[[Any, tuple[int, ...], Rng], Any]  # ``Stage.noise``, ``Stage.draw`` or ``Phase.noise``

_BLOCK_BYTES = 1 << 20  # on a CPU blocks are about so large, per seed: what has been drawn is still in the cache
_LONGEST_BLOCK = 256
TOGETHER = 10  # steps of one replay on a GPU (``bism.capture``), and so what blocks there are multiples of
_GPU_BYTES = 1 << 29  # on a GPU the block of all seeds takes so much: fewer and larger launches
_GPU_SHARE = 64  # but at most one such part of the memory
_GPU_LONGEST_BLOCK = 1000


@dataclasses.dataclass(frozen=True)
class Block:
    """What consecutive steps consume, [seeds, steps, ...]: minibatches, the tapes of their noise and, for methods that
    use them, which training examples the minibatches are."""

    batches: Tensor
    uniforms: Tensor
    normals: Tensor
    examples: Tensor | None = None

    def __len__(self) -> int:
        return self.batches.shape[1]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that there are."""
        tensors = self.batches, self.uniforms, self.normals
        return tensors if self.examples is None else (*tensors, self.examples)

    def at(self, index: int) -> tuple[Tensor, ...]:
        """The part of one step; always laid out alike, so that one compiled program serves all steps."""
        return tuple(x[:, index] for x in self.tensors)

    def part(self, first: int, count: int) -> "Block":
        """The part of some of the steps."""
        return Block(*(x[:, first : first + count] for x in self.tensors))


class Layout:
    """Where in what a step consumes, ``Block.at``, the parts lie of its own work and of each call of its phases.

    Of the tapes each shard has a part in turn, and in it first the step's own numbers and then those of the calls.

    Args:
        stage: whose steps these are.
        counted: how many uniform and standard normal numbers a ``noise`` draws for one shard.
    """

    def __init__(self, stage: Stage, counted: Callable[[Any], tuple[int, int]], shards: int = 1) -> None:
        self._shards, self._minibatches = shards, stage.minibatches
        self._counts = [1, *(phase.count for phase in stage.phases)]
        self._own = [stage.minibatches, *(phase.minibatches for phase in stage.phases)]
        self._numbers = [counted(stage.noise), *(counted(phase.noise) for phase in stage.phases)]
        uniform, normal = zip(*self._numbers, strict=True)
        self._of_shard = tuple(sum(map(operator.mul, self._counts, kind)) for kind in (uniform, normal))

    @property
    def lengths(self) -> tuple[int, int]:
        """Uniform and standard normal numbers that a step consumes with its phases."""
        uniform, normal = self._of_shard
        return self._shards * uniform, self._shards * normal

    @property
    def of_one_call(self) -> list[tuple[int, int]]:
        """The same of the step's own work, and of one call of each phase."""
        return [(self._shards * uniform, self._shards * normal) for uniform, normal in self._numbers]

    def of_step(self, consumed: Sequence[Tensor]) -> list[Tensor]:
        """The step's own part of stacked tensors [seeds, ...]."""
        return [x[:, 0] for x in self._of(0, consumed)]

    def of_calls(self, phase: int, consumed: Sequence[Tensor]) -> list[Tensor]:
        """The part of a phase's calls, [seeds, calls, ...] each."""
        return self._of(phase + 1, consumed)

    def _of(self, place: int, consumed: Sequence[Tensor]) -> list[Tensor]:
        batches, uniforms, normals, *examples = consumed
        tapes = [self._of_tape(place, kind, tape) for kind, tape in enumerate((uniforms, normals))]
        return [self._of_minibatches(place, batches), *tapes, *(self._of_minibatches(place, x) for x in examples)]

    def _of_minibatches(self, place: int, x: Tensor) -> Tensor:
        count, own = self._counts[place], self._own[place]
        if not own:  # those of the step
            return x[:, None, : self._own[0]].expand(-1, count, *x[:, : self._own[0]].shape[1:])
        first = sum(map(operator.mul, self._counts[:place], self._own))
        return x[:, first : first + count * own].reshape(len(x), count, own, *x.shape[2:])

    def _of_tape(self, place: int, kind: int, tape: Tensor) -> Tensor:
        count, length = self._counts[place], self._numbers[place][kind]
        first = sum(c * numbers[kind] for c, numbers in zip(self._counts[:place], self._numbers, strict=False))
        by_shard = tape[:, : self.lengths[kind]].reshape(len(tape), self._shards, self._of_shard[kind])
        calls = by_shard[..., first : first + count * length].reshape(len(tape), self._shards, count, length)
        return calls.movedim(2, 1).flatten(2)


class Stream:
    """Minibatches of the training data, drawn with replacement, and noise.

    Args:
        model: as the estimator's ``noise`` takes it.
        data: the training data [n, *visible_shape], of the type and on the device of what is to be drawn.
        seeds: in ``groups`` of equal size, which draw one after the other into the same memory.
        stage: whose steps these are, by its place among the estimator's; each has numbers of its own.
        shards: into which a minibatch is cut.
        data_noise: standard deviation of what is added to the minibatches.

    Attributes:
        minibatches: that one step uses with its phases.
        layout: where the parts of a step and of its phases lie in what it consumes.
        block_steps: how many steps' noise and minibatches are drawn at once, at most.
        step_bytes: what one step of a seed takes of a block.
        lengths: uniform and standard normal numbers that one step consumes.
        block: the memory that blocks lie in, one after the other.
    """

    def __init__(
        self,
        estimator: Hooks,
        model: Any,
        data: Tensor,
        seeds: Sequence[int],
        batch_size: int,
        *,
        groups: int = 1,
        stage: int = 0,
        shards: int = 1,
        data_noise: float = 0.0,
    ) -> None:
        self.estimator, self.model, self.data, self.batch_size = estimator, model, data, batch_size
        self.shards, self.data_noise, self.groups, self._seeds = shards, data_noise, groups, len(seeds) // groups
        self._stage, self._prefix = estimator.stages[stage], f"stage {stage}/" if stage else ""
        self.minibatches = self._stage.all_minibatches
        self.layout = Layout(self._stage, self._counted, shards)
        self.lengths = self.layout.lengths
        batch = self.minibatches * batch_size * math.prod(data.shape[1:])
        self.step_bytes = data.element_size() * (batch + sum(map(padded, self.lengths)))
        self.block_steps = block_steps(self.step_bytes, self._seeds, data.device)
        self._tapes = Threefry(seeds, data.dtype, data.device, max(self.lengths))
        self.block = self._empty()
        self._drawn: tuple[int, range] | None = None  # of which group, which steps of the training are in it

    def compile(self) -> None:
        """Compiles what makes the numbers; see ``Threefry.compile``."""
        uniform, normal = self.lengths
        kinds = [("uniforms", uniform > 0), ("normals", normal > 0 or self.data_noise > 0)]
        self._tapes.compile([kind for kind, wanted in kinds if wanted], self._rows(0))

    def noise(self, of: Noise, rng: Rng) -> Any:
        """What a function such as ``Stage.noise`` draws: of all shards, where there are several, in their order."""
        noises = [of(self.model, self._shard_shape, rng) for _ in range(self.shards)]
        return Shards(noises) if self.shards > 1 else noises[0]

    def _counted(self, of: Noise) -> tuple[int, int]:
        counting = CountingRng(self.data.dtype, self.data.device, self.estimator.id)
        of(self.model, self._shard_shape, counting)
        return counting.uniform_count, counting.normal_count

    @property
    def _shard_shape(self) -> tuple[int, ...]:
        return (self.batch_size // self.shards, *self.data.shape[1:])

    def ahead(self, step: int, most: int, group: int = 0) -> Block:
        """What the training consumes from a step on, for at least one and at most ``most`` steps.

        It lies in memory that a later call may overwrite.
        """
        if self._drawn is None or self._drawn[0] != group or step not in self._drawn[1]:
            # groups that take turns at the memory draw no more than they are about to use
            count = self.block_steps if self.groups == 1 else min(self.block_steps, most)
            self.draw(self.data, step, "training", count, group)
            self._drawn = group, range(step, step + count)
        _, drawn = self._drawn
        return self.block.part(step - drawn.start, min(most, drawn.stop - step))

    def draw(self, data: Tensor, first: int, purpose: str, steps: int, group: int = 0) -> Block:
        """Consecutive steps, at most a block: noise, and minibatches of ``data`` drawn with replacement.

        They lie in memory that the next call overwrites.
        """
        block, shape = self.block.part(0, steps), (self.minibatches, self.batch_size)
        purpose = self._prefix + purpose
        for kind, length in zip(("uniforms", "normals"), self.lengths, strict=True):
            tape = getattr(self.block, kind).flatten(1)[:, : steps * padded(length)]
            self._fill(kind, purpose, first, padded(length), tape, group)
        words = self._apart("words", purpose, first, steps, math.prod(shape), group)
        for rows in self._tapes.groups(slice(0, self._seeds)):
            indices = ((words[rows].long() & 0xFFFFFFFF) * len(data)) >> 32  # from 32 bits to [0, n)
            block.batches[rows] = data[indices.reshape(-1, steps, *shape)]
            if block.examples is not None:
                block.examples[rows] = indices.reshape(-1, steps, *shape) if data is self.data else -1
        if self.data_noise:
            numbers = block.batches.shape[2:]
            noise = self._apart("normals", f"{purpose}/data", first, steps, numbers.numel(), group)
            block.batches.add_(self.data_noise * noise.reshape(self._seeds, steps, *numbers))
        self._drawn = None
        return block

    def _fill(self, kind: str, purpose: str, first: int, length: int, tape: Tensor, group: int) -> None:
        if length:
            self._tapes.fill(kind, purpose, first, length, tape, self._rows(group))

    def _rows(self, group: int) -> slice:
        return slice(group * self._seeds, (group + 1) * self._seeds)

    def _apart(self, kind: str, purpose: str, first: int, steps: int, count: int, group: int) -> Tensor:
        """So many numbers of each step that no tape keeps, [seeds, steps, count]."""
        length, dtype = padded(count), torch.int32 if kind == "words" else self.data.dtype
        tape = torch.empty((self._seeds, steps * length), dtype=dtype, device=self.data.device)
        self._fill(kind, purpose, first, length, tape, group)
        return tape.reshape(self._seeds, steps, length)[..., :count]

    def work(self) -> Work:
        """The arithmetic and memory traffic of making what one step consumes, for all seeds."""
        uniform, normal = self.lengths
        indices = self.minibatches * self.batch_size
        normal += indices * self.data[0].numel() if self.data_noise else 0
        first, *others = (("uniforms", uniform), ("normals", normal), ("words", indices))
        return sum((self._tapes.work(*other) for other in others), start=self._tapes.work(*first))

    def _empty(self) -> Block:
        lead = (self._seeds, self.block_steps)
        kind: dict[str, Any] = {"dtype": self.data.dtype, "device": self.data.device}
        batches = empty_batches((*lead, self.minibatches), self.batch_size, self.data)
        uniforms, normals = (torch.empty((*lead, padded(length)), **kind) for length in self.lengths)
        return Block(batches, uniforms, normals, self._empty_examples((*lead, self.minibatches)))

    def _empty_examples(self, lead: Sequence[int]) -> Tensor | None:
        if not self.estimator.uses_examples:
            return None
        return torch.empty((*lead, self.batch_size), dtype=torch.int64, device=self.data.device)


def block_steps(step_bytes: int, seeds: int, device: torch.device) -> int:
    """How many steps are drawn at once on a device; no number depends on it."""
    if device.type == "cpu":
        return max(1, min(_LONGEST_BLOCK, _BLOCK_BYTES // step_bytes))
    memory = torch.cuda.get_device_properties(device).total_memory
    steps = max(1, min(_GPU_LONGEST_BLOCK, min(_GPU_BYTES, memory // _GPU_SHARE) // (step_bytes * seeds)))
    return steps // TOGETHER * TOGETHER or steps


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
