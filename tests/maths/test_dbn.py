"""The deep belief network's closed forms, bounds and training, against sums over all units."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad

from baselines import CD, TrainDBN
from bism import DBN, GRBM, RBM, InputError, log_likelihood, log_partition
from bism.annealing import annealed
from bism.dbn import Recognition
from bism.likelihood import importance_bound, log_density_bound
from bism.posteriors import RelaxedBernoulli, default_posterior
from bism.state import State
from tests.maths.exact import configurations, draws, flat, hyper, parameters, relative, state_of
from tests.maths.test_dbm import marginal, probability, scrambled, states

MANY = 20_000
V = configurations(3)


def law(model: DBN) -> Tensor:
    """p of every state, as it is written: the RBM's share of the two uppermost layers, each layer given the next."""
    *lower, y, z = states(model)
    top = configurations(model.sizes[-2] + model.sizes[-1]).split(list(model.sizes[-2:]), 1)

    def weight(y: Tensor, z: Tensor) -> Tensor:
        rbm = model.top
        return (y @ rbm.b + z @ rbm.c + torch.einsum("bi,ij,bj->b", y, rbm.W, z)).exp()

    p = weight(y, z) / weight(*top).sum()
    for layer, below, above in zip(model.directed, lower, [*lower[1:], y], strict=True):
        p = p * probability(below, layer.b + above @ layer.W.T)
    return p.detach()


every_depth = pytest.mark.parametrize("hidden", [[2, 3], [2, 2, 2]], ids=["two layers", "three"])


@every_depth
def test_energies_log_z_and_likelihoods_are_sums_over_all_units(hidden: list[int]) -> None:
    model = scrambled(DBN(3, hidden))
    p, layers, h = law(model), states(model), configurations(sum(hidden[:-1]))
    assert float(p.sum()) == pytest.approx(1.0, abs=1e-12)
    torch.testing.assert_close(log_likelihood(model, V).exp(), marginal(p, layers[0]), atol=1e-12, rtol=0)
    both = marginal(p, torch.cat(layers[:-1], 1)).reshape(len(V), -1)
    log_z = log_partition(model)
    assert log_z == pytest.approx(log_partition(model.as_rbm()), abs=1e-12)
    torch.testing.assert_close((-model.energies(V, h) - log_z).exp(), both, atol=1e-12, rtol=0)
    torch.testing.assert_close((-model.hidden_free_energy(h) - log_z).exp(), both.sum(0), atol=1e-12, rtol=0)
    one_by_one = torch.stack([model.energy(V, x.expand(len(V), -1)) for x in h], 1)
    torch.testing.assert_close(model.energies(V, h), one_by_one, atol=1e-12, rtol=0)


@every_depth
def test_draws_are_the_model_s(hidden: list[int]) -> None:
    model = scrambled(DBN(3, hidden), 1.2)
    p = log_likelihood(model, V).exp()
    with torch.no_grad():
        v = model.draw(MANY, draws(1))
    share = marginal(torch.full((MANY,), 1 / MANY, dtype=torch.float64), v)
    assert ((share - p).abs() < 5 * (p * (1 - p) / MANY).sqrt()).all()


def recognition(model: DBN, seed: int = 5) -> Recognition:
    found: Recognition = scrambled(default_posterior(model), 0.5, seed)
    return found


def q_of(posterior: Recognition, v: Tensor, h: Tensor) -> Tensor:
    """q(h|v) of every v with every h, [v, h]."""
    return torch.stack([posterior.log_prob(h, x.expand(len(h), -1)).exp() for x in v]).detach()


def test_the_posterior_is_a_distribution_that_it_samples() -> None:
    model = DBN(3, [2, 2, 2])
    posterior, h = recognition(model), configurations(4)
    q = q_of(posterior, V, h)
    torch.testing.assert_close(q.sum(1), torch.ones(len(V), dtype=torch.float64))
    with torch.no_grad():
        drawn = posterior.sample_hard(V[5].expand(MANY, -1), model.latent.noise(draws(2), (MANY,)))
        relaxed = posterior.sample(V, torch.zeros(8, 4, dtype=torch.float64), 1.0)
    share = marginal(torch.full((MANY,), 1 / MANY, dtype=torch.float64), drawn)
    assert ((share - q[5]).abs() < 5 * (q[5] * (1 - q[5]) / MANY).sqrt()).all()
    torch.testing.assert_close(relaxed, posterior.mean(V))
    torch.testing.assert_close(posterior.mean(V)[:, :2], q @ h[:, :2], atol=1e-12, rtol=0)


