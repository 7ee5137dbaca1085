"""What ``Trainer`` and ``Cohort`` have in common: the seeds' states, one step of all of them as a program of flat
tensors, and making such programs ready where that can be done."""

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Required, TypedDict

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from bism.checks import (
    check_count,
    check_data,
    check_model,
    check_noise,
    check_place,
    check_precision,
    check_seeds,
    check_shards,
)
from bism.compiler import Program
from bism.contract import check_state, check_step
from bism.errors import InputError, first_line, out_of_memory
from bism.fitted import Fitted
from bism.gradients import Shards, cut, process, processes
from bism.hooks import Hooks
from bism.parts import check_parts
from bism.phases import Phase
from bism.precision import computing
from bism.rng import CountingRng, StoredRng
from bism.seeds import advanced, as_they_came, diverged_at, in_order, initial_states
from bism.stages import Stage, check_stages
from bism.state import Hyper, State
from bism.stream import Stream

Tree = Any


class Setting(TypedDict, total=False):
    """On what and where is trained, as ``Estimator.fit`` says."""

    seeds: Required[Sequence[int]]
    batch_size: int
    parts: Mapping[str, nn.Module] | None
    device: str
    dtype: torch.dtype
    data_noise: float
    precision: str


class Training:
    """The seeds of one configuration, or of several that one program serves.

    Args: as ``Estimator.fit``.

    Attributes:
        seeds: in the order of the stacked tensors' first axis.
        compile_seconds: time spent compiling and recording.
        compiled: whether the step runs compiled.
        captured: whether steps are recorded in CUDA graphs.
        stage: whose steps are made.
        stream: where its minibatches and noise come from.
    """

    stage: Stage
    stream: Stream

    def __init__(
        self,
        estimator: Hooks,
        model: nn.Module,
        data: Tensor,
        *,
        seeds: Sequence[int],
        batch_size: int = 100,
        parts: Mapping[str, nn.Module] | None = None,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        data_noise: float = 0.0,
        precision: str = "float32",
        accumulate: int = 1,
    ) -> None:
        self.seeds = check_seeds(seeds)
        check_model(estimator, model)
        check_data(data, model)
        check_parts(estimator, parts or {}, model)
        self.device, self.dtype = check_place(device, dtype), dtype
        self.estimator, self.model, self.batch_size = estimator, model, check_count("batch_size", batch_size, 1)
        self.precision = check_precision(precision, dtype, self.device)
        self.data_noise = check_noise(data_noise, model)
        self._shards = check_shards(estimator, self.batch_size, accumulate, processes())
        self._stages = check_stages(estimator.id, estimator.stages, self.batch_size)
        self.data = data.to(device=self.device, dtype=dtype)
        self.compile_seconds, self.compiled, self.captured = 0.0, False, False
        self._template, initial = initial_states(
            estimator, model, data.to(dtype=dtype), self.seeds, batch_size, parts, self.device, self.data_noise
        )
        self._leaves: list[Tensor]
        self._leaves, self._structure = tree_flatten(initial)
        self._called, self._masked = False, False  # whether phases are programs of their own, and leave some seeds out
        self._changed_at: list[int] = []  # the leaves that these change
        self._reports: tuple[str, ...] = ()  # names of what a step reports, known when one was made or traced

    def _stream_of(self, estimator: Hooks, seeds: Sequence[int], groups: int = 1, stage: int = 0) -> Stream:
        """What the steps of a configuration's stage consume."""
        return Stream(
            estimator,
            self._template.bind().model,
            self.data,
            seeds,
            self.batch_size,
            groups=groups,
            stage=stage,
            shards=self._shards,
            data_noise=self.data_noise,
        )

    def _stacked_hyper(self, estimators: Sequence[Hooks]) -> list[Tensor]:
        """The continuous hyper-parameters of configurations side by side, each [configurations * seeds]."""
        kind: dict[str, Any] = {"dtype": self.dtype, "device": self.device}
        values = ([estimator.hyper[name] for estimator in estimators] for name in self.estimator.hyper)
        return [torch.tensor(of_one, **kind).repeat_interleave(len(self.seeds)) for of_one in values]

    def _fitted(self, estimator: Hooks, tensors: Tree, step: int, checkpoint: dict[str, Any]) -> Fitted:
        """The models of a configuration."""
        state = tensors["state"]
        evaluated = {**state, "params": tensors.get("average", state["params"])}
        return Fitted(
            estimator, self.model, self._template, evaluated, self.seeds, step, diverged_at(tensors), checkpoint
        )

    # --- one step -------------------------------------------------------------------------------------------------

    def _side_by_side(self, *tensors: Tensor) -> list[Tensor]:
        """One step of seeds side by side, as a function of flat tensors alone, all [seeds, ...]: the leaves of the
        state, those that phases have changed since, what the step consumes (``Block.at``, or of that the step's own
        part) and the hyper-parameters; to the leaves of the next state, and what the step reports."""
        leaves, given = self._unpacked(tensors, len(self._changed_at))
        after, reported = self._mapped(self._one_seed, len(leaves[0]), given)
        return [*as_they_came(after), *reported]

    def _call(self, phase: Phase, *tensors: Tensor) -> list[Tensor]:
        """One call of a phase, likewise: the leaves of the state, those that phases have changed since, who takes part
        where some do not, what the call consumes, and the hyper-parameters; to those that phases change."""
        leaves, given = self._unpacked(tensors, len(self._changed_at) + self._masked)
        return as_they_came(self._mapped(partial(self._one_call, phase), len(leaves[0]), given))

    def _mapped(self, function: Callable[..., Any], seeds: int, given: Any) -> Any:
        if seeds == 1 and self.data.ndim == 4:  # convolutions are faster without an axis of length one
            return tree_map(lambda x: x[None], function(*tree_map(lambda x: x[0], given)))
        return vmap(function)(*given)

    def _unpacked(self, tensors: Sequence[Tensor], beside: int) -> tuple[Sequence[Tensor], tuple[Any, ...]]:
        """The state's leaves; and (state, the ``beside`` tensors after it, hyper-parameters, *what a step consumes)."""
        leaves, rest, values = self._parted(tensors)
        hyper = dict(zip(self.estimator.hyper, values, strict=True))
        return leaves, (tree_unflatten(leaves, self._structure), list(rest[:beside]), hyper, *rest[beside:])

    def _parted(self, tensors: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]:
        """A program's arguments: the state's leaves, what is between, and the hyper-parameters."""
        count, last = len(self._leaves), len(tensors) - len(self.estimator.hyper)
        return tensors[:count], tensors[count:last], tensors[last:]

    def _one_seed(
        self,
        tensors: Tree,
        changed: list[Tensor],
        hyper: Hyper,
        batches: Tensor,
        uniforms: Tensor,
        normals: Tensor,
        examples: Tensor | None = None,
    ) -> tuple[Tree, list[Tensor]]:
        """One step of one seed and what it reports (``Info``), and the freeze if it diverges; with its phases, unless
        these are programs of their own."""
        state = self._state(self._with_changed(tensors, changed), examples)
        draw, step = (self.stage.noise, self.stage.step) if self._called else (self.stage.draw, self.stage.whole)
        batches, noise = self._given(batches, self.stream.noise(draw, StoredRng(uniforms, normals)))
        with self._autocast():
            given = step(state, batches, noise, self.estimator.scheduled(hyper, tensors["step"]))
        after, info = check_step(self.estimator.id, state, given)
        self._reports = tuple(info)
        return advanced(tensors, after, info["objective"], hyper), list(info.values())

    def _one_call(
        self,
        phase: Phase,
        tensors: Tree,
        beside: list[Tensor],
        hyper: Hyper,
        batches: Tensor,
        uniforms: Tensor,
        normals: Tensor,
        examples: Tensor | None = None,
    ) -> list[Tensor]:
        """One call of a phase for one seed: the leaves that phases change."""
        changed, takes_part = beside[: len(self._changed_at)], beside[len(self._changed_at) :]
        now = self._with_changed(tensors, changed)
        state = self._state(now, examples)
        batches, noise = self._given(batches, self.stream.noise(phase.noise, StoredRng(uniforms, normals)))
        with self._autocast():
            given = phase.step(state, batches, noise, self.estimator.scheduled(hyper, tensors["step"]))
        after = check_state(f"{self.estimator.id}: phase '{phase.name}'", "step", state, given)
        leaves = tree_leaves({**now, "state": in_order(now["state"], after.numbers)})
        found = [leaves[at] for at in self._changed_at]
        if takes_part:
            return [torch.where(takes_part[0], new, old) for old, new in zip(changed, found, strict=True)]
        return found

    def _given(self, batches: Tensor, noise: Any) -> tuple[Tensor, Any]:
        """Minibatches and noise as a step takes them: of several shards those that this process has."""
        if not isinstance(noise, Shards):
            return batches, noise
        ours = slice(process() * len(noise) // processes(), (process() + 1) * len(noise) // processes())
        return cut(batches, len(noise))[ours], Shards(noise[ours])

    def _state(self, tensors: Tree, examples: Tensor | None) -> State:
        return self._template.replace(**tensors["state"], iteration=tensors["step"], examples=examples)

    def _with_changed(self, tensors: Tree, changed: Sequence[Tensor]) -> Tree:
        if not changed:
            return tensors
        leaves = tree_leaves(tensors)
        for at, leaf in zip(self._changed_at, changed, strict=True):
            leaves[at] = leaf
        return tree_unflatten(leaves, self._structure)

    def _find_changed(self) -> list[int]:
        """The leaves that the phases change, by what one call of each does to the first seed."""
        tensors = tree_unflatten([leaf[0] for leaf in self._leaves], self._structure)
        hyper = {name: torch.as_tensor(value).to(self._leaves[0]) for name, value in self.estimator.hyper.items()}
        changed: set[int] = set()
        for phase in self.stage.phases:
            count = phase.minibatches or self.stage.minibatches
            batches = self.data[:1].expand(count, self.batch_size, *self.data.shape[1:])
            examples = torch.zeros(batches.shape[:2], dtype=torch.int64, device=self.device)
            state = self._state(tensors, examples if self.estimator.uses_examples else None)
            counting = CountingRng(self.dtype, self.device, self.estimator.id)
            given = self._given(batches, self.stream.noise(phase.noise, counting))
            with torch.no_grad(), computing(self.device, self.precision), self._autocast():
                after = phase.step(state, *given, hyper)
            check_state(f"{self.estimator.id}: phase '{phase.name}'", "step", state, after)
            now = tree_leaves({**tensors, "state": in_order(tensors["state"], after.numbers)})
            changed |= {
                at for at, (old, new) in enumerate(zip(tree_leaves(tensors), now, strict=True)) if new is not old
            }
        return sorted(changed)

    def _in_turn(self, step: Program, calls: Sequence[Program]) -> Program:
        """A whole step of the programs of its own work and of its phases' calls."""

        def program(*tensors: Tensor) -> Sequence[Tensor]:
            leaves, consumed, hyper = self._parted(tensors)
            changed: Sequence[Tensor] = [leaves[at] for at in self._changed_at]
            for (index, phase), call in zip(self._phases, calls, strict=True):
                given = self.stream.layout.of_calls(index, consumed)
                for number in range(phase.count):
                    changed = call(*leaves, *changed, *(x[:, number] for x in given), *hyper)
            return step(*leaves, *changed, *self.stream.layout.of_step(consumed), *hyper)

        return program

    def _as_written(self) -> Program:
        """The program of a whole step, of the functions themselves."""
        calls = [partial(self._call, phase) for _, phase in self._phases]
        return self._in_turn(self._side_by_side, calls) if self._called else self._side_by_side

    def _made(self, make: Callable[[Program, Sequence[Tensor]], Program], example: Sequence[Tensor]) -> Program:
        """The program of a whole step as ``make`` makes programs of functions, for arguments like these."""
        made = [make(function, given) for function, given, _ in self._functions(example)]
        return self._in_turn(made[-1], made[:-1]) if self._called else made[0]

    @property
    def _phases(self) -> list[tuple[int, Phase]]:
        """Those that are called at all, with their places."""
        return [(index, phase) for index, phase in enumerate(self.stage.phases) if phase.count]

    def _functions(self, example: Sequence[Tensor]) -> list[tuple[Program, Sequence[Tensor], int]]:
        """The functions that a whole step is made of, with arguments for each and how often it calls them: of the
        phases, where these are called, and of the step."""
        if not self._called:
            return [(self._side_by_side, example, 1)]
        leaves, consumed, hyper = self._parted(example)
        changed, layout = [leaves[at] for at in self._changed_at], self.stream.layout
        found: list[tuple[Program, Sequence[Tensor], int]] = []
        for index, phase in self._phases:
            given = [x[:, 0] for x in layout.of_calls(index, consumed)]
            found.append((partial(self._call, phase), [*leaves, *changed, *given, *hyper], phase.count))
        return [*found, (self._side_by_side, [*leaves, *changed, *layout.of_step(consumed), *hyper], 1)]

    def _autocast(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16, self.precision == "bf16", cache_enabled=False)

    # --- getting ready --------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _getting_ready(self, otherwise: str) -> Iterator[None]:
        """What may fail: training then runs ``otherwise``, and says so; not for want of memory, of which less would be
        left then, nor where a step is not what it must be. Its time is counted."""
        started = time.perf_counter()
        try:
            with torch.no_grad(), computing(self.device, self.precision):
                yield
        except Exception as error:  # a compiler's errors have no common class; a bug in step() fails again without it
            if isinstance(error, InputError) or out_of_memory(error):
                raise
            warnings.warn(f"training runs {otherwise} (slower, same numbers): {first_line(error)}", stacklevel=5)
        self.compile_seconds += time.perf_counter() - started
