"""The binary RBM's closed forms and everything that trains or measures it, against sums over all its configurations."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad

from baselines import CD, NCE, PCD, VNCE
from baselines.noise import fit_noise, noise_log_prob, sample_noise
from bism import RBM, Bernoulli, InputError, enumeration, fisher_divergence, log_likelihood, log_partition
from bism.annealing import (
    BinaryBaseRate,
    ais,
    anneal,
    base_rate,
    inverse_temperatures,
    raise_log_likelihood,
    reverse_ais,
)
from bism.enumeration import exact_samples, not_enumerable
from bism.likelihood import grid_density
from bism.rng import generator
from bism.sampling import gibbs, gibbs_noise
from bism.scaling import Scaling
from bism.variables import log_odds
from tests.maths.checks import vnce_gap
from tests.maths.exact import (
    configurations,
    draws,
    expected_gradient,
    flat,
    hyper,
    make_rbm,
    moved,
    parameters,
    product,
    state_of,
)

MANY = 40_000
V, H = configurations(4), configurations(3)  # of ``make_rbm()``


def joint(model: RBM) -> Tensor:
    """p(v, h) of every pair, [2^D, 2^m], from the energy as it is written in the paper, unit by unit."""
    W, b, c = (x.detach() for x in (model.W, model.b, model.c))
    visible, hidden = configurations(len(b)), configurations(len(c))
    energies = torch.stack(
        [torch.stack([-(b @ v) - c @ h - sum(v[i] * W[i] @ h for i in range(len(b))) for h in hidden]) for v in visible]
    )
    weights = (-energies).exp()
    return weights / weights.sum()


def share(v: Tensor) -> Tensor:
    """How often each configuration is among binary vectors [n, D], [2^D] in the order of ``configurations``."""
    index = (v.long() * (2 ** torch.arange(v.shape[1] - 1, -1, -1))).sum(1)
    return index.bincount(minlength=2 ** v.shape[1]).double() / len(v)


def close(found: Tensor, p: Tensor, count: int) -> bool:
    """Whether frequencies among ``count`` draws are those of p, within five standard errors."""
    return bool(((found - p).abs() < 5 * (p * (1 - p) / count).sqrt() + 1e-12).all())


# --- closed forms -----------------------------------------------------------------------------------------------------


def test_the_likelihood_and_log_z_are_those_of_the_joint_distribution() -> None:
    model = make_rbm()
    p = joint(model)
    torch.testing.assert_close(log_likelihood(model, V), p.sum(1).log(), atol=1e-12, rtol=0)
    v, h = V[5:6], H[3:4]
    log_z = -float(model.energy(v, h).detach()) - math.log(float(p[5, 3]))
    assert log_partition(model) == pytest.approx(log_z, abs=1e-12)


def test_free_energies_are_sums_over_the_other_side() -> None:
    model = make_rbm()
    energies = torch.stack([model.energy(V, h.expand(len(V), -1)) for h in H])
    torch.testing.assert_close(model.free_energy(V), -(-energies).logsumexp(0), atol=1e-12, rtol=0)
    torch.testing.assert_close(model.hidden_free_energy(H), -(-energies).logsumexp(1), atol=1e-12, rtol=0)


def test_the_conditionals_are_those_of_the_joint_distribution() -> None:
    model, p = make_rbm(), joint(make_rbm())
    for logits, units, conditional in (
        (model.hidden_logits(V), H, p / p.sum(1, keepdim=True)),
        (model.visible_logits(H), V, (p / p.sum(0)).T),
    ):
        on = logits.sigmoid().unsqueeze(1)
        torch.testing.assert_close((on * units + (1 - on) * (1 - units)).prod(-1), conditional, atol=1e-12, rtol=0)
    torch.testing.assert_close(model.visible_mean(H), (p / p.sum(0)).T @ V, atol=1e-12, rtol=0)


def test_samples_follow_the_conditionals() -> None:
    model, p, rng = make_rbm(), joint(make_rbm()), draws(1)
    noise = gibbs_noise(model, MANY, 1, rng)
    h = model.sample_hidden(V[6].expand(MANY, -1), noise["hidden"][0])
    v = model.sample_visible(H[5].expand(MANY, -1), noise["visible"][0])
    assert close(share(h), p[6] / p[6].sum(), MANY)
    assert close(share(v), p[:, 5] / p[:, 5].sum(), MANY)


def test_gibbs_leaves_the_model_alone_and_finds_it() -> None:
    model, p = make_rbm(), joint(make_rbm())
    with torch.no_grad():
        v = exact_samples(model, MANY, draws(2))
        assert close(share(v), p.sum(1), MANY)
        assert close(share(gibbs(model, v, gibbs_noise(model, MANY, 3, draws(3)))), p.sum(1), MANY)
        found = gibbs(model, torch.ones(MANY, 4).double(), gibbs_noise(model, MANY, 60, draws(4)))
        assert close(share(found), p.sum(1), MANY)


@pytest.mark.parametrize(("visible", "hidden"), [(3, 25), (25, 3), (3, 3), (4, 3)])
def test_the_smaller_side_is_enumerated(visible: int, hidden: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both give the same log Z where both can be had, and samples of the model."""
    model = make_rbm(visible, hidden)
    if visible > 20:  # of independent halves the sum is known: the visible units given h
        of_h = -model.hidden_free_energy(configurations(hidden))
        assert log_partition(model) == pytest.approx(float(of_h.logsumexp(0).detach()), abs=1e-10)
    else:
        of_v = -model.free_energy(configurations(visible))
        assert log_partition(model) == pytest.approx(float(of_v.logsumexp(0).detach()), abs=1e-10)
        p = log_likelihood(model, configurations(visible)).exp()
        assert close(share(exact_samples(model, MANY, draws(5))), p, MANY)
    monkeypatch.setattr(enumeration, "ENUMERABLE", min(visible, hidden) - 1)
    with pytest.raises(InputError, match=rf"2\^{min(visible, hidden)} configurations are too many"):
        log_partition(model, method="enumerate")


