"""Likelihoods of models of real h, against the linear-Gaussian model's closed forms."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines.vae import VAE
from benchmark.data.datasets import DataSet
from benchmark.measures.evaluation import evaluate
from bism import latent_quadrature, log_partition
from bism.errors import InputError
from bism.gaussian_mixture import fitted_mixture
from bism.hierarchy import hierarchy
from bism.latent import LatentModel, latent_mlp
from bism.latent_likelihood import (
    Weights,
    _normal,
    anneal,
    annealed_importance,
    bidirectional,
    importance,
    posterior_mean,
    prior_log_z,
    sigmoid_temperatures,
    step_sizes,
)
from bism.latent_quadrature import log_marginals, not_summable
from bism.likelihood import grid_density, log_likelihood, not_exact
from bism.posteriors import DiagonalGaussian
from bism.priors import LOG_2PI, StandardNormal, Tilted
from bism.scaling import Scaling
from tests.maths.exact import make_grbm
from tests.maths.test_latent import Linear, exact_log_likelihood, linear_gaussian, posterior_of, rng


class QuadraticTilt(Tilted):
    """f(h) = b.h - c |h|^2 / 2, so that log Z = |b|^2 / (2 (1 + c)) - m/2 log(1 + c), and draws are exact."""

    def __init__(self, codes: int, slope: float = 0.6, curvature: float = 1.5) -> None:
        super().__init__(codes, 2, 1)
        self.slope, self.curvature = slope, curvature

    def tilt(self, h: Tensor) -> Tensor:
        return self.slope * h.sum(-1) - 0.5 * self.curvature * h.square().sum(-1)

    @property
    def log_z(self) -> float:
        precision = 1 + self.curvature
        return 0.5 * self.codes * (self.slope**2 / precision - math.log(precision))


def test_the_posterior_s_mean_by_weighted_ends_of_annealing() -> None:
    """With few temperatures the ends are off, and their weights mend it."""
    model = linear_gaussian(3, 2, 0.6)
    v = model.draw(3, rng(1))
    exact, few = posterior_of(model).mean(v), annealed_importance(model, v, chains=4000, steps=2)
    assert float((few.h.mean(0) - exact).abs().max()) > 0.1
    assert torch.allclose(posterior_mean(model, v, chains=4000, steps=2), exact, atol=0.05)


# --- sums over lattices ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("codes", "sigma"), [(1, 0.5), (1, 0.005), (2, 0.5), (2, 0.05)])
def test_sums_over_one_or_two_codes_are_the_closed_form_outliers_included(codes: int, sigma: float):
    model = linear_gaussian(3, codes, sigma)
    v = torch.cat([model.draw(6, rng(1)), rng(2).normal((2, 3)) * (20 if sigma > 0.1 else 1)])
    found, exact = log_marginals(model, v), exact_log_likelihood(model, v)
    assert float(((found.values - exact).abs() / exact.abs().clamp(min=1)).max()) < 1e-8
    assert float(found.errors.max()) <= 1e-4


def test_a_density_for_a_picture_is_as_good_as_it_says_from_fewer_points(monkeypatch: pytest.MonkeyPatch):
    """And a tolerance that was asked for is nothing to warn of (warnings are errors here)."""
    model, axis = linear_gaussian(2, 2, 0.05), torch.linspace(-2, 2, 9, dtype=torch.float64)
    v = torch.cartesian_prod(axis, axis)
    exact = exact_log_likelihood(model, v).exp().reshape(9, 9).T
    asked, energies = [0], latent_quadrature.energies

    def counted(*given: Any) -> Tensor:
        asked[-1] += len(given[2])
        return energies(*given)

    monkeypatch.setattr(latent_quadrature, "energies", counted)
    for tolerance in (1e-4, 0.05):
        found = grid_density(model, axis, axis, tolerance=tolerance)
        assert float((found / exact).log().abs().max()) < tolerance
        asked.append(0)
    assert asked[1] < asked[0]


@pytest.mark.parametrize("codes", [1, 2])
def test_codes_beyond_the_reach_of_lattices_are_known_at_once_to_be_unknown(codes: int):
    """A prior that has run away kept lattices growing towards it for hours. Examples in reach are found as before."""

    class Cliff(Tilted):
        """N(h; 0, I), and far out another mode, whose slope is seen everywhere where ``steep``."""

        def tilt(self, h: Tensor) -> Tensor:
            return self.steep * h.sum(-1)

    away = latent_mlp(3, codes, prior="tilted", width=4).double()
    away.prior = Cliff(codes, 2, 1).double()
    away.prior.steep = 1e5
    v = rng(3).normal((70, 3))
    with pytest.warns(UserWarning, match="is not known at 70 of 70 examples, and NaN is given in its place"):
        assert bool(log_likelihood(away, v, log_z=0.0).isnan().all())
    assert bool(log_marginals(away, v).errors.isinf().all())
    near = linear_gaussian(3, codes, 0.5)
    exact = exact_log_likelihood(near, v)
    near.prior = Cliff(codes, 2, 1).double()
    near.prior.steep = 0.0
    torch.testing.assert_close(log_marginals(near, v).values, exact)


def test_two_modes_that_are_far_apart_are_both_found():
    """g(h) = |h| a: p(v) is twice the integral over h > 0. What lies far, where a square has more digits than a number
    holds, has no say in what is near."""

    class Fold(torch.nn.Module):
        visible_shape, codes = (2,), 1

        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.Parameter(torch.tensor([1.0, 0.7]))

        def forward(self, h: Tensor) -> Tensor:
            return h.abs() * self.a

    model = LatentModel(Fold(), StandardNormal(1), sigma=0.01).double()
    a = torch.tensor([1.0, 0.7], dtype=torch.float64)
    v = torch.linspace(0.5, 3, 50, dtype=torch.float64)[:, None] * a
    covariance = a.outer(a) + 0.01**2 * torch.eye(2)
    once = torch.distributions.MultivariateNormal(torch.zeros(2).double(), covariance).log_prob(v)
    assert torch.allclose(log_marginals(model, v).values, math.log(2) + once, atol=1e-6)


def test_a_lattice_that_is_too_coarse_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bism.latent_quadrature._FINEST", 2)
    model = linear_gaussian(3, 2, 0.01)
    v = model.draw(4, rng(1))
    found = log_marginals(model, v, places=posterior_of(model).mean(v))
    off = (found.values - exact_log_likelihood(model, v)).abs()
    assert bool((found.errors >= off.clamp(max=1)).all())
    with pytest.warns(UserWarning, match="too narrow"):
        log_likelihood(model, v)


def test_what_is_no_number_stays_none():
    model = linear_gaussian(3, 2, 0.5)
    v = torch.tensor([[0.0, 0.0, math.nan], [0.1, 0.2, 0.3]], dtype=torch.float64)
    broken = log_likelihood(model, v)
    assert broken.isnan().tolist() == [True, False]
    assert float(broken[1]) == pytest.approx(float(exact_log_likelihood(model, v[1:])), abs=1e-6)
    model.decoder.layer.weight.fill_(math.nan)
    assert bool(log_likelihood(model, v[1:]).isnan().all())


def test_energies_of_pairs_are_those_of_the_model():
    for observation in ("gaussian", "bernoulli"):
        model = latent_mlp(3, 2, prior="tilted", observation=observation, width=4).double()
        v, h = (rng().normal((4, 3)) > 0).double(), rng(1).normal((5, 2))
        expected = torch.stack([model.energy(v, one.expand(4, 2)) for one in h], 1)
        assert torch.allclose(model.energies(v, h), expected, atol=1e-10)


def test_a_tilted_priors_density_integrates_to_one():
    """v is the sum over a grid of exp(log p(v))."""
    torch.manual_seed(2)
    model = latent_mlp(1, 1, prior="tilted", width=4, prior_width=4, sigma=0.5).double().requires_grad_(False)
    model.prior.network[-1].weight.mul_(5)
    assert abs(log_partition(model)) > 0.01
    v = torch.linspace(-8, 8, 321, dtype=torch.float64)[:, None]
    assert float(log_likelihood(model, v).exp().sum() * 0.05) == pytest.approx(1, abs=1e-4)
    assert not_exact(model) is None
    assert "3 codes" in str(not_summable(latent_mlp(2, 3)))
    assert not_summable(make_grbm()) is not None


def test_the_metric_is_in_the_units_of_the_data():
    torch.manual_seed(0)
    rows = 3 + 10 * torch.randn(60, 2).double()
    data = DataSet("made", rows, rows[:20], rows[20:40]).scaled("standard")
    model = LatentModel(Linear(2, 1), StandardNormal(1), sigma=0.7)
    fitted = VAE().fit(model, data.train, seeds=[1], steps=1, compile=False)
    (found,) = evaluate(fitted, data, ["log_likelihood"])
    trained = fitted.model(1).double()
    exact = exact_log_likelihood(trained, data.test.double()).mean() - data.scaling.factor.log().sum()
    assert found["test/log_likelihood"] == pytest.approx(float(exact), abs=1e-4)


def test_a_prior_with_a_peak_that_no_lattice_met_has_no_log_z():
    """Two spikes 0.01 wide at -8 and 8 make log Z 22.05; the rays meet them, and lattices end before they do."""

    class Spikes(Tilted):
        def tilt(self, h: Tensor) -> Tensor:
            return 60 * (-0.5 * ((h.abs() - 8) / 0.01).square().sum(-1)).exp()

    model = LatentModel(Linear(2, 1), Spikes(1, 2, 1)).double()
    with pytest.warns(UserWarning, match="is not known, and NaN is given"):
        assert math.isnan(log_partition(model))


@pytest.mark.parametrize("spread", [1.0, 1e-3])
def test_log_z_of_a_normalised_prior_on_a_line_is_the_volume_of_the_units(spread: float):
    rows = spread * rng().normal((50, 1)) @ torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    model = linear_gaussian(3, 2, 0.5).with_prior(fitted_mixture(rows, 1, rng()))
    factor = torch.tensor([2.0, 3.0, 0.5], dtype=torch.float64)
    scaling = Scaling("standard", torch.zeros(3, dtype=torch.float64), factor)
    assert log_partition(model) == 0
    assert log_partition(scaling.model(model)) == pytest.approx(math.log(3), abs=1e-12)
    tilted = latent_mlp(3, 2, prior="tilted", width=4)
    assert log_partition(scaling.model(tilted)) == pytest.approx(log_partition(tilted) + math.log(3), abs=1e-4)


# --- importance sampling ----------------------------------------------------------------------------------------------


def test_importance_weights_tend_to_log_p_and_their_bias_falls_as_one_over_particles():
    model = linear_gaussian(3, 2, 0.5)
    v, q = model.draw(1, rng(3)).expand(400, 3), posterior_of(model, 0.2)
    exact = float(exact_log_likelihood(model, v[:1]))
    many = importance(model, q, v[:20], particles=4000)
    assert abs(many.mean - exact) < 4 * many.error_of_weights
    assert many.error_of_weights < 0.01
    log_w = importance(model, q, v, particles=80).log_w
    variance = float((log_w - exact).exp().var())
    for particles in (20, 80):
        bias = (Weights(log_w[:particles]).values - exact).double()
        error = float(bias.std()) / 20
        assert abs(float(bias.mean()) + 0.5 * variance / particles) < 4 * error  # Nowozin 2018: -Var w / (2 k p^2)


def test_effective_sizes_and_errors_of_given_weights():
    found = Weights(torch.tensor([[1.0, 1.0], [1.0, 3.0]], dtype=torch.float64).log())
    assert found.effective.tolist() == pytest.approx([2.0, 1.6])
    assert found.values.exp().tolist() == pytest.approx([1.0, 2.0])
    assert found.error_of_weights == pytest.approx(math.sqrt(2 / 2 / 2**2) / 2)  # s_2 = std(1, 3) / sqrt 2 / mean
    assert found.margin() == pytest.approx(math.log(40) / 2)
    assert found.bound == pytest.approx(found.mean - math.log(40) / 2)
    assert Weights(found.log_w, -1).bound == pytest.approx(-found.mean + math.log(40) / 2)


# --- annealing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["prior", "posterior"])
def test_both_ways_bracket_log_p_at_their_level_and_on_average(start: str):
    """Of 150 runs of 6 examples each, made as one of 900: the interval and its ends."""
    model, runs, examples = linear_gaussian(5, 3, 0.4), 150, 6
    q = posterior_of(model, -0.3) if start == "posterior" else None
    source = rng(11)
    h = source.normal((runs * examples, 3))
    v = model.sample_visible(h, source.normal((runs * examples, 5)))
    exact = exact_log_likelihood(model, v)
    how: dict[str, Any] = {"chains": 3, "steps": 6, "leapfrogs": 2}
    up, down = annealed_importance(model, v, q, **how), annealed_importance(model, v, q, h=h, **how)
    for found, sign in ((up, 1), (down, -1)):
        ratio = (found.weights.log_w - sign * exact).exp().mean(0)  # E[w] = p, or 1 / p
        assert abs(float(ratio.mean()) - 1) < 4 * float(ratio.std()) / len(v) ** 0.5
        assert found.weights.sign == sign
        off = sign * (exact - found.weights.values)
        assert float(off.mean()) > 3 * float(off.std()) / len(v) ** 0.5  # low forwards, high backwards
        margin = math.log(40) / examples
        beyond = (-off).reshape(runs, examples).mean(1) > margin
        assert float(beyond.double().mean()) <= 0.025 + 2 * math.sqrt(0.025 / runs)
    assert 0.2 < up.acceptance < 0.99


def test_bidirectional_annealing_closes_in_on_log_p():
    model = linear_gaussian(5, 3, 0.4)
    few, many = (bidirectional(model, examples=60, chains=5, steps=steps, leapfrogs=2) for steps in (5, 80))
    assert few.exact
    assert 0 < many.gap < 0.5 * few.gap
    low, high = many.interval()
    assert low < many.lower.weights.mean < many.upper.weights.mean < high
    assert high - low == pytest.approx(many.gap + 2 * math.log(40) / 60)
    assert many.gap_error < many.gap
    from_q = bidirectional(model, posterior_of(model), examples=60, chains=5, steps=80, leapfrogs=2)
    assert from_q.gap < 0.5 * many.gap


def test_annealing_of_codes_of_codes_starts_as_wide_as_u_is():
    """q(u|z) moves against z by as much as it is wide, so that one standard deviation of both leaves u in place."""
    A, one = torch.tensor([[0.5], [0.25]], dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    first, second = linear_gaussian(2, 1, 0.5), linear_gaussian(1, 1, 0.6)
    first.decoder.layer.weight.copy_(A), second.decoder.layer.weight.copy_(-one)
    of_z = DiagonalGaussian((2,), 1).double().requires_grad_(False)
    of_u, to_z = posterior_of(second), 0.25 * torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    of_z.mean_head.weight.copy_(to_z), of_z.log_std_head.weight.zero_()
    spread = of_u.log_std_head.bias.exp() / of_u.mean_head.weight.abs()[0]
    of_z.log_std_head.bias.copy_(spread.log())
    both, q = hierarchy(first, of_z, second, of_u)
    v = both.draw(30, rng(5))
    b = _normal(both, q, v).b[0]
    assert float(b[0]) == pytest.approx(float(spread), rel=1e-6)
    assert float(b[1] / of_u.log_std_head.bias.exp()) == pytest.approx(math.sqrt(2), rel=0.35)
    exact = log_marginals(both, v).values
    found = annealed_importance(both, v, q, chains=5, steps=40, leapfrogs=2).weights
    assert abs(found.mean - float(exact.mean())) < 0.1


def test_step_sizes_follow_the_width_of_what_is_sampled():
    def energy(u: Tensor) -> Tensor:
        return 0.5 * (u / 0.1).square().sum(-1)

    t, source = sigmoid_temperatures(150), rng(2)
    sizes = step_sizes(energy, source.normal((40, 3)), t, source, chains=20)
    assert sizes.shape == (151, 40, 1)
    assert torch.equal(sizes[:, 0], sizes[:, 2])  # of the same example
    assert float(sizes[-1].max()) < 0.3 < 0.4 < float(sizes[0].min())
    log_w, u, acceptance = anneal(energy, source.normal((40, 3)), t, sizes, source)
    assert 0.4 < acceptance < 0.9
    assert float(u.std()) == pytest.approx(0.1, rel=0.3)
    exact = 3 * (math.log(0.1) + 0.5 * LOG_2PI)
    assert float(Weights(log_w[:, None]).values) == pytest.approx(exact, abs=0.4)


# --- log Z of priors --------------------------------------------------------------------------------------------------


def test_log_z_of_a_prior():
    assert prior_log_z(StandardNormal(5)).interval() == (0.0, 0.0)
    for codes in (1, 2):
        prior = QuadraticTilt(codes).double()
        found = prior_log_z(prior)
        assert found.how == "quadrature"
        assert found.log_z == pytest.approx(prior.log_z, abs=1e-5)
    prior = QuadraticTilt(8).double()
    found = prior_log_z(prior, draws=20_000, chains=100, steps=40, leapfrogs=3)
    low, high = found.interval()
    assert low < prior.log_z < high < low + 1
    assert found.bracket is not None
    assert found.bracket.approximate
    assert not found.bracket.contradictory
    assert found.importance is not None
    assert abs(found.importance.log_z - prior.log_z) < 4 * found.importance.standard_error
    assert 100 < found.importance.effective_sample_size < 20_000


def test_binary_codes_are_enumerated_and_not_annealed():
    """Hamiltonian dynamics on their energy as if they were real gave an interval that missed log Z by 14 nats."""
    model = latent_mlp(3, 4, prior="rbm", width=4).double().requires_grad_(False)
    found = prior_log_z(model.prior)
    assert (found.how, found.log_z) == ("enumeration", model.prior.log_partition())
    for ask in (lambda: bidirectional(model, examples=2), lambda: posterior_mean(model, torch.zeros(2, 3).double())):
        with pytest.raises(InputError, match="of RBMPrior are binary, and Hamiltonian dynamics do not anneal them"):
            ask()


def test_log_z_of_a_prior_without_numbers_of_its_own():
    class Fixed(torch.nn.Module):
        def __init__(self, codes: int) -> None:
            super().__init__()
            self.codes = codes

        def energy(self, h: Tensor) -> Tensor:
            return 0.7 * h.square().sum(-1)

        def draw(self, count: int, rng: Any) -> Tensor:
            return rng.normal((count, self.codes)) / math.sqrt(1.4)

    for codes in (1, 3):
        low, high = prior_log_z(Fixed(codes), draws=1000, steps=20, chains=50).interval()
        assert low < 0.5 * codes * math.log(math.pi / 0.7) < high < low + 0.5


def test_draws_of_a_tilted_prior_are_not_called_exact():
    model = latent_mlp(2, 3, prior="tilted", width=4).double()
    assert not bidirectional(model, examples=2, chains=2, steps=2).exact


def test_a_likelihood_that_lattices_do_not_resolve_is_none():
    """One code that a decoder blows up to a million times the width of p(v|h)."""
    model = linear_gaussian(2, 1, 1e-7)
    model.decoder.layer.weight.mul_(1e6)
    with pytest.warns(UserWarning, match="p\\(h\\|v\\) is too narrow"):
        found = log_likelihood(model, model.draw(3, rng(1)))
    assert found.isnan().all()
