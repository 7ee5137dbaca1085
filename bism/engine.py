"""The one training loop: an estimator's ``step`` mapped over seeds, compiled where the run is long enough to pay.

The noise and the minibatches of step t for seed s are a pure function of (s, t), so a seed trained alone or among
others, or after a resume, gets the same numbers. A seed whose state becomes non-finite is frozen as it was and marked
with its step; the others do not notice.
"""

import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.utils._pytree import keystr, tree_leaves, tree_leaves_with_path, tree_map

from bism.checkpoint import load_checkpoint, save_checkpoint
from bism.checks import check_count, check_data, check_model, check_place, check_posterior, check_seeds
from bism.errors import InputError
from bism.fitted import Fitted
from bism.rng import CountingRng, Rng, TapeRng, generator
from bism.state import State

if TYPE_CHECKING:
    from bism.estimator import Estimator

Tree = Any
_BLOCK_BYTES = 1 << 23  # random numbers and minibatches are drawn for about this many bytes of steps at once, per seed
_LONGEST_BLOCK = 256
_COMPILE_PAYS = 5_000  # steps; compiling takes as long as one to three thousand uncompiled steps


def pays(steps: int) -> bool:
    """Whether a run of this many steps is worth compiling."""
    return steps >= _COMPILE_PAYS


