"""Configurations of one method side by side: as one more axis beside the seeds.

A cohort serves all configurations of one structure: they may differ in every continuous hyper-parameter, and in K,
the number of inner steps, where the method's step is K like steps and one outer step. One program for the inner step
and one for the outer, compiled once, train any of them; a configuration whose K is smaller than another's waits while
that one makes its further inner steps. Each configuration gets the numbers that ``Trainer`` gives it, to rounding.
"""

import dataclasses
import itertools
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_unflatten

from bism.capture import CapturedProgram, capture_on_cuda
from bism.checks import check_count
from bism.compiler import Program, compile_program
from bism.engine import Trainer
from bism.errors import InputError, shown
from bism.fitted import Fitted
from bism.hooks import Hooks
from bism.hyperparameters import specs
from bism.phases import check_phases
from bism.precision import computing
from bism.seeds import captures, diverged_at
from bism.stream import Stream, empty_batches
from bism.training import Setting, Training, Tree


def structure(estimator: Hooks) -> Hooks:
    """What configurations of one cohort have in common: the same with every continuous hyper-parameter at its default,
    and so with those that say how often a phase is called (``Phase.count_by``)."""
    fields: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(estimator)}
    free = {name for name, spec in specs(estimator).items() if spec.continuous and name != "ema"}
    counted = {phase.count_by for phase in check_phases(estimator.id, estimator.phases) if phase.count_by}
    for name in counted - set(specs(estimator)):
        raise InputError(f"{estimator.id}: ``count_by`` of a phase must name a hyper-parameter, got {shown(name)}")
    free |= counted
    return dataclasses.replace(estimator, **{name: fields[name] for name in free})


def call_counts(estimator: Hooks) -> list[int]:
    """How often a step of a configuration calls each phase."""
    return [phase.count for phase in estimator.phases]


@dataclasses.dataclass
class Member:
    """One configuration under way.

    Attributes:
        tensors: its seeds' state, stacked as the engine does.
        step: iterations done.
        train_seconds: what they cost, all seeds, as a share of a cohort whose places are all taken.
    """

    estimator: Hooks
    tensors: Tree
    step: int = 0
    train_seconds: float = 0.0

    @property
    def diverged_at(self) -> list[int | None]:
        """For each seed the step at which it became non-finite and was frozen, or None."""
        return diverged_at(self.tensors)


