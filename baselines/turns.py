"""Games in which players move one at a time."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from bism.state import State


def against(parameters: Any) -> Any:
    """A tree of tensors to the last bit, with the derivative -1: who minimises along them maximises."""
    return tree_map(lambda x: 2 * x.detach() - x, parameters)


def in_turn(before: State, moved: State, turns: Mapping[str, Tensor]) -> State:
    """``moved``, but for the parts whose turn it is not, which stay with their optimisers as they were before.

    Args:
        turns: by part, a boolean scalar. Both states are there, since each seed has turns of its own.
    """

    def chosen(now: Mapping[str, Any], was: Mapping[str, Any]) -> dict[str, Any]:
        return {part: tree_map(partial(torch.where, turns[part]), now[part], was[part]) for part in was}

    params, optimiser = chosen(moved.params, before.params), chosen(moved.optimiser, before.optimiser)
    return moved.replace(params=params, optimiser=optimiser)
