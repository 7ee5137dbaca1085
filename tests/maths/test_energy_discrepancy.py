"""Energy discrepancy against its closed form on a Gaussian, and its two limits."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad

from baselines import SM, EnergyDiscrepancy
from tests.maths.checks import likelihood_gradient, standard_errors
from tests.maths.exact import (
    data_of,
    draws,
    expected_gradient,
    flat,
    hermite,
    hyper,
    make_grbm,
    moved,
    parameters,
    product,
    relative,
    state_of,
)
from tests.maths.test_flow import GaussianEnergy


def quantiles(count: int) -> Tensor:
    """Standard normal points of equal weight, [count]: their mean is nearly the expectation."""
    return torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count)


def quadrature(estimator: Any, model: Any, theta: Any, data: tuple[Tensor, Tensor]) -> Tensor:
    """The expected gradient for one visible unit, inner means by quantiles and outer ones by Gaussian quadrature."""
    v, away, weights = product(data, hermite(24, 1))
    back = quantiles(estimator.points)[:, None].expand(len(v), 1, -1, 1)
    noise = {"away": away[:, None], "back": back}
    return flat(expected_gradient(estimator, {"model": theta}, v, noise, weights, model=model))


def slope(a: float, second: float, t: float) -> float:
    """d/da of ED for F(v) = a v^2 / 2 and data with E[v^2] = ``second``: of a second / 2 - log(1 + a t) / 2
    - a (second + t) / (2 (1 + a t)), exp(-F) smoothed by N(0, t) being a Gaussian."""
    return 0.5 * second - 0.5 * t / (1 + a * t) - 0.5 * (second + t) / (1 + a * t) ** 2


def ed_error(estimator: EnergyDiscrepancy) -> float:
    """The relative error of the expected gradient for a quadratic energy."""
    model, (x, w) = GaussianEnergy().double(), hermite(24, 1)
    theta = {"a": torch.full((1,), 1.7, dtype=torch.float64)}
    found = quadrature(estimator, model, theta, (0.9 * x, w))
    return float((found / slope(1.7, 0.81, estimator.variance) - 1).abs())


@pytest.mark.parametrize("t", [0.1, 2.0])
def test_the_gradient_for_a_quadratic_energy(t: float) -> None:
    assert ed_error(EnergyDiscrepancy(variance=t, points=1500, stabilisation=0.0)) < 5e-3


def test_the_gradient_from_random_numbers() -> None:
    estimator, model = EnergyDiscrepancy(variance=0.5, points=200, stabilisation=0.0), GaussianEnergy().double()
    state, rng, rows = state_of({}, model=model), draws(1), []
    for _ in range(40):
        v = 0.9 * rng.normal((200, 1))
        noise = estimator.noise(model, (200, 1), rng)

        def loss(at: Any, v: Tensor = v, noise: Any = noise) -> Tensor:
            return estimator.loss(state.bind({"model": at}), v, noise, {}, hyper(estimator))[0]

        rows.append(grad(loss)({"a": torch.full((1,), 1.7, dtype=torch.float64)})["a"])
    assert standard_errors(torch.stack(rows), slope(1.7, 0.81, 0.5)) < 3


def test_as_t_falls_it_is_score_matching() -> None:
    """Its gradient over t, on a GRBM beside the optimum."""
    model = make_grbm(visible=1, hidden=2)
    theta, (v, weights) = moved(parameters(model), 0.3), data_of(model)
    exact = flat(expected_gradient(SM(), {"model": theta}, v, (), weights, model=model))
    errors = []
    for t in (1e-2, 1e-3):
        estimator = EnergyDiscrepancy(variance=t, points=1500, stabilisation=0.0)
        errors.append(relative(quadrature(estimator, model, theta, (v, weights)) / t, exact))
    assert exact.norm() > 0.1
    assert errors[1] < 0.02
    assert errors[1] < 0.3 * errors[0]


def test_as_t_grows_it_is_maximum_likelihood() -> None:
    model = make_grbm(visible=1, hidden=2)
    theta, (v, weights) = moved(parameters(model), 0.3), data_of(model)
    exact = likelihood_gradient(model, theta, v, weights)
    errors = []
    for t in (4.0, 100.0):
        estimator = EnergyDiscrepancy(variance=t, points=1500, stabilisation=0.0)
        errors.append(relative(quadrature(estimator, model, theta, (v, weights)), exact))
    assert exact.norm() > 0.05
    assert errors[1] < 0.03
    assert errors[1] < 0.3 * errors[0]


def test_w_bounds_the_loss_from_below() -> None:
    """At energies of points far above the data's, by log w / M; without it they pay for ever."""
    v, model = torch.zeros(4, 1, dtype=torch.float64), GaussianEnergy().double()
    bound = state_of({}, model=model).bind({"model": {"a": torch.full((1,), 1e6, dtype=torch.float64)}})

    def value(w: float) -> float:
        estimator = EnergyDiscrepancy(points=8, stabilisation=w)
        noise = estimator.noise(model, (4, 1), draws(1))
        return float(estimator.loss(bound, v, noise, {}, hyper(estimator))[0])

    assert value(0.5) == pytest.approx(math.log(0.5 / 8), abs=1e-6)
    assert value(0.0) < -1e3


def test_a_minibatch_may_be_taken_in_shards() -> None:
    assert EnergyDiscrepancy().unshardable() is None
