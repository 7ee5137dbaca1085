"""The gradient's bias on a GRBM: closed forms, Theorem 2 at the rate that the spectrum predicts, and the practical
algorithm's mean over draws."""

import dataclasses
import functools
import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, jacrev
from torch.nn.functional import logsigmoid

from baselines import DSM
from bism import BiDSM, InputError
from bism.bias import (
    Moments,
    Trained,
    bernoulli_kl,
    distance,
    exact_posterior,
    hypergradients,
    largest_curvature,
    logit_curvature,
    practical,
    practical_draw,
    spectrum,
    theorem1,
    theorem2,
    trajectory,
)
from bism.bilevel import descend, unrolled
from bism.posteriors import RelaxedBernoulli
from bism.rng import Rng, generator
from tests.maths.checks import (
    configurations,
    draws,
    exact_kl,
    flat,
    hermite,
    hyper,
    make_grbm,
    moved,
    parameters,
    product,
    relative,
    state_of,
    step_gradient,
    whole_step,
)

D, M, SIGMA = 6, 3, 0.3


def trained(phi_off: float = 0.0, visible: int = D, hidden: int = M, **options: Any) -> Trained:
    """A GRBM with mild logits, and a posterior that far from phi*, with the optimiser at its start."""
    model = make_grbm(visible, hidden)
    with torch.no_grad():
        model.W.mul_(0.5)
    theta = parameters(model)
    params = {"model": theta, "posterior": moved(exact_posterior(theta), phi_off)}
    estimator = BiDSM(sigma=SIGMA, **options)
    return Trained(estimator, model, params, estimator.init_optimiser(params)["posterior"])


def data(count: int = 40, visible: int = D) -> Tensor:
    """Visible vectors."""
    return draws(3).normal((count, visible))


