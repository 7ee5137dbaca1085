"""The one training loop: an estimator's ``step`` mapped over seeds, compiled where the run is long enough to pay.

The noise and the minibatches of step t for seed s are a pure function of (s, t), so a seed trained alone or among
others, or after a resume, gets the same numbers. A seed whose state becomes non-finite is frozen as it was and marked
with its step; the others do not notice.
"""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from bism.capture import CapturedSteps, capture_on_cuda, dense
from bism.checkpoint import differences, load_checkpoint, save_checkpoint
from bism.checks import check_count
from bism.compiler import Program, Work, compile_program, count_work, traced_program
from bism.contract import check_scalar, check_state
from bism.errors import InputError
from bism.fitted import Fitted
from bism.gradients import cut, processes, shards
from bism.hooks import Hooks
from bism.precision import computing
from bism.rng import StoredRng
from bism.seeds import as_they_came, begun, captures, diverged_at
from bism.stages import Stage, stage_ends
from bism.state import Hyper
from bism.stream import Block
from bism.training import Setting, Training, Tree

_TRACE_PAYS = 100  # uncompiled steps, which take as long as tracing; where nobody says how many come, these are first
_COMPILE_PAYS = 3_000  # steps; compiling takes as long as one to three thousand uncompiled steps
_INLINED_CALLS, _INLINED_PARAMETERS = 20, 10_000  # up to so many calls of phases are part of the step's program
_SIDE_BY_SIDE_BYTES = 1 << 21  # on a CPU seeds train side by side as long as what their step reads fits the cache


def pays(steps: int) -> bool:
    """Whether a run of this many steps is worth compiling."""
    return steps >= _COMPILE_PAYS


