"""The one training loop: an estimator's ``step`` mapped over seeds, compiled where the run is long enough to pay.

The noise and the minibatches of step t for seed s are a pure function of (s, t), so a seed trained alone or among
others, or after a resume, gets the same numbers. A seed whose state becomes non-finite is frozen as it was and marked
with its step; the others do not notice.
"""

import math
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.utils._pytree import keystr, tree_flatten, tree_leaves, tree_leaves_with_path, tree_map, tree_unflatten

from bism.checkpoint import load_checkpoint, save_checkpoint
from bism.checks import (
    check_count,
    check_data,
    check_model,
    check_place,
    check_posterior,
    check_precision,
    check_scale,
    check_seeds,
    check_shards,
)
from bism.compiler import CapturedStep, Program, Work, compile_program, count_work
from bism.errors import InputError
from bism.fitted import Fitted
from bism.gradients import Shards, cut, process, processes, shards
from bism.rng import Rng, TapeRng, generator
from bism.state import State
from bism.stream import Stream

if TYPE_CHECKING:
    from bism.estimator import Estimator

Tree = Any
_COMPILE_PAYS = 3_000  # steps; compiling takes as long as one to three thousand uncompiled steps


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
        compile_seconds: time spent compiling.
        compiled: whether the step runs compiled.
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
        posterior: nn.Module | None = None,
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
        check_posterior(posterior)
        self.device, self.dtype = check_place(device, dtype), dtype
        self.estimator, self.model, self.batch_size = estimator, model, check_count("batch_size", batch_size, 1)
        self.precision = check_precision(precision, dtype)
        self._shards = check_shards(estimator, self.batch_size, accumulate, processes())
        self.data = data.to(device=self.device, dtype=dtype)
        self.data_noise = check_scale("data_noise", data_noise)
        self.step, self.train_seconds, self.compile_seconds, self.compiled = 0, 0.0, 0.0, False
        states = [
            estimator.init(
                model,
                self.data,
                Rng(generator(seed, 0, "initial state", self.device), dtype),
                batch_size=batch_size,
                posterior=posterior,
            )
            for seed in self.seeds
        ]
        self._template = states[0]
        initial = [initial_tensors(state, estimator.ema > 0) for state in states]
        self._tensors = tree_map(lambda *x: torch.stack(x), *initial)
        self._hyper = {
            name: torch.full((len(self.seeds),), value, dtype=dtype, device=self.device)
            for name, value in estimator.hyper.items()
        }
        self._reported = 0
        bound = self._template.bind().model
        self.stream = Stream(
            estimator, bound, self.data, self.seeds, batch_size, shards=self._shards, data_noise=self.data_noise
        )
        self._program: Program = self._all_seeds
        self._advance: Program = self._all_seeds
        if compile:
            self._compile()

    @property
    def _tensors(self) -> Tree:
        """The stacked states of the seeds, as a tree."""
        return tree_unflatten(self._leaves, self._structure)

    @_tensors.setter
    def _tensors(self, tree: Tree) -> None:
        self._leaves, self._structure = tree_flatten(tree)

    def _one_seed(
        self, tensors: Tree, batches: Tensor, uniforms: Tensor, normals: Tensor, hyper: dict[str, Tensor]
    ) -> tuple[Tree, Tensor]:
        """One step of one seed and its objective: its noise, ``Estimator.step``, and the freeze if it diverges."""
        state = self._template.replace(**tensors["state"])
        noise = self.stream.noise(TapeRng(uniforms, normals))
        if isinstance(noise, Shards):
            ours = slice(process() * len(noise) // processes(), (process() + 1) * len(noise) // processes())
            batches, noise = cut(batches, len(noise))[ours], Shards(noise[ours])
        with torch.autocast(self.device.type, torch.bfloat16, self.precision == "bf16", cache_enabled=False):
            after, info = self.estimator.step(state, batches, noise, self.estimator.scheduled(hyper, tensors["step"]))
        return advanced(tensors, after, info["objective"], hyper), info["objective"]

    def _all_seeds(self, *tensors: Tensor) -> list[Tensor]:
        """One step of all seeds, as a function of flat tensors alone: the leaves of the state, what the step consumes
        (``Block.at``) and the hyper-parameters; to the leaves of the next state, and the objective [seeds]."""
        count = len(self._leaves)
        batches, uniforms, normals, *hyper = tensors[count:]
        state, named = tree_unflatten(tensors[:count], self._structure), dict(zip(self._hyper, hyper, strict=True))
        if len(self.seeds) == 1 and self.data.ndim == 4:  # convolutions are faster without an axis of length one
            alone = tree_map(lambda x: x[0], (state, batches, uniforms, normals, named))
            after, objective = tree_map(lambda x: x[None], self._one_seed(*alone))
        else:
            after, objective = vmap(self._one_seed)(state, batches, uniforms, normals, named)
        leaves = [leaf.clone(memory_format=torch.contiguous_format) for leaf in tree_leaves(after)]  # as they came in
        return [*leaves, objective]

    def _compile(self) -> None:
        """Compiles the step and tries it once; where that cannot be done here, stays uncompiled and says so."""
        started = time.perf_counter()
        consumed = self.stream.draw(self.data, 0, "compilation", 1).at(0)
        example = [*self._leaves, *consumed, *self._hyper.values()]
        try:
            program = compile_program(self._all_seeds, example)
            self.stream.compile()
        except Exception as error:  # the compiler's errors have no common class; a bug in step() fails again uncompiled
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            warnings.warn(f"training runs uncompiled (slower, same numbers): {reason}", stacklevel=2)
        else:
            self._program, self.compiled = program, True
            captures = self.device.type == "cuda"
            self._advance = CapturedStep(program, example, len(self._leaves)) if captures else program
        self.compile_seconds = time.perf_counter() - started

    def run(self, steps: int) -> None:
        """Trains for ``steps`` more iterations."""
        started = time.perf_counter()
        end, count, hyper = self.step + steps, len(self._leaves), list(self._hyper.values())
        with torch.no_grad():
            leaves: Sequence[Tensor] = self._leaves
            for step in range(self.step, end):
                leaves = self._advance(*leaves, *self.stream.at(step), *hyper)[:count]
            self._leaves, self.step = list(leaves), end
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.train_seconds += time.perf_counter() - started

    def mean_objective(self) -> Tensor:
        """The estimator's own objective averaged over the steps since the last call, [seeds] (not a number if none)."""
        since, tensors = self.step - self._reported, self._tensors
        mean = tensors["objective_sum"] / since if since else torch.full_like(self._hyper["lr"], math.nan)
        self._tensors = {**tensors, "objective_sum": torch.zeros_like(tensors["objective_sum"])}
        self._reported = self.step
        return mean

    def objective_on(self, data: Tensor, batches: int = 3) -> Tensor:
        """The estimator's own objective on minibatches of other data, [seeds]; nothing is trained.

        The same minibatches and noise at every call, so that a curve of it is smooth.
        """
        data, values = data.to(device=self.device, dtype=self.dtype), []
        with torch.no_grad():
            for index in range(batches):
                consumed = self.stream.draw(data, index, "validation", 1).at(0)
                values.append(self._program(*self._leaves, *consumed, *self._hyper.values())[-1])
        return torch.stack(values).mean(0)

    def lower_objective_on(self, data: Tensor, batches: int = 3) -> Tensor | None:
        """The lower level's objective on minibatches of other data, [seeds]; None for methods of one level.

        The same minibatches and noise at every call, those of ``objective_on``.
        """
        data, values = data.to(device=self.device, dtype=self.dtype), []
        for index in range(batches):
            batch, uniforms, normals = self.stream.draw(data, index, "validation", 1).at(0)
            value = self._lower_objective(batch, uniforms, normals)
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
        consumed = self.stream.draw(self.data, 0, "work", 1).at(0)
        return count_work(self._all_seeds, [*self._leaves, *consumed, *self._hyper.values()]) + self.stream.work()

    @property
    def diverged_at(self) -> list[int | None]:
        """For each seed the step at which it became non-finite, or None."""
        return [int(step) if step >= 0 else None for step in self._tensors["diverged_at"]]

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
    new = _numbers(after)
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


def _numbers(state: State) -> Tree:
    return {"params": state.params, "optimiser": state.optimiser, "carry": state.carry}


def initial_tensors(state: State, averaged: bool) -> Tree:
    parameter = tree_leaves(state.params)[0]
    zero = torch.zeros((), dtype=torch.int64, device=parameter.device)
    first = {"state": _numbers(state), "step": zero, "diverged_at": zero - 1, "objective_sum": parameter.new_zeros(())}
    return {**first, "average": state.params} if averaged else first
