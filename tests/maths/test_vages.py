"""Variational gradient estimates of the score: unbiased at the exact posterior, in every digit that float32 has."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, jacrev, vmap

from baselines import DSM, VaGESDSM, VaGESKSD, VaGESMDSM
from baselines.latent_scores import corrected, covariance_surrogate, mean_score, residual
from bism import GRBM, InputError
from bism.engine import Trainer
from bism.gradients import Shards
from bism.objectives import dsm, ksd, mdsm, score, typical_distance
from bism.posteriors import DiagonalGaussian, RelaxedBernoulli
from bism.resnet import ResNetEBLVM
from tests.maths.checks import bilevel_batch, inner_steps_error, start, vages_error, whole_step
from tests.maths.exact import (
    LinearGaussian,
    data_of,
    draws,
    flat,
    hermite,
    hyper,
    make_grbm,
    moved,
    parameters,
    relative,
    samples,
    state_of,
    true_posterior,
)

METHODS = [VaGESDSM(particles=2, sigma=0.5), VaGESMDSM(particles=2), VaGESKSD(particles=2, bandwidth=1.0)]
every = pytest.mark.parametrize("estimator", METHODS, ids=lambda one: one.id)


def error(estimator: Any, hidden: int = 1, **changes: Any) -> float:
    """``vages_error`` of a small model; the Stein discrepancy needs two examples."""
    changed = dataclasses.replace(estimator, **changes)
    return vages_error(changed, make_grbm(hidden=hidden), size=2 if isinstance(estimator, VaGESKSD) else 1)


# --- the gradient, where q is the exact posterior ---------------------------------------------------------------------


@every
@pytest.mark.parametrize("changes", [{}, {"groups": "shared"}, {"control_variate": "posterior"}], ids=str)
def test_the_expected_gradient_is_the_marginal_objective_s(estimator: Any, changes: dict[str, Any]) -> None:
    """Exactly: over all values of all samples of h, each with its probability."""
    assert error(estimator, **changes) < 1e-12


def test_it_is_for_more_particles_and_for_more_units() -> None:
    assert error(VaGESDSM(sigma=0.5), particles=3) < 1e-12
    assert error(VaGESDSM(sigma=0.5), hidden=2, particles=2) < 1e-12


@every
def test_without_the_covariance_or_with_l_for_l_minus_1_it_is_not(estimator: Any) -> None:
    left_out, biased = error(estimator, covariance="none"), error(estimator, covariance="biased")
    assert left_out > 5e-3
    assert biased == pytest.approx(left_out / 2, rel=1e-9)  # at L = 2 half of the covariance is missing
    assert error(estimator, covariance="none", particles=1) == pytest.approx(left_out, rel=1e-9)


def test_away_from_the_posterior_it_is_biased() -> None:
    model, sigma = make_grbm(hidden=1), 0.5
    theta = parameters(model)
    gradients = one_draw_gradients(VaGESDSM(sigma=sigma), model, moved(true_posterior(theta), 1.0), 20_000)
    assert float((gradients.mean(0) - truth(model, sigma)).norm() / truth(model, sigma).norm()) > 0.05


V, EPS = draws(1).normal((1, 2)), draws(2).normal((1, 2))


def truth(model: GRBM, sigma: float) -> Tensor:
    """The gradient of DSM at one point, [p]."""
    state = state_of({}, model=model)

    def objective(at: Any) -> Tensor:
        bound = state.bind({"model": at}).model
        return dsm(lambda v: -bound.free_energy(v), V, EPS, sigma).mean()

    return flat(grad(objective)(parameters(model)))


def one_draw_gradients(estimator: VaGESDSM, model: GRBM, phi: Any, count: int) -> Tensor:
    """Gradients at that point with the samples of h that the method draws, [count, p]."""
    state, values = state_of({}, model=model, posterior=RelaxedBernoulli((2,), model.latent.size)), hyper(estimator)
    hidden = estimator.noise(model, (count, 2), draws(5))["hidden"].unsqueeze(2)  # [samples, count, 1, m]
    noise = {"visible": EPS, "corrector": []}

    def gradient(drawn: Tensor) -> Tensor:
        def loss(at: Any) -> Tensor:
            params = state.bind({"model": at, "posterior": phi})
            return estimator.loss(params, V, {**noise, "hidden": drawn}, {}, values)[0]

        return flat(grad(loss)(parameters(model)))

    return vmap(gradient, in_dims=1)(hidden)


@pytest.mark.parametrize("control_variate", ["none", "posterior"])
def test_many_draws_of_the_method_have_that_mean(control_variate: str) -> None:
    """By the noise that the method draws; without the covariance the mean is far off."""
    model, count = make_grbm(hidden=3), 20_000
    estimator = VaGESDSM(sigma=0.5, control_variate=control_variate)
    gradients = one_draw_gradients(estimator, model, true_posterior(parameters(model)), count)
    wanted, errors = truth(model, 0.5), gradients.std(0) / math.sqrt(count)
    off = (gradients.mean(0) - wanted).abs()
    assert (off <= 3 * errors + 1e-12).all()
    without = dataclasses.replace(estimator, covariance="none")
    biased = one_draw_gradients(without, model, true_posterior(parameters(model)), count)
    assert float(((biased.mean(0) - wanted).abs() / (biased.std(0) / math.sqrt(count) + 1e-12)).max()) > 30


def test_the_control_variate_makes_the_score_exact() -> None:
    model, v = make_grbm(), draws(1).normal((4, 2))
    posterior = RelaxedBernoulli((2,), 3).double()
    posterior.load_state_dict({name: x.contiguous() for name, x in true_posterior(parameters(model)).items()})
    h = (draws(2).uniform((2, 4, 3)) < 0.5).double()
    exact = score(lambda x: -model.free_energy(x), v).detach()
    with torch.no_grad():
        plain = mean_score(lambda x, at: -model.energy(x, at), v, h)
        found = mean_score(lambda x, at: -model.energy(x, at) - posterior.log_prob(at, x), v, h)
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-12)
    assert float((plain - exact).norm()) > 0.1


def test_real_latent_variables() -> None:
    """v and h jointly Gaussian: the expectation is a quadrature of a polynomial, exact to rounding."""
    torch.manual_seed(1)
    model, estimator = LinearGaussian(2, 1).double(), VaGESDSM(particles=2, sigma=0.5)
    theta, posterior = parameters(model), DiagonalGaussian((2,), 1).double()
    _, precision = model.posterior(V)
    weight = (-2 * model.log_s).exp() * model.W.T / precision
    phi = {
        "mean_head.weight": weight,
        "mean_head.bias": -weight @ model.b,
        "log_std_head.weight": torch.zeros(1, 2, dtype=torch.float64),
        "log_std_head.bias": -0.5 * precision.log()[0],
    }
    phi = {name: x.detach() for name, x in phi.items()}
    nodes, weights = hermite(3, 6)
    state = state_of({}, model=model, posterior=posterior)

    def expected(at: Any) -> Tensor:
        params = state.bind({"model": at, "posterior": phi})

        def one(hidden: Tensor) -> Tensor:
            noise = {"visible": EPS, "hidden": hidden.reshape(6, 1, 1), "corrector": []}
            return estimator.loss(params, V, noise, {}, hyper(estimator))[0]

        return weights @ vmap(one)(nodes)

    def marginal(at: Any) -> Tensor:
        bound = state.bind({"model": at}).model
        return dsm(lambda v: -bound.free_energy(v), V, EPS, 0.5).mean()

    assert relative(grad(expected)(theta), grad(marginal)(theta)) < 1e-12


# --- digits -----------------------------------------------------------------------------------------------------------


@every
def test_float32_keeps_three_digits_at_energies_of_1e5(estimator: Any) -> None:
    model, size = make_grbm(hidden=8), 16
    theta, posterior = parameters(model), RelaxedBernoulli((2,), 8)
    batch = 320 + draws(6).normal((size, 2))
    theta = {**theta, "c": theta["c"] - batch.mean(0) @ theta["W"]}  # units that are neither off nor on there
    noise = estimator.noise(model, (size, 2), draws(7))
    state, phi = state_of({}, model=model, posterior=posterior), true_posterior(theta)
    energies = state.bind({"model": theta}).model.energy(batch, torch.ones(size, 8, dtype=torch.float64))
    assert float(energies.min()) > 1e5

    def gradient(dtype: torch.dtype, **of: Any) -> Tensor:
        def given(tree: Any) -> Any:
            return torch.utils._pytree.tree_map(lambda x: x.to(dtype), tree)

        def loss(at: Any) -> Tensor:
            params = state.bind({"model": at, "posterior": given(phi)})
            return estimator.loss(params, given(batch), given(noise), {}, given(hyper(estimator)))[0]

        return flat(grad(loss)(given(theta))).double()

    exact, found = gradient(torch.float64), gradient(torch.float32)
    assert float((found - exact).norm() / exact.norm()) < 1e-3


def test_a_product_of_two_energies_would_not() -> None:
    """The covariance as cov(z . g log p~) with both factors of the energies' size: the contrast to the weights."""
    model, size = make_grbm(hidden=8), 16
    v, z = 320 + draws(6).normal((size, 2)), draws(8).normal((size, 2))
    model.c.data -= v.mean(0) @ model.W.detach()
    h = (draws(9).uniform((2, size, 8)) < 0.5).double()
    state = state_of({}, model=model)

    def gradient(dtype: torch.dtype, by_product: bool) -> Tensor:
        theta = {name: x.to(dtype) for name, x in parameters(model).items()}
        fixed, x, along, at_h = state.bind({"model": theta}).model, v.to(dtype), z.to(dtype), h.to(dtype)

        def surrogate(at: Any) -> Tensor:
            bound = state.bind({"model": at}).model
            if not by_product:
                return covariance_surrogate(
                    lambda x, h: -bound.energy(x, h), lambda x, h: -fixed.energy(x, h), x, at_h, along
                ).sum()

            def product(moved: Tensor) -> Tensor:
                fixed_values = torch.stack([-fixed.energy(moved, each) for each in at_h])
                values = torch.stack([-bound.energy(x, each) for each in at_h])
                return (2 * ((fixed_values * values).mean(0) - fixed_values.mean(0) * values.mean(0))).sum()

            return (along * grad(product)(x)).sum()

        return flat(grad(surrogate)(theta)).double()

    exact = gradient(torch.float64, by_product=False)
    torch.testing.assert_close(gradient(torch.float64, by_product=True), exact, rtol=1e-6, atol=1e-6)
    ours, theirs = (float((gradient(torch.float32, way) - exact).norm() / exact.norm()) for way in (False, True))
    assert ours < 1e-4
    assert theirs > 10 * ours