# --- bounds -----------------------------------------------------------------------------------------------------------


@every_depth
def test_bounds_are_below_the_likelihood_and_the_one_by_importance_is_nearer(hidden: list[int]) -> None:
    model = scrambled(DBN(3, hidden))
    posterior, log_z = recognition(model), log_partition(model)
    exact, h = log_likelihood(model, V), configurations(sum(hidden[:-1]))
    q = q_of(posterior, V, h)
    log_w = (-model.energies(V, h) - q.log()).detach() - log_z
    one = (q * log_w).sum(1)
    pairs = torch.logaddexp(log_w[:, :, None], log_w[:, None]) - math.log(2)
    two = (q[:, :, None] * q[:, None] * pairs).sum((1, 2))
    assert (one < two).all()
    assert (two < exact).all()
    again = V.repeat(MANY, 1)
    for bound, particles, expected in ((log_density_bound, 2, one), (importance_bound, 2, two)):
        found = bound(model, posterior, again, particles=particles).reshape(MANY, len(V)) - log_z
        assert ((found.mean(0) - expected).abs() < 5 * found.std(0) / MANY**0.5).all()
    ratio = found.exp()  # whose mean is without bias
    assert ((ratio.mean(0) - exact.exp()).abs() < 5 * ratio.std(0) / MANY**0.5).all()


def test_bounds_are_the_likelihood_at_the_true_posterior() -> None:
    model = scrambled(DBN(3, [1, 3]))
    posterior = recognition(model)
    with torch.no_grad():  # log-odds of the only hidden unit given v are linear in v
        on, off = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
        posterior.layers[0].W.copy_(model.directed[0].W)
        zero = torch.zeros(1, 3, dtype=torch.float64)
        posterior.layers[0].c.copy_(model.energy(zero, off) - model.energy(zero, on))
    exact = log_likelihood(model, V)
    for bound in (log_density_bound, importance_bound):
        torch.testing.assert_close(bound(model, posterior, V, particles=3) - log_partition(model), exact)


def test_what_ais_starts_from() -> None:
    model = scrambled(DBN(3, [2, 3]))
    posterior = recognition(model)
    rbm, examples = annealed(model, V, posterior)
    assert rbm is model.top
    torch.testing.assert_close(examples, posterior.mean(V).detach())
    assert (annealed(model, V)[1] == 0.5).all()
    assert log_partition(model, "ais", data=V, chains=1000, steps=100) == pytest.approx(log_partition(model), abs=0.1)


# --- training ---------------------------------------------------------------------------------------------------------


def begun(hidden: list[int]) -> tuple[TrainDBN, State]:
    """A state at the start with parameters that are all different."""
    method, model = TrainDBN(layers=len(hidden)), DBN(3, hidden)
    state = method.init(model, V, draws(1), batch_size=8)
    params = {
        part: {name: draws(7 * i).normal(x.shape) for i, (name, x) in enumerate(tensors.items(), start=len(part))}
        for part, tensors in state.params.items()
    }
    return method, state.replace(params=params)


