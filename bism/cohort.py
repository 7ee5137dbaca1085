"""Configurations of one method side by side: as one more axis beside the seeds.

A cohort serves all configurations of one structure: they may differ in every continuous hyper-parameter, and in K,
the number of inner steps, where the method's step is K like steps and one outer step. One program for the inner step
and one for the outer, compiled once, train any of them; a configuration whose K is smaller than another's waits while
that one makes its further inner steps. Each configuration gets the numbers that ``Trainer`` gives it, to rounding.
"""

import dataclasses
import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from bism.capture import CapturedProgram, capture_on_cuda
from bism.checks import (
    check_count,
    check_data,
    check_model,
    check_noise,
    check_parts,
    check_place,
    check_precision,
    check_seeds,
)
from bism.compiler import Program, compile_program
from bism.engine import Tree, advanced, captures, initial_states, or_without
from bism.errors import InputError
from bism.estimator import Estimator
from bism.fitted import Fitted
from bism.hyperparameters import specs
from bism.precision import computing
from bism.rng import CountingRng, TapeRng
from bism.state import State
from bism.stream import Stream, empty_batches


def structure(estimator: Estimator) -> Estimator:
    """What configurations of one cohort have in common: the same with every continuous hyper-parameter at its default,
    and without inner steps where ``Estimator.repeats`` counts them."""
    fields: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(estimator)}
    free = {name: fields[name] for name, spec in specs(estimator).items() if spec.continuous and name != "ema"}
    if estimator.repeats:
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

    estimator: Estimator
    tensors: Tree
    step: int = 0
    train_seconds: float = 0.0

    @property
    def diverged_at(self) -> list[int | None]:
        """For each seed the step at which it became non-finite and was frozen, or None."""
        return [int(step) if step >= 0 else None for step in self.tensors["diverged_at"]]