class Pairwise(torch.nn.Module):
    """A Boltzmann machine without hidden units: E(v) = -b.v - v.J v, of images [1, 2, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.visible_shape, self.visible_units, self.latent = (1, 2, 2), Bernoulli(4), None
        self.J = torch.nn.Parameter(torch.tensor([[0.0, 1, -1, 0.5]] * 4))

    def free_energy(self, v: Tensor) -> Tensor:
        x = v.flatten(1)
        return -((x @ self.J) * x).sum(1)


def test_a_model_of_binary_v_alone_is_enumerated_too() -> None:
    model = Pairwise().double()
    assert not_enumerable(model) is None
    v = V.reshape(-1, 1, 2, 2)
    p = (-model.free_energy(v)).softmax(0)
    torch.testing.assert_close(log_likelihood(model, v), p.log().detach(), atol=1e-12, rtol=0)
    found = exact_samples(model, MANY, draws(6))
    assert found.shape == (MANY, 1, 2, 2)
    assert close(share(found.flatten(1)), p.detach(), MANY)


def test_what_differentiates_in_v_is_undefined() -> None:
    model = make_rbm()
    with pytest.raises(InputError, match="the Fisher divergence of RBM is undefined: its v is binary"):
        fisher_divergence(model, V)
    with pytest.raises(InputError, match="RBM has no score: its v is binary"):
        CD().fit(RBM(4, 3), V, steps=1, batch_size=4).score(V)
    with pytest.raises(InputError, match="v of RBM is binary: there is nothing to scale"):
        Scaling.unit(V).model(model)
    with pytest.raises(InputError, match="v of RBM is binary: there is no density on a grid"):
        grid_density(make_rbm(2, 2), torch.linspace(0, 1, 3), torch.linspace(0, 1, 3))


# --- where it starts --------------------------------------------------------------------------------------------------


def test_it_starts_as_hinton_says() -> None:
    model = RBM(100, 60)
    assert float(model.W.detach().std()) == pytest.approx(0.01, rel=0.05)
    assert abs(float(model.W.detach().mean())) < 0.001
    assert not torch.cat([model.b, model.c]).any()
    data = (draws(7).uniform((50, 3)) < torch.tensor([0.1, 0.6, 0.0])).float()
    for init in ("paper", "data"):
        fitted = CD().fit(RBM(3, 2, init=init), data, steps=0, batch_size=5)
        ones = data.sum(0)
        expected = ((ones + 1) / (52 - ones - 1)).log() if init == "data" else torch.zeros(3)
        torch.testing.assert_close(fitted.model(0).b, expected)
    with pytest.raises(InputError, match="RBM: init must be one of paper, data, got 'zero'"):
        RBM(2, 2, init="zero")


# --- estimators -------------------------------------------------------------------------------------------------------


def test_the_likelihoods_gradient_is_the_data_s_statistics_less_the_model_s() -> None:
    model, p = make_rbm(), joint(make_rbm())
    weights = draws(8).uniform((16,)).softmax(0)
    theta, state = parameters(model), state_of({}, model=model)

    def likelihood(at: Any) -> Tensor:
        bound = state.bind({"model": at}).model
        return weights @ -bound.free_energy(V) - (-bound.free_energy(V)).logsumexp(0)

    gradient = grad(likelihood)(theta)
    given = joint(model) / p.sum(1, keepdim=True)  # p(h|v)
    for distribution, sign in ((weights[:, None] * given, 1), (p, -1)):
        for name, statistic in (
            ("W", V.T @ distribution @ H),
            ("b", distribution.sum(1) @ V),
            ("c", distribution.sum(0) @ H),
        ):
            gradient[name] = gradient[name] - sign * statistic
    assert float(flat(gradient).abs().max()) < 1e-12


@pytest.mark.parametrize("estimator", [CD(k=40), PCD(k=40)], ids=["cd", "pcd"])
def test_many_sweeps_give_the_likelihood_s_gradient(estimator: Any) -> None:
    """CD's gradient at another model than the data's, on as many examples as make the noise of sampling small."""
    truth, model = make_rbm(seed=1), make_rbm()
    batch = exact_samples(truth, MANY, draws(9))
    theta, state = parameters(model), state_of({}, model=model)
    noise, carry = estimator.noise(model, tuple(batch.shape), draws(10)), {"chains": batch}
    found = grad(lambda at: estimator.loss(state.bind({"model": at}), batch, noise, carry, hyper(estimator))[0])(theta)

    def negative_likelihood(at: Any) -> Tensor:
        bound = state.bind({"model": at}).model
        return bound.free_energy(batch).mean() + (-bound.free_energy(V)).logsumexp(0)

    expected = grad(negative_likelihood)(theta)
    assert float(flat(expected).norm()) > 0.3
    assert float((flat(found) - flat(expected)).abs().max()) < 5 * 0.5 / MANY**0.5


@pytest.mark.parametrize("nu", [1, 3])
def test_nce_recovers_the_model_and_its_log_z(nu: int) -> None:
    """Over every example and every noise vector, each with its probability."""
    truth, estimator = make_rbm(3, 2), NCE(nu=nu, noise_distribution="bernoulli")
    v = configurations(3)
    carry = {"logits": torch.tensor([0.4, -1.0, 0.2], dtype=torch.float64)}
    nodes, contrast, weights = product((v, log_likelihood(truth, v).exp()), (v, noise_log_prob(carry, v).exp()))
    noise = (100 * (2 * contrast - 1)).unsqueeze(1).expand(-1, nu, -1)  # logistic numbers that make just this vector
    assert torch.equal(sample_noise(carry, noise[:, 0]), contrast)

    def slope(theta: Any, c: float) -> float:
        params = {"model": theta, "normaliser": {"c": torch.tensor(c, dtype=torch.float64)}}
        return float(flat(expected_gradient(estimator, params, nodes, noise, weights, carry, model=truth)).norm())

    theta, log_z = parameters(truth), log_partition(truth)
    assert slope(theta, log_z) < 1e-10
    assert slope(theta, log_z + 0.1) > 1e-3
    assert slope(moved(theta, 0.1), log_z) > 1e-3


def test_vnce_is_nce_at_the_true_posterior() -> None:
    options: Any = {"nu": 2, "noise_distribution": "bernoulli"}
    assert vnce_gap(VNCE(noise_particles=3, **options), NCE(**options), make_rbm(2, 3)) < 1e-10


def test_bernoulli_noise_has_the_means_of_the_data_and_the_probabilities_it_says() -> None:
    data = (draws(11).uniform((200, 3)) < torch.tensor([0.2, 0.7, 0.0])).double()
    fitted, v = fit_noise("bernoulli", data), configurations(3)
    p = noise_log_prob(fitted, v).exp()
    assert float(p.sum()) == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(p @ v, (data.sum(0) + 1) / 202, atol=1e-12, rtol=0)
    assert close(share(sample_noise(fitted, draws(12).logistic((MANY, 3)))), p, MANY)


@pytest.mark.long
@pytest.mark.parametrize("estimator", [CD(k=2), PCD(k=2), NCE(nu=5), VNCE(nu=5)], ids=lambda one: one.id)
def test_training_comes_near_the_best_there_is(estimator: Any) -> None:
    """Within 0.03 nats of the model that made the data, from 0.3 and more below."""
    truth = make_rbm(4, 2, seed=3)
    with torch.no_grad():
        truth.W.mul_(2)
    data = exact_samples(truth, 5000, draws(13))
    changes: dict[str, Any] = {"lr": 0.02}
    if hasattr(estimator, "noise_distribution"):
        changes["noise_distribution"] = "bernoulli"
    if hasattr(estimator, "lr_posterior"):
        changes |= {"lr_posterior": 0.02, "inner_steps": 2}
    trained = dataclasses.replace(estimator, **changes).fit(
        RBM(4, 3), data.float(), steps=1500, seeds=[0], compile=False
    )
    best = float(log_likelihood(truth, data).mean())
    assert float(trained.log_likelihood(data.float()).mean()) > best - 0.03
    assert float(log_likelihood(RBM(4, 3), data).mean()) < best - 0.3


# --- annealing --------------------------------------------------------------------------------------------------------


def data_like(model: RBM) -> Tensor:
    """Vectors whose base-rate model is not the model's own."""
    return (draws(14).uniform((500, *model.visible_shape)) < torch.linspace(0.2, 0.7, model.visible_shape[0])).double()


