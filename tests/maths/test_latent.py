"""Models with a prior and a decoder, and what trains them, against the linear-Gaussian model's closed forms."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad

from baselines.vae import VAE, negative_elbo
from bism.errors import InputError
from bism.functional import Bound, Methods
from bism.hmc import chains, hmc, leapfrog
from bism.latent import LatentModel, latent_conv, latent_mlp
from bism.posteriors import DiagonalGaussian
from bism.priors import StandardNormal, Tilted
from bism.quadrature import log_integral
from bism.rng import Rng, generator
from bism.state import Parts


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


def test_energy_and_its_parts_are_the_normalised_densities():
    model, v, h = linear_gaussian(), rng().normal((5, 3)), rng(1).normal((5, 2))
    given = torch.distributions.Normal(model.decoder(h), model.sigma).log_prob(v).sum(1)
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(h).sum(1)
    assert torch.allclose(model.energy(v, h), -given - prior, atol=1e-12)
    binary = latent_mlp(3, 2, observation="bernoulli").double()
    x = (v > 0).double()
    total = torch.distributions.Bernoulli(logits=binary.decoder(h)).log_prob(x).sum(1)
    assert torch.allclose(binary.log_visible(x, h), total, atol=1e-12)


def test_the_elbo_of_the_true_posterior_is_log_p_and_below_it_by_the_kl_else():
    model, v = linear_gaussian(), rng().normal((4, 3))
    model.decoder.layer.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.5], [0.0, 0.0]]))  # a diagonal posterior
    mean, covariance = exact_posterior(model, v)
    spread = covariance.diagonal().sqrt()
    q = DiagonalGaussian((3,), 2).double().requires_grad_(False)
    W, b = model.decoder.layer.weight, model.decoder.layer.bias
    linear = covariance @ W.T / model.sigma**2
    q.mean_head.weight.copy_(linear), q.mean_head.bias.copy_(-linear @ b)
    q.log_std_head.weight.zero_(), q.log_std_head.bias.copy_(spread.log())
    assert torch.allclose(q.mean(v), mean, atol=1e-12)
    noise = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)  # exact to degree 3
    found = torch.stack([-negative_elbo(model, q, v, one.expand(4, 2)) for one in noise]).mean(0)
    exact = exact_log_likelihood(model, v)
    assert torch.allclose(found, exact, atol=1e-12)
    wider = 0.3  # KL(N(m, (e^a s)^2) || N(m, s^2)) = (e^2a - 1) / 2 - a a unit
    q.log_std_head.bias.add_(wider)
    found = torch.stack([-negative_elbo(model, q, v, one.expand(4, 2)) for one in noise]).mean(0)
    gap = 2 * (0.5 * (math.exp(2 * wider) - 1) - wider)
    assert torch.allclose(exact - found, torch.full((4,), gap, dtype=torch.float64), atol=1e-12)


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
    data = source.normal((3000, 2)) @ mixing.T + 0.4 * source.normal((3000, 3))
    model = LatentModel(Linear(3, 1), StandardNormal(1), sigma=1.0, learn_sigma=True)
    fitted = VAE(lr=0.02, lr_posterior=0.02, decay_steps=1500).fit(
        model, data, seeds=[0], steps=1500, dtype=torch.float64
    )
    covariance = torch.cov(data.T, correction=0)
    values = torch.linalg.eigvalsh(covariance).flip(0)
    noise = values[1:].mean()  # Tipping and Bishop 1999: the optimum of one code
    best = -0.5 * (3 * math.log(2 * math.pi) + values[0].log() + 2 * noise.log() + 3)
    found = exact_log_likelihood(fitted.model(0), data).mean()
    assert float(best - found) < 0.01
    assert float(found - best) < 1e-9  # nothing lies above the optimum
    assert float(fitted.model(0).sigma) == pytest.approx(float(noise.sqrt()), rel=0.03)


# --- priors and Hamiltonian Monte Carlo ------------------------------------------------------------------------------


def test_leapfrog_is_reversible_and_preserves_volume():
    prior = Tilted(2, width=8).double().requires_grad_(False)
    x, p = rng(1).normal((1, 2)), rng(2).normal((1, 2))
    y, q = leapfrog(prior.energy, x, p, 0.2, 7)
    back, reversed_p = leapfrog(prior.energy, y, -q, 0.2, 7)
    assert torch.allclose(back, x, atol=1e-12)
    assert torch.allclose(reversed_p, -p, atol=1e-12)

    def flow(state: Tensor) -> Tensor:
        return torch.cat(leapfrog(prior.energy, state[:2][None], state[2:][None], 0.2, 7), 1)[0]

    jacobian = torch.func.jacrev(flow)(torch.cat([x, p], 1)[0])
    assert float(torch.linalg.det(jacobian)) == pytest.approx(1.0, abs=1e-10)


def test_hmc_leaves_a_tilted_prior_invariant_at_a_step_size_that_is_often_refused():
    """Its moments by quadrature, of chains that start at exact samples by rejection and make steps."""
    torch.manual_seed(3)
    prior = Tilted(1, width=8, layers=1).double().requires_grad_(False)
    prior.network[-1].weight.mul_(6)
    grid = torch.linspace(-7, 7, 20001, dtype=torch.float64)[:, None]
    density = (-prior.energy(grid)).softmax(0)
    moments = torch.stack([(density * grid[:, 0] ** power).sum() for power in (1, 2)])
    source, count = rng(4), 40_000
    x = grid[torch.multinomial(density, count, replacement=True, generator=source.source)]
    accepted = []
    for _ in range(5):
        x, probability = hmc(prior.energy, x, source.normal(x.shape), source.uniform((count,)), 1.4, 3)
        accepted.append(float(probability.mean()))
    assert 0.2 < sum(accepted) / 5 < 0.95
    for power, exact in zip((1, 2), moments, strict=True):
        values = x[:, 0] ** power
        assert abs(float(values.mean() - exact)) < 4 * float(values.std()) / math.sqrt(count)


def test_draws_of_a_tilted_prior_have_the_moments_of_quadrature():
    torch.manual_seed(5)
    prior = Tilted(2, width=8, layers=1).double().requires_grad_(False)
    prior.network[-1].weight.mul_(4)
    axis = torch.linspace(-6, 6, 301, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    density = (-prior.energy(grid)).softmax(0)
    mean, square = density @ grid, density @ grid.square()
    assert float(mean.abs().max()) > 0.2  # not that of N(0, I)
    h = prior.draw(4000, rng(6))
    for values, exact in ((h, mean), (h.square(), square)):
        assert bool(((values.mean(0) - exact).abs() < 4 * values.std(0) / math.sqrt(4000)).all())


def test_a_tilted_priors_normaliser_is_the_mean_of_its_tilt():
    prior = Tilted(2, width=8, layers=1).double().requires_grad_(False)
    log_z = log_integral(lambda h: -prior.energy(h), 2).log_z
    weights = prior.tilt(rng(7).normal((200_000, 2))).exp()
    assert abs(float(weights.mean()) - math.exp(log_z)) < 4 * float(weights.std()) / math.sqrt(200_000)


def test_chains_find_a_step_size_that_is_accepted_two_times_out_of_three():
    found = chains(lambda x: 0.5 * (x / 0.01).square().sum(-1), rng(8).normal((50, 3)) * 0.01, rng(9), steps=400)
    assert 0.5 < found.acceptance < 0.8
    assert found.step_size < 0.03


# --- what is drawn ---------------------------------------------------------------------------------------------------


def test_draws_have_the_models_mean_and_covariance():
    model = linear_gaussian()
    v = model.draw(100_000, rng(10))
    layer = model.decoder.layer
    covariance = layer.weight @ layer.weight.T + model.sigma**2 * torch.eye(3, dtype=torch.float64)
    assert torch.allclose(v.mean(0), layer.bias, atol=0.02)
    assert torch.allclose(torch.cov(v.T), covariance, atol=0.03)
    model.drawn = "means"
    means = torch.cov(model.draw(100_000, rng(10)).T)
    assert torch.allclose(means, layer.weight @ layer.weight.T, atol=0.03)


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
        ({"sigma": 0.0}, "sigma, a standard deviation, must be a finite number above 0"),
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


def test_what_was_trained_is_found_with_its_posterior():
    fitted = VAE().fit(latent_mlp(2, 2, width=4, layers=1), torch.randn(50, 2), seeds=[3], steps=1, compile=False)
    model, posterior = fitted.joint(3)
    v = torch.randn(4, 2)
    assert torch.equal(posterior.mean(v), fitted.posterior(3).mean(v))
    assert torch.equal(model.energy(v, v), fitted.model(3).energy(v, v))
