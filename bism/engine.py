"""The one training loop: an estimator's ``step`` mapped over seeds, compiled where the run is long enough to pay.

The noise and the minibatches of step t for seed s are a pure function of (s, t), so a seed trained alone or among
others, or after a resume, gets the same numbers. A seed whose state becomes non-finite is frozen as it was and marked
with its step; the others do not notice.
"""

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.utils._pytree import keystr, tree_flatten, tree_leaves, tree_leaves_with_path, tree_map, tree_unflatten

from bism.capture import CapturedSteps, capture_on_cuda, dense
from bism.checkpoint import load_checkpoint, save_checkpoint
from bism.checks import (
    check_count,
    check_data,
    check_model,
    check_noise,
    check_parts,
    check_place,
    check_precision,
    check_seeds,
    check_shards,
)
from bism.compiler import Program, Work, compile_program, count_work, traced_program
from bism.errors import InputError, first_line, out_of_memory
from bism.fitted import Fitted
from bism.gradients import Shards, cut, process, processes, shards
from bism.precision import computing
from bism.rng import Rng, TapeRng, generator
from bism.state import State
from bism.stream import Block, Stream

if TYPE_CHECKING:
    from bism.estimator import Estimator

Tree = Any
_TRACE_PAYS = 100  # uncompiled steps, after which the step is traced: that takes as long as one or two hundred of them
_COMPILE_PAYS = 3_000  # steps; compiling takes as long as one to three thousand uncompiled steps
_SIDE_BY_SIDE_BYTES = 1 << 21  # on a CPU seeds train side by side as long as what their step reads fits the cache


def pays(steps: int) -> bool:
    """Whether a run of this many steps is worth compiling."""
    return steps >= _COMPILE_PAYS


