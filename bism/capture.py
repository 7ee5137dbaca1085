"""Steps of a compiled program recorded once, in a CUDA graph, and replayed with one launch instead of hundreds."""

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bism.compiler import Program
from bism.private_torch import copy_all
from bism.stream import TOGETHER, Block

_SHORT = 2e-3  # seconds; of steps so short launching them is what costs

Capture = Callable[[Callable[[], None]], Callable[[], None]]  # from a function to one that replays what it did


def dense(x: Tensor) -> Tensor:
    """A copy without gaps, its axes in the same order in memory: what a slice of a block becomes in a buffer."""
    return x.clone()


class CapturedSteps:
    """Replays steps of a program that takes (state, what a step consumes, hyper-parameters) to (next state, others).

    The state lies in buffers of its own, from step to step, and so does what steps consume: a replay reads and writes
    the memory that was recorded. The program must be one for tensors that lie as ``dense`` makes them.

    Args:
        state, consumed, hyper: the program's arguments; ``hyper`` is read where it lies.
        capture: records a function.
        together: steps in one replay; 1 where a step is long, measured, if not given.
    """

    def __init__(
        self,
        program: Program,
        state: Sequence[Tensor],
        consumed: Sequence[Tensor],
        hyper: Sequence[Tensor],
        capture: Capture,
        together: int | None = None,
    ) -> None:
        self._program, self._hyper, self._capture = program, list(hyper), capture
        self._state = [x.clone() for x in state]
        self._replays = {1: _Replay(self._stepping, consumed, 1, capture)}
        if together is None:
            together = TOGETHER if self._replays[1].seconds() < _SHORT else 1
        if together > 1:
            self._replays[together] = _Replay(self._stepping, consumed, together, capture)
        self._longest = together

    def __call__(self, state: Sequence[Tensor], block: Block) -> list[Tensor]:
        """The state after a block's steps, in buffers that the next call overwrites."""
        _copy(state, self._state)
        done = 0
        while done < len(block):
            count = self._longest if len(block) - done >= self._longest else 1
            self._replays[count](block.part(done, count))
            done += count
        return self._state

    def _stepping(self, consumed: Sequence[Sequence[Tensor]]) -> None:
        state: Sequence[Tensor] = self._state
        for of_step in consumed:
            state = self._program(*state, *of_step, *self._hyper)[: len(self._state)]
        _copy(state, self._state)


class CapturedProgram:
    """A program that is replayed; what it returns lies in buffers that the next call overwrites.

    Args:
        program: one for tensors that lie as ``dense`` makes them.
        example: its arguments.
        capture: records a function.
    """

    def __init__(self, program: Program, example: Sequence[Tensor], capture: Capture) -> None:
        self._inputs = [dense(x) for x in example]
        self._outputs = [x.clone() for x in program(*self._inputs)]
        self._replay = capture(lambda: _copy(program(*self._inputs), self._outputs))

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        _copy(tensors, self._inputs)
        self._replay()
        return self._outputs


class _Replay:
    """So many steps, recorded."""

    def __init__(
        self,
        stepping: Callable[[Sequence[Sequence[Tensor]]], None],
        consumed: Sequence[Tensor],
        steps: int,
        capture: Capture,
    ) -> None:
        self._rooms = [_room(dense(x), steps) for x in consumed]
        of_steps = [[room[i] for room in self._rooms] for i in range(steps)]
        self._replay = capture(lambda: stepping(of_steps))

    def __call__(self, block: Block) -> None:
        for room, given in zip(self._rooms, block.tensors, strict=True):
            room.copy_(given.transpose(0, 1))
        self._replay()

    def seconds(self) -> float:
        """How long a replay takes, the quickest of some."""
        taken = []
        for _ in range(3):
            started = time.perf_counter()
            self._replay()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - started)
        return min(taken)


def _copy(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    """Copies tensors to others, those of a type in one launch; a tensor is not copied to itself."""
    pairs = [(target, source) for target, source in zip(targets, sources, strict=True) if target is not source]
    for dtype in {target.dtype for target, _ in pairs}:
        alike = [pair for pair in pairs if pair[0].dtype is dtype]
        copy_all([target for target, _ in alike], [source for _, source in alike])


def _room(of_step: Tensor, steps: int) -> Tensor:
    """Memory for what several steps consume, [steps, ...]: each step's part lies as ``of_step`` does."""
    room = of_step.new_zeros(steps * of_step.numel())
    return room.as_strided((steps, *of_step.shape), (of_step.numel(), *of_step.stride()))


def capture_on_cuda() -> Capture:
    """What captures the kernels that a function launches on the current device, in CUDA graphs that share the memory of
    their intermediate results: they are replayed one after the other."""
    pool = torch.cuda.graph_pool_handle()

    def capture(function: Callable[[], None]) -> Callable[[], None]:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch does not annotate it
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # allocations and lazy initialisation of a first run must not be captured
            function()
            function()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            function()
        return graph.replay

    return capture
