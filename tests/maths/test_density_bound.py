"""The lower bound of log p~(v): exact at the true posterior, elsewhere below it by the posteriors' divergence."""

import math

import pytest
import torch
from torch import Tensor, nn

from bism.likelihood import log_density_bound
from bism.posteriors import DiagonalGaussian, RelaxedBernoulli
from tests.maths.checks import exact_kl
from tests.maths.exact import LinearGaussian, draws, make_grbm, true_posterior


class TruePosterior(nn.Module):
    """p(h|v) of a LinearGaussian: N(mean(v), precision^-1), correlated."""

    def __init__(self, model: LinearGaussian) -> None:
        super().__init__()
        self.model = model

    def sample(self, v: Tensor, noise: Tensor, temperature: Tensor | float) -> Tensor:
        mean, precision = self.model.posterior(v)
        return mean + torch.linalg.solve_triangular(torch.linalg.cholesky(precision).T, noise.T, upper=True).T

    def log_prob(self, h: Tensor, v: Tensor) -> Tensor:
        mean, precision = self.model.posterior(v)
        centred = h - mean
        log_det = torch.logdet(precision) - len(precision) * math.log(2 * math.pi)
        return 0.5 * (log_det - ((centred @ precision) * centred).sum(-1))


def linear_gaussian() -> tuple[LinearGaussian, Tensor]:
    """A model of 4 visible and 3 latent units in float64, and some v."""
    torch.manual_seed(4)
    model = LinearGaussian(4, 3).double().requires_grad_(False)
    model.W.mul_(0.5)
    return model, draws(1).normal((6, 4))


def log_density(model: LinearGaussian, v: Tensor) -> Tensor:
    """log integral exp(-E(v, h)) dh: log N(v; b, W W^T + s^2 I) with the constants that the energy leaves out."""
    size, hidden = model.W.shape
    constant = 0.5 * (size * math.log(2 * math.pi) + hidden * math.log(2 * math.pi)) + size * model.log_s
    normal = torch.distributions.MultivariateNormal(model.b, model.covariance())
    return normal.log_prob(v) + constant


@pytest.mark.parametrize("particles", [1, 7])
def test_it_is_the_log_density_at_the_true_posterior(particles: int) -> None:
    model, v = linear_gaussian()
    bound = log_density_bound(model, TruePosterior(model), v, particles=particles)
    torch.testing.assert_close(bound, log_density(model, v), rtol=0, atol=1e-11)


def averaged(model: nn.Module, posterior: nn.Module, v: Tensor, copies: int = 20_000) -> Tensor:
    """The bound's expectation over h for each v, from many copies of it."""
    bound = log_density_bound(model, posterior, v.repeat_interleave(copies, 0), particles=3)
    return bound.reshape(len(v), copies).mean(1)


def test_elsewhere_it_is_below_by_the_divergence_of_the_posteriors() -> None:
    model, v = linear_gaussian()
    posterior = DiagonalGaussian((4,), 3).double().requires_grad_(False)
    mean, precision = model.posterior(v)
    posterior.log_std_head.bias -= 0.5
    posterior.mean_head.weight.copy_(0.9 * torch.linalg.lstsq(v - model.b, mean).solution.T)  # the true one's, shrunk
    given, log_std = posterior._parameters_at(v)
    q = torch.distributions.MultivariateNormal(given, scale_tril=log_std.exp().diag_embed())
    true = torch.distributions.MultivariateNormal(mean, precision_matrix=precision)
    gap = torch.distributions.kl_divergence(q, true)
    assert (gap > 0.3).all()
    torch.testing.assert_close(averaged(model, posterior, v), log_density(model, v) - gap, rtol=0, atol=0.05)


def test_binary_latents_are_summed_over() -> None:
    model = make_grbm().requires_grad_(False)
    v, posterior = draws(2).normal((5, 2)), RelaxedBernoulli((2,), 3).double()
    torch.testing.assert_close(averaged(model, posterior, v), -exact_kl(model, posterior, v), rtol=0, atol=0.03)
    posterior.load_state_dict(true_posterior(dict(model.named_parameters())))
    torch.testing.assert_close(log_density_bound(model, posterior, v), -model.free_energy(v), rtol=0, atol=1e-12)


def test_it_is_a_function_of_its_seed() -> None:
    model, v = linear_gaussian()
    posterior = DiagonalGaussian((4,), 3).double()
    first, again, other = (log_density_bound(model, posterior, v, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not first.requires_grad


def test_the_mean_of_a_bernoulli_posterior_is_that_of_its_samples() -> None:
    posterior, v = RelaxedBernoulli((2,), 3).double(), draws(3).normal((2,)).expand(50_000, 2)
    noise = draws(4).logistic((50_000, 3))
    sampled = posterior.sample_hard(v, noise).mean(0)
    torch.testing.assert_close(posterior.mean(v)[0], sampled, rtol=0, atol=0.01)


def test_its_spread_falls_with_the_number_of_particles() -> None:
    """As 1/k: the particles are drawn each for itself."""
    model, v = linear_gaussian()
    posterior, many = DiagonalGaussian((4,), 3).double(), v[:1].expand(20_000, -1)
    one, four = (float(log_density_bound(model, posterior, many, particles=k).var()) for k in (1, 4))
    assert one / four == pytest.approx(4, rel=0.2)