class Trainer(Training):
    """Trains one configuration for several seeds side by side and can stop and go on at any step.

    Where a stage ends and another begins, the trainer stays in the one that ends until the next step is made: what is
    asked of it there, and its checkpoint, is of that stage.

    Args: as ``Estimator.fit``; ``iterations`` is needed where a method trains in stages, and else says how many steps
        are to come.

    Attributes: as ``Training``, and
        step: iterations done.
        train_seconds: time spent in training alone: no compilation, evaluation or logging.
        processor_seconds: what the processor spent on it in this process, all threads together.
        width: how many seeds train side by side; where there are more, groups of so many take turns.
    """

    def __init__(
        self,
        estimator: Hooks,
        model: nn.Module,
        data: Tensor,
        *,
        iterations: int | None = None,
        accumulate: int = 1,
        compile: bool = False,
        **setting: Unpack[Setting],
    ) -> None:
        super().__init__(estimator, model, data, accumulate=accumulate, **setting)
        self.step, self.train_seconds, self.processor_seconds, self._reported = 0, 0.0, 0.0, 0
        self._hyper = self._stacked_hyper([estimator])
        self._iterations, self._expected = self._shared_by_stages(iterations), iterations or 0
        self._ends = stage_ends(self._stages, self._iterations or 0)
        # Processes that train together do without: a graph with an exchange in it outlives the group.
        self._captures = captures(self.device) and processes() == 1
        self._compiles = compile
        self._enter(0)

    def _shared_by_stages(self, iterations: int | None) -> int | None:
        if len(self._stages) == 1:
            return None
        if iterations is None:
            names = ", ".join(stage.name for stage in self._stages)
            raise InputError(f"{self.estimator.id} trains in stages ({names}): iterations must say how many they share")
        return check_count("iterations", iterations, 0)

    # --- stages -----------------------------------------------------------------------------------------------------

    def _enter(self, index: int) -> None:
        """Makes everything ready for the steps of a stage."""
        self._index, self.stage = index, self._stages[index]
        groups = self._groups()
        self.width = -(-len(self.seeds) // groups)
        spare = groups * self.width - len(self.seeds)  # the last group is filled with its last seed
        self.stream = self._stream_of(self.estimator, [*self.seeds, *self.seeds[-1:] * spare], groups, index)
        self._called = not self._inlined()
        self._changed_at = self._find_changed() if self._called else []
        self._program: Program = self._as_written()
        self._advance: Callable[[Sequence[Tensor], Block, Sequence[Tensor]], Sequence[Tensor]] = self._one_by_one
        self.compiled = self.captured = False
        self._to_capture = self._captures  # at the first step: many a trainer is only asked
        self._to_trace, self._plain_steps = not self._captures, 0
        if self._compiles:
            self._compile()

    def _inlined(self) -> bool:
        """Whether the phases of the stage are part of the step's program. For small models they run faster so, by a
        third where they are tiny; for others a program of their own, called, is as fast and compiled once."""
        calls = sum(phase.count for phase in self.stage.phases)
        parameters = sum(leaf[0].numel() for leaf in tree_leaves(self._tensors["state"]["params"]))
        return not calls or (calls <= _INLINED_CALLS and parameters <= _INLINED_PARAMETERS)

    def _go_to_stage(self) -> None:
        """Begins the stages that the next step lies beyond the beginning of. Up to then the state is that of the stage
        before: nothing but the step says what has begun."""
        index = next(i for i, end in enumerate(self._ends) if end > self.step)
        if index > self._index:
            leaves: Sequence[Tensor] = self._leaves
            for stage in self._stages[self._index + 1 : index + 1]:
                leaves = self._begun(stage, leaves)
            self._enter(index)
            self._leaves, self._reported = list(leaves), self.step

    def _begun(self, stage: Stage, leaves: Sequence[Tensor]) -> list[Tensor]:
        """The seeds' states as a stage begins, from those before."""

        def one(tensors: Tree, hyper: Hyper) -> Tree:
            state = self._state(tensors, None)
            after = stage.begin(state, self.estimator.scheduled(hyper, tensors["step"])) if stage.begin else state
            return begun(
                tensors, state, check_state(f"{self.estimator.id}: stage '{stage.name}'", "begin", state, after)
            )

        with torch.no_grad(), computing(self.device, self.precision):
            return as_they_came(vmap(one)(tree_unflatten(leaves, self._structure), self._named_hyper()))

    def _groups(self) -> int:
        """Into how many groups the seeds are cut, which depends on nothing but the configuration."""
        if self.device.type != "cpu":
            return 1
        stream = self._stream_of(self.estimator, self.seeds[:1], stage=self._index)
        consumed = stream.draw(self.data, 0, "size", 1).at(0)
        own = sum(x.nbytes for x in consumed) + sum(x.nbytes for x in self._leaves) // len(self.seeds)
        return -(-len(self.seeds) // max(1, _SIDE_BY_SIDE_BYTES // own))

    @property
    def _tensors(self) -> Tree:
        """The stacked states of the seeds, as a tree."""
        return tree_unflatten(self._leaves, self._structure)

    @_tensors.setter
    def _tensors(self, tree: Tree) -> None:
        self._leaves, self._structure = tree_flatten(tree)

    def _compile(self) -> None:
        """Compiles the step and tries it once."""
        with self._getting_ready("uncompiled"):
            program = self._made(compile_program, self._example("compilation"))
            self.stream.compile()
            self._program, self.compiled, self._to_trace = program, True, False

    def _trace(self) -> None:
        """Traces the uncompiled step, which then takes a third of the time and gives the same bits; a step that cannot
        be traced stays as it is."""
        started = time.perf_counter()
        with computing(self.device, self.precision), contextlib.suppress(Exception):  # as for the compiler's errors
            self._program = self._made(traced_program, self._example("trace"))
        self.compile_seconds += time.perf_counter() - started

    def _capture(self) -> None:
        """Records steps for replay; where that cannot be done, they are launched one by one."""
        with self._getting_ready("step by step, without CUDA graphs"):
            example, hyper, count = self._example("capture"), self._hyper_of(0), len(self._leaves)
            state, consumed = example[:count], example[count : len(example) - len(hyper)]
            steps = CapturedSteps(self._program, state, consumed, hyper, capture_on_cuda())
            self._advance, self.captured = lambda leaves, block, _: steps(leaves, block), True

    def _example(self, purpose: str) -> list[Tensor]:
        """Arguments of the program, as training gives them."""
        return [*self._of_group(0, self._leaves), *self._drawn(self.data, 0, purpose), *self._hyper_of(0)]

    def _drawn(self, data: Tensor, index: int, purpose: str, group: int = 0) -> list[Tensor]:
        """What a step beside the training's consumes, laid out as in training."""
        return self._laid_out(self.stream.draw(data, index, purpose, 1, group).at(0))

    def _laid_out(self, consumed: Sequence[Tensor]) -> list[Tensor]:
        return [dense(x) for x in consumed] if self._captures else list(consumed)

    def _of_group(self, group: int, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The part of stacked tensors that a group's seeds have; the last seed's stands in where they are too few."""
        rows = [x[group * self.width : (group + 1) * self.width] for x in tensors]
        spare = self.width - len(rows[0])
        return [torch.cat([x, x[-1:].expand(spare, *x.shape[1:])]) for x in rows] if spare else rows

    def _hyper_of(self, group: int) -> list[Tensor]:
        return self._of_group(group, self._hyper)

    def _named_hyper(self) -> Hyper:
        return dict(zip(self.estimator.hyper, self._hyper, strict=True))

    def _of_groups(self, parts: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Stacked tensors of all seeds from those of the groups."""
        return [torch.cat(of_one)[: len(self.seeds)] for of_one in zip(*parts, strict=True)]

    def _one_by_one(self, leaves: Sequence[Tensor], block: Block, hyper: Sequence[Tensor]) -> Sequence[Tensor]:
        """The state of a group's seeds after a block's steps."""
        count = len(leaves)
        for index in range(len(block)):
            leaves = self._program(*leaves, *self._laid_out(block.at(index)), *hyper)[:count]
        return leaves

    def run(self, steps: int) -> None:
        """Trains for ``steps`` more iterations, from stage to stage."""
        end = self.step + steps
        while self.step < end:
            self._go_to_stage()
            self._run_stage(min(end, self._ends[self._index]) - self.step)

    def _run_stage(self, steps: int) -> None:
        before = _TRACE_PAYS - self._plain_steps
        if self._to_trace and 0 < before <= steps - 2 * _TRACE_PAYS:
            self._run(before)
            steps -= before
        self._run(steps)

    def _run(self, steps: int) -> None:
        if self._to_capture and steps:
            self._to_capture = False
            self._capture()
        coming = min(self._ends[self._index], self._expected) - self.step
        if self._to_trace and max(self._plain_steps, coming - 2 * _TRACE_PAYS) >= _TRACE_PAYS:
            self._to_trace = False
            self._trace()
        started, processor = time.perf_counter(), time.process_time()
        with torch.no_grad(), computing(self.device, self.precision):
            trained = [self._trained(group, self.step + steps) for group in range(self.stream.groups)]
            self._leaves = self._of_groups(trained) if len(trained) > 1 else list(trained[0])
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        self.step, self._plain_steps = self.step + steps, self._plain_steps + steps
        self.train_seconds += time.perf_counter() - started
        self.processor_seconds += time.process_time() - processor

    def _trained(self, group: int, end: int) -> Sequence[Tensor]:
        """The state of a group's seeds at a later step."""
        alone, step = self.stream.groups == 1, self.step
        leaves: Sequence[Tensor] = self._leaves if alone else self._of_group(group, self._leaves)
        hyper = self._hyper_of(group)
        while step < end:
            block = self.stream.ahead(step, end - step, group)
            leaves = self._advance(leaves, block, hyper)
            step += len(block)
        return leaves

    def mean_objective(self) -> Tensor:
        """The estimator's own objective averaged over the steps since the last call, but for those of stages before,
        [seeds]: of a seed that has diverged since over those before, and not a number where there were none."""
        tensors = self._tensors
        ended = torch.where(tensors["diverged_at"] < 0, self.step, tensors["diverged_at"])
        counted = (ended - self._reported).clamp(min=0)
        mean = torch.where(counted > 0, tensors["objective_sum"] / counted, math.nan)
        self._tensors = {**tensors, "objective_sum": torch.zeros_like(tensors["objective_sum"])}
        self._reported = self.step
        return mean

    def objective_on(self, data: Tensor, batches: int = 3) -> Tensor:
        """The estimator's own objective on minibatches of other data, [seeds]; nothing is trained."""
        return self.reports_on(data, batches)["objective"]

    def reports_on(self, data: Tensor, batches: int = 3) -> dict[str, Tensor]:
        """What a step reports (``Info``: the objective, and figures of the method's own) on minibatches of other data,
        the mean over these, each [seeds]; nothing is trained.

        The same minibatches and noise at every call, so that a curve of it is smooth.
        """
        data, values = data.to(device=self.device, dtype=self.dtype), []
        with torch.no_grad(), computing(self.device, self.precision):
            for index in range(batches):
                parts = []
                for group in range(self.stream.groups):
                    consumed = self._drawn(data, index, "validation", group)
                    leaves = self._of_group(group, self._leaves)
                    parts.append(self._program(*leaves, *consumed, *self._hyper_of(group))[len(leaves) :])
                values.append(self._of_groups(parts))
        means = [torch.stack(of_one).mean(0) for of_one in zip(*values, strict=True)]
        return dict(zip(self._reports, means, strict=True))

    def lower_objective_on(self, data: Tensor, batches: int = 3) -> Tensor | None:
        """The lower level's objective on minibatches of other data, [seeds]; None for methods of one level.

        The same minibatches and noise at every call, those of ``objective_on``.
        """
        data, values = data.to(device=self.device, dtype=self.dtype), []
        for index in range(batches):
            parts = [self._drawn(data, index, "validation", group) for group in range(self.stream.groups)]
            value = self._lower_objective(*self.stream.layout.of_step(self._of_groups(parts)))
            if value is None:
                return None
            values.append(value)
        return torch.stack(values).mean(0)

    def _lower_objective(self, batches: Tensor, uniforms: Tensor, normals: Tensor, *_: Tensor) -> Tensor | None:
        if self.stage.lower_objective is None:
            return None
        values = []
        for i in range(len(self.seeds)):
            state = self._template.replace(**tree_map(lambda x, i=i: x[i], self._tensors["state"]))
            noise = self.stream.noise(self.stage.noise, StoredRng(uniforms[i], normals[i]))
            given = cut(batches[i], self._shards) if self._shards > 1 else batches[i]
            first_batches, first_noise = shards(given, noise)[0]
            hyper = {name: value[i] for name, value in self._named_hyper().items()}
            value = self.stage.lower_objective(state, first_batches, first_noise, hyper)
            if value is None:
                return None
            check_scalar(f"{self.estimator.id}: lower_objective()", "what it minimises", value)
            values.append(value.detach())
        return torch.stack(values)

    def work(self) -> Work:
        """The arithmetic and memory traffic of one step of all seeds, its noise and minibatches included."""
        of_group = [
            count_work(function, given) * times for function, given, times in self._functions(self._example("work"))
        ]
        return sum((part * self.stream.groups for part in of_group), start=self.stream.work())

    @property
    def diverged_at(self) -> list[int | None]:
        """For each seed the step at which it became non-finite, or None."""
        return diverged_at(self._tensors)

    def fitted(self) -> Fitted:
        """The trained models as they are now; training on does not change them."""
        saved = self.checkpoint()
        return self._fitted(self.estimator, saved["tensors"], self.step, saved)

    def checkpoint(self, seed: int | None = None) -> dict[str, Any]:
        """Everything needed to go on, as plain containers of tensors and numbers; of all seeds or of one."""
        chosen = list(self.seeds) if seed is None else [seed]
        at = [self.seeds.index(s) for s in chosen]
        tensors = tree_map(lambda x: x[at], self._tensors)  # a copy: training on must not change it
        return {
            "estimator": self.estimator.id,
            "hyper": dict(vars(self.estimator)),
            "seeds": chosen,
            "batch_size": self.batch_size,
            "data_noise": self.data_noise,
            "precision": self.precision,
            "shards": self._shards,
            "step": self.step,
            **({} if self._iterations is None else {"iterations": self._iterations}),
            "train_seconds": self.train_seconds,
            "reported": self._reported,
            "tensors": tensors,
        }

    def save(self, path: Path | str, seed: int | None = None) -> None:
        """Writes the checkpoint of all seeds, or of one, whole or not at all."""
        save_checkpoint(self.checkpoint(seed), path)

    def load(self, path: Path | str) -> None:
        """Goes on from a checkpoint of the same estimator, hyper-parameters, seeds and batch size.

        Raises:
            InputError: the file is no checkpoint, or one of another configuration.
        """
        self.restore(load_checkpoint(path), path)

    def restore(self, saved: dict[str, Any], source: object) -> None:
        """Goes on from a checkpoint's content; ``source`` is what an error message calls it.

        Raises:
            InputError: it is one of another configuration.
        """
        own = self.checkpoint()
        saved["tensors"]["state"].setdefault("buffers", own["tensors"]["state"]["buffers"])  # files of before 0.2
        for key in ("estimator", "hyper", "seeds", "batch_size", "data_noise", "precision", "shards", "iterations"):
            if saved.get(key) != own.get(key):
                raise InputError(f"{source}: checkpoint has {key} = {saved.get(key)}, this run has {own.get(key)}")
        for name, ours, theirs in differences(own["tensors"], saved["tensors"]):
            raise InputError(f"{source}: checkpoint has {name}: {theirs}, this run has {ours}")
        steps = set(saved["tensors"]["step"].tolist())
        if steps != {saved["step"]}:
            raise InputError(f"{source}: damaged: it says iteration {saved['step']}, and its seeds are at {steps}")
        in_our_order = tree_map(lambda _, x: x.to(self.device), own["tensors"], saved["tensors"])
        self._tensors = in_our_order
        self.step, self.train_seconds, self._reported = saved["step"], saved["train_seconds"], saved["reported"]
        index = next(i for i, end in enumerate(self._ends) if end >= self.step)
        if index != self._index:
            self._enter(index)
