"""Contrastive divergence by Langevin dynamics."""

from typing import Any

import pytest
import torch

from baselines import LangevinCD, LangevinPCD
from baselines.chains import contrast
from bism import GRBM
from tests.maths.checks import langevin_chain, langevin_error
from tests.maths.exact import draws, hyper, make_grbm, parameters, state_of

OPTIONS: dict[str, Any] = {"k": 3, "step_size": 0.2, "langevin_temperature": 0.5, "regulariser": 0.1}


@pytest.mark.parametrize("estimator", [LangevinCD(**OPTIONS), LangevinPCD(**OPTIONS, buffer=4, restart=0.5)])
def test_the_gradient_is_that_of_the_energies_at_fixed_fantasies(estimator: Any) -> None:
    assert langevin_error(estimator) < 1e-12


def test_chains_may_start_at_noise() -> None:
    estimator, model, v = LangevinCD(**OPTIONS, start="noise"), make_grbm(), draws(3).normal((6, 2))
    noise = estimator.noise(model, (6, 2), draws(1))
    fantasies = langevin_chain(noise["start"], noise["steps"], 0.2, 0.5)
    bound = state_of({}, model=model).bind({"model": parameters(model)})
    value, carry, _ = estimator.loss(bound, v, noise, {}, hyper(estimator))
    torch.testing.assert_close(value, contrast(bound.model, v, fantasies, 0.1))
    assert carry == {}


def test_pcd_moves_one_minibatch_of_its_buffer_and_starts_some_chains_anew() -> None:
    estimator, model, v = LangevinPCD(**OPTIONS, buffer=4, restart=0.5), make_grbm(), draws(3).normal((6, 2))
    carry = estimator.init_carry(model, draws(2).normal((50, 2)), 6, draws(4))
    assert carry["buffer"].shape == (4, 6, 2)
    noise = estimator.noise(model, (6, 2), draws(1))
    bound = state_of({}, model=model).bind({"model": parameters(model)})
    _, after, _ = estimator.loss(bound, v, noise, carry, hyper(estimator))
    chosen, anew = int(noise["block"][0] * 4), noise["restart"] < 0.5
    assert 0 < int(anew.sum()) < 6
    begun = torch.where(anew[:, None], v, carry["buffer"][chosen])
    torch.testing.assert_close(after["buffer"][chosen], langevin_chain(begun, noise["steps"], 0.2, 0.5))
    others = [block for block in range(4) if block != chosen]
    assert torch.equal(after["buffer"][others], carry["buffer"][others])


def test_the_buffer_starts_where_chains_do() -> None:
    data = draws(2).normal((50, 2)) + 10
    from_data = LangevinPCD(buffer=3).init_carry(None, data, 5, draws(1))["buffer"]
    assert all((row == data).all(1).any() for row in from_data.reshape(-1, 2))
    uniform = LangevinPCD(buffer=3, start="noise").init_carry(None, data, 5, draws(1))["buffer"]
    assert uniform.shape == (3, 5, 2)
    assert 0 <= float(uniform.min()) <= float(uniform.max()) < 1


@pytest.mark.parametrize("kind", [LangevinCD, LangevinPCD])
def test_it_learns_a_gaussian(kind: Any) -> None:
    """A GRBM whose hidden unit does nothing has v ~ N(b, s^2): CD finds the data's mean and deviation."""
    torch.manual_seed(0)
    model = GRBM(1, 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    model.reset_parameters = lambda: None  # type: ignore[method-assign]
    data = 0.5 + 0.6 * draws(1).normal((4000, 1))
    estimator = kind(k=10, step_size=0.3, lr=0.04)
    found = estimator.fit(model, data, steps=150, batch_size=200, dtype=torch.float64).parameters(0)["model"]
    s = float(found["log_s"].exp())
    assert s == pytest.approx(0.6, abs=0.08)
    mean = found["b"] + s**2 * found["W"][0] * torch.sigmoid(found["c"])
    assert float(mean) == pytest.approx(float(data.mean()), abs=0.08)