# --- residuals and the Stein discrepancy ------------------------------------------------------------------------------


def test_residuals_in_closed_form() -> None:
    rng = draws(1)
    s, v, eps, sigma = rng.normal((5, 2)), rng.normal((5, 2)), rng.normal((5, 2)), rng.uniform((5,)) + 0.1
    z, values = residual(lambda f: dsm(f, v, eps, 0.3), s)
    torch.testing.assert_close(z, s + eps / 0.3)
    torch.testing.assert_close(values, 0.5 * z.square().sum(1))
    z, _ = residual(lambda f: mdsm(f, v, eps, sigma, 0.2), s)
    torch.testing.assert_close(z, (s / sigma[:, None] + eps / 0.2**2) / sigma[:, None])
    z, _ = residual(lambda f: ksd(f, v, 0.7), s)
    for j in range(5):
        wanted = torch.zeros(2, dtype=torch.float64)
        for i in set(range(5)) - {j}:
            k = torch.exp(-(v[i] - v[j]).square().sum() / (2 * 0.7**2))
            wanted += (k * s[i] - k * (v[i] - v[j]) / 0.7**2) / 4
        torch.testing.assert_close(z[j], wanted)


@pytest.mark.parametrize("shape", [(2,), (1, 2, 3)])
def test_ksd_is_the_double_sum_of_its_kernel(shape: tuple[int, ...]) -> None:
    rng, b = draws(2), 0.8
    v, pull = rng.normal((6, *shape)) + 3, rng.normal((math.prod(shape),))

    def log_density(x: Tensor) -> Tensor:
        return -(x.flatten(1).square().sum(1) ** 1.5) + x.flatten(1) @ pull

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return torch.exp(-(x - y).square().sum() / (2 * b**2))

    flat_v, s = v.flatten(1), score(log_density, v).flatten(1)
    found = ksd(log_density, v, b)
    for i in range(6):
        total = torch.zeros((), dtype=torch.float64)
        for j in set(range(6)) - {i}:
            x, y = flat_v[i], flat_v[j]
            along_x, along_y = grad(kernel, argnums=(0, 1))(x, y)
            trace = jacrev(grad(kernel, argnums=0), argnums=1)(x, y).trace()
            total += (s[i] @ s[j]) * kernel(x, y) + s[i] @ along_y + s[j] @ along_x + trace
        torch.testing.assert_close(found[i], 0.5 * total / 5)


