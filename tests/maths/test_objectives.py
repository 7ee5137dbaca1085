"""The score-matching objectives, eq. (2)-(5), against closed forms and against each other."""

import pytest
import torch
from torch import Tensor
from torch.func import grad

from baselines import DSM, MDSM
from bism.objectives import curvature, dsm, mdsm, perturb, score, sm, ssm
from tests.maths.checks import mdsm_optimum, mdsm_slope
from tests.maths.exact import draws, flat, hermite, hyper, make_grbm, moved, parameters, relative, signs, state_of

MODEL = make_grbm(visible=3, hidden=4)


def log_density(v: Tensor) -> Tensor:
    """-F(v) of a fixed GRBM."""
    return -MODEL.free_energy(v)


def batch(size: int = 7) -> Tensor:
    """A few points."""
    return draws(11).normal((size, 3))


def image_density(v: Tensor) -> Tensor:
    """A log-density of images [batch, 2, 2] whose Hessian is not diagonal."""
    x = v.flatten(1)
    return -0.25 * x.pow(4).sum(1) + x[:, 0] * x[:, 3] - 0.5 * (x[:, 1] - x[:, 2]).square()


def test_score_and_curvature_agree_with_the_full_hessian() -> None:
    v, u = batch(), draws(12).normal((7, 3))
    gradient, second = curvature(log_density, v, u)
    for i in range(len(v)):
        x = v[i].clone().requires_grad_()
        expected = torch.autograd.grad(log_density(x.unsqueeze(0)).sum(), x)[0]
        hessian = torch.autograd.functional.hessian(lambda x: log_density(x.unsqueeze(0)).sum(), v[i])
        torch.testing.assert_close(gradient[i], expected, atol=1e-12, rtol=0)
        torch.testing.assert_close(second[i], u[i] @ hessian @ u[i], atol=1e-12, rtol=0)


def test_sm_is_its_closed_form() -> None:
    v = batch()
    s, laplacian = MODEL.score_and_laplacian(v)
    torch.testing.assert_close(sm(log_density, v), 0.5 * s.square().sum(1) + laplacian, atol=1e-12, rtol=0)


def test_sm_takes_visible_vectors_of_any_shape() -> None:
    v = draws(13).normal((5, 2, 2))
    laplacian = -3 * v.flatten(1).square().sum(1) - 2
    expected = 0.5 * score(image_density, v).flatten(1).square().sum(1) + laplacian
    torch.testing.assert_close(sm(image_density, v), expected, atol=1e-12, rtol=0)


def test_sm_is_the_mean_of_ssm_over_all_signs() -> None:
    v, (u, weights) = batch(), signs(3)
    mean = sum(w * ssm(log_density, v, each.expand_as(v)) for each, w in zip(u, weights, strict=True))
    torch.testing.assert_close(mean, sm(log_density, v), atol=1e-12, rtol=0)


def test_sm_is_the_mean_of_ssm_over_gaussian_directions() -> None:
    # exactly, because u . H u is quadratic in u, and by chance within five standard errors
    v, (u, weights) = batch(), hermite(3, 3)
    mean = sum(w * ssm(log_density, v, each.expand_as(v)) for each, w in zip(u, weights, strict=True))
    torch.testing.assert_close(mean, sm(log_density, v), atol=1e-12, rtol=0)
    point = v[:1].expand(100_000, -1)
    drawn = ssm(log_density, point, draws(14).normal((100_000, 3)))
    error = drawn.std() / len(drawn) ** 0.5
    assert (drawn.mean() - sm(log_density, v[:1])[0]).abs() < 5 * error


def test_dsm_tends_to_sm_as_sigma_falls() -> None:
    # Gradients in theta over a quadrature of the noise: the difference is of order sigma^2, and the term D / (2
    # sigma^2), which does not depend on theta, is gone.
    v, (eps, weights) = batch(5), hermite(8, 3)
    state, theta = state_of({}, model=MODEL), parameters(MODEL)
    points, noise = v.repeat_interleave(len(eps), 0), eps.repeat(len(v), 1)

    def denoising(at: dict[str, Tensor], sigma: float) -> Tensor:
        values = dsm(lambda x: -state.bind({"model": at}).model.free_energy(x), points, noise, sigma)
        return (values.reshape(len(v), -1) @ weights).mean()

    def exact(at: dict[str, Tensor]) -> Tensor:
        return sm(lambda x: -state.bind({"model": at}).model.free_energy(x), v).mean()

    target = grad(exact)(theta)
    errors = [relative(grad(denoising)(theta, sigma), target) for sigma in (0.1, 0.01, 0.001)]
    assert errors[2] < 1e-5
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.05)
    value = denoising(theta, 0.001) - 3 / (2 * 0.001**2)
    torch.testing.assert_close(value, exact(theta), atol=1e-5, rtol=0)


