"""Models with a prior and a decoder, and what trains them, against the linear-Gaussian model's closed forms."""

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, grad_and_value

from baselines.lebm import LEBM
from baselines.vae import VAE
from benchmark.measures.probes import Aggregate, LatentLikelihood
from bism.errors import InputError
from bism.functional import Bound, Methods
from bism.hmc import ACCEPTANCE, chains, hmc, leapfrog
from bism.latent import LEAST_SIGMA, LatentModel, latent_conv, latent_mlp
from bism.posteriors import DiagonalGaussian
from bism.priors import StandardNormal, Tilted
from bism.quadrature import log_integral
from bism.rng import Rng, generator
from bism.state import Parts
from tests.maths.exact import hyper, parameters, relative, signs


def rng(seed: int = 0) -> Rng:
    return Rng(generator(seed, 0, "tests"), torch.float64)


class Linear(nn.Module):
    """g(h) = W h + b."""

    def __init__(self, visible: int, codes: int) -> None:
        super().__init__()
        self.visible_shape, self.codes = (visible,), codes
        self.layer = nn.Linear(codes, visible)

    def forward(self, h: Tensor) -> Tensor:
        return self.layer(h)


def largest(*errors: Tensor) -> float:
    """The largest absolute number of all."""
    return max(float(error.detach().abs().max()) for error in errors)


def linear_gaussian(visible: int = 3, codes: int = 2, sigma: float = 0.5) -> LatentModel:
    torch.manual_seed(0)
    model = LatentModel(Linear(visible, codes), StandardNormal(codes), sigma=sigma, learn_sigma=True)
    return model.double().requires_grad_(False)


def exact_log_likelihood(model: LatentModel, v: Tensor) -> Tensor:
    """log N(v; b, W W^T + s^2 I)."""
    layer = model.decoder.layer
    covariance = layer.weight @ layer.weight.T + model.sigma**2 * torch.eye(len(layer.bias), dtype=v.dtype)
    return torch.distributions.MultivariateNormal(layer.bias, covariance).log_prob(v)


def exact_posterior(model: LatentModel, v: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [batch, m] and covariance [m, m] of p(h|v)."""
    W, b = model.decoder.layer.weight, model.decoder.layer.bias
    precision = torch.eye(W.shape[1], dtype=v.dtype) + W.T @ W / model.sigma**2
    return (v - b) @ W @ precision.inverse() / model.sigma**2, precision.inverse()


def density_error() -> float:
    """Of E(v, h) and log p(v|h), in torch's own densities."""
    model, v, h = linear_gaussian(), rng().normal((5, 3)), rng(1).normal((5, 2))
    given = torch.distributions.Normal(model.decoder(h), model.sigma).log_prob(v).sum(1)
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(h).sum(1)
    binary = latent_mlp(3, 2, observation="bernoulli").double()
    x = (v > 0).double()
    total = torch.distributions.Bernoulli(logits=binary.decoder(h)).log_prob(x).sum(1)
    return largest(model.energy(v, h) + given + prior, binary.log_visible(x, h) - total)


def test_energy_and_its_parts_are_the_normalised_densities():
    assert density_error() < 1e-12


def posterior_of(model: LatentModel, wider: float = 0.0) -> DiagonalGaussian:
    """q(h|v), linear, with the true posterior's mean and e^wider times its standard deviation in each code."""
    W, b = model.decoder.layer.weight, model.decoder.layer.bias
    covariance = exact_posterior(model, torch.zeros(1, len(b), dtype=b.dtype))[1]
    q = DiagonalGaussian(model.visible_shape, model.latent.size).double().requires_grad_(False)
    linear = covariance @ W.T / model.sigma**2
    q.mean_head.weight.copy_(linear), q.mean_head.bias.copy_(-linear @ b)
    q.log_std_head.weight.zero_(), q.log_std_head.bias.copy_(0.5 * covariance.diagonal().log() + wider)
    return q


def value_of(estimator: VAE, model: Any, q: Any, v: Tensor, noise: Tensor, step: int = 10) -> Tensor:
    """The objective of an iteration, with noise [particles, batch, m]."""
    at = estimator.scheduled(hyper(estimator), torch.tensor(step))
    return estimator.loss(Parts({"model": model, "posterior": q}), v, noise, {}, at)[0]


def elbo_error() -> float:
    """Of the ELBO by the true posterior, which is log p(v), and by a wider one: a unit's
    KL(N(m, (e^a s)^2) || N(m, s^2)) = (e^2a - 1) / 2 - a. Four draws are exact to degree 3."""
    model, v, wider = linear_gaussian(), rng().normal((4, 3)), 0.3
    model.decoder.layer.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.5], [0.0, 0.0]]))  # a diagonal posterior
    exact = exact_log_likelihood(model, v).mean()
    for a in (0.0, wider):
        q = posterior_of(model, a)
        found = torch.stack([-value_of(VAE(), model, q, v, one.expand(1, 4, 2)) for one in signs(2)[0]]).mean()
        gap = 2 * (0.5 * (math.exp(2 * a) - 1) - a)
        if (error := abs(float(exact - gap - found))) > 1e-12:
            return error
    return 0.0


