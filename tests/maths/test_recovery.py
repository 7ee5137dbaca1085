"""Every estimator's known optimum: its expected gradient is zero there, and is not zero beside it."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad
from torch.nn.functional import softplus

from baselines import CD, DSM, MDSM, NCE, PCD, SM, SSM, VNCE
from baselines.noise import fit_noise
from bism import GRBM, BiDSM, BiMDSM, BiSSM, log_likelihood, log_partition
from bism.engine import Trainer
from bism.estimator import Estimator
from bism.posteriors import RelaxedBernoulli
from tests.maths.checks import (
    cd_bias,
    cd_gradients,
    cd_slope,
    dsm_slope,
    likelihood_gradient,
    nce_slope,
    orthogonal_grbm,
    sm_slope,
    smoothed,
    ssm_slope,
    standard_errors,
    vnce_gap,
)
from tests.maths.exact import (
    GRBMByAutograd,
    LinearGaussian,
    configurations,
    data_of,
    draws,
    expected_gradient,
    flat,
    hermite,
    hyper,
    log_z,
    make_grbm,
    moved,
    parameters,
    product,
    samples,
    set_grbm,
    state_of,
    true_posterior,
)


def test_the_quadrature_of_the_data_is_exact() -> None:
    # what the tests below stand on: the weights sum to one, and E[grad log p] = 0
    model = make_grbm()
    nodes, weights = data_of(model)
    assert float(weights.sum()) == pytest.approx(1, abs=1e-12)
    score, _ = model.score_and_laplacian(nodes)
    assert (weights @ score).norm() < 1e-6
    gradient = likelihood_gradient(model, parameters(model), nodes, weights)
    assert gradient.norm() < 1e-6


@pytest.mark.parametrize("kind", [GRBM, GRBMByAutograd])
def test_sm_recovers_the_model(kind: type[GRBM]) -> None:
    truth = make_grbm(hidden=2, kind=kind)
    assert sm_slope(SM(), truth, parameters(truth)) < 1e-6
    assert sm_slope(SM(), truth, moved(parameters(truth), 0.1)) > 0.05


def test_sm_by_the_closed_form_is_sm_by_autograd() -> None:
    gradients = []
    for kind in (GRBM, GRBMByAutograd):
        model = make_grbm(3, 4, kind=kind)
        nodes = torch.linspace(-2, 2, 30, dtype=torch.float64).reshape(10, 3)
        weights = torch.ones(10, dtype=torch.float64) / 10
        gradients.append(flat(expected_gradient(SM(), {"model": parameters(model)}, nodes, (), weights, model=model)))
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("directions", ["rademacher", "gaussian"])
def test_ssm_recovers_the_model(directions: str) -> None:
    # two signs or more give E[u u^T] = I exactly, whatever the distribution that is drawn from
    truth = make_grbm(hidden=2)
    assert ssm_slope(SSM(directions=directions), truth, parameters(truth)) < 1e-6
    assert ssm_slope(SSM(directions=directions), truth, moved(parameters(truth), 0.1)) > 0.05


@pytest.mark.parametrize("directions", ["rademacher", "gaussian"])
def test_the_directions_of_ssm_have_the_identity_as_second_moment(directions: str) -> None:
    u = SSM(directions=directions).draw((200_000, 3), draws(1))
    assert float((u.T @ u / len(u) - torch.eye(3)).abs().max()) < 0.02
    assert (u.abs() == 1).all() == (directions == "rademacher")


def test_dsm_recovers_the_smoothed_density() -> None:
    # W != 0: a mixture of Gaussians that is a GRBM before and after smoothing, with other s, W and c
    data, sigma = orthogonal_grbm(), 0.5
    target = smoothed(data, sigma)
    v = draws(2).normal((40, 2))
    z, weights = hermite(40, 2)
    convolved = torch.stack([log_likelihood(data, x - sigma * z).exp() @ weights for x in v])
    torch.testing.assert_close(log_likelihood(target, v).exp(), convolved, atol=1e-9, rtol=0)
    assert dsm_slope(DSM(sigma=sigma), data, parameters(target)) < 1e-4
    for other in (parameters(data), moved(parameters(target), 0.1)):
        assert dsm_slope(DSM(sigma=sigma), data, other) > 0.05


def test_dsm_on_a_gaussian_adds_the_variance_of_the_noise() -> None:
    zero = torch.zeros(2, 1, dtype=torch.float64)
    b, c, scale = torch.tensor([0.4, -1.0]).double(), torch.zeros(1).double(), torch.tensor([0.5, 1.2]).double()
    data, sigma = set_grbm(zero, b, c, scale), 0.3
    best = parameters(set_grbm(zero, b, c, (scale.square() + sigma**2).sqrt()))
    assert dsm_slope(DSM(sigma=sigma), data, best) < 1e-10
    assert dsm_slope(DSM(sigma=sigma), data, parameters(data)) > 0.05


@pytest.mark.parametrize("nu", [1, 3])
def test_nce_recovers_the_model_and_its_log_z(nu: int) -> None:
    truth, estimator = make_grbm(visible=1, hidden=2), NCE(nu=nu)
    theta, c = parameters(truth), log_z(truth).detach()
    assert float(c) == pytest.approx(log_partition(truth), abs=1e-12)
    assert nce_slope(estimator, truth, theta, c) < 1e-6
    assert nce_slope(estimator, truth, theta, c + 0.1) > 1e-3
    assert nce_slope(estimator, truth, moved(theta, 0.1), c) > 1e-3


def test_the_normaliser_of_nce_is_log_z_where_the_model_is_right() -> None:
    # the loss is convex in c; its slope changes sign at log Z
    truth, estimator, theta = make_grbm(visible=1, hidden=2), NCE(nu=2), parameters(make_grbm(visible=1, hidden=2))
    nodes, eps, weights = product(data_of(truth, 60), hermite(60, 1))
    carry = fit_noise("standard_normal", nodes)
    noise, slopes = eps.unsqueeze(1).expand(-1, 2, -1), []
    for change in (-0.01, 0.0, 0.01):
        params = {"model": theta, "normaliser": {"c": log_z(truth).detach() + change}}
        gradient = expected_gradient(estimator, params, nodes, noise, weights, carry, model=truth)
        slopes.append(float(gradient["normaliser"]["c"]))
    assert slopes[0] < -1e-4
    assert abs(slopes[1]) < 1e-6
    assert slopes[2] > 1e-4


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("make", [CD, PCD])
def test_cd_leaves_the_true_model_alone(make: Any, k: int) -> None:
    truth = make_grbm()
    assert cd_slope(make(k=k)) < 5
    assert standard_errors(cd_gradients(make(k=k), truth, moved(parameters(truth), 0.2))) > 20


def test_cd_tends_to_the_likelihood_gradient_as_k_grows() -> None:
    assert cd_bias(CD(k=1)) > 30
    assert cd_bias(CD(k=50)) < 5
    assert cd_bias(PCD(k=1)) > 30  # its chains are at the data here, not at the model


# --- variational noise-contrastive estimation -------------------------------------------------------------------------


@pytest.mark.parametrize("noise", ["standard_normal", "gaussian"])
@pytest.mark.parametrize("nu", [1, 2])
def test_vnce_with_the_true_posterior_is_nce(nu: int, noise: str) -> None:
    options = {"nu": nu, "noise_distribution": noise}
    assert vnce_gap(VNCE(noise_particles=3, **options), NCE(**options), make_grbm()) < 1e-10


def log_weights(estimator: VNCE, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log q(h|v) and log w(v, h) of all h for some q, and the same of the marginal, G(v)."""
    model, posterior = make_grbm(), RelaxedBernoulli((2,), 3).double()
    carry = fit_noise("standard_normal", v)
    c = torch.tensor(0.4, dtype=torch.float64)
    params = {"model": parameters(model), "posterior": parameters(posterior), "normaliser": {"c": c}}
    bound = state_of(params, model=model, posterior=posterior).bind()
    h = configurations(3).unsqueeze(1).expand(-1, len(v), -1)
    log_q = torch.stack([bound.posterior.log_prob(each, v) for each in h])
    log_w = torch.stack([estimator.log_weight(bound, v, each, carry) for each in h])
    noise = -0.5 * v.square().sum(1) - math.log(2 * math.pi)
    return log_q, log_w, -model.free_energy(v).detach() - c - noise - math.log(estimator.nu)


