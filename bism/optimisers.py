"""Optimisers as pure functions of (gradient, parameters, state), so that they can be differentiated through.

Each comes as ``init(params) -> state`` and ``update(gradient, params, state, lr) -> (params, state)`` over dictionaries
of tensors; the state is a dictionary of tensors too.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

Tree = Any  # nested dictionaries of tensors
Update = Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]  # (gradient, params, state) -> (params, state)


def adam_init(params: Tree) -> Tree:
    """First and second moments at zero, step count at zero."""
    leaf = next(iter(_leaves(params)))
    return {
        "first": tree_map(torch.zeros_like, params),
        "second": tree_map(torch.zeros_like, params),
        "count": torch.zeros((), dtype=leaf.dtype, device=leaf.device),
    }


def adam_update(
    gradient: Tree,
    params: Tree,
    state: Tree,
    lr: Tensor | float,
    *,
    betas: tuple[Tensor | float, Tensor | float] = (0.9, 0.95),
    eps: float = 1e-8,
) -> tuple[Tree, Tree]:
    """One step of Adam (Kingma and Ba 2014, Algorithm 1), with the moments' bias correction.

    The 1e-30 under the root keeps the derivative finite where a gradient has always been zero (the slope of the root
    at 0 is infinite); it moves a step by less than 1e-7 of its length.
    """
    beta1, beta2 = betas
    count = state["count"] + 1
    first = tree_map(lambda m, g: beta1 * m + (1 - beta1) * g, state["first"], gradient)
    second = tree_map(lambda s, g: beta2 * s + (1 - beta2) * g * g, state["second"], gradient)
    rate, scale = lr / (1 - _power(beta1, count)), 1 / (1 - _power(beta2, count))
    params = tree_map(lambda p, m, s: p - rate * m / ((scale * s + 1e-30).sqrt() + eps), params, first, second)
    return params, {"first": first, "second": second, "count": count}


def _power(base: Tensor | float, exponent: Tensor) -> Tensor:
    """base^exponent, base >= 0 and exponent > 0, by an exponential: the compiler computes that once and keeps it, but
    would compute a power anew for every few parameters."""
    return (exponent * torch.as_tensor(base, dtype=exponent.dtype, device=exponent.device).log()).exp()


def sgd_init(params: Tree) -> Tree:
    """Gradient descent remembers nothing."""
    return {}


def sgd_update(gradient: Tree, params: Tree, state: Tree, lr: Tensor | float) -> tuple[Tree, Tree]:
    """One step of gradient descent, eq. (12) and (15): p - lr * gradient."""
    return tree_map(lambda p, g: p - lr * g, params, gradient), state


OPTIMISERS = {"adam": adam_init, "sgd": sgd_init}  # by the name that a method gives: the state at the start


def _leaves(tree: Tree) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    return [leaf for value in tree.values() for leaf in _leaves(value)]
