"""Implicit hypergradients: the gradient through phi*, the limit of unrolling, and the solver under them."""

import dataclasses
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad

from bism import BiDSM
from bism.bias import Trained, bernoulli_kl, exact_posterior, practical_draw, theorem2
from bism.bilevel import unrolled
from bism.implicit import conjugate_gradients, hessian_product, implicit, neumann
from bism.optimisers import sgd_update
from bism.posteriors import RelaxedBernoulli
from bism.rng import Rng, generator
from tests.maths.checks import step_gradient, whole_step
from tests.maths.exact import draws, flat, hyper, make_grbm, moved, parameters, relative, state_of


def closed_form() -> tuple[Trained, Any, Any]:
    """A GRBM at phi* with both levels as fixed functions: J_Bi of BiDSM, and the exact KL at the noisy points."""
    model, estimator = make_grbm(visible=2, hidden=3), BiDSM(sigma=0.3)
    theta = parameters(model)
    at = Trained(estimator, model, {"model": theta, "posterior": exact_posterior(theta)}, {})
    v, eps = draws(1).normal((40, 2)), draws(2).normal((40, 2))
    noise = {"visible": eps, "hidden": model.latent.noise(draws(3), (40,))}

    def lower(theta: Any, phi: Any, _: Any) -> Tensor:
        bound = at.bind(theta, phi)
        return bernoulli_kl(bound.model, bound.posterior, v + 0.3 * eps).mean()

    return at, partial(at.upper, v, noise), lower


def test_conjugate_gradients_give_the_gradient_through_the_exact_posterior() -> None:
    at, upper, lower = closed_form()
    wanted = grad(lambda theta: upper(theta, exact_posterior(theta)))(at.theta)
    found = {n: grad(implicit(upper, lower, at.phi, [None] * n, 0.0))(at.theta) for n in (0, 4, 12)}
    assert relative(found[12], wanted) < 1e-8  # phi has 9 numbers
    assert relative(found[0], wanted) > 0.02
    assert relative(found[12], wanted) < relative(found[4], wanted) < relative(found[0], wanted)
    damped = grad(implicit(upper, lower, at.phi, [None] * 12, 0.1))(at.theta)
    assert 1e-3 < relative(damped, wanted) < relative(found[0], wanted)
    value = implicit(upper, lower, at.phi, [None], 0.0)(at.theta)
    torch.testing.assert_close(value, upper(at.theta, at.phi))


@pytest.mark.parametrize("count", [0, 1, 5, 20])
def test_a_neumann_series_is_as_many_unrolled_steps_from_the_exact_posterior(count: int) -> None:
    at, upper, lower = closed_form()
    noises, rate = [None] * count, 0.5
    by_steps = grad(unrolled(upper, lower, at.phi, {}, noises, partial(sgd_update, lr=rate)))(at.theta)
    assert relative(grad(neumann(upper, lower, at.phi, noises, rate))(at.theta), by_steps) < 1e-10


def test_each_term_of_the_series_has_the_noise_of_its_step() -> None:
    """Lower levels with one minimum and other curvatures: their order matters, and phi stays where it is."""
    rng = draws(4)
    roots, mixing = [rng.normal((3, 3)) for _ in range(4)], rng.normal((3, 2))
    theta = {"w": rng.normal((2,))}
    phi = {"p": mixing @ theta["w"]}

    def lower(theta: Any, phi: Any, root: Tensor) -> Tensor:
        return 0.5 * (root @ (phi["p"] - mixing @ theta["w"])).square().sum()

    def upper(theta: Any, phi: Any) -> Tensor:
        return (phi["p"].sin() * theta["w"].sum()).sum()

    def of(order: list[Tensor]) -> tuple[Tensor, Tensor]:
        by_steps = grad(unrolled(upper, lower, phi, {}, order, partial(sgd_update, lr=0.1)))(theta)
        return flat(grad(neumann(upper, lower, phi, order, 0.1))(theta)), flat(by_steps)

    found, wanted = of(roots)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    assert float((of(roots[::-1])[0] - found).norm()) > 1e-4