class Cohort:
    """Trains configurations of one structure for the same seeds, up to ``places`` of them at a time.

    Args: as ``Trainer``; ``estimator`` is any configuration of the structure.

    Attributes:
        places: how many configurations a call of ``advance`` takes; fewer cost as much.
        compile_seconds: time spent compiling.
        compiled: whether the steps run compiled.
        captured: whether they are recorded in CUDA graphs.
    """

    def __init__(
        self,
        estimator: Estimator,
        model: nn.Module,
        data: Tensor,
        *,
        places: int,
        seeds: Sequence[int],
        batch_size: int = 100,
        parts: Mapping[str, nn.Module] | None = None,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
        data_noise: float = 0.0,
        precision: str = "float32",
    ) -> None:
        self.seeds, self.places = check_seeds(seeds), check_count("places", places, 1)
        check_model(estimator, model)
        check_data(data, model)
        check_parts(estimator, parts or {})
        self.device, self.dtype = check_place(device, dtype), dtype
        self.structure, self.model = structure(estimator), model
        self.batch_size, self.data_noise = check_count("batch_size", batch_size, 1), check_noise(data_noise, model)
        self.precision = check_precision(precision, dtype, self.device)
        self.data = data.to(device=self.device, dtype=dtype)
        self.compile_seconds, self.compiled, self.captured = 0.0, False, False
        self._template, self._initial = initial_states(
            self.structure, model, data.to(dtype=dtype), self.seeds, self.batch_size, parts, self.device
        )
        leaves, self._tree = tree_flatten(self._initial)
        numbered = tree_unflatten(list(range(len(leaves))), self._tree)
        alike = getattr(self.structure, "inner_steps", None) == 0  # inner steps are made one by one
        self._lower_at: list[int] = tree_leaves(_lower(numbered["state"])) if alike else []  # what they change
        self._shape = (self.batch_size, *self.data.shape[1:])
        self._outer_lengths = self._count(self.structure.noise)
        self._inner_lengths = self._count(self.structure.inner_noise) if alike else (0, 0)
        self._streams: dict[int, Stream] = {}  # by K
        self._room = _Room(0, self)
        self._inner: Program = self._inner_step
        self._outer: Program = self._outer_step
        self._get_ready(compile)

    def _count(self, noise: Any) -> tuple[int, int]:
        counting = CountingRng(self.dtype, self.device)
        noise(self._template.bind().model, self._shape, counting)
        return counting.uniform_count, counting.normal_count

    def begin(self, estimator: Estimator) -> Member:
        """A configuration before its first step.

        Raises:
            InputError: it is of another structure.
        """
        if structure(estimator) != self.structure:
            raise InputError(f"{estimator} is not of the cohort's structure, {self.structure}")
        self._stream(estimator)  # so that compiling what makes its numbers is not counted as training
        return Member(estimator, self._initial)

    def advance(self, members: Sequence[Member], steps: int) -> None:
        """Trains configurations, all at the same iteration, for ``steps`` more.

        Raises:
            InputError: too many of them, or at different iterations.
        """
        if not 1 <= len(members) <= self.places or len({member.step for member in members}) > 1:
            raise InputError(f"a cohort of {self.places} places takes as many members at most, all at one iteration")
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
        hyper = self._hyper(taken)
        start, inner_seconds, began = members[0].step, 0.0, time.perf_counter()
        with torch.no_grad(), computing(self.device, self.precision):
            for step in range(start, start + steps):
                for first, last in _runs(repeats):
                    consumed = self._stream(taken[first].estimator).ahead(step, 1).at(0)
                    self._room.put(slice(first, last), repeats[first], consumed)
                before = time.perf_counter()
                changed: Sequence[Tensor] = [leaves[at] for at in self._lower_at]
                for i, waits_not in enumerate(going):
                    now = self._with_lower(leaves, changed)
                    changed = self._inner(*now, *self._room.inner(i), waits_not, *hyper)
                inner_seconds += time.perf_counter() - before
                leaves = self._outer(*leaves, *changed, *self._room.outer(), *hyper)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        outer_seconds = time.perf_counter() - began - inner_seconds
        calls = max(1, max(repeats))
        for i, member in enumerate(order):
            rows = slice(i * len(self.seeds), (i + 1) * len(self.seeds))
            member.tensors = tree_unflatten([leaf[rows].clone() for leaf in leaves], self._tree)
            member.step += steps
            member.train_seconds += (outer_seconds + inner_seconds * repeats[i] / calls) / self.places

    def fitted(self, member: Member) -> Fitted:
        """A configuration's models as they are now."""
        state = member.tensors["state"]
        return Fitted(
            member.estimator,
            self.model,
            self._template,
            {**state, "params": member.tensors.get("average", state["params"])},
            self.seeds,
            member.step,
            member.diverged_at,
            {},
        )

    def _hyper(self, members: Sequence[Member]) -> list[Tensor]:
        """The continuous hyper-parameters, each [places * seeds]."""
        return [
            torch.tensor([member.estimator.hyper[name] for member in members], dtype=self.dtype, device=self.device)
            .repeat_interleave(len(self.seeds))
            .contiguous()
            for name in self.structure.hyper
        ]

    def _stream(self, estimator: Estimator) -> Stream:
        repeats = estimator.repeats
        if repeats not in self._streams:
            bound = self._template.bind().model
            self._streams[repeats] = Stream(
                estimator, bound, self.data, self.seeds, self.batch_size, data_noise=self.data_noise
            )
            if self.compiled:
                self._streams[repeats].compile()
        return self._streams[repeats]

    def _with_lower(self, leaves: Sequence[Tensor], lower: Sequence[Tensor]) -> list[Tensor]:
        now = list(leaves)
        for at, leaf in zip(self._lower_at, lower, strict=True):
            now[at] = leaf
        return now

    # --- the programs: functions of flat tensors, all [places * seeds, ...] ---------------------------------------

    def _inner_step(self, *tensors: Tensor) -> list[Tensor]:
        """From the state's leaves, what the step consumes, who takes part, and the hyper-parameters, to the leaves that
        inner steps change."""
        count, rest = len(self._initial_leaves), len(tensors) - len(self.structure.hyper)
        *consumed, going = tensors[count:rest]

        def one(now: Tree, goes: Tensor, given: list[Tensor], *consumed: Tensor) -> Tree:
            state, batches, rng = self._at(now, now, consumed)
            noise = self.structure.inner_noise(state.bind().model, self._shape, rng)
            with self._autocast():
                after = self.structure.inner_step(state, batches, noise, self._named(given, now))
            return tree_map(lambda old, x: torch.where(goes, x, old), _lower(now["state"]), _lower(after.numbers))

        now = tree_unflatten(tensors[:count], self._tree)
        return _as_they_came(vmap(one)(now, going, list(tensors[rest:]), *consumed))

    def _outer_step(self, *tensors: Tensor) -> list[Tensor]:
        """From the state's leaves before the step, those that inner steps have changed, what the step consumes, and
        the hyper-parameters, to the state's leaves after it."""
        count, changed = len(self._initial_leaves), len(self._lower_at)
        rest = len(tensors) - len(self.structure.hyper)
        now = self._with_lower(tensors[:count], tensors[count : count + changed])

        def one(before: Tree, now: Tree, given: list[Tensor], *consumed: Tensor) -> Tree:
            state, batches, rng = self._at(now, before, consumed)
            noise = self.structure.noise(state.bind().model, self._shape, rng)
            named = self._named(given, before)
            with self._autocast():
                after, info = self.structure.step(state, batches, noise, named)
            return advanced(before, after, info["objective"], named)

        trees = (tree_unflatten(tensors[:count], self._tree), tree_unflatten(now, self._tree))
        return _as_they_came(vmap(one)(*trees, list(tensors[rest:]), *tensors[count + changed : rest]))

    def _at(self, now: Tree, before: Tree, consumed: Sequence[Tensor]) -> tuple[State, Tensor, TapeRng]:
        """One seed's state, minibatches and noise."""
        batches, uniforms, normals, *examples = consumed
        iteration, chosen = before["step"], examples[0] if examples else None
        state = self._template.replace(**now["state"], iteration=iteration, examples=chosen)
        return state, batches, TapeRng(uniforms, normals)

    def _autocast(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16, self.precision == "bf16", cache_enabled=False)

    def _named(self, hyper: list[Tensor], tensors: Tree) -> dict[str, Tensor]:
        return self.structure.scheduled(dict(zip(self.structure.hyper, hyper, strict=True)), tensors["step"])

    @property
    def _initial_leaves(self) -> list[Tensor]:
        return tree_leaves(self._initial)

    def _get_ready(self, compile: bool) -> None:
        """Compiles both programs, and on a GPU records them; where one of these cannot be done here, trains without
        it and says so."""
        started = time.perf_counter()
        leaves = [torch.cat([leaf] * self.places) for leaf in self._initial_leaves]
        members = [self.begin(self.structure)] * self.places
        room, hyper = _Room(1 if self._lower_at else 0, self), self._hyper(members)
        going = torch.ones(self.places * len(self.seeds), dtype=torch.bool, device=self.device)
        lower = [leaves[at] for at in self._lower_at]
        inner = [*leaves, *room.inner(0), going, *hyper] if self._lower_at else []
        outer = [*leaves, *lower, *room.outer(), *hyper]
        with computing(self.device, self.precision), torch.no_grad():
            if compile:
                with or_without("uncompiled"):
                    programs = [compile_program(self._inner, inner)] if inner else [self._inner]
                    programs.append(compile_program(self._outer, outer))
                    for stream in self._streams.values():
                        stream.compile()
                    (self._inner, self._outer), self.compiled = programs, True
            if captures(self.device):
                with or_without("step by step, without CUDA graphs"):
                    record = capture_on_cuda()
                    recorded = CapturedProgram(self._inner, inner, record) if inner else self._inner
                    self._inner, self._outer = recorded, CapturedProgram(self._outer, outer, record)
                    self.captured = True
        self.compile_seconds = time.perf_counter() - started