def test_vnce_bounds_the_objective_of_nce() -> None:
    # first term: E_q softplus(-log w) >= softplus(-G); second: E_q w is the marginal's ratio for every q
    log_q, log_w, marginal = log_weights(VNCE(nu=2), draws(3).normal((9, 2)))
    assert ((log_q.exp() * softplus(-log_w)).sum(0) > softplus(-marginal) + 1e-6).all()
    torch.testing.assert_close((log_q + log_w).logsumexp(0), marginal, atol=1e-12, rtol=0)


def test_the_loss_of_vnce_is_its_two_terms() -> None:
    estimator, model, posterior = VNCE(nu=2, noise_particles=3), make_grbm(), RelaxedBernoulli((2,), 3).double()
    batch, rng = samples(model, 8, 1), draws(4)
    noise, carry = estimator.noise(model, (8, 2), rng), estimator.fit_to(batch, 0.0)
    params = {"model": parameters(model), "posterior": parameters(posterior)}
    params["normaliser"] = {"c": torch.tensor(0.3, dtype=torch.float64)}
    bound = state_of(params, model=model, posterior=posterior).bind()
    with torch.no_grad():
        value = estimator.loss(bound, batch, noise, carry, hyper(estimator))[0]
        h = posterior.sample_hard(batch, noise["data"])
        data = (1 + (-estimator.log_weight(bound, batch, h, carry)).exp()).log().mean()
        contrast = noise["visible"]
        weights = [
            estimator.log_weight(bound, contrast, posterior.sample_hard(contrast, each), carry).exp()
            for each in noise["particles"]
        ]
        expected = data + 2 * (1 + sum(weights) / 3).log().mean()
    torch.testing.assert_close(value, expected)


