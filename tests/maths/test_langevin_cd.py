"""Contrastive divergence by Langevin dynamics."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad

from baselines import LangevinCD, LangevinPCD
from bism import GRBM
from bism.objectives import score
from tests.maths.checks import draws, flat, hyper, make_grbm, parameters, relative, state_of

V = draws(3).normal((6, 2))


def terms(estimator: Any, noise: Any, carry: dict[str, Tensor]) -> tuple[Any, Any, Any]:
    """Loss, next carry, and the gradient of the loss in theta."""
    model = make_grbm()
    state = state_of({}, model=model)

    def loss(theta: Any) -> Any:
        value, after, _ = estimator.loss(state.bind({"model": theta}), V, noise, carry, hyper(estimator))
        return value, after

    gradient, after = grad(loss, has_aux=True)(parameters(model))
    return loss(parameters(model))[0], after, gradient


def chain(v: Tensor, steps: Tensor, a: float, temperature: float) -> Tensor:
    model = make_grbm()
    for eps in steps:
        v = v + 0.5 * a**2 * score(lambda x: -model.free_energy(x), v) + temperature**0.5 * a * eps
    return v.detach()


@pytest.mark.parametrize("start", ["data", "noise"])
def test_the_gradient_is_that_of_the_energies_at_fixed_fantasies(start: str) -> None:
    estimator = LangevinCD(k=3, step_size=0.2, temperature=0.5, regulariser=0.1, start=start)
    model = make_grbm()
    noise = estimator.noise(model, (6, 2), draws(1))
    fantasies = chain(V if start == "data" else noise["start"], noise["steps"], 0.2, 0.5)
    value, carry, gradient = terms(estimator, noise, {})
    assert carry == {}
    state = state_of({}, model=model)

    def expected(theta: Any) -> Tensor:
        energy = state.bind({"model": theta}).model.free_energy
        squares = energy(V).square().mean() + energy(fantasies).square().mean()
        return energy(V).mean() - energy(fantasies).mean() + 0.1 * squares

    torch.testing.assert_close(value, expected(parameters(model)))
    assert relative(gradient, grad(expected)(parameters(model))) < 1e-12


def test_pcd_moves_one_minibatch_of_its_buffer_and_starts_some_chains_anew() -> None:
    estimator = LangevinPCD(k=2, step_size=0.2, buffer=4, restart=0.5)
    model = make_grbm()
    carry = estimator.init_carry(draws(2).normal((50, 2)), 6, draws(4))
    assert carry["buffer"].shape == (4, 6, 2)
    noise = estimator.noise(model, (6, 2), draws(1))
    _, after, _ = terms(estimator, noise, carry)
    chosen = int(noise["block"][0] * 4)
    anew = noise["restart"] < 0.5
    assert 0 < int(anew.sum()) < 6
    begun = torch.where(anew[:, None], V, carry["buffer"][chosen])
    torch.testing.assert_close(after["buffer"][chosen], chain(begun, noise["steps"], 0.2, 1.0))
    others = [block for block in range(4) if block != chosen]
    assert torch.equal(after["buffer"][others], carry["buffer"][others])


def test_the_buffer_starts_where_chains_do() -> None:
    data = draws(2).normal((50, 2)) + 10
    from_data = LangevinPCD(buffer=3).init_carry(data, 5, draws(1))["buffer"]
    assert all((row == data).all(1).any() for row in from_data.reshape(-1, 2))
    uniform = LangevinPCD(buffer=3, start="noise").init_carry(data, 5, draws(1))["buffer"]
    assert uniform.shape == (3, 5, 2)
    assert 0 <= float(uniform.min()) <= float(uniform.max()) < 1


@pytest.mark.parametrize("kind", [LangevinCD, LangevinPCD])
def test_it_learns_a_gaussian(kind: Any) -> None:
    """A GRBM whose hidden units do nothing has v ~ N(b, s^2): CD finds the data's mean and deviation."""
    torch.manual_seed(0)
    model = GRBM(1, 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    model.reset_parameters = lambda: None  # type: ignore[method-assign]
    data = 0.5 + 0.6 * draws(1).normal((4000, 1))
    estimator = kind(k=10, step_size=0.3, lr=0.04)
    fitted = estimator.fit(model, data, steps=150, batch_size=200, dtype=torch.float64)
    found = fitted.parameters(0)["model"]
    assert float(found["b"] + found["log_s"].exp() ** 2 * found["W"][0] * torch.sigmoid(found["c"])) == pytest.approx(
        float(data.mean()), abs=0.08
    )
    assert float(found["log_s"].exp()) == pytest.approx(0.6, abs=0.08)
    assert flat(found).isfinite().all()