def test_conjugate_gradients_solve_a_linear_system() -> None:
    rng = draws(1)
    root = rng.normal((6, 6))
    matrix, right = root @ root.T + 0.1 * torch.eye(6), rng.normal((6,))

    def quadratic(at: Any) -> Tensor:
        x = torch.cat([at["a"], at["b"].flatten()])
        return 0.5 * x @ matrix @ x

    tree = {"a": right[:2], "b": right[2:].reshape(2, 2)}
    x = conjugate_gradients(hessian_product(quadratic, tree), tree, 6)
    torch.testing.assert_close(torch.cat([x["a"], x["b"].flatten()]), torch.linalg.solve(matrix, right))
    again = conjugate_gradients(hessian_product(quadratic, tree), tree, 40)  # nothing is left to solve
    torch.testing.assert_close(torch.cat([again["a"], again["b"].flatten()]), torch.linalg.solve(matrix, right))


def test_they_stop_where_there_is_no_positive_curvature() -> None:
    bent = torch.tensor([2.0, 1.0, -1.0], dtype=torch.float64)
    right = {"x": torch.tensor([1.0, 1.0, 0.1], dtype=torch.float64)}
    found = [conjugate_gradients(lambda x: {"x": bent * x["x"]}, right, n)["x"] for n in (1, 2, 3, 9)]
    assert all(x.isfinite().all() for x in found)
    torch.testing.assert_close(found[2], found[3])
    zero = conjugate_gradients(lambda x: x, {"x": torch.zeros(3, dtype=torch.float64)}, 3)["x"]
    assert torch.equal(zero, torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("hypergradient", ["implicit", "neumann"])
def test_a_step_follows_it_and_the_bias_is_measured_of_it(hypergradient: str) -> None:
    """The step's gradient less the true one is what ``practical`` averages; N = 0 is the same for all."""
    at, _, _ = closed_form()
    estimator = BiDSM(sigma=0.3, hypergradient=hypergradient, temperature=0.5, lr_posterior=0.03)
    phi = moved(at.phi, 0.3)
    params = {"model": at.theta, "posterior": phi}
    optimiser = estimator.init_optimiser(params)
    at = dataclasses.replace(at, estimator=estimator, params=params, optimiser=optimiser["posterior"])
    data, seen = draws(6).normal((30, 2)), {}
    for inner, unroll in ((2, 3), (1, 0)):
        step = dataclasses.replace(estimator, inner_steps=inner, unroll_steps=unroll)
        batches, noise = at.draw(data, Rng(generator(1, 4, "gradient bias"), torch.float64), inner, unroll, 8)
        state = state_of(params, model=at.model, posterior=RelaxedBernoulli((2,), 3)).replace(optimiser=optimiser)
        after, _ = whole_step(step, state, batches, noise, hyper(step))
        drawn, truth = practical_draw(at, data, seed=1, index=4, inner=(inner,), unroll=(unroll,), batch_size=8)
        one = drawn[inner, unroll]
        assert relative(one.difference, flat(step_gradient(step, state, after)) - truth) < 1e-8
        assert one.moved == 0
        unroll_step = dataclasses.replace(step, hypergradient="unroll")
        other, _ = whole_step(unroll_step, state, batches, noise, hyper(unroll_step))
        seen[unroll] = relative(step_gradient(step, state, after), step_gradient(step, state, other))
    assert seen[0] < 1e-12
    assert seen[3] > 1e-3


def test_theorem_2_s_study_of_conjugate_gradients() -> None:
    """From phi*, where nothing is random, as many iterations as phi has numbers leave no bias."""
    at, _, _ = closed_form()
    estimator = dataclasses.replace(at.estimator, hypergradient="implicit", damping=0.0)
    rows = theorem2(dataclasses.replace(at, estimator=estimator), draws(6).normal((30, 2)), inner=(0,), unroll=(0, 12))
    none, solved = (row.bias / row.gradient for row in rows.rows)
    assert none > 0.02
    assert solved < 1e-8
    assert all(row.moved == 0 for row in rows.rows)