class Trainer:
    """Trains one configuration for several seeds side by side and can stop and go on at any step.

    Args: as ``Estimator.fit``.

    Attributes:
        seeds: the seeds, in the order of the stacked tensors' first axis.
        step: iterations done.
        train_seconds: time spent in training alone: no compilation, evaluation or logging.
        compile_seconds: time spent compiling and recording.
        compiled: whether the step runs compiled.
        captured: whether steps are recorded in CUDA graphs.
        width: how many seeds train side by side; where there are more, groups of so many take turns.
        stream: where minibatches and noise come from.
    """

    def __init__(
        self,
        estimator: "Estimator",
        model: nn.Module,
        data: Tensor,
        *,
        seeds: Sequence[int],
        batch_size: int = 100,
        parts: Mapping[str, nn.Module] | None = None,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
        data_noise: float = 0.0,
        precision: str = "float32",
        accumulate: int = 1,
    ) -> None:
        self.seeds = check_seeds(seeds)
        check_model(estimator, model)
        check_data(data, model)
        check_parts(estimator, parts or {})
        self.device, self.dtype = check_place(device, dtype), dtype
        self.estimator, self.model, self.batch_size = estimator, model, check_count("batch_size", batch_size, 1)
        self.precision = check_precision(precision, dtype, self.device)
        self._shards = check_shards(estimator, self.batch_size, accumulate, processes())
        self.data = data.to(device=self.device, dtype=dtype)
        self.data_noise = check_noise(data_noise, model)
        self.step, self.train_seconds, self.compile_seconds, self.compiled, self.captured = 0, 0.0, 0.0, False, False
        self._template, self._tensors = initial_states(
            estimator, model, data.to(dtype=dtype), self.seeds, batch_size, parts, self.device
        )
        self._hyper = {
            name: torch.full((len(self.seeds),), value, dtype=dtype, device=self.device)
            for name, value in estimator.hyper.items()
        }
        self._reported = 0
        bound = self._template.bind().model
        stream = partial(Stream, estimator, bound, self.data, shards=self._shards, data_noise=self.data_noise)
        groups = self._groups(stream)
        self.width = -(-len(self.seeds) // groups)
        spare = groups * self.width - len(self.seeds)  # the last group is filled with its last seed
        self.stream = stream([*self.seeds, *self.seeds[-1:] * spare], batch_size, groups=groups)
        self._program: Program = self._side_by_side
        self._advance: Callable[[Sequence[Tensor], Block, Sequence[Tensor]], Sequence[Tensor]] = self._one_by_one
        # Processes that train together do without: a graph with an exchange in it outlives the group.
        self._captures = captures(self.device) and processes() == 1
        self._to_capture = self._captures  # at the first step: many a trainer is only asked
        self._to_trace, self._plain_steps = not self._captures, 0
        if compile:
            self._compile()

    def _groups(self, stream: Callable[..., Stream]) -> int:
        """Into how many groups the seeds are cut, which depends on nothing but the configuration."""
        if self.device.type != "cpu":
            return 1
        consumed = stream(self.seeds[:1], self.batch_size).draw(self.data, 0, "size", 1).at(0)
        own = sum(x.nbytes for x in consumed) + sum(x.nbytes for x in self._leaves) // len(self.seeds)
        return -(-len(self.seeds) // max(1, _SIDE_BY_SIDE_BYTES // own))

    @property
    def _tensors(self) -> Tree:
        """The stacked states of the seeds, as a tree."""
        return tree_unflatten(self._leaves, self._structure)

    @_tensors.setter
    def _tensors(self, tree: Tree) -> None:
        self._leaves, self._structure = tree_flatten(tree)

    def _one_seed(
        self,
        tensors: Tree,
        hyper: dict[str, Tensor],
        batches: Tensor,
        uniforms: Tensor,
        normals: Tensor,
        examples: Tensor | None = None,
    ) -> tuple[Tree, Tensor]:
        """One step of one seed and its objective: its noise, ``Estimator.step``, and the freeze if it diverges."""
        state = self._template.replace(**tensors["state"], iteration=tensors["step"], examples=examples)
        noise = self.stream.noise(TapeRng(uniforms, normals))
        if isinstance(noise, Shards):
            ours = slice(process() * len(noise) // processes(), (process() + 1) * len(noise) // processes())
            batches, noise = cut(batches, len(noise))[ours], Shards(noise[ours])
        with torch.autocast(self.device.type, torch.bfloat16, self.precision == "bf16", cache_enabled=False):
            after, info = self.estimator.step(state, batches, noise, self.estimator.scheduled(hyper, tensors["step"]))
        return advanced(tensors, after, info["objective"], hyper), info["objective"]

    def _side_by_side(self, *tensors: Tensor) -> list[Tensor]:
        """One step of a group's seeds, as a function of flat tensors alone: the leaves of the state, what the step
        consumes (``Block.at``) and the hyper-parameters; to the leaves of the next state, and the objective [seeds]."""
        count = len(self._leaves)
        consumed, hyper = tensors[count : len(tensors) - len(self._hyper)], tensors[len(tensors) - len(self._hyper) :]
        given = tree_unflatten(tensors[:count], self._structure), dict(zip(self._hyper, hyper, strict=True)), *consumed
        if self.width == 1 and self.data.ndim == 4:  # convolutions are faster without an axis of length one
            alone = tree_map(lambda x: x[0], given)
            after, objective = tree_map(lambda x: x[None], self._one_seed(*alone))
        else:
            after, objective = vmap(self._one_seed)(*given)
        leaves = [leaf.clone(memory_format=torch.contiguous_format) for leaf in tree_leaves(after)]  # as they came in
        return [*leaves, objective]

    def _compile(self) -> None:
        """Compiles the step and tries it once; where that cannot be done here, stays uncompiled and says so."""
        started = time.perf_counter()
        with computing(self.device, self.precision), or_without("uncompiled"):
            program = compile_program(self._side_by_side, self._example("compilation"))
            self.stream.compile()
            self._program, self.compiled, self._to_trace = program, True, False
        self.compile_seconds += time.perf_counter() - started

    def _trace(self) -> None:
        """Traces the uncompiled step, which then takes a third of the time and gives the same bits; a step that cannot
        be traced stays as it is."""
        started = time.perf_counter()
        with computing(self.device, self.precision), contextlib.suppress(Exception):  # as for the compiler's errors
            self._program = traced_program(self._side_by_side, self._example("trace"))
        self.compile_seconds += time.perf_counter() - started

    def _capture(self) -> None:
        """Records steps for replay; where that cannot be done here, they are launched one by one, and it is said."""
        started, count = time.perf_counter(), len(self._leaves)
        with computing(self.device, self.precision), or_without("step by step, without CUDA graphs"), torch.no_grad():
            example = self._example("capture")
            hyper = self._hyper_of(0)
            state, consumed = example[:count], example[count : len(example) - len(hyper)]
            steps = CapturedSteps(self._program, state, consumed, hyper, capture_on_cuda())
            self._advance, self.captured = lambda leaves, block, _: steps(leaves, block), True
        self.compile_seconds += time.perf_counter() - started

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
        return self._of_group(group, list(self._hyper.values()))

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
        """Trains for ``steps`` more iterations."""
        before = _TRACE_PAYS - self._plain_steps
        if self._to_trace and 0 < before <= steps - 2 * _TRACE_PAYS:
            self._run(before)
            steps -= before
        self._run(steps)

    def _run(self, steps: int) -> None:
        if self._to_capture and steps:
            self._to_capture = False
            self._capture()
        if self._to_trace and self._plain_steps >= _TRACE_PAYS:
            self._to_trace = False
            self._trace()
        started = time.perf_counter()
        with torch.no_grad(), computing(self.device, self.precision):
            trained = [self._trained(group, self.step + steps) for group in range(self.stream.groups)]
            self._leaves = self._of_groups(trained) if len(trained) > 1 else list(trained[0])
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        self.step, self._plain_steps = self.step + steps, self._plain_steps + steps
        self.train_seconds += time.perf_counter() - started

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
        """The estimator's own objective averaged over the steps since the last call, [seeds]: of a seed that has
        diverged since over those before, and not a number where there were none."""
        tensors = self._tensors
        ended = torch.where(tensors["diverged_at"] < 0, self.step, tensors["diverged_at"])
        counted = (ended - self._reported).clamp(min=0)
        mean = torch.where(counted > 0, tensors["objective_sum"] / counted, math.nan)
        self._tensors = {**tensors, "objective_sum": torch.zeros_like(tensors["objective_sum"])}
        self._reported = self.step
        return mean

    def objective_on(self, data: Tensor, batches: int = 3) -> Tensor:
        """The estimator's own objective on minibatches of other data, [seeds]; nothing is trained.

        The same minibatches and noise at every call, so that a curve of it is smooth.
        """
        data, values = data.to(device=self.device, dtype=self.dtype), []
        with torch.no_grad(), computing(self.device, self.precision):
            for index in range(batches):
                parts = []
                for group in range(self.stream.groups):
                    consumed = self._drawn(data, index, "validation", group)
                    leaves = self._of_group(group, self._leaves)
                    parts.append(self._program(*leaves, *consumed, *self._hyper_of(group))[-1:])
                values += self._of_groups(parts)
        return torch.stack(values).mean(0)

    def lower_objective_on(self, data: Tensor, batches: int = 3) -> Tensor | None:
        """The lower level's objective on minibatches of other data, [seeds]; None for methods of one level.

        The same minibatches and noise at every call, those of ``objective_on``.
        """
        data, values = data.to(device=self.device, dtype=self.dtype), []
        for index in range(batches):
            parts = [self._drawn(data, index, "validation", group) for group in range(self.stream.groups)]
            value = self._lower_objective(*self._of_groups(parts))
            if value is None:
                return None
            values.append(value)
        return torch.stack(values).mean(0)

    def _lower_objective(self, batches: Tensor, uniforms: Tensor, normals: Tensor) -> Tensor | None:
        values = []
        for i in range(len(self.seeds)):
            state = self._template.replace(**tree_map(lambda x, i=i: x[i], self._tensors["state"]))
            noise = self.stream.noise(TapeRng(uniforms[i], normals[i]))
            given = cut(batches[i], self._shards) if self._shards > 1 else batches[i]
            first_batches, first_noise = shards(given, noise)[0]
            hyper = {name: value[i] for name, value in self._hyper.items()}
            value = self.estimator.lower_objective(state, first_batches, first_noise, hyper)
            if value is None:
                return None
            values.append(value.detach())
        return torch.stack(values)

    def work(self) -> Work:
        """The arithmetic and memory traffic of one step of all seeds, its noise and minibatches included."""
        return (count_work(self._side_by_side, self._example("work")) + self.stream.work()) * self.stream.groups

    @property
    def diverged_at(self) -> list[int | None]:
        """For each seed the step at which it became non-finite, or None."""
        return [step if step >= 0 else None for step in self._tensors["diverged_at"].tolist()]  # one wait for a GPU

    def fitted(self) -> Fitted:
        """The trained models as they are now; training on does not change them."""
        saved = self.checkpoint()
        tensors = saved["tensors"]["state"]
        return Fitted(
            self.estimator,
            self.model,
            self._template,
            {**tensors, "params": saved["tensors"].get("average", tensors["params"])},
            self.seeds,
            self.step,
            self.diverged_at,
            saved,
        )

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
        for key in ("estimator", "hyper", "seeds", "batch_size", "data_noise", "precision", "shards"):
            if saved[key] != own[key]:
                raise InputError(f"{source}: checkpoint has {key} = {saved[key]}, this run has {own[key]}")
        ours, theirs = _described(own["tensors"]), _described(saved["tensors"])
        for name in sorted(ours.keys() | theirs.keys()):
            if ours.get(name) != theirs.get(name):
                raise InputError(f"{source}: checkpoint has {name}: {theirs.get(name)}, this run has {ours.get(name)}")
        in_our_order = tree_map(lambda _, x: x.to(self.device), own["tensors"], saved["tensors"])
        self._tensors = in_our_order
        self.step, self.train_seconds, self._reported = saved["step"], saved["train_seconds"], saved["reported"]


def advanced(tensors: Tree, after: State, objective: Tensor, hyper: dict[str, Tensor]) -> Tree:
    """One seed's tensors after a step, from those before it and the state that the step gave: frozen as they were from
    the first step on that gave something non-finite."""
    new = after.numbers
    probe = objective + sum(leaf.sum() for leaf in tree_leaves(new))
    going = (tensors["diverged_at"] < 0) & probe.isfinite()
    # The old state comes first: the result keeps its order of keys, hence of leaves.
    frozen = tree_map(lambda old, x: torch.where(going, x, old), tensors["state"], new)
    diverged_at = torch.where((tensors["diverged_at"] < 0) & ~going, tensors["step"], tensors["diverged_at"])
    after_step = {
        "state": frozen,
        "step": tensors["step"] + 1,
        "diverged_at": diverged_at,
        "objective_sum": tensors["objective_sum"] + torch.where(going, objective, 0.0),
    }
    if "average" in tensors:
        decay = hyper["ema"]
        after_step["average"] = tree_map(
            lambda mean, x: decay * mean + (1 - decay) * x, tensors["average"], frozen["params"]
        )
    return after_step


def _described(tensors: Tree) -> dict[str, str]:
    """Shape and type of every tensor, by its place."""
    return {keystr(place): f"{list(x.shape)} {x.dtype}" for place, x in tree_leaves_with_path(tensors)}


def initial_states(
    estimator: "Estimator",
    model: nn.Module,
    data: Tensor,
    seeds: Sequence[int],
    batch_size: int,
    parts: Mapping[str, nn.Module] | None,
    device: torch.device,
) -> tuple[State, Tree]:
    """The structure of a state, and the tensors of all seeds at the start, stacked.

    They are made on the CPU: on every device a seed starts at the same numbers.
    """
    states = [
        estimator.init(
            model,
            data.cpu(),
            Rng(generator(seed, 0, "initial state"), data.dtype),
            batch_size=batch_size,
            parts=parts,
        )
        for seed in seeds
    ]
    initial = [initial_tensors(state, estimator.ema > 0) for state in states]
    return states[0], tree_map(lambda *x: torch.stack(x).to(device), *initial)


def initial_tensors(state: State, averaged: bool) -> Tree:
    parameter = tree_leaves(state.params)[0]
    zero = torch.zeros((), dtype=torch.int64, device=parameter.device)
    first = {"state": state.numbers, "step": zero, "diverged_at": zero - 1, "objective_sum": parameter.new_zeros(())}
    return {**first, "average": state.params} if averaged else first


def captures(device: torch.device) -> bool:
    """Whether steps are recorded and replayed on such a device."""
    return device.type == "cuda"


@contextlib.contextmanager
def or_without(how: str) -> Iterator[None]:
    """What may fail, and training goes on without it; not for want of memory, of which less is left then."""
    try:
        yield
    except Exception as error:  # a compiler's errors have no common class; a bug in step() fails again without it
        if out_of_memory(error):
            raise
        warnings.warn(f"training runs {how} (slower, same numbers): {first_line(error)}", stacklevel=5)
