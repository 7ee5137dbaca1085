"""What ``Trainer`` and ``Cohort`` have in common: the seeds' states, one step of all of them as a program of flat
tensors, and making such programs ready where that can be done."""

import contextlib
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
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
    check_parts,
    check_place,
    check_precision,
    check_seeds,
    check_shards,
)
from bism.contract import check_alike, check_step
from bism.errors import InputError, first_line, out_of_memory
from bism.fitted import Fitted
from bism.gradients import Shards, cut, process, processes
from bism.hooks import Hooks
from bism.precision import computing
from bism.rng import Rng, TapeRng, generator
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
        check_parts(estimator, parts or {})
        self.device, self.dtype = check_place(device, dtype), dtype
        self.estimator, self.model, self.batch_size = estimator, model, check_count("batch_size", batch_size, 1)
        self.precision = check_precision(precision, dtype, self.device)
        self.data_noise = check_noise(data_noise, model)
        self._shards = check_shards(estimator, self.batch_size, accumulate, processes())
        self._stages = check_stages(estimator.id, estimator.stages, self.batch_size)
        self.data = data.to(device=self.device, dtype=dtype)
        self.compile_seconds, self.compiled, self.captured = 0.0, False, False
        self._template, initial = initial_states(
            estimator, model, data.to(dtype=dtype), self.seeds, batch_size, parts, self.device
        )
        self._leaves: list[Tensor]
        self._leaves, self._structure = tree_flatten(initial)
        self._lower_at: list[int] = []  # the leaves that inner steps change, where a program of their own makes those

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
        state, those that inner steps have changed since, what the step consumes (``Block.at``) and the
        hyper-parameters; to the leaves of the next state, and the objective."""
        leaves, given = self._unpacked(tensors, len(self._lower_at))
        if len(leaves[0]) == 1 and self.data.ndim == 4:  # convolutions are faster without an axis of length one
            after, objective = tree_map(lambda x: x[None], self._one_seed(*tree_map(lambda x: x[0], given)))
        else:
            after, objective = vmap(self._one_seed)(*given)
        return [*as_they_came(after), objective]

    def _unpacked(self, tensors: Sequence[Tensor], beside: int) -> tuple[Sequence[Tensor], tuple[Any, ...]]:
        """The state's leaves; and (state, the ``beside`` tensors after it, hyper-parameters, *what a step consumes)."""
        count, names = len(self._leaves), list(self.estimator.hyper)
        leaves, rest = tensors[:count], len(tensors) - len(names)
        hyper = dict(zip(names, tensors[rest:], strict=True))
        state = tree_unflatten(leaves, self._structure)
        return leaves, (state, list(tensors[count : count + beside]), hyper, *tensors[count + beside : rest])

    def _one_seed(
        self,
        tensors: Tree,
        lower: list[Tensor],
        hyper: Hyper,
        batches: Tensor,
        uniforms: Tensor,
        normals: Tensor,
        examples: Tensor | None = None,
    ) -> tuple[Tree, Tensor]:
        """One step of one seed and its objective: its noise, ``Stage.step``, and the freeze if it diverges."""
        state = self._state(self._with_lower(tensors, lower), examples)
        noise = self.stream.noise(TapeRng(uniforms, normals))
        if isinstance(noise, Shards):
            ours = slice(process() * len(noise) // processes(), (process() + 1) * len(noise) // processes())
            batches, noise = cut(batches, len(noise))[ours], Shards(noise[ours])
        with self._autocast():
            given = self.stage.step(state, batches, noise, self.estimator.scheduled(hyper, tensors["step"]))
        after, objective = check_step(self.estimator.id, state, given)
        return advanced(tensors, after, objective, hyper), objective

    def _state(self, tensors: Tree, examples: Tensor | None) -> State:
        return self._template.replace(**tensors["state"], iteration=tensors["step"], examples=examples)

    def _with_lower(self, tensors: Tree, lower: Sequence[Tensor]) -> Tree:
        if not lower:
            return tensors
        leaves = tree_leaves(tensors)
        for at, leaf in zip(self._lower_at, lower, strict=True):
            leaves[at] = leaf
        return tree_unflatten(leaves, self._structure)

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


def advanced(tensors: Tree, after: State, objective: Tensor, hyper: Hyper) -> Tree:
    """One seed's tensors after a step, from those before it and the state that the step gave: frozen as they were from
    the first step on that gave something non-finite."""
    going, kept = _kept(tensors, after, objective)
    total = tensors["objective_sum"] + torch.where(going, objective, 0.0)
    after_step = {**tensors, **kept, "step": tensors["step"] + 1, "objective_sum": total}
    if "average" in tensors:
        decay = hyper["ema"]
        after_step["average"] = tree_map(
            lambda mean, x: decay * mean + (1 - decay) * x, tensors["average"], kept["state"]["params"]
        )
    return after_step


def begun(tensors: Tree, before: State, after: State) -> Tree:
    """One seed's tensors at the start of a stage, from those before it, their state, and the state that ``begin`` made
    of that."""
    going, kept = _kept(tensors, after, torch.zeros_like(tensors["objective_sum"]))
    started = {**tensors, **kept, "objective_sum": torch.zeros_like(tensors["objective_sum"])}
    if "average" in tensors:
        started["average"] = tree_map(
            lambda mean, old, new: mean if new is old else torch.where(going, new, mean),
            tensors["average"],
            before.params,
            after.params,
        )
    return started


def _kept(tensors: Tree, after: State, objective: Tensor) -> tuple[Tensor, Tree]:
    """Whether a seed goes on, and its state with the step at which it ended, if it has."""
    new = after.numbers
    probe = objective + sum(leaf.sum() for leaf in tree_leaves(new))
    going = (tensors["diverged_at"] < 0) & probe.isfinite()
    # The old state comes first: the result keeps its order of keys, hence of leaves.
    frozen = tree_map(lambda old, x: torch.where(going, x, old), tensors["state"], new)
    ended = torch.where((tensors["diverged_at"] < 0) & ~going, tensors["step"], tensors["diverged_at"])
    return going, {"state": frozen, "diverged_at": ended}


def as_they_came(tree: Tree) -> list[Tensor]:
    """The leaves of a program's result, laid out as those that it was given."""
    return [leaf.clone(memory_format=torch.contiguous_format) for leaf in tree_leaves(tree)]


def diverged_at(tensors: Tree) -> list[int | None]:
    """For each seed the step at which it became non-finite and was frozen, or None."""
    return [step if step >= 0 else None for step in tensors["diverged_at"].tolist()]  # one wait for a GPU


def initial_states(
    estimator: Hooks,
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
    check_alike(estimator.id, seeds, states)
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