def test_the_posterior_of_vnce_climbs_the_first_term() -> None:
    # at the true posterior its expected gradient, over all h, is zero
    estimator, model, v = VNCE(), make_grbm(), draws(5).normal((9, 2))
    carry, theta = fit_noise("standard_normal", v), parameters(model)
    state = state_of({}, model=model, posterior=RelaxedBernoulli((2,), 3))

    def first_term(phi: dict[str, Tensor]) -> Tensor:
        c = torch.tensor(0.4, dtype=torch.float64)
        bound = state.bind({"model": theta, "posterior": phi, "normaliser": {"c": c}})
        terms = []
        for each in configurations(3):
            h = each.expand(9, -1)
            share = bound.posterior.log_prob(h, v).exp()
            terms.append(share * softplus(-estimator.log_weight(bound, v, h, carry)))
        return torch.stack(terms).sum(0).mean()

    best = true_posterior(theta)
    assert flat(grad(first_term)(best)).norm() < 1e-12
    assert first_term(moved(best, 0.3)) > first_term(best) + 1e-3


# --- short training runs ----------------------------------------------------------------------------------------------


def trained(estimator: Estimator, data: Tensor, model: Any, steps: int, **options: Any) -> Any:
    """The models of two seeds after some steps, uncompiled."""
    trainer = Trainer(estimator, model, data, **{"seeds": (0, 1), "batch_size": 100, **options})
    trainer.run(steps)
    return trainer.fitted()


def test_nce_learns_log_z() -> None:
    truth = make_grbm(hidden=2)
    estimator = NCE(lr=1e-2, nu=2, noise_distribution="gaussian")
    fitted = trained(estimator, samples(truth, 20_000, 1).float(), make_grbm(hidden=2), 2000)
    for seed in fitted.seeds:
        c = float(fitted.parameters(seed)["normaliser"]["c"])
        assert c == pytest.approx(log_partition(fitted.model(seed)), abs=0.15)