def test_ksd_is_zero_at_the_data_s_density_alone() -> None:
    """The exact expectation over two independent examples of a GRBM, a mixture of Gaussians, by quadrature."""
    model = make_grbm(visible=1, hidden=2)
    nodes, weights = data_of(model, 24)
    pairs = torch.stack([nodes.repeat_interleave(len(nodes), 0), nodes.repeat(len(nodes), 1)], dim=1)
    both = weights.repeat_interleave(len(nodes)) * weights.repeat(len(nodes))

    def expected(of: GRBM) -> float:
        with torch.no_grad():
            return float(both @ vmap(lambda v: ksd(lambda x: -of.free_energy(x), v, 1.0).mean())(pairs))

    assert abs(expected(model)) < 1e-6
    for seed in (1, 2):
        assert expected(make_grbm(visible=1, hidden=2, seed=seed)) > 1e-2


def test_the_kernel_follows_the_data_s_scale_unless_it_is_told_its_own() -> None:
    """With b in distances, data and model in other units give the same objective, up to the score's unit."""
    v, by = draws(3).normal((20, 64)), 100.0
    there, here = (lambda x: -0.25 * (x / by).square().sum(1)), (lambda x: -0.25 * x.square().sum(1))

    def value(log_density: Any, at: Tensor, **settings: Any) -> Tensor:
        method = VaGESKSD(**settings)
        hyper = {"bandwidth": torch.tensor(method.bandwidth, dtype=torch.float64)}
        return method.objective(log_density, at, (), hyper).mean()

    torch.testing.assert_close(value(there, by * v) * by**2, value(here, v))
    absolute = value(there, by * v, bandwidth_unit="data") * by**2
    assert abs(absolute / value(here, v, bandwidth_unit="data") - 1) > 0.5
    # the kernel between examples at their typical distance is 1 / n
    unit = typical_distance(v)
    squared = torch.cdist(v, v).square().sum() / (20 * 19)
    torch.testing.assert_close((-squared / (2 * unit.square())).exp(), torch.tensor(1 / 20, dtype=torch.float64))


