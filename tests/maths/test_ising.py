"""The Ising model's closed forms against sums over its configurations, and what trains it."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad

from baselines import CD, PCD, PersistentVI, PseudoLikelihood, UnbiasedCD
from bism import Ising, log_likelihood
from bism.enumeration import exact_samples
from bism.ising import lattice
from bism.sampling import gibbs, gibbs_noise
from tests.maths.exact import configurations, draws, flat, hyper, make_rbm, parameters, state_of

MANY = 40_000
V = configurations(3)


def make_ising(units: int = 3) -> Ising:
    source, model = torch.Generator().manual_seed(2), Ising(units).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.6 * torch.randn(parameter.shape, generator=source, dtype=torch.float64))
    return model


def law(model: Ising) -> Tensor:
    """p(v) of every configuration, from the energy pair by pair."""
    J, b = model.J.detach(), model.b.detach()
    pairs = [(i, j) for i in range(3) for j in range(i + 1, 3)]
    spins = 2 * V - 1
    energies = torch.stack([-(b @ s) - sum(J[i, j] * s[i] * s[j] for i, j in pairs) for s in spins])
    return (-energies).softmax(0)


def off(v: Tensor, p: Tensor) -> float:
    """The largest deviation of frequencies from probabilities, in standard errors."""
    index = (v.long() * torch.tensor([4, 2, 1])).sum(1)
    return float(((index.bincount(minlength=8) / MANY - p).abs() / (p * (1 - p) / MANY).sqrt()).max())


def test_its_likelihood_is_that_of_the_sum_over_pairs() -> None:
    model = make_ising()
    torch.testing.assert_close(log_likelihood(model, V).exp(), law(model), atol=1e-12, rtol=0)


def test_gibbs_leaves_it_alone_and_finds_it() -> None:
    model, p = make_ising(), law(make_ising())
    with torch.no_grad():
        v = exact_samples(model, MANY, draws(1))
        assert off(v, p) < 4
        assert off(gibbs(model, v, gibbs_noise(model, MANY, 2, draws(2))), p) < 4
        assert off(gibbs(model, V[:1].expand(MANY, -1), gibbs_noise(model, MANY, 30, draws(3))), p) < 4


@pytest.mark.parametrize("make", [make_ising, make_rbm])
def test_the_pseudo_likelihood_is_the_sum_of_the_conditionals(make: Any) -> None:
    model = make()
    v = configurations(model.visible_shape[0])
    p = log_likelihood(model, v).exp()
    bound = state_of({"model": parameters(model)}, model=model).bind()
    for row, at in zip(v, p, strict=True):
        expected = 0.0
        for i in range(len(row)):
            other = row.clone()
            other[i] = 1 - other[i]
            expected -= float((at / (at + p[(v == other).all(1)][0])).log())
        found = PseudoLikelihood().loss(bound, row[None], {}, {}, hyper(PseudoLikelihood()))[0]
        assert float(found.detach()) == pytest.approx(expected, abs=1e-10)


def test_the_pseudo_likelihood_has_its_optimum_at_the_truth() -> None:
    model, estimator = make_ising(), PseudoLikelihood()
    p, state = law(model), state_of({}, model=model)

    def slope(theta: Any) -> float:
        def loss(at: Any) -> Tensor:
            bound = state.bind({"model": at})
            each = [estimator.loss(bound, v[None], {}, {}, hyper(estimator))[0] for v in V]
            return p @ torch.stack(each)

        return float(flat(grad(loss)(theta)).norm())

    theta = parameters(model)
    assert slope(theta) < 1e-10
    assert slope({**theta, "b": theta["b"] + 0.1}) > 1e-2


TRAINED = [PseudoLikelihood(), PCD(k=1), CD(k=1), PersistentVI(k=1, samples=1)]


@pytest.mark.parametrize("estimator", TRAINED, ids=lambda one: one.id)
def test_it_is_recovered(estimator: Any) -> None:
    model = make_ising()
    data = exact_samples(model, 4000, draws(4)).float()
    fast = dataclasses.replace(estimator, lr=0.02)
    trained = fast.fit(Ising(3), data, seeds=[0], steps=400, batch_size=400, compile=False).model(0)
    couplings, wanted = trained.couplings().detach(), model.couplings().detach()
    assert float((couplings - wanted).abs().max()) < 0.15
    assert float((trained.b - model.b).detach().abs().max()) < 0.15
    assert float(wanted.abs().max()) > 0.35


def test_unbiased_cd_says_what_it_lacks() -> None:
    assert "no latent variables" not in str(CD().unsupported(Ising(3)))
    assert UnbiasedCD().unsupported(Ising(3)) == "it needs sample_hidden() and sample_visible(), which Ising lacks"


@pytest.mark.parametrize(("side", "dimensions", "neighbours"), [(4, 3, 6), (3, 2, 4), (2, 3, 3), (5, 1, 2)])
def test_every_site_of_a_periodic_lattice_has_its_neighbours(side: int, dimensions: int, neighbours: int) -> None:
    found = lattice(side, dimensions)
    assert found.shape == (side**dimensions,) * 2
    assert torch.equal(found, found.T)
    assert (found.sum(1) == neighbours).all()
    assert not found.diagonal().any()
