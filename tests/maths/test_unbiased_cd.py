"""Couplings against the laws that they join, and unbiased CD against the exact gradient of the likelihood."""

from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.func import grad
from torch.nn.functional import logsigmoid

from baselines import CD, UnbiasedCD
from baselines.coupling import (
    COUPLINGS,
    apart,
    coupled_chains,
    coupled_noise,
    coupled_sweep,
    maximal_bernoulli,
    maximal_gaussian,
    meeting_times,
)
from bism import GRBM, RBM, InputError
from tests.maths.checks import cd_gradients, likelihood_gradient, standard_errors
from tests.maths.exact import configurations, draws, flat, hyper, make_grbm, make_rbm, parameters, samples, state_of

MANY = 40_000
ENOUGH = 60  # tries, after which none is left out
V, H = configurations(4), configurations(3)


def bernoulli(logits: Tensor, of: Tensor) -> Tensor:
    """The probabilities of configurations [n, D] of independent units with logits [..., D], [..., n]."""
    return (of * logsigmoid(logits[..., None, :]) + (1 - of) * logsigmoid(-logits[..., None, :])).sum(-1).exp()


def sweep_of(model: RBM) -> Tensor:
    """The Gibbs kernel over all v, [from, to]."""
    return (bernoulli(model.hidden_logits(V), H) @ bernoulli(model.visible_logits(H), V)).detach()


def share(v: Tensor) -> Tensor:
    """How often each configuration is among binary vectors [n, D]."""
    index = (v.long() * (2 ** torch.arange(v.shape[1] - 1, -1, -1))).sum(1)
    return index.bincount(minlength=2 ** v.shape[1]).double() / len(v)


def off(found: Tensor, p: Tensor) -> float:
    """The largest deviation of frequencies among ``MANY`` from probabilities, in standard errors."""
    return float(((found - p).abs() / (p * (1 - p) / MANY).clamp(min=1e-12).sqrt()).max())


# --- couplings --------------------------------------------------------------------------------------------------------

LOGITS_P, LOGITS_Q = torch.tensor([[0.3, -1.0, 2.0, 0.1], [0.9, 0.2, 1.2, -1.5]]).double()
TV = 0.5 * (bernoulli(LOGITS_P, V) - bernoulli(LOGITS_Q, V)).abs().sum()


def draw_bernoulli(tries: int, p: Tensor = LOGITS_P, q: Tensor = LOGITS_Q) -> tuple[Tensor, Tensor, Tensor]:
    rng, shape = draws(1), (MANY, 4)
    noise = rng.logistic(shape), rng.logistic((tries, *shape)), rng.uniform((1 + tries, MANY))
    return maximal_bernoulli(p.expand(shape), q.expand(shape), *noise)


def test_the_maximal_coupling_of_binary_units_has_both_laws_and_meets_as_often_as_can_be() -> None:
    x, y, short = draw_bernoulli(ENOUGH)
    assert not short.any()
    assert off(share(x), bernoulli(LOGITS_P, V)) < 4
    assert off(share(y), bernoulli(LOGITS_Q, V)) < 4
    together = (x == y).all(1).double().mean()
    assert 0.3 < TV < 0.7
    assert off(together, 1 - TV) < 4


@pytest.mark.parametrize("tries", [1, 3])
def test_too_few_tries_are_as_frequent_as_said_and_leave_x_alone(tries: int) -> None:
    x, _, short = draw_bernoulli(tries)
    assert off(short.double().mean(), TV * (1 - TV) ** tries) < 4
    assert off(share(x), bernoulli(LOGITS_P, V)) < 4


def test_equal_laws_are_drawn_equal() -> None:
    x, y, short = draw_bernoulli(2, LOGITS_P, LOGITS_P)
    assert torch.equal(x, y)
    assert not short.any()
    mean, rng = torch.randn(3).double().expand(MANY, 3), draws(2)
    x, y, _ = maximal_gaussian(mean, mean, torch.ones(3).double(), rng.normal((MANY, 3)), rng.uniform((MANY,)))
    assert torch.equal(x, y)


@pytest.mark.parametrize("distance", [0.2, 1.0, 4.0])
def test_the_reflection_coupling_has_both_laws_and_meets_as_often_as_can_be(distance: float) -> None:
    rng, scale = draws(3), torch.tensor([0.5, 2.0, 1.0]).double()
    mean_p = torch.tensor([1.0, -2.0, 0.3]).double()
    mean_q = mean_p + distance * scale * torch.tensor([0.6, 0.0, -0.8]).double()
    shape = (MANY, 3)
    x, y, _ = maximal_gaussian(
        mean_p.expand(shape), mean_q.expand(shape), scale, rng.normal(shape), rng.uniform(shape[:1])
    )
    for found, mean in ((x, mean_p), (y, mean_q)):
        white = (found - mean) / scale
        for direction in (*torch.eye(3).double(), torch.tensor([0.6, 0.0, -0.8]).double()):
            assert stats.kstest((white @ direction).numpy(), "norm").pvalue > 1e-3
        assert float((white.T @ white / MANY - torch.eye(3)).abs().max()) < 5 * (2 / MANY) ** 0.5
    together = (x == y).all(1).double().mean()
    assert off(together, torch.tensor(2 * stats.norm.cdf(-distance / 2))) < 4


