"""Annealing against enumeration and quadrature: what it bounds, from which side, and by how much it says it may err."""

import math

import pytest
import torch
from torch import Tensor

from baselines import SM
from bism import GRBM, InputError, enumeration, log_likelihood, log_partition
from bism.annealing import (
    BaseRate,
    Bracket,
    Estimate,
    ais,
    anneal,
    base_rate,
    bracket,
    inverse_temperatures,
    raise_log_likelihood,
    reverse_ais,
)
from bism.enumeration import enumerate_hidden, exact_samples, log_weights
from bism.rng import generator
from tests.maths.exact import LinearGaussian, configurations, draws, make_grbm

CHAINS = 40_000


def data_like(model: GRBM) -> Tensor:
    """Points whose base-rate model is not the model's own."""
    return 0.3 + 1.3 * draws(7).normal((500, *model.visible_shape))


def test_the_base_rate_model_of_the_data() -> None:
    model = make_grbm(2, 3)
    v = data_like(model)
    v[:, 1] = 0.5  # a visible unit that never changes
    base = base_rate(model, v)
    torch.testing.assert_close(base.mean, v.mean(0))
    assert float(base.scale[0]) == pytest.approx(float(v[:, 0].std()))
    assert 0 < float(base.scale[1]) < 0.1
    torch.testing.assert_close(base.logits.sigmoid(), model.hidden_logits(v).sigmoid().mean(0).detach())


def test_log_z_of_the_base_rate_model() -> None:
    model = make_grbm(2, 3)
    base = base_rate(model, data_like(model))
    independent = make_grbm(2, 3)
    with torch.no_grad():
        independent.W.zero_()
        independent.b.copy_(base.mean)
        independent.log_s.copy_(base.scale.log())
        independent.c.copy_(base.logits)
    assert base.log_z == pytest.approx(log_partition(independent), abs=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 6])
def test_weights_are_unbiased_in_both_directions(steps: int) -> None:
    # with as few temperatures as this, any mistake in a transition or a weight shows
    model = make_grbm(2, 3)
    exact, data = log_partition(model), data_like(model)
    up = ais(model, data, chains=CHAINS, steps=steps, seed=1)
    samples = exact_samples(model, CHAINS, draws(3))
    down = reverse_ais(model, samples, data, steps=steps, seed=1)
    for estimate in (up, down):
        assert estimate.chains == CHAINS
        assert estimate.temperatures == steps
        assert 10 < estimate.effective_sample_size < CHAINS
        assert abs(estimate.log_z - exact) < 4 * estimate.standard_error + 1e-3
        assert estimate.standard_error < 0.1


def test_the_two_directions_bound_log_z_on_average() -> None:
    model = make_grbm(3, 4, seed=2)
    exact, data = log_partition(model), data_like(model)
    base = base_rate(model, data)
    for betas, start, sign in (
        (inverse_temperatures(5), base.sample(CHAINS, draws(1)), 1),
        (inverse_temperatures(5).flip(0), exact_samples(model, CHAINS, draws(2)), -1),
    ):
        log_w, _ = anneal(model, base, start, betas, generator(0, 0, "test"))
        single = base.log_z + sign * log_w.mean()  # the average of log Z from one chain each
        assert sign * (exact - float(single)) > 0.05


def test_one_temperature_is_importance_sampling() -> None:
    model, base = make_grbm(2, 3), base_rate(make_grbm(2, 3), data_like(make_grbm(2, 3)))
    start = base.sample(50, draws(1))
    log_w, v = anneal(model, base, start, inverse_temperatures(1), generator(0, 0, "test"))
    log_base = torch.distributions.Normal(base.mean, base.scale).log_prob(v).sum(1)
    torch.testing.assert_close(log_w, -model.free_energy(v).detach() - log_base - base.log_z, atol=1e-10, rtol=0)


def test_the_standard_error_is_the_spread_of_repetitions() -> None:
    model = make_grbm(2, 3)
    found = [ais(model, data_like(model), chains=200, steps=10, seed=seed) for seed in range(60)]
    spread = float(torch.tensor([estimate.log_z for estimate in found]).std())
    stated = sum(estimate.standard_error for estimate in found) / len(found)
    assert spread == pytest.approx(stated, rel=0.3)
    assert found[0] == ais(model, data_like(model), chains=200, steps=10, seed=0)