def unsaturated_grbm() -> GRBM:
    """A GRBM whose posteriors are mostly far from 0 and 1, so that the lower level is well curved."""
    W, c = torch.tensor([[1.5, -1.0], [1.0, 1.5]]).double(), torch.tensor([-0.8, -0.8]).double()
    return set_grbm(W, torch.zeros(2).double(), c, torch.full((2,), 0.6).double())


LEVELS = {"sigma_min": 0.2, "sigma_max": 0.6, "sigma0": 0.3}
RUNS = [(BiSSM, SSM, {}), (BiDSM, DSM, {"sigma": 0.3}), (BiMDSM, MDSM, LEVELS)]


@pytest.mark.long
@pytest.mark.timeout(900)  # trainings to their ends
@pytest.mark.parametrize(("bilevel", "marginal", "options"), RUNS)
def test_bilevel_training_reaches_its_marginal_counterpart(
    bilevel: Any, marginal: Any, options: dict[str, Any]
) -> None:
    # Data from a GRBM whose v depends on h. The gradient's bias falls with the lower level's rate times N (Theorem 2),
    # so both are large here; with N = 0 the model drifts off instead.
    truth = unsaturated_grbm()
    data, test = samples(truth, 20_000, 1).float(), samples(truth, 20_000, 2)
    rate = 4.0 if bilevel is not BiMDSM else 1.3  # its lower level is weighted by 1 / sigma
    lower = {"lr_posterior": rate, "lower_optimiser": "sgd", "inner_steps": 2}
    runs = [
        (marginal(lr=1e-2, **options), 300),
        (bilevel(lr=1e-2, unroll_steps=10, **lower, **options), 300),
        (marginal(**options), 0),
    ]
    theirs, ours, start = (
        float(trained(each, data, GRBM(2, 2), steps, seeds=(0,), batch_size=500).log_likelihood(test).mean())
        for each, steps in runs
    )
    assert theirs > start + 0.5
    assert ours == pytest.approx(theirs, abs=0.02)


@pytest.mark.long
def test_without_unrolling_bissm_does_not_stay_at_the_optimum() -> None:
    # the contrast to the above: the frozen gradient is not that of score matching
    truth = unsaturated_grbm()
    data, test = samples(truth, 20_000, 1).float(), samples(truth, 20_000, 2)
    estimator = BiSSM(lr=1e-2, lr_posterior=4.0, lower_optimiser="sgd", inner_steps=2, unroll_steps=0)
    fitted = trained(estimator, data, GRBM(2, 2), 600, seeds=(0,), batch_size=500)
    assert float(fitted.log_likelihood(test).mean()) < float(log_likelihood(truth, test).mean()) - 0.1


@pytest.mark.long
def test_bidsm_with_the_fisher_divergence_learns_gaussian_latents() -> None:
    torch.manual_seed(3)
    truth, sigma = LinearGaussian(2, 1).double(), 0.3
    with torch.no_grad():
        truth.W.copy_(torch.tensor([[1.5], [1.0]]))
        truth.b.copy_(torch.tensor([0.8, -0.5]))
        covariance = truth.covariance()
        data = truth.b + draws(1).normal((20_000, 2)) @ torch.linalg.cholesky(covariance).T
    wanted = covariance + sigma**2 * torch.eye(2)
    target = torch.distributions.MultivariateNormal(truth.b.detach(), wanted)

    def distance(model: Any) -> float:
        """KL divergence from the smoothed density to the model's."""
        found = torch.distributions.MultivariateNormal(model.b.detach().double(), model.covariance().detach().double())
        return float(torch.distributions.kl_divergence(target, found))

    for lower in ("fisher", "kl"):
        estimator = BiDSM(sigma=sigma, lr=1e-2, lr_posterior=2e-2, inner_steps=3, unroll_steps=3, lower=lower)
        fitted = trained(estimator, data.float(), LinearGaussian(2, 1), 600, seeds=(0,), batch_size=400)
        start = trained(estimator, data.float(), LinearGaussian(2, 1), 0, seeds=(0,))
        assert distance(start.model(0)) > 0.2
        assert distance(fitted.model(0)) < 0.02
