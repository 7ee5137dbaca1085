"""The checks of likelihoods of latent models can fail: what is broken makes their residuals large."""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import bism.latent_likelihood
import bism.latent_quadrature
from bism.hmc import leapfrog
from bism.latent import LatentModel
from bism.latent_likelihood import Weights, annealed_importance, importance, prior_log_z, sigmoid_temperatures
from bism.latent_quadrature import log_marginals
from tests.maths.test_latent import exact_log_likelihood, linear_gaussian, posterior_of, rng
from tests.maths.test_latent_likelihood import QuadraticTilt

Patch = pytest.MonkeyPatch
ENERGY, ENERGIES = bism.latent_likelihood._energy, LatentModel.energies
SUMS, LOG_RATIOS = bism.latent_quadrature._Lattice.sums, bism.latent_likelihood.log_ratios


def standard_errors(backwards: bool = False) -> float:
    """How many standard errors the mean of w / p~ (backwards, of w p~) is from 1."""
    model, source = linear_gaussian(4, 2, 0.5), rng(5)
    h = source.normal((2000, 2))
    v = model.sample_visible(h, source.normal((2000, 4)))
    how: dict[str, Any] = {"chains": 2, "steps": 5, "leapfrogs": 2, "h": h if backwards else None}
    found = annealed_importance(model, v, posterior_of(model, 0.2), **how).weights
    ratio = (found.log_w - found.sign * exact_log_likelihood(model, v)).exp().mean(0)
    return abs(float(ratio.mean()) - 1) / float(ratio.std()) * len(v) ** 0.5


def backward_estimate() -> float:
    """How far the mean of backward estimates is from log p~, from a near q."""
    model, source = linear_gaussian(4, 2, 0.5), rng(5)
    h = source.normal((200, 2))
    v = model.sample_visible(h, source.normal((200, 4)))
    found = annealed_importance(model, v, posterior_of(model), chains=3, steps=20, leapfrogs=2, h=h).weights
    return abs(found.mean - float(exact_log_likelihood(model, v).mean()))


def importance_error() -> float:
    model = linear_gaussian(4, 2, 0.5)
    v = model.draw(20, rng(5))
    found = importance(model, posterior_of(model, 0.2), v, particles=2000)
    return abs(found.mean - float(exact_log_likelihood(model, v).mean()))


def sum_error(sigma: float = 0.3) -> float:
    model = linear_gaussian(4, 2, sigma)
    v = model.draw(5, rng(5))
    return float((log_marginals(model, v).values - exact_log_likelihood(model, v)).abs().max())


def log_z_error() -> float:
    prior = QuadraticTilt(5).double()
    found = prior_log_z(prior, draws=5000, chains=50, steps=30, leapfrogs=3)
    assert found.bracket is not None
    apart = max(abs(one.log_z - prior.log_z) for one in (found.bracket.lower, *found.bracket.upper.values()))
    return max(apart, 0.0 if not found.bracket.contradictory else 1.0)


def unrefused(energy: Any, x: Tensor, momentum: Tensor, uniform: Tensor, step_size: Any, steps: int) -> Any:
    """Hamiltonian Monte Carlo without its Metropolis test, at large steps."""
    return leapfrog(energy, x, momentum, 2 * step_size, steps)[0].detach(), torch.full((len(x),), 0.65).to(x)


def without_volume(model: Any, v: Tensor, q: Any, chains: int) -> Any:
    energy, volume = ENERGY(model, v, q, chains), q.b.log().sum(-1).repeat(chains)
    return lambda u: energy(u) + volume


def spaced(self: Any, k: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    found, apart = SUMS(self, k, values)
    return found - math.log(self.h), apart


@dataclasses.dataclass(frozen=True)
class Mutation:
    """A check, what is put in the place of a part, and the bounds between which its residual has to jump."""

    what: str
    check: Callable[[], float]
    of: Any
    name: str
    value: Any
    small: float
    large: float


HERE, LATTICE = bism.latent_likelihood, bism.latent_quadrature
MUTATIONS = [
    Mutation("a base without its constant", standard_errors, HERE, "_standard",
             lambda u: 0.5 * u.square().sum(-1), 4, 12),
    Mutation("no Jacobian of h = a + b u", standard_errors, HERE, "_energy", without_volume, 4, 12),
    Mutation("no Metropolis test", standard_errors, HERE, "hmc", unrefused, 4, 8),
    Mutation("no Metropolis test, backwards", partial(standard_errors, True), HERE, "hmc", unrefused, 4, 5),
    Mutation("temperatures that end early", standard_errors, HERE, "sigmoid_temperatures",
             lambda count: 0.8 * sigmoid_temperatures(count), 4, 12),
    Mutation("backwards with the sign of forwards", backward_estimate, Weights, "values",
             property(lambda self: self.log_w.logsumexp(0) - math.log(len(self.log_w))), 0.1, 1),
    Mutation("importance weights without log q", importance_error, HERE, "log_ratios",
             lambda model, posterior, v, *how: LOG_RATIOS(model, posterior, v, *how) * 0.5, 0.05, 0.2),
    Mutation("a mean that is a sum", importance_error, Weights, "values",
             property(lambda self: self.log_w.logsumexp(0)), 0.05, 1),
    Mutation("sums without their spacing", sum_error, LATTICE._Lattice, "sums",
             spaced, 1e-6, 0.1),
    Mutation("energies of pairs without the prior", sum_error, LatentModel, "energies",
             lambda self, v, h: ENERGIES(self, v, h) - self.prior_energy(h), 1e-6, 0.1),
    Mutation("narrow peaks between the points are not looked for", partial(sum_error, 0.003), LATTICE._Lattice,
             "significant", lambda self, k, values: (values >= values.max(0).values - 3).any(1), 1e-6, 1e-3),
    Mutation("the tilt's sign", log_z_error, QuadraticTilt, "energy",
             lambda self, h: self.normal.energy(h) + self.tilt(h) * 0.5, 0.5, 1),
]  # fmt: skip


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.what)
def test_a_mutation_is_noticed(mutation: Mutation, monkeypatch: Patch) -> None:
    assert mutation.check() < mutation.small
    monkeypatch.setattr(mutation.of, mutation.name, mutation.value)
    assert not mutation.check() < mutation.large