def test_exact_samples_are_the_models() -> None:
    model = make_grbm(2, 3)
    v = exact_samples(model, CHAINS, draws(4))
    p = log_weights(model).softmax(0)
    means = model.b + model.log_s.exp().square() * (enumerate_hidden(3, 0, 8, torch.float64) @ model.W.T)
    expected, error = p @ means, v.std(0) / math.sqrt(CHAINS)
    assert ((v.mean(0) - expected).abs() < 4 * error).all()
    variance = p @ means.square() - expected.square() + (2 * model.log_s).exp()
    torch.testing.assert_close(v.var(0), variance.detach(), rtol=0.05, atol=0)


def annealed_density(model: GRBM, base: BaseRate, steps: int, axis: Tensor) -> Tensor:
    """p_ann on a grid of one visible unit: the base-rate density, then one transition matrix for each temperature."""
    cell = float(axis[1] - axis[0])
    density = torch.distributions.Normal(base.mean, base.scale).log_prob(axis).exp()
    for beta in inverse_temperatures(steps)[1:].tolist():
        precision = (1 - beta) / base.scale**2 + beta * (-2 * model.log_s).exp()
        centre = ((1 - beta) * base.mean / base.scale**2 + beta * model.b * (-2 * model.log_s).exp()) / precision
        logits = (1 - beta) * base.logits + beta * model.hidden_logits(axis[:, None])
        transition = torch.zeros(len(axis), len(axis), dtype=torch.float64)
        for h in configurations(model.latent.size):
            probability = torch.distributions.Bernoulli(logits=logits).log_prob(h).sum(1).exp()
            mean = centre + beta / precision * (model.W @ h)
            transition += probability[:, None] * torch.distributions.Normal(mean, precision**-0.5).log_prob(axis).exp()
        density = cell * density @ transition
    return density.detach()


@pytest.mark.parametrize("steps", [2, 4])
def test_raise_is_the_likelihood_of_the_annealed_model(steps: int) -> None:
    model = make_grbm(1, 2, seed=4)
    data = 0.6 * data_like(model)  # narrower than the model: the weights have a finite variance
    axis = torch.linspace(-12, 12, 1201, dtype=torch.float64)
    density = annealed_density(model, base_rate(model, data), steps, axis)
    at = torch.tensor([560, 600, 640])
    v = axis[at, None]
    found = raise_log_likelihood(model, v, data, chains=CHAINS, steps=steps)
    torch.testing.assert_close(found, density[at].log(), atol=0.03, rtol=0)
    assert (log_likelihood(model, v) - density[at].log()).abs().max() > 0.05  # which is not the model's
    few = torch.stack([raise_log_likelihood(model, v, data, chains=1, steps=steps, seed=s) for s in range(300)])
    assert (few.mean(0) < density[at].log()).all()


def test_raise_tends_to_the_likelihood() -> None:
    model = make_grbm(2, 3)
    v = data_like(model)[:20]
    found = raise_log_likelihood(model, v, data_like(model), chains=50, steps=300)
    torch.testing.assert_close(found, log_likelihood(model, v), atol=0.15, rtol=0)


def test_a_bracket_with_exact_samples() -> None:
    model = make_grbm(3, 5)
    found = bracket(model, data_like(model), chains=2000, steps=(5, 50, 500), tolerance=0.05)
    assert set(found.upper) == {"exact"}
    assert not found.approximate
    assert found.reached
    assert found.lower.temperatures in (50, 500)
    low, high = found.interval()
    assert low < log_partition(model) < high < low + 0.2


def test_a_margin_is_the_quantile_of_the_standard_error_or_markovs() -> None:
    assert Estimate(7.0, 0.1, 100, 200, 5).margin() == pytest.approx(1.959964 * 0.1)
    assert Estimate(7.0, 0.1, 100, 200, 5).margin(0.99) == pytest.approx(2.575829 * 0.1)
    for unknown in (Estimate(7.0, 9.0, 1, 200, 5), Estimate(7.0, 0.1, 5, 19, 5), Estimate(7.0, math.nan, 1, 1, 5)):
        assert unknown.margin() == pytest.approx(math.log(40))


def test_an_interval_holds_every_estimate_with_its_margin() -> None:
    """And whether reverse AIS below AIS is more than noise."""
    low, high, far = (Estimate(x, 0.1, 100, 200, 5) for x in (1.0, 1.3, 5.0))
    beyond = 1.959964 * 0.1
    assert Bracket(low, {"exact": high}, 1).interval() == pytest.approx((1.0 - beyond, 1.3 + beyond))
    assert Bracket(high, {"exact": low}, 1).interval() == pytest.approx((1.0 - beyond, 1.3 + beyond))  # not empty
    assert Bracket(low, {"data": high, "base": far}, 1).interval() == pytest.approx((1.0 - beyond, 5.0 + beyond))
    assert not Bracket(low, {"data": far}, 1).contradictory
    assert not Bracket(high, {"data": low}, 1).contradictory
    assert Bracket(far, {"data": low, "base": far}, 1).contradictory


