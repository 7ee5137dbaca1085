"""Binary latent variables behind a smoothing: its inverse, the prior, the gradient, and the likelihood."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from baselines.dvae import DVAE
from baselines.vae import VAE
from bism.discrete import RBMPrior, SmoothedBernoulli
from bism.errors import InputError
from bism.functional import Bound, Methods
from bism.latent import LatentModel, OfFirst, latent_conv, latent_mlp
from bism.likelihood import importance_bound
from bism.rng import Rng, generator
from bism.smoothing import SMOOTHINGS, Smoothing
from bism.state import Parts
from tests.maths.test_latent import Linear

KINDS = pytest.mark.parametrize("kind", list(SMOOTHINGS))
V = torch.tensor([[0.7, -0.4, 0.2]], dtype=torch.float64)


def rng(seed: int = 0) -> Rng:
    return Rng(generator(seed, 0, "tests"), torch.float64)


def gauss(count: int, low: float = 0.0, high: float = 1.0) -> tuple[Tensor, Tensor]:
    """Nodes and weights of Gauss and Legendre."""
    x, w = (torch.tensor(part) for part in np.polynomial.legendre.leggauss(count))
    return low + (high - low) * (x + 1) / 2, (high - low) * w / 2


def conditional(smoothing: Smoothing, z: float, count: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights for integrals over r(zeta|z)."""
    b = smoothing.sharpness
    if z == 0 and type(smoothing) is SMOOTHINGS["spike_exponential"]:
        return torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    x, w = gauss(count)
    return x, w * b * (b * (x if z else 1 - x)).exp() / math.expm1(b)


def tiny(kind: str, units: int = 4, sharpness: float = 3.0) -> tuple[LatentModel, SmoothedBernoulli]:
    """A model of 3 real v, and a linear posterior."""
    torch.manual_seed(0)
    prior = RBMPrior(units, SMOOTHINGS[kind](sharpness))
    model = LatentModel(OfFirst(Linear(3, units), prior.codes), prior, sigma=0.6).double().requires_grad_(False)
    for parameter in prior.parameters():
        parameter.copy_(rng(len(parameter)).normal(parameter.shape))
    return model, SmoothedBernoulli(nn.Linear(3, units), prior.smoothing).double().requires_grad_(False)


def configurations(units: int) -> Tensor:
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=units)), dtype=torch.float64)


