"""Theorems 1 and 2: nothing is random. Fixed points, the exact KL, gradient descent."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor
from torch.func import grad

from bism.bias.closed_forms import bernoulli_kl, exact_posterior, largest_curvature, logit_curvature
from bism.bias.paths import as_trained, trajectory
from bism.bias.point import INNER, UNROLL, Bias, Trained, check_grids
from bism.bias.vectors import distance, flat
from bism.checks import check_data
from bism.errors import InputError
from bism.optimisers import Tree, sgd_update
from bism.rng import Rng, generator


@dataclasses.dataclass(frozen=True)
class Theorem2:
    """What ``theorem2`` found: ``alpha``, the rate of its gradient descent, and a row for each K and N."""

    alpha: float
    rows: list[Bias]


@dataclasses.dataclass(frozen=True)
class Theorem1:
    """What ``theorem1`` found.

    Attributes:
        error: ||grad J_Bi(theta, phi*(theta)) - grad J(theta)|| / ||grad J(theta)||, which the theorem says is 0.
        frozen: the same with phi* taken for a constant in the first gradient, which is another then.
    """

    error: float
    frozen: float


def theorem1(trained: Trained, data: Tensor, *, seed: int = 0) -> Theorem1:
    """How far the bi-level gradient at the true posterior is from that of the marginal objective.

    At all points at once with noise that is drawn once, the same for both gradients: where q is p(h|v), the ratio
    p~(v, h) / q(h|v) depends on no h, and one draw shows what the expectation is.

    Args:
        data: [n, D] in the parameters' dtype.
        seed: of the noise.

    Source: Bao et al. 2020, Theorem 1 and what stands above it, eq. (7)-(9).
    """
    check_data(data, trained.model)
    noise, best = _noise(trained, data, seed), exact_posterior(trained.theta)
    truth = flat(trained.true_gradient(data, noise["visible"]))
    followed = grad(lambda theta: trained.upper(data, noise, theta, exact_posterior(theta)))(trained.theta)
    fixed = grad(lambda theta: trained.upper(data, noise, theta, best))(trained.theta)
    error, frozen = (float((flat(one) - truth).norm() / truth.norm()) for one in (followed, fixed))
    return Theorem1(error, frozen)


def _noise(trained: Trained, data: Tensor, seed: int) -> dict[str, Tensor]:
    """The noise of v and of h at every point."""
    rng = Rng(generator(seed, 0, "theorem 2", data.device), data.dtype)
    return {
        "visible": trained.estimator.draw(tuple(data.shape), rng),
        "hidden": trained.model.latent.noise(rng, (len(data),)),
    }


def theorem2(
    trained: Trained,
    data: Tensor,
    *,
    seed: int = 0,
    inner: Sequence[int] = INNER,
    unroll: Sequence[int] = UNROLL,
    alpha: float | None = None,
) -> Theorem2:
    """The gradient's bias where the assumptions of Theorem 2 hold, for each K and N.

    The noise of v and of h is drawn once and is the same for both levels and all steps: J and G are then fixed
    functions. G is the mean of ``bernoulli_kl`` at the noisy points, descended at the constant rate alpha; phi^0 is
    the trained phi after K such steps. Everything else is what trains: J_Bi, and eq. (14).

    alpha: 1 / L by default, L the largest curvature of G at phi* or at the trained phi, whichever is larger: the
    largest rate at which no direction is overshot near phi*, hence where kappa = 1 - alpha * (smallest curvature) is
    the rate of the slowest direction. At the trained phi too, because away from phi* G may curve more.

    The points must span (v, 1), or some directions of phi have no curvature and G is not strongly convex: the noise
    sees to that if there are more points than visible units. Even so the smallest curvature may be tiny beside L
    (data far from the origin, saturated units): kappa is then almost 1, a small N shows the fast directions alone,
    and a rate fitted there is no estimate of kappa. ``spectrum`` tells.

    Args:
        data: [n, D] in the parameters' dtype, n > D.
        seed: of the noise; the result is a pure function of it.

    Source: Bao et al. 2020, Theorem 2, eq. (12)-(14).
    """
    check_grids(inner, unroll)
    check_data(data, trained.model)
    if len(data) <= data[0].numel():
        raise InputError(f"data must be more than the {data[0].numel()} visible units to span them, got {len(data)}")
    theta, best = trained.theta, exact_posterior(trained.theta)
    noise = _noise(trained, data, seed)
    points = trained.estimator.points(data, noise["visible"], trained.hyper)

    def lower(at: Tree, phi: Tree, _: Any) -> Tensor:
        bound = trained.bind(at, phi)
        return bernoulli_kl(bound.model, bound.posterior, points).mean()

    rate = _safe_rate(trained, points) if alpha is None else alpha
    update = partial(sgd_update, lr=rate)
    truth = flat(trained.true_gradient(data, noise["visible"]))
    steps = [None] * (max(inner) + max(unroll))
    path = trajectory(lower, theta, trained.phi, {}, steps, update)  # without noise, phi^N is its place K + N
    rows = []
    for k in inner:
        upper = partial(trained.upper, data, noise)
        found, places = as_trained(trained, upper, lower, path[k:], steps, update, unroll)
        for n in unroll:
            first, last = places[0][0], places[n][0]
            rows.append(
                Bias(
                    inner_steps=k,
                    unroll_steps=n,
                    bias=float((flat(found[n]) - truth).norm()),
                    noise_floor=0.0,
                    gradient=float(truth.norm()),
                    start=float(distance(first, best)),
                    moved=float(distance(last, first)),
                    left=float(distance(last, best)),
                )
            )
    return Theorem2(rate, rows)


def _safe_rate(trained: Trained, points: Tensor) -> float:
    """1 / the largest curvature at phi* or at the trained phi."""
    bound = trained.bind(trained.theta, trained.phi)
    best, given = bound.model.hidden_logits(points), bound.posterior.logits(points)
    return 1 / max(float(largest_curvature(logit_curvature(logits, best), points)) for logits in (given, best))
