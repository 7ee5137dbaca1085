"""The algorithm as it trains: Adam's running state, relaxed samples, minibatches; averaged over draws."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bism.bias.closed_forms import exact_posterior
from bism.bias.paths import as_trained, trajectory
from bism.bias.point import INNER, UNROLL, Bias, Trained, check_grids
from bism.bias.vectors import Moments, distance, flat
from bism.checks import check_count, check_data
from bism.optimisers import Tree
from bism.rng import Rng, generator


@dataclasses.dataclass(frozen=True)
class Draw:
    """One draw of the practical algorithm at one K and N: as ``Bias``, with the difference itself, [p]."""

    difference: Tensor
    start: float
    moved: float
    left: float


def practical_draw(
    trained: Trained,
    data: Tensor,
    *,
    seed: int,
    index: int,
    inner: Sequence[int] = INNER,
    unroll: Sequence[int] = UNROLL,
    batch_size: int = 100,
) -> tuple[dict[tuple[int, int], Draw], Tensor]:
    """Draw number ``index`` of the bias for each (K, N), and the true gradient [p]; a pure function of (seed, index).

    A minibatch and the noise of a training step as the estimator draws them: every inner and every unrolled step has
    noise of its own. A smaller K or N takes the first of them, so that the points of a curve differ by the steps and
    not by the luck of the draw.
    """
    estimator, hyper, best = trained.estimator, trained.hyper, exact_posterior(trained.theta)
    rng = Rng(generator(seed, index, "gradient bias", data.device), data.dtype)
    batches, (noise, (inner_noises,)) = trained.draw(data, rng, max(inner), max(unroll), batch_size)
    batch, update = batches[0], estimator.update("posterior", hyper)

    def lower(at: Tree, phi: Tree, given: Any) -> Tensor:
        points, drawn = given
        return estimator.lower_loss(trained.bind(at, phi), points, drawn, hyper)

    fresh = estimator.inner_batches == "fresh"
    steps = [(batches[1 + i if fresh else 0], drawn) for i, drawn in enumerate(inner_noises)]
    ahead = [(batch, drawn) for drawn in noise["unroll"]]
    truth = flat(trained.true_gradient(batch, noise["upper"]["visible"]))
    upper = partial(trained.upper, batch, noise["upper"])
    places = trajectory(lower, trained.theta, trained.phi, trained.optimiser, steps, update)
    draws = {}
    for k in inner:
        path = trajectory(lower, trained.theta, *places[k], ahead, update)
        found, path = as_trained(trained, upper, lower, path, ahead, update, unroll)
        for n in unroll:
            first, last = path[0][0], path[n][0]
            draws[k, n] = Draw(
                difference=flat(found[n]) - truth,
                start=float(distance(first, best)),
                moved=float(distance(last, first)),
                left=float(distance(last, best)),
            )
    return draws, truth


def practical(
    trained: Trained,
    data: Tensor,
    *,
    seed: int = 0,
    draws: int = 200,
    inner: Sequence[int] = INNER,
    unroll: Sequence[int] = UNROLL,
    batch_size: int = 100,
) -> list[Bias]:
    """The gradient's bias as the algorithm trains, for each K and N: the mean over ``draws``, and then its norm.

    Theorem 2 does not speak of this (Adam; a lower level that samples): the bias need not decay. Averaging comes
    before the norm because a gradient's noise is no bias; what is left of it is ``noise_floor``, and a ``bias`` near
    that says only that the bias is smaller. E bias^2 = (true bias)^2 + noise_floor^2.

    Args:
        data: [n, D] in the parameters' dtype.
        draws: at least 2, for the variance.

    Source: Bao et al. 2020, Algorithm 1 and Figure 1.
    """
    check_grids(inner, unroll)
    check_data(data, trained.model)
    check_count("draws", draws, 2)
    truth, cells = Moments(), {(k, n): (Moments(), Moments()) for k in inner for n in unroll}
    for index in range(draws):
        drawn, gradient = practical_draw(
            trained, data, seed=seed, index=index, inner=inner, unroll=unroll, batch_size=batch_size
        )
        truth.add(gradient)
        for cell, (difference, distances) in cells.items():
            one = drawn[cell]
            difference.add(one.difference)
            distances.add(torch.tensor([one.start, one.moved, one.left]))
    rows = []
    for (k, n), (difference, distances) in cells.items():
        start, moved, left = distances.mean.tolist()
        bias, gradient_norm = float(difference.mean.norm()), float(truth.mean.norm())
        rows.append(Bias(k, n, bias, difference.noise_floor, gradient_norm, start, moved, left))
    return rows
