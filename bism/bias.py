"""The bias of the bi-level gradient on a model where the truth is known: Theorem 2 and Figure 1.

The bias after N unrolled steps is eq. (14) minus the gradient of the marginal objective, eq. (7). On a GRBM with one
linear layer as posterior both ends are known: phi*(theta) = (W, c) is p(h|v) itself, whatever the data, so that by
Theorem 1 the true gradient is that of DSM on the free energy. Two studies, at one point theta, phi of a training:

``theorem2``   nothing is random: fixed points, the exact KL, gradient descent. The theorem speaks of this.
``practical``  the algorithm as it trains (Adam's running state, relaxed samples, minibatches), averaged over draws.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, vjp
from torch.nn.functional import logsigmoid
from torch.utils._pytree import tree_leaves, tree_map

from bism.bilevel import LowerLevel, descend
from bism.checks import check_count, check_data, check_model
from bism.errors import InputError
from bism.estimator import Hyper
from bism.functional import Methods
from bism.methods import BiDSM
from bism.models import GRBM
from bism.optimisers import Tree, Update, sgd_update
from bism.posteriors import RelaxedBernoulli
from bism.rng import Rng, generator
from bism.state import State

INNER = (0, 5, 10, 20)  # K
UNROLL = (0, 1, 2, 3, 5, 7, 10, 15, 20, 30, 40)  # N
_ITERATIONS = 200  # of the power iteration, at most


# --- what is known in closed form -------------------------------------------------------------------------------------


def exact_posterior(theta: Tree) -> Tree:
    """phi*(theta) = (W, c), the parameters at which ``RelaxedBernoulli``'s one linear layer is p(h|v) of a GRBM.

    Differentiable in theta, and the minimiser of eq. (9) for every q(v).

    Args:
        theta: a GRBM's parameters by name.
    """
    return {"network.1.weight": theta["W"].T, "network.1.bias": theta["c"]}


def flat(tree: Tree) -> Tensor:
    """All numbers of a tree in one vector."""
    return torch.cat([leaf.flatten() for leaf in tree_leaves(tree)])


def distance(a: Tree, b: Tree) -> Tensor:
    """L2 distance of two sets of parameters over all their numbers, a scalar: ||phi^0 - phi*|| of Theorem 2."""
    return torch.stack([(a[name] - b[name]).square().sum() for name in a]).sum().sqrt()


def bernoulli_kl(model: GRBM, posterior: RelaxedBernoulli, v: Tensor) -> Tensor:
    """KL(q(h|v) || p(h|v)) of eq. (10) in closed form, [batch].

    sum_j q_j (l_j - l*_j) + log (1 - q_j) - log (1 - p_j), q = sigmoid(l), p = sigmoid(l*). Swapping h for 1 - h only
    changes the signs of l and l*: each unit is taken on the side where q <= 1/2, where no digits are lost.
    """
    logits, best = posterior.logits(v), model.hidden_logits(v)
    side = torch.where(logits > 0, -1.0, 1.0).to(v.dtype)
    logits, best = side * logits, side * best
    return (logits.sigmoid() * (logits - best) + logsigmoid(-logits) - logsigmoid(-best)).sum(-1)


def logit_curvature(logits: Tensor, best: Tensor) -> Tensor:
    """Second derivative in l of KL(Bernoulli(sigmoid(l)) || Bernoulli(sigmoid(l*))): q (1 - q) (1 + (1 - 2q) (l - l*)).

    At l = l* it is the variance q (1 - q); far from it it may be negative: G is strongly convex near phi* alone.
    """
    q = logits.sigmoid()
    return q * (1 - q) * (1 + (1 - 2 * q) * (logits - best))


def largest_curvature(weights: Tensor, v: Tensor) -> Tensor:
    """The eigenvalue of largest size of the Hessian in phi of the mean of ``bernoulli_kl``, by power iteration.

    The Hessian has one block for each hidden unit, H_j = mean_n w_nj x_n x_n^T with x = (v, 1): all blocks are
    iterated at once, for the price of two products with the data.

    Args:
        weights: [n, m], from ``logit_curvature``.
        v: the points, [n, D].
    """
    x = _with_one(v)
    start = torch.randn(x.shape[1], weights.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vectors, largest = start.to(x), x.new_zeros(())
    for _ in range(_ITERATIONS):
        vectors = vectors / vectors.norm(dim=0).clamp_min(torch.finfo(x.dtype).tiny)
        vectors, before = x.T @ (weights * (x @ vectors)) / len(x), largest
        largest = vectors.norm(dim=0).max()
        if (largest - before).abs() <= 1e-5 * largest:
            break
    return largest


def spectrum(weights: Tensor, v: Tensor) -> Tensor:
    """All eigenvalues of that Hessian, ascending for each hidden unit, [m, D + 1]; m decompositions of D + 1 squared.

    Under gradient descent at rate alpha, Theorem 2's kappa is 1 - alpha * the smallest, for alpha <= 1 / the largest.
    """
    x = _with_one(v)
    return torch.stack([torch.linalg.eigvalsh((x.T * w) @ x / len(x)) for w in weights.T])


def _with_one(v: Tensor) -> Tensor:
    """(v, 1), [n, D + 1]: what the linear layer's weights and bias multiply."""
    return torch.cat([v.flatten(1), v.new_ones(len(v), 1)], dim=1)