def test_the_elbo_of_the_true_posterior_is_log_p_and_below_it_by_the_kl_else():
    assert elbo_error() < 1e-12


def warmed_up_error() -> float:
    """Of the KL's weight while it rises and after, at one draw."""
    model, v, noise = linear_gaussian(), rng().normal((4, 3)), rng(1).normal((1, 4, 2))
    q, estimator = posterior_of(model, 0.3), VAE(kl_weight=2.0, kl_warmup=4)
    mean, std = q.mean(v), q.sample(v, torch.ones(4, 2).double()) - q.mean(v)
    normal, drawn = torch.distributions.Normal, mean + std * noise[0]
    kl = torch.distributions.kl_divergence(normal(mean, std), normal(0.0, 1.0)).sum(1).mean()
    misfit = -normal(model.decoder(drawn), model.sigma).log_prob(v).sum(1).mean()
    found = [value_of(estimator, model, q, v, noise, step) for step in (0, 1, 4, 9)]
    return largest(torch.stack(found) - misfit - kl * torch.tensor([0.0, 0.5, 2.0, 2.0]).double())


def test_the_weight_of_the_kl_rises_along_a_line_and_stays():
    assert warmed_up_error() < 1e-12


def importance_weighted_error() -> float:
    """Of the bound log 1/k sum_i p(v, h_i) / q(h_i|v) and its gradient in everything, in torch's own densities."""
    model, v, noise = linear_gaussian(), rng().normal((4, 3)), rng(2).normal((3, 4, 2))
    q, normal = posterior_of(model, 0.3), torch.distributions.Normal
    networks = {"model": model, "posterior": q}

    def bound(given: dict[str, dict[str, Tensor]]) -> Tensor:
        parts = {name: Bound(Methods(networks[name]), given[name]) for name in given}
        return value_of(VAE(particles=3), parts["model"], parts["posterior"], v, noise)

    def expected(given: dict[str, dict[str, Tensor]]) -> Tensor:
        of, by = given["model"], given["posterior"]
        mean = v @ by["mean_head.weight"].T + by["mean_head.bias"]
        std = (v @ by["log_std_head.weight"].T + by["log_std_head.bias"]).exp()
        h = mean + std * noise
        decoded = normal(h @ of["decoder.layer.weight"].T + of["decoder.layer.bias"], of["log_sigma"].exp())
        log_ratio = normal(0.0, 1.0).log_prob(h).sum(2) - normal(mean, std).log_prob(h).sum(2)
        return -(decoded.log_prob(v).sum(2) + log_ratio).exp().mean(0).log().mean()

    at = {name: parameters(module) for name, module in networks.items()}
    return max(relative(*both) for both in zip(grad_and_value(bound)(at), grad_and_value(expected)(at), strict=True))


def test_the_importance_weighted_bound_and_its_gradient_are_what_they_say():
    assert importance_weighted_error() < 1e-12


def test_the_kl_in_closed_form_is_the_mean_of_draws():
    q, v = DiagonalGaussian((3,), 2).double().requires_grad_(False), rng().normal((1, 3))
    noise = rng(2).normal((200_000, 2))
    h = q.sample(v.expand(len(noise), 3), noise)
    drawn = q.log_prob(h, v) + StandardNormal(2).energy(h)
    error = drawn.std() / math.sqrt(len(noise))
    assert abs(float(drawn.mean() - q.kl_to_standard_normal(v)[0])) < 4 * float(error)


