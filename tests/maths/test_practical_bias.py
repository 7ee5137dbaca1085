"""The bias that training has: the practical algorithm's gradient, its mean over draws and its noise floor."""

import dataclasses
import functools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad

from baselines import DSM
from bism.bias import (
    Moments,
    Trained,
    exact_posterior,
    hypergradients,
    practical,
    practical_draw,
    theorem2,
    trajectory,
)
from bism.bilevel import descend, unrolled
from bism.posteriors import RelaxedBernoulli
from bism.rng import Rng, generator
from tests.maths.checks import step_gradient, whole_step
from tests.maths.exact import configurations, draws, flat, hermite, hyper, moved, product, relative, state_of
from tests.maths.test_bias import SIGMA, D, M, data, trained

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