def test_a_minibatch_of_one_point_again_and_again_has_a_kernel() -> None:
    v = torch.ones(5, 3, dtype=torch.float64)
    assert float(typical_distance(v)) == 1
    assert ksd(lambda x: -x.square().sum(1), v, typical_distance(v)).isfinite().all()


def test_ksd_keeps_float32_where_products_are_in_bfloat16() -> None:
    v = draws(4).normal((50, 8)).float()
    exact = ksd(lambda x: -0.3 * x.square().sum(1), v.double(), 3.0)
    with torch.autocast("cpu", torch.bfloat16):
        found = ksd(lambda x: -0.3 * x.square().sum(1), v, 3.0)
    assert float((found - exact).abs().max() / exact.abs().max()) < 1e-5


def test_ksd_compares_examples() -> None:
    with pytest.raises(InputError, match="batch_size must be at least 2, got 1"):
        VaGESKSD().noise(make_grbm(), (1, 2), draws(0))
    with pytest.raises(InputError, match="compares all pairs"):
        Trainer(VaGESKSD(), GRBM(2, 3), draws(5).normal((60, 2)), seeds=[0], batch_size=20, accumulate=2)


# --- the corrector and the lower level --------------------------------------------------------------------------------


def test_the_corrector_s_law() -> None:
    """On a Gaussian posterior with mean mu and precision P: h - mu <- (I - a/2 P)(h - mu) + sigma xi at every step."""
    torch.manual_seed(2)
    model, v, a, sigma = LinearGaussian(2, 2).double(), draws(1).normal((5, 2)), 0.1, 0.3
    state = state_of({}, model=model)
    bound = state.bind({"model": parameters(model)}).model
    h, noise = draws(2).normal((3, 5, 2)), draws(3).normal((4, 3, 5, 2))
    found = corrected(bound, v, h, noise, a, sigma)
    with torch.no_grad():
        mean, precision = model.posterior(v)
        wanted = h - mean
        for xi in noise:
            wanted = wanted - 0.5 * a * wanted @ precision + sigma * xi
    torch.testing.assert_close(found, mean + wanted)
    # with sigma = sqrt(a) and a small, the stationary covariance S = (I - a/2 P) S (I - a/2 P) + a I is P^-1
    small = 1e-4
    shrink = torch.eye(2).double() - 0.5 * small * precision
    inverse = torch.linalg.inv(precision)
    assert float((shrink @ inverse @ shrink + small * torch.eye(2) - inverse).abs().max()) < 10 * small**2