def fixed_noise(at: Trained, v: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """The noise of ``theorem2``, by its documented seeding."""
    rng = Rng(generator(seed, 0, "theorem 2"), torch.float64)
    return {"visible": rng.normal(tuple(v.shape)), "hidden": rng.logistic((len(v), at.model.latent.size))}


def kl_of(at: Trained, v: Tensor) -> Any:
    """phi -> the mean closed-form KL at v."""

    def value(phi: Any) -> Tensor:
        bound = at.bind(at.theta, phi)
        return bernoulli_kl(bound.model, bound.posterior, v).mean()

    return value


# --- closed forms -----------------------------------------------------------------------------------------------------


def test_the_exact_posterior_is_p_of_h_given_v() -> None:
    at, v = trained(), data()
    assert at.phi.keys() == exact_posterior(at.theta).keys() == parameters(RelaxedBernoulli((D,), M)).keys()
    log_p = torch.stack([-at.model.energy(v, h.expand(len(v), -1)) for h in configurations(M)]).log_softmax(0)
    q = at.bind(at.theta, exact_posterior(at.theta)).posterior
    log_q = torch.stack([q.log_prob(h.expand(len(v), -1), v) for h in configurations(M)])
    torch.testing.assert_close(log_q, log_p.detach())


def test_the_closed_form_kl_is_the_sum_over_h() -> None:
    # exact_kl is eq. (10), the KL less log p~(v) = -F(v)
    at, v = trained(0.7), data()
    bound = at.bind(at.theta, at.phi)
    expected = exact_kl(bound.model, bound.posterior, v) - bound.model.free_energy(v)
    torch.testing.assert_close(bernoulli_kl(bound.model, bound.posterior, v), expected, rtol=1e-10, atol=1e-12)


def test_the_exact_posterior_minimises_the_kl() -> None:
    at, v = trained(), data()
    value, best = kl_of(at, v), exact_posterior(at.theta)
    assert abs(float(value(best))) < 1e-15
    assert float(flat(grad(value)(best)).norm()) < 1e-15
    for seed in range(5):
        assert float(value(moved(best, 0.01, seed))) > 1e-7


class Logits:
    """Stands for a model or a posterior with these logits."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def logits(self, v: Tensor) -> Tensor:
        return self.values

    hidden_logits = logits


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_the_kl_of_saturated_units_keeps_its_digits(sign: float) -> None:
    # float32 against float64 where 1 - sigmoid(l) is 0 or the difference of the logarithms cancels
    l = sign * torch.tensor([[30.0], [90.0], [0.01], [25.0], [-40.0]], dtype=torch.float64)  # noqa: E741
    best = sign * torch.tensor([[31.0], [80.0], [0.0], [-25.0], [3.0]], dtype=torch.float64)
    q = l.sigmoid()
    expected = (q * (logsigmoid(l) - logsigmoid(best)) + (-l).sigmoid() * (logsigmoid(-l) - logsigmoid(-best))).sum(1)
    # with e = 1 - q and f = 1 - p tiny: (1 - q) log(e / f) + q log(q / p) = e log(e / f) - e + f
    expected[0] = math.exp(-30) * 1 - math.exp(-30) + math.exp(-31)
    expected[1] = math.exp(-90) * -10 - math.exp(-90) + math.exp(-80)
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 2e-3)):
        found = bernoulli_kl(Logits(best.to(dtype)), Logits(l.to(dtype)), l)
        torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=1e-40)


def test_distance_is_over_all_numbers() -> None:
    a = {"w": torch.tensor([[3.0, 0.0]]), "b": torch.tensor([0.0])}
    b = {"b": torch.tensor([-4.0]), "w": torch.tensor([[0.0, 0.0]])}
    assert float(distance(a, b)) == 5.0
    assert float(distance(a, a)) == 0.0


@pytest.mark.parametrize("off", [0.0, 0.7])
def test_the_curvatures_are_those_of_the_kl(off: float) -> None:
    # the Hessian in phi by autograd: its eigenvalues are those of the units' blocks, the largest by power iteration
    at, v = trained(off), data()
    bound = at.bind(at.theta, at.phi)
    weights = logit_curvature(bound.posterior.logits(v), bound.model.hidden_logits(v))
    value = kl_of(at, v)
    names, shapes = list(at.phi), [x.shape for x in at.phi.values()]

    def of_vector(x: Tensor) -> Tensor:
        parts = x.split([shape.numel() for shape in shapes])
        return value({n: p.reshape(s) for n, p, s in zip(names, parts, shapes, strict=True)})

    expected = torch.linalg.eigvalsh(jacrev(grad(of_vector))(flat(at.phi)))
    blocks = spectrum(weights, v)
    assert blocks.shape == (M, D + 1)
    torch.testing.assert_close(blocks.flatten().sort()[0], expected, rtol=1e-8, atol=1e-12)
    assert float(largest_curvature(weights, v)) == pytest.approx(float(expected.abs().max()), rel=1e-3)
    if not off:
        variance = bound.model.hidden_logits(v).sigmoid()
        torch.testing.assert_close(weights, variance * (1 - variance))


# --- Theorem 1 --------------------------------------------------------------------------------------------------------


def test_at_the_true_posterior_the_gradients_are_the_same_unless_it_is_frozen() -> None:
    # frozen, what is missing is dJ/dphi at phi*, since phi* = (W, c) copies theta: the bias at N = 0 from phi^0 = phi*
    at, v = trained(0.7), data()
    found = theorem1(at, v)
    assert found.error < 1e-12
    (row,) = theorem2(trained(), v, inner=(0,), unroll=(0,)).rows
    assert found.frozen == pytest.approx(row.bias / row.gradient, rel=1e-9)
    assert found.frozen > 0.02


# --- Theorem 2 --------------------------------------------------------------------------------------------------------


def by_hand(at: Trained, v: Tensor, alpha: float, inner: int, unroll: int) -> tuple[Tensor, Tensor, Tensor]:
    """Eq. (14) less the marginal gradient with the KL's gradient written out and Jacobians instead of backpropagation.

    Returns the bias [p], phi^0 and phi^N.
    """
    noise = fixed_noise(at, v)
    points = v + SIGMA * noise["visible"]
    state = state_of({}, model=at.model, posterior=RelaxedBernoulli((D,), M))

    def steps(theta: Any, phi: Any, count: int) -> Any:
        w, b = phi["network.1.weight"], phi["network.1.bias"]
        for _ in range(count):
            logits = points @ w.T + b
            q = logits.sigmoid()
            slope = q * (1 - q) * (logits - theta["c"] - points @ theta["W"]) / len(v)
            w, b = w - alpha * slope.T @ points, b - alpha * slope.sum(0)
        return {"network.1.weight": w, "network.1.bias": b}

    def upper(theta: Any, phi: Any) -> Tensor:
        bound = state.bind({"model": theta, "posterior": phi})
        return at.estimator.loss(bound, v, {"upper": noise}, {}, hyper(at.estimator))[0]

    marginal = DSM(sigma=SIGMA)
    target = grad(
        lambda theta: marginal.loss(state.bind({"model": theta}), v, noise["visible"], {}, hyper(marginal))[0]
    )
    first = steps(at.theta, at.phi, inner)
    last = steps(at.theta, first, unroll)
    gradient = flat(grad(upper)(at.theta, last))
    if unroll:
        jacobian = jacrev(lambda theta: flat(steps(theta, first, unroll)))(at.theta)
        through = flat(grad(upper, argnums=1)(at.theta, last))
        gradient = gradient + torch.cat([(through @ jacobian[name].flatten(1)) for name in at.theta])
    return gradient - flat(target(at.theta)), flat(first), flat(last)


def test_theorem_2_s_study_against_jacobians() -> None:
    at, v, alpha = trained(0.3), data(), 0.5
    found = theorem2(at, v, inner=(0, 3), unroll=(0, 1, 4), alpha=alpha)
    best = flat(exact_posterior(at.theta))
    assert found.alpha == alpha
    assert [(row.inner_steps, row.unroll_steps) for row in found.rows] == [(k, n) for k in (0, 3) for n in (0, 1, 4)]
    for row in found.rows:
        bias, first, last = by_hand(at, v, alpha, row.inner_steps, row.unroll_steps)
        assert row.bias == pytest.approx(float(bias.norm()), rel=1e-9)
        assert row.start == pytest.approx(float((first - best).norm()), rel=1e-9)
        assert row.moved == pytest.approx(float((last - first).norm()), rel=1e-9, abs=1e-12)
        assert row.left == pytest.approx(float((last - best).norm()), rel=1e-9)
        assert row.noise_floor == 0


def test_without_unrolling_the_bias_is_the_second_term_of_eq_14() -> None:
    # from phi^0 = phi*, as the true gradient has it: dJ/dphi dphi*/dtheta, and phi* = (W, c) copies theta
    at, v = trained(), data()
    noise = fixed_noise(at, v)
    slope = grad(lambda phi: at.upper(v, noise, at.theta, phi))(exact_posterior(at.theta))
    (row,) = theorem2(at, v, inner=(0,), unroll=(0,)).rows
    assert row.start == 0
    assert row.bias == pytest.approx(float(flat(slope).norm()), rel=1e-9)
    assert row.bias > 0.02 * row.gradient


def decay(at: Trained, counts: tuple[int, ...]) -> tuple[list[float], float]:
    """The bias after N steps, and kappa = 1 - alpha * smallest curvature at phi*.

    The first visible unit varies little, so that each hidden unit has one slowest direction, well apart."""
    v = data() * torch.tensor([0.1, *[1.0] * (D - 1)], dtype=torch.float64)
    found = theorem2(at, v, inner=(0,), unroll=counts)
    points = v + SIGMA * fixed_noise(at, v)["visible"]
    logits = at.model.hidden_logits(points).detach()
    values = spectrum(logit_curvature(logits, logits), points)
    assert values.min() > 1e-2  # strongly convex
    assert found.alpha <= (1 + 1e-3) / values.max()
    return [row.bias for row in found.rows], 1 - found.alpha * float(values.min())


def test_from_the_exact_posterior_the_bias_decays_as_the_spectrum_says() -> None:
    # phi^N = phi* for every N, but its derivative in theta starts at 0: there is a bias, Theorem 2's C, and it falls as
    # kappa^N
    (none, *biases), kappa = decay(trained(hidden=1), (0, 80, 120, 160))
    for before, after in itertools.pairwise(biases):
        assert math.log(after / before) / 40 == pytest.approx(math.log(kappa), rel=1e-5)
    assert biases[-1] < 1e-2 * none


@pytest.mark.parametrize("off", [0.0, 0.2])
def test_several_units_decay_as_the_slowest(off: float) -> None:
    # three units have slowest directions that are nearly as slow; from phi^0 beside phi* too
    (none, *biases), kappa = decay(trained(off), (0, 80, 120, 160))
    for before, after in itertools.pairwise(biases):
        assert math.log(after / before) / 40 == pytest.approx(math.log(kappa), rel=0.03)
    assert biases[-1] < 1e-2 * none


def test_more_inner_steps_begin_nearer_and_end_with_less_bias() -> None:
    rows = theorem2(trained(0.5), data(), inner=(0, 5, 20), unroll=(0, 10)).rows
    for n in (0, 10):
        of = [row for row in rows if row.unroll_steps == n]
        assert of[0].start > of[1].start > of[2].start
        assert of[0].bias > of[1].bias > of[2].bias


def test_the_rate_is_safe_at_both_ends() -> None:
    # Where units are saturated at phi* and not yet at phi^0 the KL curves more at phi^0: alpha heeds it, and phi comes
    # nearer at every step. Otherwise phi* has the say.
    v = data()
    for scale, start, end in ((8.0, 0.2, 0), (1.0, 2.0, 1)):
        at = trained()
        theta = {**at.theta, "W": scale * at.theta["W"], "c": scale * at.theta["c"]}
        phi = {name: start * x for name, x in exact_posterior(theta).items()}
        at = dataclasses.replace(at, params={"model": theta, "posterior": phi})
        points = v + SIGMA * fixed_noise(at, v)["visible"]
        bound = at.bind(theta, phi)
        best, given = bound.model.hidden_logits(points), bound.posterior.logits(points)
        sizes = [float(spectrum(logit_curvature(x, best), points).abs().max()) for x in (given, best)]
        assert sizes[end] > 1.1 * sizes[1 - end]
        found = theorem2(at, v, inner=(0,), unroll=tuple(range(8)))
        assert found.alpha == pytest.approx(1 / sizes[end], rel=1e-3)
        left = [row.left for row in found.rows]
        assert left == sorted(left, reverse=True)


def test_too_few_points_do_not_span_phi() -> None:
    with pytest.raises(InputError, match="more than the 6 visible units"):
        theorem2(trained(), data(6))
    theorem2(trained(), data(7), inner=(0,), unroll=(0,))


# --- the practical algorithm ------------------------------------------------------------------------------------------

GRID: dict[str, Any] = {"inner": (0, 2), "unroll": (0, 1, 3), "batch_size": 8}


@functools.cache
def far() -> Trained:
    """Away from phi*, with a running state of Adam that is not at its start."""
    at = trained(0.4, lr_posterior=0.03, temperature=0.5)
    state = {
        "first": moved(at.optimiser["first"], 0.01),
        "second": {name: x + 0.02 for name, x in at.optimiser["second"].items()},
        "count": torch.tensor(7.0, dtype=torch.float64),
    }
    return dataclasses.replace(at, optimiser=state)


def test_the_mean_and_the_floor_are_those_of_the_stored_gradients() -> None:
    at, v, count = far(), data(), 12
    rows = practical(at, v, draws=count, seed=5, **GRID)
    kept = [practical_draw(at, v, seed=5, index=i, **GRID) for i in range(count)]
    truth = torch.stack([gradient for _, gradient in kept]).mean(0)
    assert [(row.inner_steps, row.unroll_steps) for row in rows] == [(k, n) for k in (0, 2) for n in (0, 1, 3)]
    for row in rows:
        cell = row.inner_steps, row.unroll_steps
        differences = torch.stack([drawn[cell].difference for drawn, _ in kept])
        assert row.bias == pytest.approx(float(differences.mean(0).norm()), rel=1e-12)
        assert row.noise_floor == pytest.approx(float((differences.var(0).sum() / count).sqrt()), rel=1e-12)
        assert row.gradient == pytest.approx(float(truth.norm()), rel=1e-12)
        for name in ("start", "moved", "left"):
            values = [getattr(drawn[cell], name) for drawn, _ in kept]
            assert getattr(row, name) == pytest.approx(sum(values) / count, rel=1e-6, abs=1e-12)
        assert row.bias < float(differences.norm(dim=1).mean())  # the mean comes before the norm


def test_a_draw_is_a_training_step_s_gradient() -> None:
    # the same minibatch and noise through BiDSM.step: its K, its N, its running state; and DSM's gradient
    at, v = far(), data()
    for inner, unroll in ((2, 3), (0, 1), (2, 0)):
        estimator = dataclasses.replace(at.estimator, inner_steps=inner, unroll_steps=unroll)
        rng = Rng(generator(1, 4, "gradient bias"), torch.float64)
        batches, drawn = at.draw(v, rng, inner, unroll, 8)
        state = state_of(at.params, model=at.model, posterior=RelaxedBernoulli((D,), M))
        state = state.replace(optimiser={**estimator.init_optimiser(at.params), "posterior": at.optimiser})
        after, _ = whole_step(estimator, state, batches, drawn, hyper(estimator))
        marginal = DSM(sigma=SIGMA)
        truth = grad(
            lambda theta, marginal=marginal, state=state, batch=batches[0], eps=drawn[0]["upper"]["visible"]: (
                marginal.loss(state.bind({"model": theta}), batch, eps, {}, hyper(marginal))[0]
            )
        )(at.theta)
        found, gradient = practical_draw(at, v, seed=1, index=4, inner=(inner,), unroll=(unroll,), batch_size=8)
        assert relative(gradient, flat(truth)) < 1e-10
        one = found[inner, unroll]
        assert relative(one.difference, flat(step_gradient(estimator, state, after)) - flat(truth)) < 1e-8
        start = flat(after.params["posterior"]) - flat(exact_posterior(at.theta))
        assert one.start == pytest.approx(float(start.norm()), rel=1e-10)


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_the_gradients_of_all_n_at_once_are_those_of_training(optimiser: str) -> None:
    at = trained(0.4, lr_posterior=0.03, temperature=0.5, lower_optimiser=optimiser)
    values, update = hyper(at.estimator), at.estimator.update("posterior", hyper(at.estimator))
    batches, (noise, (inner,)) = at.draw(data(), draws(6), 4, 6, 8)

    def lower(theta: Any, phi: Any, drawn: Any) -> Tensor:
        return at.estimator.lower_loss(at.bind(theta, phi), batches[0], drawn, values)

    phi, state = descend(functools.partial(lower, at.theta), at.phi, at.optimiser, inner, update)
    upper = functools.partial(at.upper, batches[0], noise["upper"])
    places = trajectory(lower, at.theta, phi, state, noise["unroll"], update)
    found = hypergradients(upper, lower, at.theta, places, noise["unroll"], update, (6, 0, 1, 4))
    assert found.keys() == {0, 1, 4, 6}
    for n, gradient in found.items():
        expected = grad(unrolled(upper, lower, phi, state, noise["unroll"][:n], update))(at.theta)
        assert relative(gradient, expected) < 1e-12
    assert relative(found[6], found[4]) > 1e-3


def test_fresh_minibatches_are_those_of_the_inner_steps() -> None:
    at = dataclasses.replace(far(), estimator=dataclasses.replace(far().estimator, inner_batches="fresh"))
    rng = Rng(generator(1, 4, "gradient bias"), torch.float64)
    batches, noise = at.draw(data(), rng, 2, 0, 8)
    estimator = dataclasses.replace(at.estimator, inner_steps=2, unroll_steps=0)
    state = state_of(at.params, model=at.model, posterior=RelaxedBernoulli((D,), M))
    optimiser = {**estimator.init_optimiser(at.params), "posterior": at.optimiser}
    after, _ = whole_step(estimator, state.replace(optimiser=optimiser), batches, noise, hyper(estimator))
    drawn, _ = practical_draw(at, data(), seed=1, index=4, inner=(2,), unroll=(0,), batch_size=8)
    start = flat(after.params["posterior"]) - flat(exact_posterior(at.theta))
    assert drawn[2, 0].start == pytest.approx(float(start.norm()), rel=1e-10)


def test_a_draw_is_a_function_of_seed_and_index_alone() -> None:
    at, v = dataclasses.replace(far()), data()  # a copy, which has built nothing yet
    before = torch.get_rng_state()
    a, b = (practical_draw(at, v, seed=2, index=3, **GRID)[0][2, 3].difference for _ in range(2))
    assert torch.equal(a, b)
    assert torch.equal(torch.get_rng_state(), before)
    for seed, index in ((2, 4), (3, 3)):
        assert not torch.equal(a, practical_draw(at, v, seed=seed, index=index, **GRID)[0][2, 3].difference)
    assert practical(at, v, draws=2, **GRID) == practical(at, v, draws=2, **GRID)
    assert theorem2(at, v, inner=(1,), unroll=(2,)) == theorem2(at, v, inner=(1,), unroll=(2,))


def test_the_noise_floor_is_the_spread_of_repetitions() -> None:
    # the mean of M draws, 40 times: its squared distance from the overall mean is the floor's square
    at, v, repetitions, count = far(), data(), 40, 6
    grid: dict[str, Any] = {"inner": (1,), "unroll": (1,), "batch_size": 8}
    means, floors = [], []
    for seed in range(repetitions):
        moments = Moments()
        for index in range(count):
            moments.add(practical_draw(at, v, seed=seed, index=index, **grid)[0][1, 1].difference)
        means.append(moments.mean)
        floors.append(moments.noise_floor**2)
    spread = float(torch.stack(means).var(0).sum())
    assert spread == pytest.approx(sum(floors) / repetitions, rel=0.3)


def test_moments_where_the_mean_is_far_from_zero() -> None:
    # a sum of squares less the square of the sum would have no digits left
    x = 1e9 + draws(0).normal((50, 4))
    moments = Moments()
    for row in x:
        moments.add(row)
    torch.testing.assert_close(moments.mean, x.mean(0), rtol=1e-15, atol=0)
    assert moments.noise_floor == pytest.approx(float((x.var(0).sum() / 50).sqrt()), rel=1e-6)
    one = Moments()
    one.add(x[0])
    assert math.isnan(one.noise_floor)


def test_a_posterior_that_cannot_move_has_one_bias_for_every_k_and_n() -> None:
    still = dataclasses.replace(far(), estimator=dataclasses.replace(far().estimator, lr_posterior=1e-300))
    rows = practical(still, data(), draws=3, **GRID)
    assert {row.bias for row in rows} == {rows[0].bias}
    assert {row.start for row in rows} == {rows[0].start}
    assert all(row.moved == 0 for row in rows)
    assert {row.bias for row in practical(far(), data(), draws=3, **GRID)} != {rows[0].bias}


def test_hard_samples_have_the_enumerated_bias() -> None:
    # temperature -> 0, N = 0, one example: h is Bernoulli(q), so that the expected bias is a sum over h under a
    # quadrature over eps. 400 draws must lie within a few noise floors of it, and the floor below the bias.
    at = trained(0.8, visible=2, hidden=2, temperature=1e-6)
    v = data(1, visible=2)
    eps, weights = hermite(20, 2)
    h = configurations(2)
    state = state_of({}, model=at.model, posterior=RelaxedBernoulli((2,), 2))
    theta = at.theta
    nodes, hs, both = product((eps, weights), (h, torch.ones(len(h), dtype=torch.float64)))
    points = v + SIGMA * nodes
    bound = at.bind(theta, at.phi)
    shares = both * bound.posterior.log_prob(hs, points).exp()
    logits = bound.posterior.logits(points)
    given = {"visible": nodes, "hidden": (2 * hs - 1) * (logits.abs() + 1)}  # whose hard sample is h
    assert torch.equal(bound.posterior.sample_hard(points, given["hidden"]), hs)

    def bilevel(at_theta: Any) -> Tensor:
        params = state.bind({"model": at_theta, "posterior": at.phi})
        values = [
            at.estimator.loss(
                params,
                v,
                {"upper": {"visible": given["visible"][i : i + 1], "hidden": given["hidden"][i : i + 1]}},
                {},
                hyper(at.estimator),
            )[0]
            for i in range(len(nodes))
        ]
        return shares @ torch.stack(values)

    marginal = DSM(sigma=SIGMA)

    def reference(at_theta: Any) -> Tensor:
        objective = marginal.objective(
            lambda x: -state.bind({"model": at_theta}).model.free_energy(x),
            v.expand(len(eps), -1),
            eps,
            hyper(marginal),
        )
        return weights @ objective

    expected = flat(grad(bilevel)(theta)) - flat(grad(reference)(theta))
    moments = Moments()
    for index in range(150):
        drawn, _ = practical_draw(at, v, seed=0, index=index, inner=(0,), unroll=(0,), batch_size=50)
        moments.add(drawn[0, 0].difference)
    assert float((moments.mean - expected).norm()) < 2 * moments.noise_floor
    assert moments.noise_floor < 0.15 * float(expected.norm())


# --- what is asked for ------------------------------------------------------------------------------------------------


def test_another_posterior_or_model_is_refused() -> None:
    at = trained()
    with pytest.raises(InputError, match="one linear layer"):
        dataclasses.replace(at, params={"model": at.theta, "posterior": {"w": at.theta["W"]}})
    with pytest.raises(InputError, match="draws must be at least 2"):
        practical(at, data(), draws=1)
    with pytest.raises(InputError, match="unroll must name"):
        theorem2(at, data(), unroll=())