def products(each: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Points [n, units] and weights [n] of all combinations."""
    return torch.cartesian_prod(*(x for x, _ in each)), torch.cartesian_prod(*(w for _, w in each)).prod(1)


# --- the smoothing ---------------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("sharpness", [0.5, 5.0, 12.0])
def test_the_inverse_is_one_of_the_distribution_function(kind, sharpness):
    smoothing = SMOOTHINGS[kind](sharpness)
    rho, q = torch.cartesian_prod(*2 * (torch.linspace(0, 1, 41, dtype=torch.float64)[1:-1],)).T
    zeta = smoothing.inverse(rho, q)
    continuous = zeta > 0
    assert torch.allclose(smoothing.cdf(zeta, q)[continuous], rho[continuous], atol=1e-12, rtol=0)
    if kind == "spike_exponential":
        assert torch.equal(continuous, rho > 1 - q + 1e-15)
    else:
        assert bool(continuous.all())
    zero, one = torch.zeros_like(q), torch.ones_like(q)
    assert torch.allclose(smoothing.inverse(zero, q), zero, atol=1e-12)
    assert torch.allclose(smoothing.inverse(one, q), one, atol=1e-12)
    assert bool((smoothing.inverse(rho.float(), q.float()) - zeta).abs().max() < 1e-4)


@KINDS
@pytest.mark.parametrize("sharpness", [0.01, 80.0])
def test_the_inverse_holds_in_float32_at_both_ends_of_sharpness(kind, sharpness):
    smoothing = SMOOTHINGS[kind](sharpness)
    rho = torch.linspace(0.001, 0.999, 200)
    for q in (0.0, 1e-6, 0.3, 1 - 1e-6, 1.0):
        share = torch.full_like(rho, q).requires_grad_()
        zeta = smoothing.inverse(rho, share)
        (slope,) = torch.autograd.grad(zeta.sum(), share)
        assert bool(slope.isfinite().all())
        below = torch.maximum(rho, 1 - share) if kind == "spike_exponential" else rho
        assert torch.allclose(smoothing.cdf(zeta.double(), share.double()), below.double(), atol=5e-5)


@KINDS
def test_certain_units_are_drawn_of_r_and_the_mean_is_that_of_quadrature(kind):
    smoothing = SMOOTHINGS[kind](4.0)
    rho, weights = gauss(200)
    for z in (0.0, 1.0):
        x, w = conditional(smoothing, z, 40)
        zeta = smoothing.inverse(rho, torch.full_like(rho, z))
        for power in (1, 2):
            assert float(weights @ zeta**power) == pytest.approx(float(w @ x**power), abs=1e-5)
        q = torch.tensor(z, dtype=torch.float64)
        assert float(smoothing.mean(q)) == pytest.approx(float(w @ x), abs=1e-12)
    q = torch.tensor(0.3, dtype=torch.float64)
    ends = [smoothing.mean(torch.tensor(z, dtype=torch.float64)) for z in (0.0, 1.0)]
    assert float(smoothing.mean(q)) == pytest.approx(float(0.7 * ends[0] + 0.3 * ends[1]), abs=1e-12)


@KINDS
def test_gradients_in_q_are_finite_where_it_is_certain(kind):
    smoothing = SMOOTHINGS[kind](5.0)
    rho, q = torch.cartesian_prod(torch.linspace(0, 0.99, 12), torch.tensor([0.0, 1e-30, 0.5, 1 - 2**-24, 1.0])).T
    slope = grad(lambda at: smoothing.inverse(rho, at).sum())(q)
    assert bool(slope.isfinite().all())
    assert bool((slope > -1e-5).all())  # zeta rises with q


# --- the prior -------------------------------------------------------------------------------------------------------


@KINDS
def test_the_prior_of_four_and_four_units_is_the_boltzmann_machine(kind):
    model, _ = tiny(kind, units=8)
    prior, z = model.prior, configurations(8)
    h = torch.cat([torch.rand_like(z), z], 1)
    first, second = z[:, :4], z[:, 4:]
    W, b, c = prior.rbm.W, prior.rbm.b, prior.rbm.c
    energy = -torch.stack([x @ b + y @ c + x @ W @ y for x, y in zip(first, second, strict=True)])
    assert torch.allclose(prior.energy(h), energy, atol=1e-12)
    assert prior.log_partition() == pytest.approx(float((-energy).logsumexp(0)), abs=1e-12)
    p = (-energy).softmax(0)
    assert torch.allclose((-prior.energy(h) - prior.log_partition()).exp(), p, atol=1e-12)
    drawn = prior.draw(20_000, rng(3))
    for found, exact in ((drawn[:, 8:], p @ z), (drawn[:, :8], prior.smoothing.mean(p @ z))):
        assert bool(((found.mean(0) - exact).abs() < 4.5 * found.std(0) / math.sqrt(20_000)).all())
    pairs = torch.einsum("n,ni,nj->ij", p, first, second)
    assert bool((drawn[:, 8:12].T @ drawn[:, 12:] / 20_000 - pairs).abs().max() < 0.02)


# --- the gradient ----------------------------------------------------------------------------------------------------


def objective(model, posterior, v: Tensor, nodes: int = 10) -> Tensor:
    """-E_q [log p(v|zeta)] + KL(q(z|v) || p(z)) of one v, by a sum over all z and quadrature over zeta."""
    units, logits = model.prior.units, posterior.logits(v)[0]
    z = configurations(units)
    log_q = (z * logits.sigmoid().log() + (1 - z) * (-logits).sigmoid().log()).sum(1)
    energy = model.prior_energy(torch.cat([z, z], 1))
    total = (log_q.exp() * (log_q + energy)).sum() + (-energy).logsumexp(0)
    for one, weight in zip(z, log_q.exp(), strict=True):
        zeta, w = products([conditional(model.prior.smoothing, float(unit), nodes) for unit in one])
        at = torch.cat([zeta, zeta], 1)
        total = total - weight * (w @ model.log_visible(v.expand(len(zeta), 3), at))
    return total


def mean_gradient(model, posterior, nodes: int = 10):
    """The mean of the method's gradient over rho, and over its prior's chains; and that of ``objective``."""
    given = {"model": dict(model.named_parameters()), "posterior": dict(posterior.named_parameters())}
    structures = {"model": Methods(model), "posterior": Methods(posterior)}

    def bind(params):
        return Parts({name: Bound(structures[name], tensors) for name, tensors in params.items()})

    def loss(params, rho, chain):
        value, _, _ = DVAE().loss(
            bind(params), V, rho[None], {"chains": chain[None]}, {"kl_weight": torch.ones((), dtype=torch.float64)}
        )
        return value

    q = posterior.logits(V)[0].sigmoid()
    spike = type(model.prior.smoothing) is SMOOTHINGS["spike_exponential"]
    pieces = []
    for one in q.tolist():
        above = gauss(nodes, 1 - one if spike else 0.0, 1.0)
        below = gauss(1, 0.0, 1 - one)
        pieces.append(tuple(torch.cat(pair) for pair in zip(below, above, strict=True)) if spike else above)
    rho, weights = products(pieces)
    chains = configurations(2)
    p = (-model.prior.rbm.free_energy(chains)).softmax(0)
    of_rho = vmap(grad(loss), (None, 0, None))(given, rho, chains[0])
    of_chains = vmap(grad(loss), (None, None, 0))(given, rho[0], chains)
    exact = grad(lambda params: objective(bind(params).model, bind(params).posterior, V, nodes))(given)
    found = {}
    for part, tensors in exact.items():
        for name in tensors:
            a, b = of_rho[part][name], of_chains[part][name]
            mean = torch.tensordot(weights, a, 1) + torch.tensordot(p, b, 1) - b[0]
            found[f"{part}.{name}"] = (mean, tensors[name])
    return found


def dvae_error(kind: str) -> float:
    """The largest difference of the two, relative to the largest entry."""
    found = mean_gradient(*tiny(kind, sharpness=1.5), nodes=12)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-3)) for a, b in found.values())


@KINDS
def test_the_mean_gradient_is_that_of_the_exact_objective(kind):
    assert dvae_error(kind) < 1e-5


# --- the likelihood --------------------------------------------------------------------------------------------------


def exact_log_likelihood(model, v: Tensor, nodes: int = 10) -> Tensor:
    """log sum_z p(z) of the integral of r(zeta|z) p(v|zeta), of one v."""
    z = configurations(model.prior.units)
    log_p = (-model.prior_energy(torch.cat([z, z], 1))).log_softmax(0)
    terms = []
    for one, log_weight in zip(z, log_p, strict=True):
        zeta, w = products([conditional(model.prior.smoothing, float(unit), nodes) for unit in one])
        terms.append(
            log_weight + (w @ model.log_visible(v.expand(len(zeta), 3), torch.cat([zeta, zeta], 1)).exp()).log()
        )
    return torch.stack(terms).logsumexp(0)


@KINDS
def test_the_importance_bound_goes_to_the_exact_likelihood_and_the_elbo_is_below(kind):
    model, posterior = tiny(kind)
    exact, log_z, count = float(exact_log_likelihood(model, V)), model.prior.log_partition(), 100_000
    one = importance_bound(model, posterior, V.expand(count, 3), particles=1) - log_z
    for found, wanted in ((one.exp(), math.exp(exact)), (one, -float(objective(model, posterior, V)))):
        assert abs(float(found.mean()) - wanted) < 4 * float(found.std()) / math.sqrt(count)
    several = importance_bound(model, posterior, V.expand(500, 3), particles=20) - log_z
    assert float(one.mean()) + 0.1 < float(several.mean()) < exact
    many = one.reshape(2, -1).logsumexp(1) - math.log(count / 2)
    assert bool(((many - exact).abs() < 0.05).all())


@pytest.mark.long
@KINDS
def test_training_finds_two_patterns(kind):
    """Which of them it is takes one bit of z, that a prior of independent fair units would waste on neither."""
    pattern = torch.tensor([1.0, 0, 1, 0, 1, 0])
    data = torch.where(rng(2).uniform((400, 1)) < 0.5, pattern, 1 - pattern).float()
    model = latent_mlp(6, 4, prior="rbm", smoothing=kind, observation="bernoulli", width=16, layers=1)
    method = DVAE(lr=0.03, lr_posterior=0.03, gibbs_sweeps=1)
    fitted = method.fit(model, data, seeds=[0], steps=200, batch_size=50, compile=False)
    v = fitted.draw(500, 0)
    wrong = torch.minimum((v - pattern).abs().sum(1), (v - 1 + pattern).abs().sum(1))
    assert float((wrong == 0).float().mean()) > 0.9
    assert 0.25 < float(v[:, 0].mean()) < 0.75


# --- what is refused, and images -------------------------------------------------------------------------------------


def test_images_have_binary_codes_too():
    model = latent_conv((1, 8, 8), 4, width=4, prior="rbm", smoothing="overlapping_exponential")
    posterior, v = model.default_posterior(), torch.randn(2, 1, 8, 8)
    assert posterior.mean(v).shape == (2, 8)
    assert model.reconstruct(v, posterior).shape == v.shape
    assert model.draw(3, Rng(generator(0, 0, "tests"))).shape == (3, 1, 8, 8)


def test_what_cannot_be_is_refused():
    data = torch.randn(50, 2)
    with pytest.raises(InputError, match="are binary; dvae trains such models"):
        VAE().fit(latent_mlp(2, 2, prior="rbm"), data, seeds=[0], steps=1)
    with pytest.raises(InputError, match="it is for binary latent variables, prior: rbm"):
        DVAE().fit(latent_mlp(2, 2), data, seeds=[0], steps=1)
    with pytest.raises(InputError, match="smoothing must be one of spike_exponential, overlapping_exponential"):
        latent_mlp(2, 2, prior="rbm", smoothing="none")
    with pytest.raises(InputError, match="codes of an rbm must be at least 2"):
        latent_mlp(2, 1, prior="rbm")
    with pytest.raises(InputError, match="sharpness must be a finite number above 0"):
        latent_mlp(2, 2, prior="rbm", sharpness=0.0)
    for sharpness in (1e-3, 100.0, 1000):
        with pytest.raises(InputError, match=r"sharpness must be from 0\.01 to 80, got"):
            latent_mlp(2, 2, prior="rbm", sharpness=sharpness)