def test_the_gradient_of_many_particles_is_that_of_log_p():
    model, v = linear_gaussian(2, 1), rng().normal((3, 2))
    q = DiagonalGaussian((2,), 1).double().requires_grad_(False)
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    noise = rng(3).normal((1000, 3, 1))

    def bound(given: dict[str, Tensor]) -> Tensor:
        parts = Parts({"model": Bound(Methods(model), given), "posterior": q})
        return VAE(particles=1000).loss(parts, v, noise, {}, {"kl_weight": 1.0})[0]

    def exact(given: dict[str, Tensor]) -> Tensor:
        covariance = given["decoder.layer.weight"] @ given["decoder.layer.weight"].T
        covariance = covariance + (2 * given["log_sigma"]).exp() * torch.eye(2, dtype=v.dtype)
        centred = v - given["decoder.layer.bias"]
        return (
            0.5 * torch.logdet(covariance) + 0.5 * (centred * torch.linalg.solve(covariance, centred.T).T).sum(1).mean()
        )

    of_bound, of_log_p = grad(bound)(parameters), grad(exact)(parameters)
    for name in parameters:
        assert torch.allclose(of_bound[name], of_log_p[name], rtol=0.05, atol=0.05), name


def test_the_weight_of_the_kl_is_that_of_each_particle():
    """Of 0 the bound is log 1/k sum_i p(v|h_i), and of equal particles it is the one of one particle."""
    model, v = linear_gaussian(2, 1), rng().normal((3, 2))
    q = DiagonalGaussian((2,), 1).double().requires_grad_(False)
    parts, noise = Parts({"model": model, "posterior": q}), rng(3).normal((4, 3, 1))
    h = torch.stack([q.sample(v, one) for one in noise])
    given = torch.stack([model.log_visible(v, one) for one in h]).exp().mean(0).log()
    found = VAE(particles=4).loss(parts, v, noise, {}, {"kl_weight": 0.0})[0]
    assert float(found) == pytest.approx(-float(given.mean()), abs=1e-12)
    same = VAE(particles=4).loss(parts, v, noise[:1].expand(4, 3, 1), {}, {"kl_weight": 0.3})[0]
    kl = q.log_prob(h[0], v) + model.prior_energy(h[0])
    assert float(same) == pytest.approx(float((0.3 * kl - model.log_visible(v, h[0])).mean()), abs=1e-12)


def test_training_finds_the_likelihood_of_principal_components():
    source = rng(5)
    mixing = torch.tensor([[1.5, 0.0], [0.5, 0.8], [-0.3, 0.4]], dtype=torch.float64)
    data = source.normal((2000, 2)) @ mixing.T + 0.4 * source.normal((2000, 3))
    model = LatentModel(Linear(3, 1), StandardNormal(1), sigma=1.0, learn_sigma=True)
    rates = {"lr": 0.05, "lr_posterior": 0.05, "decay_steps": 200}
    fitted = VAE(**rates).fit(
        model, data, seeds=[0], steps=200, batch_size=200, parts={"posterior": DiagonalGaussian((3,), 1)},
        dtype=torch.float64, compile=False,
    )  # fmt: skip
    covariance = torch.cov(data.T, correction=0)
    values = torch.linalg.eigvalsh(covariance).flip(0)
    noise = values[1:].mean()  # Tipping and Bishop 1999: the optimum of one code
    best = -0.5 * (3 * math.log(2 * math.pi) + values[0].log() + 2 * noise.log() + 3)
    found = exact_log_likelihood(fitted.model(0), data).mean()
    assert float(best - found) < 0.01
    assert float(found - best) < 1e-9  # nothing lies above the optimum
    assert float(fitted.model(0).sigma) == pytest.approx(float(noise.sqrt()), rel=0.03)


# --- priors and Hamiltonian Monte Carlo ------------------------------------------------------------------------------


def leapfrog_error() -> float:
    """Of a harmonic oscillator, whose every step is a known matrix, and of a path back in another energy."""
    prior, e, steps = Tilted(2, width=8).double().requires_grad_(False), 0.2, 7
    x, p = rng(1).normal((1, 2)), rng(2).normal((1, 2))
    found = leapfrog(lambda x: 0.5 * x.square().sum(-1), x, p, e, steps)
    step = torch.tensor([[1 - e**2 / 2, e], [-e * (1 - e**2 / 4), 1 - e**2 / 2]], dtype=torch.float64)
    expected = torch.linalg.matrix_power(step, steps) @ torch.cat([x, p])
    y, q = leapfrog(prior.energy, x, p, e, steps)
    back, reversed_p = leapfrog(prior.energy, y, -q, e, steps)
    return largest(torch.cat(found) - expected, back - x, reversed_p + p)


