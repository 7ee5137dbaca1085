"""Bi-level score matching: the lower level's optimum, and Theorems 1 and 2."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, jacrev, vmap

from baselines import DSM, MDSM, SM, SSM
from bism import BiDSM, BiMDSM, BiSSM
from bism.bilevel import descend, kl_divergence, log_ratio, posterior_fisher_divergence, unrolled
from bism.objectives import score
from bism.optimisers import sgd_update
from bism.posteriors import DiagonalGaussian, RelaxedBernoulli
from tests.maths.checks import bilevel_batch, exact_kl, start, theorem_one
from tests.maths.exact import (
    BiExact,
    GaussianOfUnitScale,
    GivenSamples,
    LinearGaussian,
    configurations,
    draws,
    flat,
    hyper,
    make_grbm,
    moved,
    parameters,
    relative,
    state_of,
    true_posterior,
)

PAIRS = [(BiExact, SM), (BiSSM, SSM), (BiDSM, DSM), (BiMDSM, MDSM)]


def points(size: int = 6, seed: int = 2) -> Tensor:
    """A few visible vectors."""
    return draws(seed).normal((size, 2))


# --- the lower level, eq. (10) and (11) -------------------------------------------------------------------------------


def test_the_true_posterior_minimises_eq_10() -> None:
    # The expectation over h is a sum over all h; at phi* = (W, c) the value is F(v), elsewhere it is greater.
    model, v = make_grbm(), points()
    state = state_of({}, model=model, posterior=RelaxedBernoulli((2,), 3))

    def lower(phi: dict[str, Tensor]) -> Tensor:
        bound = state.bind({"model": parameters(model), "posterior": phi})
        return exact_kl(bound.model, bound.posterior, v).mean()

    best = true_posterior(parameters(model))
    torch.testing.assert_close(lower(best), model.free_energy(v).mean().detach(), atol=1e-12, rtol=0)
    assert flat(grad(lower)(best)).norm() < 1e-12
    for seed in range(5):
        assert lower(moved(best, 0.3, seed)) > lower(best) + 1e-3


def test_with_the_true_posterior_every_sample_has_the_weight_of_the_marginal() -> None:
    # log p~(v, h) - log q(h|v) = -F(v) for binary and for relaxed h, hence eq. (10) is F(v) for any k
    model, v = make_grbm(), points()
    bound = state_of({}, model=model, posterior=RelaxedBernoulli((2,), 3)).bind(
        {"model": parameters(model), "posterior": true_posterior(parameters(model))}
    )
    for h in (*configurations(3), draws(3).uniform((3,))):
        ratio = log_ratio(bound.model, bound.posterior, v, h.expand(6, -1))
        torch.testing.assert_close(ratio, -model.free_energy(v).detach(), atol=1e-12, rtol=0)
    for particles in (1, 4):
        noise = model.latent.noise(draws(4), (particles, 6))
        value = kl_divergence(bound.model, bound.posterior, v, noise, 0.1)
        torch.testing.assert_close(value, model.free_energy(v).detach(), atol=1e-12, rtol=0)


def exact_bound(model: Any, posterior: GivenSamples, v: Tensor, k: int) -> Tensor:
    """The expectation of ``kl_divergence`` over k independent particles of 2 binary units, [batch]."""
    h, bound = configurations(2), v.new_zeros(len(v))
    log_q = torch.stack([posterior.log_prob(each.expand(len(v), -1), v) for each in h])  # [4, batch]
    assert float((log_q.exp().sum(0) - 1).abs().max()) < 1e-12
    for chosen in torch.cartesian_prod(*[torch.arange(4)] * k).reshape(-1, k):
        noise = h[chosen].unsqueeze(1).expand(-1, len(v), -1)
        bound += log_q[chosen].sum(0).exp() * kl_divergence(model, posterior, v, noise, 0.1)
    return bound


class Hard(RelaxedBernoulli):
    """Its samples are binary."""

    def sample(self, v: Tensor, noise: Tensor, temperature: Tensor | float) -> Tensor:
        return self.sample_hard(v, noise)


@pytest.mark.parametrize("particles", [1, 3])
def test_the_lower_level_of_a_method_is_the_bound_of_independent_particles(particles: int) -> None:
    """With the noise that the method draws; particles that share theirs would give the bound of one."""
    estimator, model, count = BiSSM(particles=particles), make_grbm(hidden=2), 100_000
    posterior, given = Hard((2,), 2).double(), GivenSamples((2,), 2).double()
    given.load_state_dict(posterior.state_dict())
    v = points()[:1]
    params = state_of({}, model=model, posterior=posterior).bind(
        {"model": parameters(model), "posterior": parameters(posterior)}
    )
    with torch.no_grad():
        one, several = (float(exact_bound(model, given, v, k)) for k in (1, 3))
        own, (inner,) = estimator.stages[0].draw(model, (count, 2), draws(6))
        for noise in (inner[0], own["unroll"][0]):
            found = float(estimator.lower_loss(params, v.expand(count, -1), noise, hyper(estimator)))
            assert found == pytest.approx(one if particles == 1 else several, abs=0.1 * (one - several))


def test_the_spread_of_eq_11_falls_with_the_number_of_independent_particles() -> None:
    """The variance of a mean of k; it would be that of one particle if all had the same noise."""
    model, posterior, v = LinearGaussian(2, 2).double(), DiagonalGaussian((2,), 2).double(), points()[:1]
    params = state_of({}, model=model, posterior=posterior).bind(
        {"model": parameters(model), "posterior": parameters(posterior)}
    )
    spread = {}
    for particles in (1, 4):
        estimator = BiSSM(lower="fisher", particles=particles)
        noise = estimator.inner_noise(model, (5_000, 2), draws(6))

        def lower(hidden: Tensor, noise: Any = noise, estimator: BiSSM = estimator) -> Tensor:
            return estimator.lower_loss(params, v, {**noise, "hidden": hidden.unsqueeze(1)}, hyper(estimator))

        spread[particles] = float(vmap(lower, in_dims=1)(noise["hidden"]).var())
    assert spread[1] / spread[4] == pytest.approx(4, rel=0.25)


def test_kl_with_one_particle_is_eq_10_and_more_particles_tighten_the_bound() -> None:
    # Expectations over all k-tuples of h, each with its probability under q.
    model, v = make_grbm(hidden=2), points()
    posterior = GivenSamples((2,), 2).double()
    with torch.no_grad():
        bounds = [exact_bound(model, posterior, v, k) for k in (1, 2, 3)]
        torch.testing.assert_close(bounds[0], exact_kl(model, posterior, v), atol=1e-12, rtol=0)
        assert (bounds[0] > bounds[1] + 1e-6).all()
        assert (bounds[1] > bounds[2] + 1e-6).all()
        assert (bounds[2] > model.free_energy(v) + 1e-6).all()


def test_relaxed_samples_tend_to_bernoulli_draws() -> None:
    model, v = make_grbm(), points(1).expand(200_000, -1)
    posterior = RelaxedBernoulli((2,), 3).double()
    noise = model.latent.noise(draws(5), (200_000,))
    with torch.no_grad():
        hard, probability = posterior.sample_hard(v, noise), posterior.logits(v[:1])[0].sigmoid()
        error = (probability * (1 - probability) / len(v)).sqrt()
        assert ((hard.mean(0) - probability).abs() < 5 * error).all()
        torch.testing.assert_close(posterior.sample(v, noise, 1e-9), hard)
        warm = posterior.sample(v, noise, 0.1)
        assert float(((warm > 0.5).double() - hard).abs().max()) == 0
        assert float((warm - hard).abs().max()) > 0.4


def test_gaussian_posteriors_have_the_density_of_their_samples() -> None:
    posterior, v = DiagonalGaussian((2,), 3).double(), points()
    noise = draws(22).normal((6, 3))
    with torch.no_grad():
        h = posterior.sample(v, noise)
        mean, log_std = posterior._parameters_at(v)
        expected = torch.distributions.Normal(mean, log_std.exp()).log_prob(h).sum(1)
        torch.testing.assert_close(posterior.log_prob(h, v), expected, atol=1e-12, rtol=0)
        torch.testing.assert_close((h - mean) / log_std.exp(), noise, atol=1e-12, rtol=0)
    assert not posterior.sample_hard(v, noise).requires_grad
    assert posterior.sample(v, noise).requires_grad


def test_eq_11_is_its_closed_form_for_gaussians() -> None:
    # 1/2 ||P (mu - m)||^2 + 1/2 tr[(P - T^-1) T (P - T^-1)] for q = N(mu, T) and p(h|v) = N(m, P^-1). Particles
    # +-sqrt(m) e_i have the standard normal's first two moments, so their mean is the expectation.
    model, posterior, v = LinearGaussian(2, 3).double(), DiagonalGaussian((2,), 3).double(), points()
    particles = torch.cat([torch.eye(3), -torch.eye(3)]).double() * 3**0.5
    noise = particles.unsqueeze(1).expand(-1, 6, -1)
    with torch.no_grad():
        mean, precision = model.posterior(v)
        mu, log_std = posterior._parameters_at(v)
        expected = 0.5 * ((mu - mean) @ precision).square().sum(1)
        for i in range(len(v)):
            variance = (2 * log_std[i]).exp()
            excess = precision - variance.reciprocal().diag()
            expected[i] += 0.5 * (excess @ variance.diag() @ excess).trace()
    value = posterior_fisher_divergence(model, posterior, v, noise, 1.0).detach()
    torch.testing.assert_close(value, expected, atol=1e-10, rtol=0)


def test_eq_11_is_zero_at_the_true_posterior() -> None:
    model, posterior, v = LinearGaussian(2, 1).double(), DiagonalGaussian((2,), 1).double(), points()
    with torch.no_grad():
        mean, precision = model.posterior(torch.cat([torch.zeros(1, 2), torch.eye(2)]).double())
        posterior.mean_head.bias.copy_(mean[0])
        posterior.mean_head.weight.copy_((mean[1:] - mean[0]).T)
        posterior.log_std_head.weight.zero_()
        posterior.log_std_head.bias.copy_(-0.5 * precision[0].log())
    noise = draws(6).normal((2, 6, 1))
    with torch.no_grad():
        assert float(posterior_fisher_divergence(model, posterior, v, noise, 1.0).abs().max()) < 1e-20
        # and eq. (10) is then the free energy up to the constant of a Gaussian integral
        gap = kl_divergence(model, posterior, v, noise, 1.0) - model.free_energy(v)
        assert float(gap.std()) < 1e-12


# --- Theorem 1 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bilevel", "marginal"), PAIRS)
@pytest.mark.parametrize("temperature", [0.1, 1e-9], ids=["relaxed", "binary"])
def test_theorem_1(bilevel: Any, marginal: Any, temperature: float) -> None:
    assert theorem_one(bilevel(), marginal(), temperature=temperature) < 1e-10


@pytest.mark.parametrize(("bilevel", "marginal"), PAIRS)
@pytest.mark.parametrize("temperature", [0.1, 1e-9], ids=["relaxed", "binary"])
def test_with_a_frozen_posterior_the_gradient_is_another(bilevel: Any, marginal: Any, temperature: float) -> None:
    assert theorem_one(bilevel(), marginal(), frozen=True, temperature=temperature) > 0.02


def test_with_a_frozen_posterior_the_expected_gradient_is_another() -> None:
    # not only in one draw of h: here h is summed over with its probability under q
    model, v, h = make_grbm(), points(), configurations(3)
    theta, posterior = parameters(model), GivenSamples((2,), 3)
    state, estimator = state_of({}, model=model, posterior=posterior), BiExact()

    def expected(at: dict[str, Tensor], phi: Any) -> Tensor:
        bound = state.bind({"model": at, "posterior": phi(at)})
        total = torch.zeros((), dtype=torch.float64)
        for i in range(len(v)):
            for each in h:
                one, sample = v[i : i + 1], each.unsqueeze(0)
                noise = {"upper": {"visible": (), "hidden": sample}}
                value = estimator.loss(bound, one, noise, {}, hyper(estimator))[0]
                total = total + bound.posterior.log_prob(sample, one).exp()[0] * value
        return total / len(v)

    marginal = SM()
    target = grad(lambda at: marginal.loss(state.bind({"model": at}), v, (), {}, hyper(marginal))[0])(theta)
    fixed = true_posterior(theta)
    assert relative(grad(lambda at: expected(at, true_posterior))(theta), target) < 1e-10
    assert relative(grad(lambda at: expected(at, lambda _: fixed))(theta), target) > 0.1


def test_the_sample_of_h_is_held_fixed_in_the_score() -> None:
    # grad_v [log p~(v, h) - log q(h|v)] at fixed h, although h is a function of v: Theorem 1 alone cannot see it,
    # because at phi* the ratio does not depend on h
    model, posterior, v = make_grbm(), RelaxedBernoulli((2,), 3).double(), points()
    estimator = BiDSM(sigma=0.1)
    noise = {"upper": {"visible": torch.zeros_like(v), "hidden": model.latent.noise(draws(7), (6,))}}
    values = hyper(estimator, temperature=0.5)
    h = posterior.sample(v, noise["upper"]["hidden"], 0.5).detach()
    expected = 0.5 * score(lambda x: log_ratio(model, posterior, x, h), v).square().sum(1).mean()
    params = {"model": parameters(model), "posterior": parameters(posterior)}
    bound = state_of(params, model=model, posterior=posterior).bind()
    torch.testing.assert_close(estimator.loss(bound, v, noise, {}, values)[0], expected.detach())


# --- Theorem 2 --------------------------------------------------------------------------------------------------------


def biases(upper: Any, lower: Any, theta: Any, phi: Any, target: Any, lr: float, counts: list[int]) -> list[float]:
    """Norm of the gradient's bias after N unrolled steps of gradient descent, for each N."""

    def update(gradient: Any, params: Any, state: Any) -> Any:
        return sgd_update(gradient, params, state, lr)

    found = [grad(unrolled(upper, lower, phi, {}, [None] * n, update))(theta) for n in counts]
    return [float((flat(each) - flat(target)).norm()) for each in found]