def test_the_base_rate_model() -> None:
    model = make_rbm()
    data = data_like(model)
    data[:, 1] = 0  # a unit that never changes
    base = base_rate(model, data)
    assert isinstance(base, BinaryBaseRate)
    torch.testing.assert_close(base.visible_logits, log_odds(data))
    torch.testing.assert_close(base.visible_logits.sigmoid(), (data.sum(0) + 1) / 502)
    torch.testing.assert_close(base.logits.sigmoid(), model.hidden_logits(data).sigmoid().mean(0).detach())
    independent = make_rbm()
    with torch.no_grad():
        independent.W.zero_()
        independent.b.copy_(base.visible_logits)
        independent.c.copy_(base.logits)
    assert base.log_z == pytest.approx(log_partition(independent), abs=1e-12)
    assert close(share(base.sample(MANY, draws(15))), log_likelihood(independent, V).exp(), MANY)


@pytest.mark.parametrize("steps", [1, 2, 6])
def test_weights_are_unbiased_in_both_directions(steps: int) -> None:
    model = make_rbm(seed=2)
    with torch.no_grad():
        model.W.mul_(2)
    exact, data = log_partition(model), data_like(model)
    up = ais(model, data, chains=MANY, steps=steps, seed=1)
    down = reverse_ais(model, exact_samples(model, MANY, draws(16)), data, steps=steps, seed=1)
    for estimate in (up, down):
        assert 10 < estimate.effective_sample_size < MANY
        assert abs(estimate.log_z - exact) < 4 * estimate.standard_error + 1e-3
        assert 1e-4 < estimate.standard_error < 0.1