class Cohort(Training):
    """Trains configurations of one structure for the same seeds, up to ``places`` of them at a time.

    Args: as ``Trainer``; ``estimator`` is any configuration of the structure.

    Attributes: as ``Training``, of which ``estimator`` is the structure and ``stream`` its own, and
        places: how many configurations a call of ``advance`` takes; fewer cost as much.
    """

    def __init__(
        self,
        estimator: Hooks,
        model: nn.Module,
        data: Tensor,
        *,
        places: int,
        compile: bool = False,
        **setting: Unpack[Setting],
    ) -> None:
        self.places = check_count("places", places, 1)
        super().__init__(structure(estimator), model, data, **setting)
        if len(self._stages) > 1:
            raise InputError(f"{estimator.id} trains in stages, which a cohort does not: ``OneByOne`` does")
        (self.stage,) = self._stages
        self._streams: dict[tuple[int, ...], Stream] = {}  # by the counts of the phases
        self.stream = self._stream(self.estimator)
        self._called = self._masked = True
        self._changed_at = self._find_changed()
        self._room = _Room([1] * len(self.stage.phases), self)
        self._calls: list[Program] = [partial(self._call, phase) for phase in self.stage.phases]
        self._outer: Program = self._side_by_side
        self._get_ready(compile)

    def begin(self, estimator: Hooks) -> Member:
        """A configuration before its first step.

        Raises:
            InputError: it is of another structure.
        """
        if structure(estimator) != self.estimator:
            raise InputError(f"{estimator} is not of the cohort's structure, {self.estimator}")
        self._stream(estimator)  # so that compiling what makes its numbers is not counted as training
        return Member(estimator, tree_unflatten(self._leaves, self._structure))

    def advance(self, members: Sequence[Member], steps: int) -> None:
        """Trains configurations, all at the same iteration, for ``steps`` more.

        Raises:
            InputError: too many of them, or at different iterations.
        """
        check_count("steps", steps, 0)
        different = len({id(member) for member in members}) == len(members)
        if not different or not 1 <= len(members) <= self.places or len({member.step for member in members}) > 1:
            raise InputError(
                f"a cohort of {self.places} places takes one to {self.places} members, each once, all at one iteration"
            )
        order = sorted(members, key=lambda member: call_counts(member.estimator))
        taken = order + [order[-1]] * (self.places - len(order))
        leaves: Sequence[Tensor] = [
            torch.cat(parts) for parts in zip(*(tree_leaves(member.tensors) for member in taken), strict=True)
        ]
        counts = [call_counts(member.estimator) for member in taken]
        most = [max(of_phase) for of_phase in zip(*counts, strict=True)]
        taking_part = [self._taking_part([of_one[phase] for of_one in counts]) for phase in range(len(most))]
        self._room = self._room if self._room.fits(most) else _Room(most, self)
        hyper = self._stacked_hyper([member.estimator for member in taken])
        start, call_seconds, began = members[0].step, [0.0] * len(most), time.perf_counter()
        with torch.no_grad(), computing(self.device, self.precision):
            for step in range(start, start + steps):
                for first, last in _runs(counts):
                    stream = self._stream(taken[first].estimator)
                    self._room.put(slice(first, last), stream, stream.ahead(step, 1).at(0))
                changed: Sequence[Tensor] = [leaves[at] for at in self._changed_at]
                for phase, call in enumerate(self._calls):
                    before = time.perf_counter()
                    for number, takes_part in enumerate(taking_part[phase]):
                        changed = call(*leaves, *changed, takes_part, *self._room.of_call(phase, number), *hyper)
                    call_seconds[phase] += time.perf_counter() - before
                leaves = self._outer(*leaves, *changed, *self._room.of_step(), *hyper)[: len(leaves)]
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        step_seconds = time.perf_counter() - began - sum(call_seconds)
        for i, member in enumerate(order):
            rows = slice(i * len(self.seeds), (i + 1) * len(self.seeds))
            member.tensors = tree_unflatten([leaf[rows].clone() for leaf in leaves], self._structure)
            member.step += steps
            own = [
                seconds * count / max(1, all_of)
                for seconds, count, all_of in zip(call_seconds, counts[i], most, strict=True)
            ]
            member.train_seconds += (step_seconds + sum(own)) / self.places

    def _taking_part(self, counts: Sequence[int]) -> list[Tensor]:
        """For each call of a phase who takes part, [places * seeds]; by how often each place calls it."""
        columns = torch.tensor(counts, device=self.device).repeat_interleave(len(self.seeds))
        return [columns > number for number in range(max(counts))]

    def fitted(self, member: Member) -> Fitted:
        """A configuration's models as they are now."""
        return self._fitted(member.estimator, member.tensors, member.step, {})

    def _stream(self, estimator: Hooks) -> Stream:
        counts = tuple(call_counts(estimator))
        if counts not in self._streams:
            self._streams[counts] = self._stream_of(estimator, self.seeds)
            if self.compiled:
                self._streams[counts].compile()
        return self._streams[counts]

    def _get_ready(self, compile: bool) -> None:
        """Compiles the programs, and on a GPU records them."""
        leaves = [torch.cat([leaf] * self.places) for leaf in self._leaves]
        room, hyper = self._room, self._stacked_hyper([self.estimator] * self.places)
        all_of_them = torch.ones(self.places * len(self.seeds), dtype=torch.bool, device=self.device)
        changed = [leaves[at] for at in self._changed_at]
        examples = [
            [*leaves, *changed, all_of_them, *room.of_call(phase, 0), *hyper] for phase in range(len(self._calls))
        ]
        examples.append([*leaves, *changed, *room.of_step(), *hyper])
        if compile:
            with self._getting_ready("uncompiled"):
                *calls, outer = map(compile_program, [*self._calls, self._outer], examples)
                self.stream.compile()
                self._calls, self._outer, self.compiled = calls, outer, True
        if captures(self.device):
            with self._getting_ready("step by step, without CUDA graphs"):
                record = partial(CapturedProgram, capture=capture_on_cuda())
                *recorded, outer = map(record, [*self._calls, self._outer], examples)
                self._calls, self._outer = list[Program](recorded), outer
                self.captured = True


@dataclasses.dataclass(frozen=True)
class Alone:
    """One configuration under way, by a trainer of its own; to be asked as a ``Member``."""

    trainer: Trainer

    @property
    def estimator(self) -> Hooks:
        return self.trainer.estimator

    @property
    def step(self) -> int:
        return self.trainer.step

    @property
    def train_seconds(self) -> float:
        return self.trainer.train_seconds

    @property
    def diverged_at(self) -> list[int | None]:
        return self.trainer.diverged_at