def test_leapfrog_is_reversible_and_preserves_volume():
    assert leapfrog_error() < 1e-12
    prior = Tilted(2, width=8).double().requires_grad_(False)

    def flow(state: Tensor) -> Tensor:
        return torch.cat(leapfrog(prior.energy, state[:2][None], state[2:][None], 0.2, 7), 1)[0]

    jacobian = torch.func.jacrev(flow)(rng(1).normal((4,)))
    assert float(torch.linalg.det(jacobian)) == pytest.approx(1.0, abs=1e-10)


def bent(codes: int, scale: float, seed: int) -> Tilted:
    """A tilted prior that is far from N(0, I)."""
    torch.manual_seed(seed)
    prior = Tilted(codes, width=8, layers=1).double().requires_grad_(False)
    prior.network[-1].weight.mul_(scale)
    return prior


def standard_errors(values: Tensor, exact: Tensor | float) -> float:
    """How many standard errors the mean of values [n, ...] is from what it should be, where it is most."""
    return float(((values.mean(0) - exact).abs() / values.std(0)).max()) * math.sqrt(len(values))


def invariance_error() -> float:
    """Of the moments, in standard errors, of chains that start at exact samples of a tilted prior, at a step size that
    is often refused; infinite where it is not."""
    prior = bent(1, 6, 3)
    grid = torch.linspace(-7, 7, 20001, dtype=torch.float64)[:, None]
    density = (-prior.energy(grid)).softmax(0)
    exact = torch.cat([density @ grid, density @ grid.square()])
    source, count = rng(4), 40_000
    x = grid[torch.multinomial(density, count, replacement=True, generator=source.source)]
    accepted = []
    for _ in range(5):
        x, probability = hmc(prior.energy, x, source.normal(x.shape), source.uniform((count,)), 1.4, 3)
        accepted.append(float(probability.mean()))
    often = 0.2 < sum(accepted) / 5 < 0.95
    return standard_errors(torch.cat([x, x.square()], 1), exact) if often else math.inf


def test_hmc_leaves_a_tilted_prior_invariant_at_a_step_size_that_is_often_refused():
    assert invariance_error() < 4


