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
from torch.func import vmap
from torch.utils._pytree import tree_leaves, tree_map, tree_unflatten

from bism.capture import CapturedProgram, capture_on_cuda
from bism.checks import check_count
from bism.compiler import Program, compile_program
from bism.contract import check_asked, check_state
from bism.engine import Trainer
from bism.errors import InputError
from bism.fitted import Fitted
from bism.hooks import Hooks
from bism.hyperparameters import LOOP, specs
from bism.precision import computing
from bism.rng import CountingRng, TapeRng
from bism.state import Hyper
from bism.stream import Stream, empty_batches
from bism.training import Setting, Training, Tree, as_they_came, captures, diverged_at


def structure(estimator: Hooks) -> Hooks:
    """What configurations of one cohort have in common: the same with every continuous hyper-parameter at its default,
    and without inner steps where ``Estimator.repeats`` counts them."""
    fields: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(estimator)}
    free = {name: fields[name] for name, spec in specs(estimator).items() if spec.continuous and name != "ema"}
    if check_asked(estimator.id, "repeats", estimator.repeats, 0, LOOP):
        free["inner_steps"] = 0
    return dataclasses.replace(estimator, **free)


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
        numbered = tree_unflatten(list(range(len(self._leaves))), self._structure)
        alike = getattr(self.estimator, "inner_steps", None) == 0  # inner steps are made one by one
        self._lower_at = tree_leaves(_lower(numbered["state"])) if alike else []
        self._streams: dict[int, Stream] = {}  # by K
        self.stream = self._stream(self.estimator)
        self._shape = (self.batch_size, *self.data.shape[1:])
        self._inner_lengths = self._count_inner() if alike else (0, 0)
        self._room = _Room(0, self)
        self._inner: Program = self._inner_step
        self._outer: Program = self._side_by_side
        self._get_ready(compile)

    def _count_inner(self) -> tuple[int, int]:
        """Uniform and standard normal numbers that one inner step consumes."""
        counting = CountingRng(self.dtype, self.device, self.estimator.id)
        self.estimator.inner_noise(self._template.bind().model, self._shape, counting)
        return counting.uniform_count, counting.normal_count

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
        order = sorted(members, key=lambda member: member.estimator.repeats)
        taken = order + [order[-1]] * (self.places - len(order))
        leaves: Sequence[Tensor] = [
            torch.cat(parts) for parts in zip(*(tree_leaves(member.tensors) for member in taken), strict=True)
        ]
        repeats = [member.estimator.repeats for member in taken]
        columns = torch.tensor(repeats, device=self.device).repeat_interleave(len(self.seeds))
        going = [columns > i for i in range(max(repeats))]
        if self._room.repeats < max(repeats):
            self._room = _Room(max(repeats), self)
        hyper = self._stacked_hyper([member.estimator for member in taken])
        start, inner_seconds, began = members[0].step, 0.0, time.perf_counter()
        with torch.no_grad(), computing(self.device, self.precision):
            for step in range(start, start + steps):
                for first, last in _runs(repeats):
                    consumed = self._stream(taken[first].estimator).ahead(step, 1).at(0)
                    self._room.put(slice(first, last), repeats[first], consumed)
                before = time.perf_counter()
                changed: Sequence[Tensor] = [leaves[at] for at in self._lower_at]
                for i, waits_not in enumerate(going):
                    changed = self._inner(*leaves, *changed, waits_not, *self._room.inner(i), *hyper)
                inner_seconds += time.perf_counter() - before
                leaves = self._outer(*leaves, *changed, *self._room.outer(), *hyper)[: len(leaves)]
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        outer_seconds = time.perf_counter() - began - inner_seconds
        calls = max(1, max(repeats))
        for i, member in enumerate(order):
            rows = slice(i * len(self.seeds), (i + 1) * len(self.seeds))
            member.tensors = tree_unflatten([leaf[rows].clone() for leaf in leaves], self._structure)
            member.step += steps
            member.train_seconds += (outer_seconds + inner_seconds * repeats[i] / calls) / self.places

    def fitted(self, member: Member) -> Fitted:
        """A configuration's models as they are now."""
        return self._fitted(member.estimator, member.tensors, member.step, {})

    def _stream(self, estimator: Hooks) -> Stream:
        repeats = estimator.repeats
        if repeats not in self._streams:
            self._streams[repeats] = self._stream_of(estimator, self.seeds)
            if self.compiled:
                self._streams[repeats].compile()
        return self._streams[repeats]

    def _inner_step(self, *tensors: Tensor) -> list[Tensor]:
        """One inner step, as a function of flat tensors alone, all [places * seeds, ...]: the leaves of the state,
        those that inner steps have changed since, who takes part, what the step consumes, and the hyper-parameters; to
        those that inner steps change."""

        def one(
            tensors: Tree,
            beside: list[Tensor],
            hyper: Hyper,
            batches: Tensor,
            uniforms: Tensor,
            normals: Tensor,
            examples: Tensor | None = None,
        ) -> Tree:
            *lower, goes = beside
            now = self._with_lower(tensors, lower)
            state = self._state(now, examples)
            noise = self.estimator.inner_noise(state.bind().model, self._shape, TapeRng(uniforms, normals))
            with self._autocast():
                hyper = self.estimator.scheduled(hyper, tensors["step"])
                given = self.estimator.inner_step(state, batches, noise, hyper)
            after = check_state(self.estimator.id, "inner_step", state, given)
            return tree_map(lambda old, x: torch.where(goes, x, old), _lower(now["state"]), _lower(after.numbers))

        _, given = self._unpacked(tensors, len(self._lower_at) + 1)
        return as_they_came(vmap(one)(*given))

    def _get_ready(self, compile: bool) -> None:
        """Compiles both programs, and on a GPU records them."""
        leaves = [torch.cat([leaf] * self.places) for leaf in self._leaves]
        room, hyper = _Room(1 if self._lower_at else 0, self), self._stacked_hyper([self.estimator] * self.places)
        going = torch.ones(self.places * len(self.seeds), dtype=torch.bool, device=self.device)
        lower = [leaves[at] for at in self._lower_at]
        inner = [*leaves, *lower, going, *room.inner(0), *hyper] if self._lower_at else []
        outer = [*leaves, *lower, *room.outer(), *hyper]
        if compile:
            with self._getting_ready("uncompiled"):
                programs = [compile_program(self._inner, inner)] if inner else [self._inner]
                programs.append(compile_program(self._outer, outer))
                self.stream.compile()
                (self._inner, self._outer), self.compiled = programs, True
        if captures(self.device):
            with self._getting_ready("step by step, without CUDA graphs"):
                record = capture_on_cuda()
                recorded = CapturedProgram(self._inner, inner, record) if inner else self._inner
                self._inner, self._outer = recorded, CapturedProgram(self._outer, outer, record)
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
    """Where what one step consumes lies for all places: always laid out alike, whatever their K."""

    def __init__(self, repeats: int, cohort: Cohort) -> None:
        self.repeats, self._places, seeds = repeats, cohort.places, len(cohort.seeds)
        self._outer, self._inner = cohort.stream.lengths, cohort._inner_lengths
        kind: dict[str, Any] = {"dtype": cohort.dtype, "device": cohort.device}
        columns = cohort.places * seeds
        minibatches = columns, cohort.estimator.minibatches
        self._batches = [empty_batches(minibatches, cohort.batch_size, cohort.data)]
        if cohort.estimator.uses_examples:
            self._examples = [torch.zeros((*minibatches, cohort.batch_size), dtype=torch.int64, device=cohort.device)]
        else:
            self._examples = []
        self._outer_tapes = [torch.zeros((columns, length), **kind) for length in self._outer]
        self._inner_tapes = [torch.zeros((repeats, columns, length), **kind) for length in self._inner]

    def put(self, places: slice, count: int, consumed: tuple[Tensor, ...]) -> None:
        """Gives what a step with so many inner steps consumes, [seeds, ...], to each of these places."""
        batches, uniforms, normals, *examples = consumed

        def rows(room: Tensor, axis: int = 0) -> Tensor:
            parted: Tensor = room.unflatten(axis, (self._places, -1))  # type: ignore[no-untyped-call]  # torch does not annotate it
            return parted[places] if axis == 0 else parted[:, places]

        for room, given in zip([*self._batches, *self._examples], [batches, *examples], strict=True):
            rows(room).copy_(given)
        for tape, outer, inner, room, inner_room in zip(
            (uniforms, normals), self._outer, self._inner, self._outer_tapes, self._inner_tapes, strict=True
        ):
            rows(room).copy_(tape[:, :outer])
            if count and inner:
                used = tape[:, outer : outer + count * inner]
                steps = used.reshape(len(tape), count, inner).movedim(1, 0)  # [K, seeds, numbers]
                rows(inner_room, 1)[:count].copy_(steps[:, None])

    def outer(self) -> list[Tensor]:
        """What the outer step consumes, as ``Block.at`` gives it."""
        return [*self._batches, *self._outer_tapes, *self._examples]

    def inner(self, index: int) -> list[Tensor]:
        """What an inner step consumes."""
        return [*self._batches, *(tape[index] for tape in self._inner_tapes), *self._examples]


def _lower(state: Tree) -> Tree:
    """What inner steps change."""
    return {"params": state["params"]["posterior"], "optimiser": state["optimiser"]["posterior"]}


def _runs(values: Sequence[int]) -> list[tuple[int, int]]:
    """Where runs of equal values begin and end."""
    edges = [0, *(i for i in range(1, len(values)) if values[i] != values[i - 1]), len(values)]
    return list(itertools.pairwise(edges))