class OneByOne:
    """What a ``Cohort`` is to one who has configurations of methods that train in stages: these train one by one.

    Args: as ``Trainer``.
    """

    places = 1

    def __init__(
        self, model: nn.Module, data: Tensor, *, iterations: int, compile: bool = False, **setting: Unpack[Setting]
    ) -> None:
        self._trainer = partial(Trainer, model=model, data=data, iterations=iterations, compile=compile, **setting)

    def begin(self, estimator: Hooks) -> Alone:
        """A configuration before its first step."""
        return Alone(self._trainer(estimator))

    def advance(self, members: Sequence[Alone], steps: int) -> None:
        """Trains configurations for ``steps`` more."""
        for member in members:
            member.trainer.run(steps)

    def fitted(self, member: Alone) -> Fitted:
        """A configuration's models as they are now."""
        return member.trainer.fitted()


class _Room:
    """Where what one step consumes lies for all places, always laid out alike, however often each calls a phase.

    Args:
        counts: how many calls of each phase there is room for.
    """

    def __init__(self, counts: Sequence[int], cohort: Cohort) -> None:
        self._places, self._counts = cohort.places, [max(1, count) for count in counts]
        self._columns, self._cohort = cohort.places * len(cohort.seeds), cohort
        stage, (of_step, *of_calls) = cohort.stage, cohort.stream.layout.of_one_call
        self._step = self._memory((), stage.minibatches, of_step)
        self._calls = [
            self._memory((count,), phase.minibatches, lengths)
            for count, phase, lengths in zip(self._counts, stage.phases, of_calls, strict=True)
        ]

    def _memory(self, calls: tuple[int, ...], minibatches: int, lengths: tuple[int, int]) -> list[Tensor]:
        """Memory for minibatches, tapes and examples, [*calls, columns, ...]; without the first and the last where no
        minibatches are its own."""
        data, size = self._cohort.data, self._cohort.batch_size
        lead: dict[str, Any] = {"dtype": data.dtype, "device": data.device}
        tapes = [torch.zeros((*calls, self._columns, length), **lead) for length in lengths]
        if not minibatches:
            return tapes
        shape = (*calls, self._columns, minibatches)
        examples = [torch.zeros((*shape, size), dtype=torch.int64, device=data.device)]
        return [empty_batches(shape, size, data), *tapes, *examples[: self._cohort.estimator.uses_examples]]

    def fits(self, counts: Sequence[int]) -> bool:
        """Whether there is room for so many calls."""
        return all(count <= own for count, own in zip(counts, self._counts, strict=True))

    def put(self, places: slice, stream: Stream, consumed: Sequence[Tensor]) -> None:
        """Gives what a step of a stream consumes, [seeds, ...], to each of these places."""
        for room, given in zip(self._step, stream.layout.of_step(consumed), strict=True):
            self._rows(room, 0)[places].copy_(given)
        for phase, rooms in enumerate(self._calls):
            calls = stream.layout.of_calls(phase, consumed)
            count = calls[0].shape[1]
            own = calls if len(rooms) > 2 else calls[1:3]
            for room, given in zip(rooms, own if count else [], strict=bool(count)):
                self._rows(room, 1)[:count, places].copy_(given.transpose(0, 1)[:, None])

    def _rows(self, room: Tensor, axis: int) -> Tensor:
        parted: Tensor = room.unflatten(axis, (self._places, -1))  # type: ignore[no-untyped-call]  # torch does not annotate it
        return parted

    def of_step(self) -> list[Tensor]:
        """What the step's own work consumes, as ``Layout.of_step`` gives it."""
        return self._step

    def of_call(self, phase: int, number: int) -> list[Tensor]:
        """What a call consumes, as ``Layout.of_calls`` gives it."""
        own = [room[number] for room in self._calls[phase]]
        batches, _, _, *examples = self._step
        return own if len(own) > 2 else [batches, *own, *examples]


def _runs(values: Sequence[Any]) -> list[tuple[int, int]]:
    """Where runs of equal values begin and end."""
    edges = [0, *(i for i in range(1, len(values)) if values[i] != values[i - 1]), len(values)]
    return list(itertools.pairwise(edges))