def drawn_error() -> float:
    """Of the means and squares of a tilted prior's draws, by quadrature, in standard errors."""
    prior = bent(2, 4, 5)
    axis = torch.linspace(-6, 6, 301, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    density = (-prior.energy(grid)).softmax(0)
    exact = torch.cat([density @ grid, density @ grid.square()])
    assert float(exact[:2].abs().max()) > 0.2  # not that of N(0, I)
    h = prior.draw(1000, rng(6))
    return standard_errors(torch.cat([h, h.square()], 1), exact)


def test_draws_of_a_tilted_prior_have_the_moments_of_quadrature():
    assert drawn_error() < 4


def normaliser_error() -> float:
    """Of Z of a tilted prior as the mean of its tilt over N(0, I), in standard errors."""
    prior = Tilted(2, width=8, layers=1).double().requires_grad_(False)
    log_z = log_integral(lambda h: -prior.energy(h), 2).log_z
    return standard_errors(prior.tilt(rng(7).normal((200_000, 2))).exp(), math.exp(log_z))


def test_a_tilted_priors_normaliser_is_the_mean_of_its_tilt():
    assert normaliser_error() < 4


def step_size_error() -> float:
    """How far the share of accepted steps is from what it is adapted to."""
    found = chains(lambda x: 0.5 * (x / 0.01).square().sum(-1), rng(8).normal((50, 3)) * 0.01, rng(9), steps=400)
    return abs(found.acceptance - ACCEPTANCE) if found.step_size < 0.03 else math.inf


def test_chains_find_a_step_size_that_is_accepted_two_times_out_of_three():
    assert step_size_error() < 0.1


# --- what is drawn ---------------------------------------------------------------------------------------------------


def samples_error() -> float:
    """Of the mean and covariance of a model's draws and of its means, and of how often binary v are 1."""
    model, binary = linear_gaussian(), latent_mlp(2, 2, observation="bernoulli").double()
    layer = model.decoder.layer
    signal, one = layer.weight @ layer.weight.T, torch.eye(3, dtype=torch.float64)
    v = model.draw(100_000, rng(10))
    model.drawn = "means"
    means = torch.cov(model.draw(100_000, rng(10)).T)
    h = rng(11).normal((1, 2)).expand(100_000, 2)
    ones = binary.shown(h, rng(12)).mean(0) - binary.decoder(h[:1]).sigmoid()
    return largest(v.mean(0) - layer.bias, torch.cov(v.T) - signal - model.sigma**2 * one, means - signal, ones)


def test_draws_have_the_models_mean_and_covariance():
    assert samples_error() < 0.03


def test_images_go_to_codes_and_back():
    model = latent_conv((1, 8, 8), 3, width=4, prior="tilted", prior_width=8)
    posterior, v = model.default_posterior(), torch.randn(2, 1, 8, 8)
    assert model.reconstruct(v, posterior).shape == v.shape
    assert model.energy(v, posterior.mean(v)).shape == (2,)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"observation": "poisson"}, "observation must be one of gaussian, bernoulli"),
        ({"prior": "flat"}, "prior must be one of normal, tilted"),
        ({"smoothing": "spike_exponential"}, "smoothing is of prior: rbm, and the prior is normal"),
        ({"prior": "tilted", "sharpness": 5.0}, "sharpness is of prior: rbm, and the prior is tilted"),
        ({"prior_layers": 2}, "prior_layers is of prior: tilted, and the prior is normal"),
        ({"sigma": 0.0}, "sigma, a standard deviation, must be a finite number above 0"),
        ({"sigma": 1e-19}, "sigma must be from 1e-18 to 1e\\+18, of whose squares float32"),
        ({"sigma": 1e20}, "sigma must be from 1e-18"),
        ({"observation": "bernoulli", "learn_sigma": True}, "binary v have no sigma"),
        ({"drawn": "modes"}, "drawn must be one of samples, means"),
        ({"codes": 0}, "codes must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused(options, said):
    with pytest.raises(InputError, match=said):
        latent_mlp(3, **{"codes": 2, **options})


@pytest.mark.parametrize(("make", "shape"), [(latent_mlp, 0), (latent_mlp, (3,)), (latent_conv, 64),
                                             (latent_conv, (8, 8)), (latent_conv, (1, 8, 0))])  # fmt: skip
def test_a_shape_that_is_none_is_refused(make, shape):
    with pytest.raises(InputError, match=r"LatentModel: visible(_shape)? must be"):
        make(shape, 2)


def test_vae_refuses_a_prior_whose_normaliser_is_unknown():
    with pytest.raises(InputError, match="unknown normaliser; lebm"):
        VAE().fit(latent_mlp(2, 2, prior="tilted"), torch.randn(50, 2), seeds=[0], steps=1)


class Unfinished(nn.Module):
    def energy(self, h: Tensor) -> Tensor:
        return h.square().sum(-1)


@pytest.mark.parametrize("method", [VAE, LEBM])
def test_a_prior_that_is_none_is_refused_by_what_it_lacks(method):
    """By methods and probes alike, and so is a model that has no ``prior``."""
    made, lacks = latent_mlp(2, 2, width=4), r"its prior \(Unfinished\) lacks codes, draw, normalised, standard, binary"
    with pytest.raises(InputError, match=lacks):
        method().fit(LatentModel(made.decoder, Unfinished()), torch.randn(9, 2), seeds=[0], steps=1)
    for probe in (LatentLikelihood, Aggregate):
        assert re.search(lacks, str(probe.unsuitable(method(), LatentModel(made.decoder, Unfinished()))))
    del made.prior
    with pytest.raises(InputError, match="it has no ``prior``"):
        method().fit(made, torch.randn(9, 2), seeds=[0], steps=1)
    assert "it has no ``prior``" in str(LatentLikelihood.unsuitable(method(), made))


def test_sigma_near_its_least_is_finite_in_float32():
    for sigma in (LEAST_SIGMA, 1 / LEAST_SIGMA):
        model = latent_mlp(3, 2, sigma=sigma, width=4).float()
        assert bool(model.energy(torch.zeros(4, 3), torch.zeros(4, 2)).isfinite().all())


def test_what_was_trained_is_found_with_its_posterior():
    fitted = VAE().fit(latent_mlp(2, 2, width=4, layers=1), torch.randn(50, 2), seeds=[3], steps=1, compile=False)
    model, posterior = fitted.joint(3)
    v = torch.randn(4, 2)
    assert torch.equal(posterior.mean(v), fitted.posterior(3).mean(v))
    assert torch.equal(model.energy(v, v), fitted.model(3).energy(v, v))
