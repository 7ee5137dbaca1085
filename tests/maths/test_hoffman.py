"""Training by Hamiltonian Monte Carlo from an encoder: posteriors stay what they are, and the ELBO's bias goes."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from baselines.hoffman import Hoffman
from baselines.vae import VAE
from bism.latent import LatentModel
from bism.priors import StandardNormal
from tests.maths.exact import hyper, parameters, relative, state_of
from tests.maths.test_latent import exact_posterior, linear_gaussian, rng

LONG_STEPS = Hoffman(chain_steps=4, leapfrog_steps=3, step_size=0.9, adaptation=0.0)


def chains(estimator: Hoffman, count: int, model: LatentModel | None = None) -> tuple[Any, Tensor]:
    """The state after a step's phases whose chains start at exact samples of p(h|v), and these."""
    model, source = model or linear_gaussian(), rng(1)
    v = source.normal((count, 3))
    mean, covariance = exact_posterior(model, v)
    h = mean + source.normal((count, 2)) @ torch.linalg.cholesky(covariance).T
    state = state_of({"model": parameters(model)}, model=model)
    zero, one = torch.zeros(()).double(), torch.ones(()).double()
    state = state.replace(carry={"h": h, "factor": one, "accepted": zero})
    _, phase = estimator.phases
    for _ in range(phase.count):
        state = phase.step(state, v[None], phase.noise(model, (count, 3), source), hyper(estimator))
    return state, (state.carry["h"] - mean) @ torch.linalg.inv(torch.linalg.cholesky(covariance)).T


def invariance_error() -> float:
    """The largest error of the standardised chains' means and covariances, in standard errors, where many steps are
    refused."""
    count = 20_000
    _, z = chains(LONG_STEPS, count)
    moments = torch.stack([z[:, 0], z[:, 1], z[:, 0] * z[:, 1], z[:, 0] ** 2 - 1, z[:, 1] ** 2 - 1], 1)
    return float((moments.mean(0) / moments.std(0)).abs().max()) * math.sqrt(count)


def test_a_training_step_s_chains_leave_the_posterior_invariant() -> None:
    assert 0.3 < float(chains(LONG_STEPS, 1000)[0].carry["accepted"]) < 0.95
    assert invariance_error() < 4.5


def test_the_step_size_follows_the_mean_acceptance_after_the_step() -> None:
    estimator = Hoffman(chain_steps=3, step_size=0.5, adaptation=0.2, acceptance=0.7)
    model = linear_gaussian()
    state, _ = chains(estimator, 50, model)
    posterior = model.default_posterior().double()
    params = {"model": parameters(model), "posterior": parameters(posterior)}
    parts = state_of(params, model=model, posterior=posterior).bind()
    v, noise = rng(2).normal((50, 3)), rng(3).normal((50, 2))
    _, carry, info = estimator.loss(parts, v, noise, state.carry, hyper(estimator))
    accepted = float(state.carry["accepted"])
    assert 0 < accepted < 1
    assert float(state.carry["factor"]) == 1.0
    assert float(carry["factor"]) == pytest.approx(math.exp(0.2 * (accepted - 0.7)))
    assert float(info["acceptance"]) == accepted
    assert float(info["step_size"]) == 0.5
    begun = state_of(params, model=model, posterior=posterior).replace(carry=carry)
    again = estimator.start(begun, v[None], noise, hyper(estimator)).carry
    assert float(again["accepted"]) == 0.0
    assert relative(again["h"], posterior.sample(v, noise).detach()) < 1e-12


class Scaled(nn.Module):
    """g(h) = a W h with a fixed W, whose columns are far from orthogonal: no posterior is a product."""

    W: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.visible_shape, self.codes = (3,), 2
        self.register_buffer("W", torch.tensor([[1.0, 0.9], [0.8, 1.0], [0.9, 0.9]]))
        self.log_a = nn.Parameter(torch.zeros(()))

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.log_a)

    def forward(self, h: Tensor) -> Tensor:
        return self.log_a.exp() * h @ self.W.T


def optimum(objective: Any) -> float:
    """Where an objective of a is largest."""
    grid = torch.linspace(0.2, 2.0, 3601, dtype=torch.float64)
    return float(grid[torch.stack([objective(a) for a in grid]).argmax()])


@pytest.mark.long
def test_it_finds_maximum_likelihood_where_the_elbo_of_independent_h_does_not() -> None:
    """Both optima of a are known: a mean-field q at its best has the means of the posterior and the variances
    1 / L_jj of its precision L, and the ELBO is then log p(v) - (sum_j log L_jj - log det L) / 2."""
    source, W, sigma = rng(5), Scaled().W.double(), 0.5
    data = source.normal((2000, 2)) @ W.T + sigma * source.normal((2000, 3))
    scatter = data.T @ data / len(data)

    def log_likelihood(a: Tensor) -> Tensor:
        covariance = a**2 * W @ W.T + sigma**2 * torch.eye(3, dtype=torch.float64)
        return -0.5 * (torch.logdet(covariance) + torch.linalg.solve(covariance, scatter).trace())

    def elbo(a: Tensor) -> Tensor:
        precision = torch.eye(2, dtype=torch.float64) + a**2 * W.T @ W / sigma**2
        return log_likelihood(a) - 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision))

    best, biased = optimum(log_likelihood), optimum(elbo)
    assert best - biased > 0.1
    found = {}
    rates = {"lr": 0.01, "lr_posterior": 0.01, "ema": 0.98}
    for estimator in (Hoffman(chain_steps=5, leapfrog_steps=3, step_size=0.3, **rates), VAE(**rates)):
        model = LatentModel(Scaled(), StandardNormal(2), sigma=sigma, width=16, layers=1)
        fitted = estimator.fit(model, data, seeds=[0], steps=400, dtype=torch.float64, compile=False)
        found[estimator.id] = float(fitted.model(0).decoder.log_a.exp())
    assert found["hoffman"] == pytest.approx(best, abs=0.25 * (best - biased))
    assert found["vae"] == pytest.approx(biased, abs=0.25 * (best - biased))