def test_the_samples_are_the_corrected_ones_and_no_gradient_goes_through_them() -> None:
    torch.manual_seed(2)
    model, posterior = LinearGaussian(2, 2).double(), DiagonalGaussian((2,), 2).double()
    estimator = VaGESDSM(corrector_steps=3, corrector_step_size=0.1, corrector_noise=0.2, particles=2)
    params = {"model": parameters(model), "posterior": parameters(posterior)}
    state = state_of(params, model=model, posterior=posterior)
    v, noise = draws(1).normal((5, 2)), estimator.noise(model, (5, 2), draws(2))
    found = torch.cat(estimator.samples(state.bind(), v, noise, hyper(estimator)))
    plain = torch.stack([posterior.sample_hard(v, eps) for eps in noise["hidden"]])
    given = torch.stack(noise["corrector"])
    torch.testing.assert_close(found, corrected(state.bind().model, v, plain, given, 0.1, 0.2))
    assert float((found - plain).abs().max()) > 0.1
    slope = grad(lambda at: torch.cat(estimator.samples(state.bind(at), v, noise, hyper(estimator))).sum())(params)
    assert float(flat(slope).abs().max()) == 0


@pytest.mark.parametrize("estimator", [VaGESDSM, VaGESMDSM, VaGESKSD], ids=lambda kind: kind.id)
def test_the_posterior_takes_k_steps(estimator: Any) -> None:
    torch.manual_seed(0)
    assert inner_steps_error(estimator(inner_steps=3, lr_posterior=0.05)) < 1e-10