class _Room:
    """Where what one step consumes lies for all places: always laid out alike, whatever their K."""

    def __init__(self, repeats: int, cohort: Cohort) -> None:
        self.repeats, self._places, seeds = repeats, cohort.places, len(cohort.seeds)
        self._outer, self._inner = cohort._outer_lengths, cohort._inner_lengths
        kind: dict[str, Any] = {"dtype": cohort.dtype, "device": cohort.device}
        columns = cohort.places * seeds
        minibatches = columns, cohort.structure.minibatches
        self._batches = [empty_batches(minibatches, cohort.batch_size, cohort.data)]
        if cohort.structure.uses_examples:
            self._examples = [torch.zeros((*minibatches, cohort.batch_size), dtype=torch.int64, device=cohort.device)]
        else:
            self._examples = []
        self._outer_tapes = [torch.zeros((columns, length), **kind) for length in self._outer]
        self._inner_tapes = [torch.zeros((repeats, columns, length), **kind) for length in self._inner]

    def put(self, places: slice, count: int, consumed: tuple[Tensor, ...]) -> None:
        """Gives what a step with so many inner steps consumes, [seeds, ...], to each of these places."""
        batches, uniforms, normals, *examples = consumed

        def rows(room: Tensor, axis: int = 0) -> Tensor:
            parted: Tensor = room.unflatten(axis, (self._places, -1))  # type: ignore[no-untyped-call]  # as above
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


def _as_they_came(tree: Tree) -> list[Tensor]:
    return [leaf.clone(memory_format=torch.contiguous_format) for leaf in tree_leaves(tree)]


def _runs(values: Sequence[int]) -> list[tuple[int, int]]:
    """Where runs of equal values begin and end."""
    edges = [0, *(i for i in range(1, len(values)) if values[i] != values[i - 1]), len(values)]
    return list(itertools.pairwise(edges))