# --- a point of a training --------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Trained:
    """BiDSM on a GRBM after some steps of training.

    Args:
        estimator: with the hyper-parameters it trains with; its K and N are not used here.
        model: a GRBM; only its structure is used.
        params: {"model": theta, "posterior": phi}, phi of ``RelaxedBernoulli``'s one linear layer.
        optimiser: running state of the lower level's optimiser; ``theorem2`` does not use it.
    """

    estimator: BiDSM
    model: GRBM
    params: Tree
    optimiser: Tree

    def __post_init__(self) -> None:
        check_model(self.estimator, self.model)
        if not isinstance(self.model, GRBM):
            raise InputError(f"model must be a GRBM, whose posterior is known; got {type(self.model).__name__}")
        wanted = {name: tuple(x.shape) for name, x in exact_posterior(self.theta).items()}
        given = {name: tuple(x.shape) for name, x in self.phi.items()}
        if given != wanted:
            raise InputError(f"the posterior must be RelaxedBernoulli's one linear layer, {wanted}; got {given}")

    @property
    def theta(self) -> Tree:
        """The model's parameters."""
        return self.params["model"]

    @property
    def phi(self) -> Tree:
        """The posterior's."""
        return self.params["posterior"]

    @property
    def hyper(self) -> Hyper:
        """The continuous hyper-parameters as tensors."""
        like = self.theta["W"]
        return {name: torch.tensor(x, dtype=like.dtype, device=like.device) for name, x in self.estimator.hyper.items()}

    @cached_property
    def _structure(self) -> State:
        with torch.device("meta"):  # the posterior's own numbers are never used: none are drawn
            modules = self.estimator.modules(self.model, {})
        return State({name: Methods(module) for name, module in modules.items()}, {}, {}, {})

    def bind(self, theta: Tree, phi: Tree) -> Any:
        """Model and posterior at given parameters."""
        return self._structure.bind({"model": theta, "posterior": phi})

    def upper(self, batch: Tensor, noise: Any, theta: Tree, phi: Tree) -> Tensor:
        """J_Bi of eq. (8) on a minibatch.

        Args:
            noise: {"visible": eps [batch, D], "hidden": logistic noise [batch, m]}.
        """
        return self.estimator.loss(self.bind(theta, phi), batch, {"upper": noise}, {}, self.hyper)[0]

    def true_gradient(self, batch: Tensor, eps: Tensor) -> Tree:
        """Gradient in theta of the marginal objective, DSM of eq. (4) on the free energy, at the same noise."""

        def objective(at: Tree) -> Tensor:
            model = self.bind(at, self.phi).model
            return self.estimator.objective(lambda v: -model.free_energy(v), batch, eps, self.hyper).mean()

        return grad(objective)(self.theta)

    def draw(self, data: Tensor, rng: Rng, inner: int, unroll: int, batch_size: int) -> tuple[Tensor, Any]:
        """Minibatches [minibatches, batch, D], drawn with replacement, and what ``Stage.draw`` gives for one step with
        K and N."""
        (stage,) = dataclasses.replace(self.estimator, inner_steps=inner, unroll_steps=unroll).stages
        chosen = rng.integers(len(data), (stage.all_minibatches, batch_size))
        return data[chosen], stage.draw(self.model, (batch_size, *data.shape[1:]), rng)


@dataclasses.dataclass(frozen=True)
class Bias:
    """One point of Figure 1.

    Attributes:
        inner_steps, unroll_steps: K and N.
        bias: norm of the (mean) difference of eq. (14) from the true gradient.
        noise_floor: what ``bias`` would be about, had the draws no bias at all; 0 where nothing is random.
        gradient: norm of the (mean) true gradient, to read the bias against.
        start: ||phi^0 - phi*||, phi^0 after K steps; a mean over the draws, as are the next two.
        moved: ||phi^N - phi^0||.
        left: ||phi^N - phi*||.
    """

    inner_steps: int
    unroll_steps: int
    bias: float
    noise_floor: float
    gradient: float
    start: float
    moved: float
    left: float


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


def _as_trained(
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


def _check_grids(inner: Sequence[int], unroll: Sequence[int]) -> None:
    for name, grid in (("inner", inner), ("unroll", unroll)):
        if not grid:
            raise InputError(f"{name} must name at least one number of steps")
        for steps in grid:
            check_count(name, steps, 0)


# --- Theorem 2 --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Theorem2:
    """What ``theorem2`` found: ``alpha``, the rate of its gradient descent, and a row for each K and N."""

    alpha: float
    rows: list[Bias]


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
    _check_grids(inner, unroll)
    check_data(data, trained.model)
    if len(data) <= data[0].numel():
        raise InputError(f"data must be more than the {data[0].numel()} visible units to span them, got {len(data)}")
    theta, best = trained.theta, exact_posterior(trained.theta)
    rng = Rng(generator(seed, 0, "theorem 2", data.device), data.dtype)
    noise = {
        "visible": trained.estimator.draw(tuple(data.shape), rng),
        "hidden": trained.model.latent.noise(rng, (len(data),)),
    }
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
        found, places = _as_trained(trained, upper, lower, path[k:], steps, update, unroll)
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


# --- the practical algorithm ------------------------------------------------------------------------------------------


class Moments:
    """Running mean and variance of each component of a vector (Welford 1962), in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.mean, self._squares = torch.zeros(()), torch.zeros(())

    def add(self, x: Tensor) -> None:
        """Takes in one more vector."""
        x = x.double()
        if not self.count:
            self.mean, self._squares = torch.zeros_like(x), torch.zeros_like(x)
        self.count += 1
        before = x - self.mean
        self.mean += before / self.count
        self._squares += before * (x - self.mean)

    @property
    def noise_floor(self) -> float:
        """sqrt(sum of the components' variances / count): the root mean square distance of ``mean`` from the expected
        vector, which is the norm that a vector of expectation zero would show. Not known from one vector."""
        return float((self._squares.sum() / (self.count - 1) / self.count).sqrt()) if self.count > 1 else float("nan")


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
        found, path = _as_trained(trained, upper, lower, path, ahead, update, unroll)
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
    _check_grids(inner, unroll)
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