def test_a_step_in_shards_is_the_step_on_the_whole() -> None:
    estimator, model = VaGESDSM(inner_steps=2, particles=2, lr_posterior=0.05), make_grbm()
    posterior = RelaxedBernoulli((2,), 3).double()
    parts = [bilevel_batch(estimator, model, seed=seed, size=5) for seed in (1, 2, 3)]
    batches, noises = torch.stack([batch for batch, _ in parts]), [noise for _, noise in parts]
    before = start(estimator, model, posterior)
    ours, info = whole_step(estimator, before, batches, Shards(noises), hyper(estimator))
    noise = {
        "visible": torch.cat([own["visible"] for own, _ in noises]),
        "hidden": torch.cat([own["hidden"] for own, _ in noises], dim=1),
        "corrector": [],
    }
    inner = [
        {name: torch.cat([one[name] for one in drawn], dim=axis) for name, axis in (("visible", 0), ("hidden", 1))}
        for drawn in zip(*(calls for _, (calls,) in noises), strict=True)
    ]
    together = torch.cat(list(batches), dim=1)
    whole, other = whole_step(estimator, before, together, (noise, [inner]), hyper(estimator))
    for name in ("params", "optimiser"):
        assert relative(getattr(ours, name), getattr(whole, name)) < 1e-12
    torch.testing.assert_close(info["objective"], other["objective"])


def test_the_objective_is_that_of_the_estimated_score() -> None:
    estimator, model = VaGESDSM(particles=3, sigma=0.5), make_grbm()
    params = {"model": parameters(model), "posterior": true_posterior(parameters(model))}
    bound = state_of(params, model=model, posterior=RelaxedBernoulli((2,), 3)).bind()
    batch, noise = draws(1).normal((7, 2)), estimator.noise(model, (7, 2), draws(2))
    points = batch + 0.5 * noise["visible"]
    h = torch.stack([bound.posterior.sample_hard(points, eps) for eps in noise["hidden"][:3]])
    s = torch.stack([(model.b - points) * (-2 * model.log_s).exp() + each @ model.W.T for each in h]).mean(0)
    wanted = 0.5 * (s + noise["visible"] / 0.5).square().sum(1).mean()
    torch.testing.assert_close(estimator.loss(bound, batch, noise, {}, hyper(estimator))[0], wanted.detach())


# --- what is asked for ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [VaGESDSM, VaGESMDSM, VaGESKSD], ids=lambda kind: kind.id)
def test_one_particle_is_refused(kind: Any) -> None:
    with pytest.raises(InputError, match="particles must be at least 2, got 1: one sample of h has no covariance"):
        kind(particles=1)
    assert kind(particles=1, covariance="none").particles == 1


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(InputError, match="control_variate must be 'none' with corrector_steps, got 'posterior'"):
        VaGESDSM(corrector_steps=1, control_variate="posterior")
    assert "corrector_steps differentiate in h" in str(VaGESDSM(corrector_steps=1).unsupported(GRBM(2, 3)))
    assert "lower='fisher' differentiates in h" in str(VaGESDSM(lower="fisher").unsupported(GRBM(2, 3)))
    assert VaGESDSM(corrector_steps=1, lower="fisher").unsupported(LinearGaussian(2, 2)) is None


# --- training ---------------------------------------------------------------------------------------------------------


def test_the_deep_model_trains_with_the_corrector() -> None:
    estimator = VaGESMDSM(lower="fisher", corrector_steps=2, particles=2, inner_steps=1)
    trainer = Trainer(
        estimator, ResNetEBLVM((1, 8, 8), hidden=3, width=2, posterior_width=2),
        draws(3).uniform((20, 1, 8, 8)).float(), seeds=[0, 1], batch_size=10,
    )  # fmt: skip
    trainer.run(2)
    assert trainer.diverged_at == [None, None]


@pytest.mark.long
def test_it_reaches_denoising_score_matching() -> None:
    truth = make_grbm(hidden=2, seed=3)
    data, test = samples(truth, 20_000, 1).float(), samples(truth, 20_000, 2)
    found = []
    for estimator in (DSM(lr=1e-2, sigma=0.3), VaGESDSM(lr=1e-2, lr_posterior=1e-2, sigma=0.3)):
        trainer = Trainer(estimator, GRBM(2, 2), data, seeds=(0,), batch_size=500)
        start = float(trainer.fitted().log_likelihood(test).mean())
        trainer.run(600)
        found.append(float(trainer.fitted().log_likelihood(test).mean()))
    assert found[0] > start + 0.3
    assert found[1] == pytest.approx(found[0], abs=0.02)
