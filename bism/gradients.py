"""Gradients of a minibatch that is taken in shards: one after another, to save memory, and by several processes.

The gradient of a mean over a minibatch is the mean of the gradients over shards of equal size.
"""

from collections.abc import Sequence
from functools import reduce
from operator import getitem
from typing import Any

import torch
from torch import Tensor, distributed
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from bism.private_torch import sum_over_processes

Tree = Any


class Shards(list[Any]):
    """The noise of the shards of a minibatch, whose ``batches`` have one more axis in front, of the same length."""


def shards(batches: Tensor, noise: Any) -> list[tuple[Tensor, Any]]:
    """What a step is given, shard by shard: (batches [minibatches, batch, *visible_shape], noise)."""
    return list(zip(batches, noise, strict=True)) if isinstance(noise, Shards) else [(batches, noise)]


def cut(batches: Tensor, count: int) -> Tensor:
    """[minibatches, batch, ...] as [count, minibatches, batch / count, ...]."""
    minibatches, size, *shape = batches.shape
    return batches.reshape(minibatches, count, size // count, *shape).movedim(1, 0)


def part_of(noise: Any, *keys: Any) -> Any:
    """A part of a step's noise, noise[key]..., shard by shard where it is in shards."""
    return (
        Shards(part_of(drawn, *keys) for drawn in noise) if isinstance(noise, Shards) else reduce(getitem, keys, noise)
    )


def average(trees: Sequence[Tree]) -> Tree:
    """The mean of what the shards gave, over those of all processes that train together."""
    total = trees[0]
    for tree in trees[1:]:
        total = tree_map(torch.add, total, tree)
    if len(trees) > 1:
        total = tree_map(lambda x: x / len(trees), total)
    return total if processes() == 1 else _over_processes(total)


class _Sum(torch.autograd.Function):
    """The sum over processes, element by element: seeds that are mapped over are so many more elements."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return sum_over_processes(x.contiguous())

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None: ...

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor) -> tuple[Tensor, int]:
        return _Sum.apply(x), in_dims[0]  # type: ignore[no-untyped-call]


def _over_processes(tree: Tree) -> Tree:
    """The mean over processes, in one exchange."""
    leaves, structure = tree_flatten(tree)
    flat = _Sum.apply(torch.cat([leaf.flatten() for leaf in leaves])) / processes()  # type: ignore[no-untyped-call]
    parts = flat.split([leaf.numel() for leaf in leaves])
    return tree_unflatten([part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)], structure)


def processes() -> int:
    """How many processes train together: those of ``torch.distributed``'s default group, where there is one."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def process() -> int:
    """The number of this process among them."""
    return distributed.get_rank() if processes() > 1 else 0
