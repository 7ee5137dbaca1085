"""Where the lower level's steps lead, and eq. (14)'s gradient for many numbers N of unrolled steps at once."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, vjp
from torch.utils._pytree import tree_map

from bism.bias.point import Trained
from bism.bilevel import LowerLevel, descend
from bism.optimisers import Tree, Update

Places = list[tuple[Tree, Tree]]


def trajectory(
    lower: LowerLevel, theta: Tree, phi: Tree, optimiser: Tree, noises: Sequence[Any], update: Update
) -> Places:
    """phi and the optimiser's state before the first and after each step of eq. (12): one more than ``noises``."""
    places = [(phi, optimiser)]
    for noise in noises:
        places.append(descend(partial(lower, theta), *places[-1], [noise], update))
    return places


def hypergradients(
    upper: Callable[[Tree, Tree], Tensor],
    lower: LowerLevel,
    theta: Tree,
    places: Places,
    noises: Sequence[Any],
    update: Update,
    counts: Iterable[int],
) -> dict[int, Tree]:
    """Eq. (14) for each N of ``counts``: the gradient of ``bilevel.unrolled`` for the first N of ``noises``.

    The steps are gone back through one by one, with dJ/dphi^N of every N that lies ahead: each step is linearised once
    for all N, and from the known ``places``, so that the memory is that of one step whatever N. For curves in N;
    training needs one N, and there the plain form compiles as a whole.
    """

    def step(noise: Any, at: Tree, phi: Tree, optimiser: Tree) -> tuple[Tree, Tree]:
        return descend(partial(lower, at), phi, optimiser, [noise], update)

    wanted = set(counts)
    totals: dict[int, Tree] = {}
    ahead: dict[int, tuple[Tree, Tree]] = {}
    for n in range(max(wanted), -1, -1):
        phi, optimiser = places[n]
        if n in wanted:
            totals[n], slope = grad(upper, argnums=(0, 1))(theta, phi)
            ahead[n] = slope, tree_map(torch.zeros_like, optimiser)
        if n:
            pull_back: Callable[..., Any] = vjp(partial(step, noises[n - 1]), theta, *places[n - 1])[1]
            for end, cotangent in ahead.items():
                through_step, slope, memory = pull_back(cotangent)
                totals[end] = tree_map(torch.add, totals[end], through_step)
                ahead[end] = slope, memory
    return totals


def as_trained(
    trained: Trained,
    upper: Callable[[Tree, Tree], Tensor],
    lower: LowerLevel,
    places: Places,
    noises: Sequence[Any],
    update: Update,
    counts: Iterable[int],
) -> tuple[dict[int, Tree], Places]:
    """The gradients for each N that the estimator trains with, and where phi is after N steps: implicit gradients
    leave it in its place."""
    estimator = trained.estimator
    if estimator.hypergradient == "unroll":
        return hypergradients(upper, lower, trained.theta, places, noises, update, counts), places
    surrogates = {n: estimator.surrogate(upper, lower, *places[0], noises[:n], trained.hyper) for n in counts}
    return {n: grad(one)(trained.theta) for n, one in surrogates.items()}, places[:1] * len(places)