def test_a_single_chain_is_not_beyond_its_margin_more_often_than_markov_says() -> None:
    """log w of one chain in both directions, at a level where the bound can be seen."""
    model = make_grbm(3, 4, seed=2)
    exact, base, count = log_partition(model), base_rate(model, data_like(model)), 4000
    for betas, start, sign in (
        (inverse_temperatures(3), base.sample(count, draws(1)), 1),
        (inverse_temperatures(3).flip(0), exact_samples(model, count, draws(2)), -1),
    ):
        log_w, _ = anneal(model, base, start, betas, generator(0, 0, "test"))
        for level in (0.0, 0.5, 0.95):
            margin = Estimate(0.0, math.nan, 1, 1, 3).margin(level)
            assert float((sign * (base.log_z - exact) + log_w > margin).double().mean()) <= (1 - level) / 2


def test_a_bracket_whose_budget_is_spent_says_so() -> None:
    model = make_grbm(3, 5)
    found = bracket(model, data_like(model), chains=50, steps=(1, 2), tolerance=1e-9)
    assert found.lower.temperatures == 2
    assert not found.reached


def test_a_bracket_by_gibbs_chains_is_called_approximate(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_grbm(3, 5)
    exact = log_partition(model)
    monkeypatch.setattr(enumeration, "ENUMERABLE", 4)
    found = bracket(model, data_like(model), chains=2000, steps=(50, 500), tolerance=0.1, sweeps=50)
    assert set(found.upper) == {"data", "base"}
    assert found.approximate
    assert found.gap < 0.1
    assert found.lower.log_z == pytest.approx(exact, abs=0.1)
    low, high = found.interval()
    assert low < min(x.log_z for x in found.upper.values()) < max(x.log_z for x in found.upper.values()) < high
    assert not found.contradictory


def test_auto_anneals_what_cannot_be_enumerated(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_grbm(3, 3)
    exact, v = log_partition(model), data_like(model)
    annealed = log_partition(model, "ais", data=v, chains=2000, steps=200)
    assert annealed == pytest.approx(exact, abs=0.05)
    assert annealed != exact == log_partition(model, data=v)
    monkeypatch.setattr(enumeration, "ENUMERABLE", 2)
    assert log_partition(model, data=v, chains=2000, steps=200) == annealed


def test_auto_needs_data_where_it_anneals() -> None:
    model = make_grbm(3, 21)
    with pytest.raises(InputError, match=r"cannot be enumerated \(2\^21 .* needs the training data"):
        log_partition(model)
    v = data_like(model)
    fitted = SM().fit(GRBM(3, 21), v.float(), steps=0, seeds=[0, 1])
    with pytest.raises(InputError, match="needs the training data"):
        fitted.log_likelihood(v.float())
    values = fitted.log_likelihood(v[:5].float(), data=v.float())
    assert values.shape == (2, 5)
    torch.testing.assert_close(
        values[1] + fitted.energy(v[:5].float())[1], -fitted.log_partition(v.float())[1].expand(5), atol=1e-3, rtol=0
    )


def test_annealing_is_for_grbms() -> None:
    model = LinearGaussian(3, 1)
    with pytest.raises(InputError, match="AIS cannot be had for LinearGaussian"):
        ais(model, torch.zeros(5, 3))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="cannot be enumerated"):
        log_partition(model)


def test_units_do_not_matter() -> None:
    """A model in other units has another log Z, by the sum of their logarithms, and AIS has the same error."""
    model = make_grbm(4, 3)
    data = data_like(model)
    data[:, 2] = data[0, 2]  # a unit that does not vary
    factor = torch.tensor([1e5, 1.0, 1.0, 1e-5], dtype=torch.float64)
    shift = torch.tensor([0.0, 1.0, -3.0, 2.0], dtype=torch.float64)
    there = model.rescaled(shift, factor)
    here, found = (ais(*of, chains=100, steps=50) for of in ((model, data), (there, shift + factor * data)))
    assert found.log_z - log_partition(there) == pytest.approx(here.log_z - log_partition(model), abs=1e-4)