def test_one_temperature_is_importance_sampling() -> None:
    model = make_rbm()
    base = base_rate(model, data_like(model))
    log_w, v = anneal(model, base, base.sample(50, draws(17)), inverse_temperatures(1), generator(0, 0, "test"))
    log_base = v @ base.visible_logits - torch.nn.functional.softplus(base.visible_logits).sum()
    torch.testing.assert_close(log_w, -model.free_energy(v).detach() - log_base - base.log_z, atol=1e-10, rtol=0)


def test_a_sweep_leaves_its_temperature_alone() -> None:
    """Chains that start at f_beta, walked from beta to beta, are samples of f_beta: of an RBM itself."""
    model, data, beta = make_rbm(), data_like(make_rbm()), 0.4
    base, between = base_rate(model, data), make_rbm()
    with torch.no_grad():
        between.W.mul_(beta)
        between.b.copy_(torch.lerp(base.visible_logits, model.b, beta))
        between.c.copy_(torch.lerp(base.logits, model.c, beta))
    start = exact_samples(between, MANY, draws(18))
    log_w, v = anneal(model, base, start, torch.tensor([beta] * 4).double(), generator(0, 0, "test"))
    assert float(log_w.abs().max()) < 1e-12
    assert close(share(v), log_likelihood(between, V).exp(), MANY)


def test_raise_tends_to_the_likelihood() -> None:
    model = make_rbm()
    v = V[::3]
    found = raise_log_likelihood(model, v, data_like(model), chains=200, steps=300)
    torch.testing.assert_close(found, log_likelihood(model, v), atol=0.1, rtol=0)
