"""The seeds' states as stacked tensors: how they begin, what a step makes of one, the freeze of those that diverge."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from bism.contract import check_alike
from bism.hooks import Hooks
from bism.rng import Rng, generator
from bism.state import Hyper, State

Tree = Any


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


def in_order(before: Tree, after: Tree) -> Tree:
    """What came after, its keys in the order of what was before."""
    return tree_map(lambda _, new: new, before, after)


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
    data_noise: float = 0.0,
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
            data_noise=data_noise,
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