def test_each_pair_is_an_rbm_trained_by_cd() -> None:
    method, state = begun([2, 3])
    for number, size in ((1, 3), (2, 2)):
        model, posterior = state.bind().model, state.bind().posterior
        rbm = RBM(size, [2, 3][number - 1]).double()
        W, b, c = (
            (state.params["model"]["directed.0.W"], state.params["model"]["directed.0.b"], posterior.layers[0].c)
            if number == 1
            else (model.top.W, model.top.b, model.top.c)
        )
        x = configurations(size)
        noise = method.greedy_noise(number, DBN(3, [2, 3]), (len(x), 3), draws(3))["chain"]
        hand = {"hidden": noise["above"][:, 0], "visible": noise["below"][:, 0]}

        def plain(theta: Any, x: Tensor = x, hand: Any = hand, rbm: Any = rbm) -> Tensor:
            return CD().loss(state_of({"model": theta}, model=rbm).bind(), x, hand, {}, {})[0]

        expected = grad(plain)({"W": W.detach(), "b": b.detach(), "c": c.detach()})

        def ours(params: Any, number: int = number, x: Tensor = x, noise: Any = noise) -> Tensor:
            return method.pair(state.bind(params), number).contrast(x, noise)

        found = grad(ours)(state.params)
        names = ("directed.0.W", "directed.0.b") if number == 1 else ("top.W", "top.b", "top.c")
        got = [found["model"][name] for name in names] + ([found["posterior"]["layers.0.c"]] if number == 1 else [])
        for mine, name in zip(got, "Wbc", strict=True):
            torch.testing.assert_close(mine, expected[name], atol=1e-12, rtol=0)


def test_in_a_layer_s_stage_the_weights_upwards_are_those_downwards() -> None:
    method, state = begun([2, 2, 2])
    drawn = method.greedy_noise(2, DBN(3, [2, 2, 2]), (8, 3), draws(3))
    after, _ = method.greedy_step(2, state, V[None], drawn, hyper(method))
    model, posterior = after.params["model"], after.params["posterior"]
    assert torch.equal(posterior["layers.1.W"], model["directed.1.W"])
    assert not torch.equal(model["directed.1.W"], state.params["model"]["directed.1.W"])
    for part, name in (("model", "directed.0.W"), ("posterior", "layers.0.W"), ("model", "top.W"), ("model", "top.c")):
        assert torch.equal(after.params[part][name], state.params[part][name])


def wake_sleep_error() -> float:
    """Of the gradients of model and posterior; with W of the RBM 0 one sweep of it is an exact sample."""
    model = scrambled(DBN(3, [2, 3]))
    with torch.no_grad():
        model.top.W.zero_()
    posterior, method, v = recognition(model), TrainDBN(), V[[1, 3, 6]]
    theta = {"model": parameters(model), "posterior": parameters(posterior)}
    h, log_z = configurations(2), log_partition(model)
    q, joint = q_of(posterior, v, h), (-model.energies(V, h).detach() - log_z).exp()
    many = 40_000

    def loss(params: Any) -> Tensor:
        parts = state_of(params, model=model, posterior=posterior).bind()
        noise = method.noise(model, (3 * many, 3), draws(3))
        return method.loss(parts, v.repeat(many, 1), noise, {}, hyper(method))[0]

    def expected(params: Any) -> Tensor:
        parts = state_of(params, model=model, posterior=posterior).bind()
        wake = (q * parts.model.energies(v, h)).sum(1).mean() + (-parts.model.hidden_free_energy(h)).logsumexp(0)
        pairs = [parts.posterior.log_prob(h, x.expand(len(h), -1)) for x in V]
        return wake - (joint * torch.stack(pairs)).sum()

    found, exact = grad(loss)(theta), grad(expected)(theta)
    assert all(float(flat(exact[part]).norm()) > 0.1 for part in theta)
    return max(float(relative(found[part], exact[part])) for part in theta)


def test_wake_and_sleep_are_the_gradients_of_their_expectations() -> None:
    assert wake_sleep_error() < 0.03


def test_dbn_says_which_models_it_trains() -> None:
    assert TrainDBN().unsupported(DBN(3, [2, 2])) is None
    assert "3 hidden layers" in str(TrainDBN().unsupported(DBN(3, [2, 2, 2])))
    assert "GRBM is not one" in str(TrainDBN().unsupported(GRBM(3, 2)))
    with pytest.raises(InputError, match="pre-training is of a posterior of layers"):
        TrainDBN().fit(DBN(3, [2, 2]), V, steps=1, batch_size=4, posterior=RelaxedBernoulli((3,), 2))