@dataclasses.dataclass(frozen=True)
class Block:
    """What some consecutive steps consume, stacked [steps, seeds, ...]: minibatches and the tapes of their noise.

    Steps come first so that the part of each is contiguous: one memory layout, hence one compiled program.
    """

    batches: Tensor
    uniforms: Tensor
    normals: Tensor

    def at(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """The part of one step."""
        return self.batches[index], self.uniforms[index], self.normals[index]


class Trainer:
    """Trains one configuration for several seeds side by side and can stop and go on at any step.

    Args: as ``Estimator.fit``.

    Attributes:
        seeds: the seeds, in the order of the stacked tensors' first axis.
        step: iterations done.
        train_seconds: time spent in training alone: no compilation, evaluation or logging.
        compile_seconds: time spent compiling.
        compiled: whether the step runs compiled.
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
    ) -> None:
        self.seeds = check_seeds(seeds)
        check_model(estimator, model)
        check_data(data, model)
        check_posterior(posterior)
        self.device, self.dtype = check_place(device, dtype), dtype
        self.estimator, self.model, self.batch_size = estimator, model, check_count("batch_size", batch_size, 1)
        self.data = data.to(device=self.device, dtype=dtype)
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
        self._tensors: Tree = tree_map(lambda *x: torch.stack(x), *[_initial_tensors(state) for state in states])
        self._hyper = {
            name: torch.full((len(self.seeds),), value, dtype=dtype, device=self.device)
            for name, value in estimator.hyper.items()
        }
        self._reported = 0
        self._count_noise()
        self._mapped = vmap(self._one_seed)
        self._advance: Any = self._mapped
        if compile:
            self._compile()

    def _noise(self, rng: Rng) -> Any:
        return self.estimator.noise(self._template.bind().model, (self.batch_size, *self.data.shape[1:]), rng)

    def _count_noise(self) -> None:
        """Sets the lengths of one step's tapes, and of a block of steps: a function of the configuration alone."""
        counting = CountingRng(self.dtype, self.device)
        self._noise(counting)
        self._tape_lengths = counting.uniform_count, counting.normal_count
        batch = self.estimator.minibatches * self.batch_size * math.prod(self.data.shape[1:])
        size = self.data.element_size() * (batch + sum(self._tape_lengths))
        self._block_steps = max(1, min(_LONGEST_BLOCK, _BLOCK_BYTES // size))

    def _one_seed(
        self, tensors: Tree, batches: Tensor, uniforms: Tensor, normals: Tensor, hyper: dict[str, Tensor]
    ) -> tuple[Tree, Tree]:
        """One step of one seed: its noise, ``Estimator.step``, and the freeze of a seed that diverges."""
        state = self._template.replace(**tensors["state"])
        after, info = self.estimator.step(state, batches, self._noise(TapeRng(uniforms, normals)), hyper)
        new = _numbers(after)
        probe = info["objective"] + sum(leaf.sum() for leaf in tree_leaves(new))
        going = (tensors["diverged_at"] < 0) & probe.isfinite()
        # The old state comes first: the result keeps its order of keys, on which the compiled program depends.
        frozen = tree_map(lambda old, x: torch.where(going, x, old), tensors["state"], new)
        diverged_at = torch.where((tensors["diverged_at"] < 0) & ~going, tensors["step"], tensors["diverged_at"])
        total = tensors["objective_sum"] + torch.where(going, info["objective"], 0.0)
        return {"state": frozen, "step": tensors["step"] + 1, "diverged_at": diverged_at, "objective_sum": total}, info

    def _compile(self) -> None:
        """Compiles the step and tries it once; where that cannot be done here, stays uncompiled and says so."""
        started = time.perf_counter()
        # One source file for all kernels: compiles in two thirds of the time, and runs a little faster.
        options: dict[str, Any] = {"cpp_wrapper": True} if self.device.type == "cpu" else {}
        advance = torch.compile(_with_own_code(self._mapped), fullgraph=True, dynamic=False, options=options)
        try:
            with warnings.catch_warnings():  # what the compiler's own code is warned of is nobody's business here
                warnings.simplefilter("ignore")
                advance(self._tensors, *self._draw(self.data, 0, "training", steps=1).at(0), self._hyper)
        except Exception as error:  # the compiler's errors have no common class; a bug in step() fails again uncompiled
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            warnings.warn(f"training runs uncompiled (slower, same numbers): {reason}", stacklevel=2)
        else:
            self._advance, self.compiled = advance, True
        self.compile_seconds = time.perf_counter() - started

    def _draw(self, data: Tensor, index: int, purpose: str, steps: int) -> Block:
        """Block number ``index`` of so many steps: minibatches of ``data`` drawn with replacement, and the tapes."""
        device, dtype, (uniform, normal) = self.device, self.dtype, self._tape_lengths
        parts = []
        for seed in self.seeds:
            source = generator(seed, index, purpose, device)
            shape = (steps, self.estimator.minibatches, self.batch_size)
            indices = torch.randint(len(data), shape, generator=source, device=device)
            uniforms = torch.rand((steps, uniform), generator=source, dtype=dtype, device=device)
            normals = torch.randn((steps, normal), generator=source, dtype=dtype, device=device)
            parts.append((indices, uniforms, normals))
        indices, uniforms, normals = (torch.stack(part, dim=1) for part in zip(*parts, strict=True))
        return Block(data[indices], uniforms, normals)

    def run(self, steps: int) -> None:
        """Trains for ``steps`` more iterations."""
        started = time.perf_counter()
        end = self.step + steps
        while self.step < end:
            index, offset = divmod(self.step, self._block_steps)
            block = self._draw(self.data, index, "training", self._block_steps)
            stop = min(self._block_steps, offset + end - self.step)
            for position in range(offset, stop):
                self._tensors, _ = self._advance(self._tensors, *block.at(position), self._hyper)
            self.step += stop - offset
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.train_seconds += time.perf_counter() - started

    def mean_objective(self) -> Tensor:
        """The estimator's own objective averaged over the steps since the last call, [seeds] (not a number if none)."""
        since = self.step - self._reported
        mean = self._tensors["objective_sum"] / since if since else torch.full_like(self._hyper["lr"], math.nan)
        self._tensors = {**self._tensors, "objective_sum": torch.zeros_like(self._tensors["objective_sum"])}
        self._reported = self.step
        return mean

    def objective_on(self, data: Tensor, batches: int = 3) -> Tensor:
        """The estimator's own objective on minibatches of other data, [seeds]; nothing is trained.

        The same minibatches and noise at every call, so that a curve of it is smooth.
        """
        block = self._draw(data.to(device=self.device, dtype=self.dtype), 0, "validation", batches)
        objectives = [self._advance(self._tensors, *block.at(i), self._hyper)[1]["objective"] for i in range(batches)]
        return torch.stack(objectives).mean(0)

    @property
    def diverged_at(self) -> list[int | None]:
        """For each seed the step at which it became non-finite, or None."""
        return [int(step) if step >= 0 else None for step in self._tensors["diverged_at"]]

    def fitted(self) -> Fitted:
        """The trained models as they are now; training on does not change them."""
        return Fitted(
            self.estimator,
            self.model,
            self._template,
            self._tensors["state"],
            self.seeds,
            self.step,
            self.diverged_at,
            self.checkpoint(),
        )

    def checkpoint(self, seed: int | None = None) -> dict[str, Any]:
        """Everything needed to go on, as plain containers of tensors and numbers; of all seeds or of one."""
        chosen = list(self.seeds) if seed is None else [seed]
        at = [self.seeds.index(s) for s in chosen]
        tensors = self._tensors if seed is None else tree_map(lambda x: x[at], self._tensors)
        return {
            "estimator": self.estimator.id,
            "hyper": dict(vars(self.estimator)),
            "seeds": chosen,
            "batch_size": self.batch_size,
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
        saved = load_checkpoint(path)
        own = self.checkpoint()
        for key in ("estimator", "hyper", "seeds", "batch_size"):
            if saved[key] != own[key]:
                raise InputError(f"{path}: checkpoint has {key} = {saved[key]}, this run has {own[key]}")
        ours, theirs = _described(own["tensors"]), _described(saved["tensors"])
        for name in sorted(ours.keys() | theirs.keys()):
            if ours.get(name) != theirs.get(name):
                raise InputError(f"{path}: checkpoint has {name}: {theirs.get(name)}, this run has {ours.get(name)}")
        self._tensors = tree_map(lambda x: x.to(self.device), saved["tensors"])
        self.step, self.train_seconds, self._reported = saved["step"], saved["train_seconds"], saved["reported"]


def _described(tensors: Tree) -> dict[str, str]:
    """Shape and type of every tensor, by its place."""
    return {keystr(place): f"{list(x.shape)} {x.dtype}" for place, x in tree_leaves_with_path(tensors)}


def _with_own_code(function: Callable[..., Any]) -> Callable[..., Any]:
    """A wrapper whose code object no other has: Dynamo compiles one code object only so many times, then gives up."""

    def advance(*args: Any) -> Any:
        return function(*args)

    advance.__code__ = advance.__code__.replace(co_name=f"advance_{id(advance)}")
    return advance


def _numbers(state: State) -> Tree:
    return {"params": state.params, "optimiser": state.optimiser, "carry": state.carry}


def _initial_tensors(state: State) -> Tree:
    parameter = tree_leaves(state.params)[0]
    zero = torch.zeros((), dtype=torch.int64, device=parameter.device)
    return {"state": _numbers(state), "step": zero, "diverged_at": zero - 1, "objective_sum": parameter.new_zeros(())}