def test_theorem_2_where_the_rate_is_known() -> None:
    # With q = N(A v + a, I / 4) eq. (11) is quadratic in phi = (A, a): the bias falls as N kappa^N, kappa the largest
    # |1 - alpha eigenvalue|, and from phi^0 = phi* as kappa^N.
    model, posterior = LinearGaussian(2, 2).double(), GaussianOfUnitScale(2, 2).double()
    with torch.no_grad():
        model.W.copy_(torch.tensor([[0.7, -0.2], [0.5, 0.4]]))
    estimator = BiDSM(sigma=0.1, lower="fisher", lower_optimiser="sgd")
    (batch, *_), (noise, ((inner, *_),)) = bilevel_batch(estimator, model, size=32)
    batch = batch * torch.tensor([1.0, 0.5], dtype=torch.float64)  # one slowest direction, well apart
    state, values = start(estimator, model, posterior), hyper(estimator)
    theta, names = state.params["model"], list(state.params["posterior"])
    shapes = [state.params["posterior"][name].shape for name in names]

    def tree(vector: Tensor) -> dict[str, Tensor]:
        parts = vector.split([math.prod(shape) for shape in shapes])
        return {name: part.reshape(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}

    def lower(at: Any, phi: Any, _: Any) -> Tensor:
        return estimator.lower_loss(state.bind({"model": at, "posterior": phi}), batch, inner, values)

    def upper(at: Any, phi: Any) -> Tensor:
        return estimator.loss(state.bind({"model": at, "posterior": phi}), batch, noise, {}, values)[0]

    def curvature(at: Any) -> Tensor:
        return jacrev(grad(lambda x: lower(at, tree(x), None)))(torch.zeros(6, dtype=torch.float64))

    def best(at: Any) -> Tensor:  # the minimum of a quadratic
        slope = grad(lambda x: lower(at, tree(x), None))(torch.zeros(6, dtype=torch.float64))
        return -torch.linalg.solve(curvature(at), slope)

    eigenvalues = torch.linalg.eigvalsh(curvature(theta))
    assert eigenvalues.min() > 1e-3  # strongly convex
    lr = float(1 / eigenvalues.max())
    kappa = float(1 - lr * eigenvalues.min())
    target = grad(lambda at: upper(at, tree(best(at))))(theta)
    counts = [60, 120]
    from_best = biases(upper, lower, theta, tree(best(theta)), target, lr, counts)
    assert math.log(from_best[1] / from_best[0]) / 60 == pytest.approx(math.log(kappa), rel=0.01)
    elsewhere = biases(upper, lower, theta, tree(best(theta) + 0.5), target, lr, counts)
    slope = math.log(elsewhere[1] / elsewhere[0] / 2) / 60  # N kappa^N: N has doubled
    assert slope == pytest.approx(math.log(kappa), rel=0.1)
    assert elsewhere[0] > from_best[0]  # the nearer phi^0 is, the smaller the bias


def test_theorem_2_on_a_grbm() -> None:
    # G is the exact KL of Bernoullis, J the sliced objective at relaxed h: the bias falls exponentially, and the limit
    # is the gradient of the marginal objective, as Theorem 1 says.
    model, v = make_grbm(hidden=2), 1.5 * points(8)
    state, estimator, marginal = state_of({}, model=model, posterior=RelaxedBernoulli((2,), 2)), BiSSM(), SSM()
    noise = {"upper": {"visible": draws(9).rademacher((8, 2)), "hidden": model.latent.noise(draws(10), (8,))}}
    theta = parameters(model)

    def lower(at: Any, phi: Any, _: Any) -> Tensor:
        bound = state.bind({"model": at, "posterior": phi})
        return exact_kl(bound.model, bound.posterior, v).mean()

    def upper(at: Any, phi: Any) -> Tensor:
        return estimator.loss(state.bind({"model": at, "posterior": phi}), v, noise, {}, hyper(estimator))[0]

    def reference(at: Any) -> Tensor:
        return marginal.loss(state.bind({"model": at}), v, noise["upper"]["visible"], {}, hyper(marginal))[0]

    target = grad(reference)(theta)
    counts = list(range(0, 181, 30))
    near = biases(upper, lower, theta, moved(true_posterior(theta), 0.1), target, 1.0, counts)
    ratios = [after / before for before, after in itertools.pairwise(near[2:])]
    assert near[-1] < 1e-4 * near[0]
    assert max(ratios) < 0.5
    assert max(ratios) / min(ratios) < 2  # a straight line on a logarithmic axis
    far = biases(upper, lower, theta, moved(true_posterior(theta), 0.3), target, 1.0, [30])
    assert far[0] > near[1]


def test_descend_is_gradient_descent_eq_13() -> None:
    # on G = (phi - theta)^2 / 2 + noise phi, by hand: phi^2 = (1 - a)^2 phi + ..., d phi^N / d theta = 1 - (1 - a)^N
    def unrolled(theta: Tensor) -> Tensor:
        def update(gradient: Any, params: Any, state: Any) -> Any:
            return sgd_update(gradient, params, state, 0.25)

        lower = lambda phi, noise: 0.5 * (phi["x"] - theta) ** 2 + noise * phi["x"]  # noqa: E731
        return descend(lower, {"x": torch.tensor(3.0).double()}, {}, [0.5, -1.0], update)[0]["x"]

    theta = torch.tensor(1.0, dtype=torch.float64)
    by_hand = 3 - 0.25 * (3 - 1 + 0.5)
    by_hand -= 0.25 * (by_hand - 1 - 1.0)
    assert float(unrolled(theta)) == pytest.approx(by_hand, abs=1e-14)
    assert float(jacrev(unrolled)(theta)) == pytest.approx(1 - 0.75**2, abs=1e-14)