def test_perturb_scales_each_example_by_its_own_sigma() -> None:
    v, noise, sigma = (
        batch(4).reshape(2, 2, 3),
        draws(15).normal((2, 2, 3)),
        torch.tensor([0.1, 2.0], dtype=torch.float64),
    )
    expected = torch.stack([v[0] + 0.1 * noise[0], v[1] + 2 * noise[1]])
    torch.testing.assert_close(perturb(v, noise, sigma), expected, atol=1e-15, rtol=0)


def test_mdsm_at_one_level_is_dsm() -> None:
    v, eps, sigma = batch(), draws(16).normal((7, 3)), torch.full((7,), 0.3, dtype=torch.float64)
    expected = dsm(log_density, v, eps, 0.3)
    torch.testing.assert_close(mdsm(log_density, v, eps, sigma, 0.3, "none"), expected)
    torch.testing.assert_close(mdsm(log_density, v, eps, sigma, 0.3, "inverse_variance"), expected / 0.3**2)


def test_the_weighting_of_mdsm_is_one_over_sigma_squared() -> None:
    v, eps, sigma = batch(), draws(17).normal((7, 3)), torch.linspace(0.1, 2, 7).double()
    printed = mdsm(log_density, v, eps, sigma, 0.2, "none")
    torch.testing.assert_close(mdsm(log_density, v, eps, sigma, 0.2), printed / sigma.square())


@pytest.mark.parametrize("spacing", ["geometric", "linear"])
@pytest.mark.parametrize("weighting", ["none", "inverse_variance"])
def test_the_optimum_of_mdsm_on_a_gaussian(weighting: str, spacing: str) -> None:
    estimator = MDSM(sigma_min=0.2, sigma_max=1.5, sigma0=0.4, weighting=weighting, spacing=spacing)
    best = mdsm_optimum(estimator, scale=0.9)
    assert mdsm_slope(estimator, 0.9, best) < 1e-12
    assert mdsm_slope(estimator, 0.9, 1.1 * best) > 1e-2
    # neither the data's precision nor that of the data smoothed by sigma0
    for other in (1 / 0.9**2, 1 / (0.9**2 + 0.4**2)):
        assert mdsm_slope(estimator, 0.9, other) > 1e-2


@pytest.mark.parametrize("weighting", ["none", "inverse_variance"])
def test_mdsm_with_all_levels_at_sigma0_finds_the_smoothed_density(weighting: str) -> None:
    estimator = MDSM(sigma_min=0.4, sigma_max=0.4, sigma0=0.4, weighting=weighting)
    assert mdsm_slope(estimator, 0.9, 1 / (0.9**2 + 0.4**2)) < 1e-12
    noise = estimator.draw((6, 3), draws(18))
    params = state_of({}, model=MODEL).bind({"model": moved(parameters(MODEL), 0.2)})
    other = DSM(sigma=0.4)
    mine = estimator.loss(params, batch(6), noise, {}, hyper(estimator))[0]
    theirs = other.loss(params, batch(6), noise["normal"], {}, hyper(other))[0]
    torch.testing.assert_close(mine * (1 if weighting == "none" else 0.4**2), theirs)


def test_noise_levels_are_spread_as_declared() -> None:
    spaced = MDSM(sigma_min=0.1, sigma_max=1.6, levels="spaced")
    noise = spaced.draw((5, 3), draws(19))
    expected = torch.tensor([0.1, 0.2, 0.4, 0.8, 1.6], dtype=torch.float64)
    torch.testing.assert_close(spaced.sigma(noise, hyper(spaced)), expected)
    linear = MDSM(sigma_min=0.1, sigma_max=1.7, spacing="linear", levels="spaced")
    expected = torch.tensor([0.1, 0.5, 0.9, 1.3, 1.7], dtype=torch.float64)
    torch.testing.assert_close(linear.sigma(noise, hyper(linear)), expected)
    drawn = MDSM(sigma_min=0.1, sigma_max=1.6).draw((10_000, 3), draws(20))["level"]
    assert float((drawn.sort().values - torch.linspace(0, 1, 10_000).double()).abs().max()) < 0.03


def test_objectives_do_not_mix_examples() -> None:
    v, eps = batch(), draws(21).normal((7, 3))
    sigma = torch.linspace(0.1, 1, 7).double()
    for values, alone in (
        (sm(log_density, v), sm(log_density, v[2:3])),
        (ssm(log_density, v, eps), ssm(log_density, v[2:3], eps[2:3])),
        (dsm(log_density, v, eps, 0.3), dsm(log_density, v[2:3], eps[2:3], 0.3)),
        (mdsm(log_density, v, eps, sigma, 0.3), mdsm(log_density, v[2:3], eps[2:3], sigma[2:3], 0.3)),
    ):
        torch.testing.assert_close(values[2:3], alone)
    assert flat(values).isfinite().all()