# --- chains -----------------------------------------------------------------------------------------------------------


def chains_of(model: nn.Module, v: Tensor, coupling: str, sweeps: int, seed: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    with torch.no_grad():
        noise = coupled_noise(model, len(v), sweeps, coupling, 40, draws(seed))
        return coupled_chains(model, v, noise)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_both_chains_are_gibbs_chains_of_an_rbm(coupling: str) -> None:
    model, start = make_rbm(), V[5:6]
    ahead, behind, _ = chains_of(model, start.expand(MANY, -1), coupling, 4)
    law, kernel = torch.eye(16).double()[5], sweep_of(model)
    assert torch.equal(behind[0], start.expand(MANY, -1))
    for t in range(3):
        law = law @ kernel
        assert off(share(ahead[t]), law) < 4.5
        assert off(share(behind[t + 1]), law) < 4.5
    pairs = share(torch.cat([ahead[1], behind[1]], 1)).reshape(16, 16)
    assert float(pairs.diagonal().sum()) > 0.3  # and they are no independent ones
    assert off(pairs.sum(0), torch.eye(16).double()[5] @ kernel) < 4.5


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_both_chains_are_gibbs_chains_of_a_grbm(coupling: str) -> None:
    """A sweep's end is a mixture of Gaussians over all h; after two sweeps over all h of the second given the first."""
    model = make_grbm()
    start = torch.tensor([[0.5, -1.0]]).double()
    ahead, behind, _ = chains_of(model, start.expand(MANY, -1), coupling, 3)
    means, s = model.visible_mean(H).detach(), model.visible_scale().detach()
    first = bernoulli(model.hidden_logits(start), H)[0].detach()
    for found, weights in (
        (ahead[0], first),
        (behind[1], first),
        (ahead[1], bernoulli(model.hidden_logits(behind[1]), H).mean(0).detach()),  # of as many v of the same law
        (behind[2], bernoulli(model.hidden_logits(ahead[0]), H).mean(0).detach()),
    ):
        for i in range(2):
            points = found[:, i].sort().values
            cdf = weights @ torch.special.ndtr((points - means[:, i, None]) / s[i])
            steps = torch.arange(1, MANY + 1) / MANY
            assert float((cdf - steps).abs().max()) < 1.95 * (2 / MANY) ** 0.5  # Kolmogorov-Smirnov, 0.1%


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("make", [make_rbm, make_grbm])
def test_chains_that_have_met_stay_together(make: Any, coupling: str) -> None:
    model = make()
    v = samples(model, 500, 7)
    ahead, behind, _ = chains_of(model, v, coupling, 40)
    not_met = apart(ahead, behind)
    assert not_met[0].any()
    assert not not_met[-1].any()
    assert not (not_met[1:] & ~not_met[:-1]).any()
    noise = {name: drawn[0] for name, drawn in coupled_noise(model, 500, 1, coupling, 2, draws(5)).items()}
    x, y, short = coupled_sweep(model, v, v, noise)
    assert torch.equal(x, y)
    assert not short.any()


# --- the estimator ----------------------------------------------------------------------------------------------------


def gradient_rows(estimator: Any, model: nn.Module, v: Tensor, batches: int) -> Tensor:
    """Gradients of the loss on a batch, with new noise each, [batches, p]."""
    theta, state = {"model": parameters(model)}, state_of({}, model=model)

    def one(seed: int) -> Tensor:
        noise = estimator.noise(model, tuple(v.shape), draws(seed))
        return flat(grad(lambda at: estimator.loss(state.bind(at), v, noise, {}, hyper(estimator))[0])(theta))

    return torch.stack([one(100 + seed) for seed in range(batches)])


def strong_rbm() -> RBM:
    """One whose chains take a few sweeps to meet, and for which CD-1 is far off."""
    model = make_rbm(seed=1)
    with torch.no_grad():
        model.W.mul_(2.5)
    return model


def info_of(estimator: Any, model: nn.Module, v: Tensor) -> dict[str, float]:
    bound = state_of({"model": parameters(model)}, model=model).bind()
    noise = estimator.noise(model, tuple(v.shape), draws(100))
    return {k: float(x) for k, x in estimator.loss(bound, v, noise, {}, hyper(estimator))[2].items()}


def exact_gradient(model: Any, v: Tensor) -> Tensor:
    """Of the mean -log p(v) over rows, binary v; log Z over all of them."""
    state = state_of({}, model=model)

    def negative(at: Any) -> Tensor:
        bound = state.bind(at).model
        return bound.free_energy(v).mean() + (-bound.free_energy(V)).logsumexp(0)

    return flat(grad(negative)({"model": parameters(model)}))


UNBIASED = [UnbiasedCD(k=k, max_steps=30, coupling=coupling) for k, coupling in ((1, "maximal"), (3, "common"))]


@pytest.mark.parametrize("estimator", UNBIASED, ids=["maximal", "common, k = 3"])
def test_where_all_chains_meet_the_mean_is_the_likelihood_s_gradient(estimator: Any) -> None:
    model, v = strong_rbm(), V[[3, 3, 9, 12] * 150]
    exact = exact_gradient(model, v)
    assert float(exact.norm()) > 0.5
    info = info_of(estimator, model, v)
    assert info["not_met"] == 0
    assert 1.5 < info["meeting_time"] < 20
    assert standard_errors(gradient_rows(estimator, model, v, 24), exact) < 3
    assert standard_errors(gradient_rows(CD(k=1), model, v, 30), exact) > 15


@pytest.mark.parametrize("estimator", UNBIASED, ids=["maximal", "common, k = 3"])
def test_so_it_is_on_a_grbm(estimator: Any) -> None:
    model = make_grbm()
    v = torch.tensor([[0.5, -1.0], [1.5, 2.0]]).double().repeat(400, 1)
    exact = likelihood_gradient(model, parameters(model), v[:2], torch.tensor([0.5, 0.5]).double())
    assert info_of(estimator, model, v)["not_met"] == 0
    assert standard_errors(gradient_rows(estimator, model, v, 24), exact) < 3
    assert standard_errors(gradient_rows(CD(k=1), model, v, 30), exact) > 15


@pytest.mark.parametrize(("k", "cap"), [(1, 1), (1, 2), (1, 3), (2, 3)])
def test_the_mean_with_a_cap_is_that_of_cd(k: int, cap: int) -> None:
    """CD-T's, whose expectation is a sum over all v that T sweeps may end at."""
    model, state = strong_rbm(), state_of({}, model=strong_rbm())
    v = V[[3, 9] * 500]
    law = torch.linalg.matrix_power(sweep_of(model), cap)[[3, 9]].mean(0)

    def of_cd(at: Any) -> Tensor:
        bound = state.bind(at).model
        return bound.free_energy(v).mean() - law @ bound.free_energy(V)

    expected = flat(grad(of_cd)({"model": parameters(model)}))
    estimator = UnbiasedCD(k=k, max_steps=cap, coupling="common")
    assert info_of(estimator, model, v)["not_met"] > 0.1
    rows = gradient_rows(estimator, model, v, 30)
    assert standard_errors(rows, expected) < 3.5
    assert standard_errors(rows, exact_gradient(model, v)) > (15 if cap == 1 else 3.1)


def test_what_it_reports() -> None:
    """Meeting times are those that one finds going along the chains one by one."""
    model, v = strong_rbm(), V[[3, 9] * 50]
    estimator = UnbiasedCD(max_steps=3)
    with torch.no_grad():
        ahead, behind, short = coupled_chains(model, v, estimator.noise(model, tuple(v.shape), draws(100)))
    times = [next((t + 1 for t in range(3) if torch.equal(ahead[t, i], behind[t, i])), None) for i in range(100)]
    assert info_of(estimator, model, v) == pytest.approx(
        {
            "not_met": sum(time is None for time in times) / 100,
            "meeting_time": sum(time or 3 for time in times) / 100,
            "out_of_tries": float(short.sum()) / 100,
        }
    )
    assert None in times


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("make", [strong_rbm, make_grbm])
def test_meeting_times_by_themselves(make: Any, coupling: str) -> None:
    """They are of the law that the chains of a step have, and infinite where the sweeps were too few."""
    model = make()
    v = samples(model, 4000, 8)
    times, _ = meeting_times(model, v, coupling, 20, sweeps=500)
    assert times.isfinite().all()
    not_met = apart(*chains_of(model, v, coupling, 6)[:2]).double().mean(1)
    for t in range(1, 7):
        p = (times > t).double().mean()
        assert float((p - not_met[t - 1]).abs()) < 4 * float((2 * p * (1 - p) / 4000).sqrt()) + 1e-12
    few, _ = meeting_times(model, v, coupling, 20, sweeps=2)
    assert torch.equal(few.isinf(), times > 2)
    assert torch.equal(few[few.isfinite()], times[times <= 2])


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match=r"unbiased_cd: max_steps must be at least k = 30, got 25"):
        UnbiasedCD(k=30)

    class NoMean(GRBM):
        visible_mean = property()  # type: ignore[assignment]

    reason = UnbiasedCD().unsupported(NoMean(2, 3))
    assert reason == "coupling='maximal' needs visible_mean(), which NoMean lacks: 'common'"
    assert UnbiasedCD(coupling="common").unsupported(NoMean(2, 3)) is None


def test_gradients_at_the_optimum_vanish_on_average() -> None:
    truth = make_grbm()
    rows = cd_gradients(UnbiasedCD(max_steps=10), truth, parameters(truth), batches=20, size=500)
    assert standard_errors(rows) < 4
