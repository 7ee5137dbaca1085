"""Criteria of binary v against their definitions, where they have their optimum, and Theorem 1 for differences."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from baselines import MPF, BiMPF, BiPseudoLikelihood, BiRatioMatching, PseudoLikelihood, RatioMatching
from bism import GRBM, RBM, Bernoulli, Estimator, Ising, RelaxedBernoulli
from bism.bilevel import log_ratio
from bism.flips import joint_log_ratios, log_ratios, marginal_log_ratios
from bism.posteriors import DiagonalGaussian
from tests.maths.checks import flip_slope, hypergradient_error, inner_steps_error, theorem_one
from tests.maths.exact import (
    BernoulliGaussian,
    configurations,
    draws,
    hyper,
    log_z,
    make_rbm,
    moved,
    parameters,
    state_of,
    true_posterior,
    with_one_flipped,
)

PAIRS = [(BiPseudoLikelihood, PseudoLikelihood), (BiRatioMatching, RatioMatching), (BiMPF, MPF)]
MARGINAL = [marginal for _, marginal in PAIRS]
BILEVEL = [bilevel for bilevel, _ in PAIRS]
V = configurations(4)


class Image(nn.Module):
    """Binary images [1, 2, 2] without hidden units, that tell no closed form: E(v) = -b.v - v.J v."""

    def __init__(self) -> None:
        super().__init__()
        self.visible_shape, self.visible_units, self.latent = (1, 2, 2), Bernoulli(4), None
        self.J = nn.Parameter(draws(1).normal((4, 4)))
        self.b = nn.Parameter(draws(2).normal((4,)))

    def free_energy(self, v: Tensor) -> Tensor:
        x = v.flatten(1)
        return -x @ self.b - ((x @ self.J) * x).sum(-1)


def make_ising() -> Ising:
    model = Ising(4).double()
    model.load_state_dict(moved(parameters(model), 0.5))
    return model


def neighbours(v: Tensor) -> list[Tensor]:
    """v [batch, D] with each unit flipped, one after the other."""
    return [torch.stack([with_one_flipped(row, i) for row in v]) for i in range(v.shape[1])]


def loss_of(estimator: Estimator, model: nn.Module, v: Tensor) -> float:
    bound = state_of({"model": parameters(model)}, model=model).bind()
    return float(estimator.loss(bound, v, {}, {}, hyper(estimator))[0])


# --- the objectives ---------------------------------------------------------------------------------------------------

DEFINITIONS: list[tuple[type[Estimator], Callable[[Tensor, Tensor], Tensor]]] = [
    (PseudoLikelihood, lambda here, there: -(here / (here + there)).log()),
    (RatioMatching, lambda here, there: (1 / (1 + here / there)).square()),
    (MPF, lambda here, there: (there / here).sqrt()),
]


@pytest.mark.parametrize("make", [make_rbm, make_ising, Image])
@pytest.mark.parametrize(("kind", "each"), DEFINITIONS, ids=lambda one: getattr(one, "id", ""))
def test_an_objective_is_its_definition_by_probabilities(kind: Any, each: Any, make: Any) -> None:
    model = make()
    v = V.reshape(-1, *model.visible_shape)
    p = (-model.free_energy(v)).softmax(0).detach()
    at = {tuple(row.tolist()): value for row, value in zip(V, p, strict=True)}
    for row, x in zip(V, v, strict=True):
        around = [with_one_flipped(row, i) for i in range(4)]
        expected = sum(float(each(at[tuple(row.tolist())], at[tuple(other.tolist())])) for other in around)
        assert loss_of(kind(), model, x[None]) == pytest.approx(expected, rel=1e-10)


def test_ratio_matching_is_the_squared_distance_of_the_ratios_up_to_a_constant() -> None:
    """Hyvärinen's J: 1/2 sum_v p(v) sum_i of both squares, (v, v^i) and (v^i, v), between two models and a third."""
    data, models = make_rbm(seed=1), [make_rbm(seed=2), make_rbm(seed=3)]

    def ratios(model: RBM) -> Tensor:
        return torch.stack([(model.free_energy(v) - model.free_energy(V)).exp() for v in neighbours(V)], 1).detach()

    def distance(model: RBM) -> float:
        ours, theirs = ratios(model), ratios(data)
        squares = (1 / (1 + 1 / ours) - 1 / (1 + 1 / theirs)).square() + (1 / (1 + ours) - 1 / (1 + theirs)).square()
        return float(0.5 * p @ squares.sum(1))

    p = (-data.free_energy(V)).softmax(0).detach()
    values = [
        sum(float(w) * loss_of(RatioMatching(), model, v[None]) for w, v in zip(p, V, strict=True)) for model in models
    ]
    assert values[0] - values[1] == pytest.approx(distance(models[0]) - distance(models[1]), abs=1e-12)
    assert abs(values[0] - values[1]) > 1e-2


@pytest.mark.parametrize("kind", MARGINAL, ids=lambda one: one.id)
@pytest.mark.parametrize("make", [make_rbm, make_ising])
def test_the_optimum_is_the_truth(kind: Any, make: Any) -> None:
    model = make()
    assert flip_slope(kind(), model, parameters(model)) < 1e-10
    assert flip_slope(kind(), model, moved(parameters(model), 0.2)) > 1e-2


# --- closed forms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [make_rbm(), make_ising()], ids=["rbm", "ising"])
def test_the_log_ratios_in_closed_form_are_differences_of_free_energies(model: Any) -> None:
    expected = torch.stack([model.free_energy(V) - model.free_energy(v) for v in neighbours(V)], 1)
    torch.testing.assert_close(model.flip_log_ratios(V), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(log_ratios(lambda v: -model.free_energy(v), V), expected, atol=1e-12, rtol=0)
    assert marginal_log_ratios(model, V).equal(model.flip_log_ratios(V))


@pytest.mark.parametrize("own_network", [False, True])
@pytest.mark.parametrize("own_model", [False, True])
def test_the_bilevel_log_ratios_hold_h_while_v_is_flipped(
    own_network: bool, own_model: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, layer = make_rbm(), nn.Sequential(nn.Flatten(1), nn.Linear(4, 3))
    posterior = RelaxedBernoulli((4,), 3, layer if own_network else None).double()
    h = draws(3).uniform((16, 3))
    expected = [log_ratio(model, posterior, v, h) - log_ratio(model, posterior, V, h) for v in neighbours(V)]
    if own_model:
        monkeypatch.delattr(RBM, "flip_energies")
    assert (posterior.flip_log_probs(h, V) is None) == own_network
    torch.testing.assert_close(joint_log_ratios(model, posterior, V, h), torch.stack(expected, 1), atol=1e-12, rtol=0)


# --- bi-level ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bilevel", "marginal"), PAIRS, ids=lambda one: one.id)
def test_theorem_1_holds_for_differences(bilevel: Any, marginal: Any) -> None:
    """With phi* a function of theta the gradient is the marginal objective's, for relaxed h too; with q frozen it is
    not."""
    for temperature in (0.1, 1.0):
        assert theorem_one(bilevel(), marginal(), temperature=temperature) < 1e-10
    assert theorem_one(bilevel(), marginal(), frozen=True) > 0.1


@pytest.mark.parametrize("kind", BILEVEL, ids=lambda one: one.id)
def test_the_hypergradient_is_that_of_finite_differences(kind: Any) -> None:
    torch.manual_seed(0)
    settings = {"inner_steps": 2, "unroll_steps": 3, "lr_posterior": 0.05}
    posterior = RelaxedBernoulli((2,), 2).double()
    assert hypergradient_error(kind, make_rbm(2, 2), posterior, **settings) < 1e-6


def test_the_hypergradient_through_eq_11_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    settings = {"inner_steps": 2, "unroll_steps": 3, "lr_posterior": 0.05, "lower": "fisher"}
    model, posterior = BernoulliGaussian(2, 2).double(), DiagonalGaussian((2,), 2).double()
    assert hypergradient_error(BiRatioMatching, model, posterior, **settings) < 1e-6


@pytest.mark.parametrize("kind", BILEVEL, ids=lambda one: one.id)
def test_the_inner_steps_are_those_of_eq_12_at_the_data_and_their_neighbours(kind: Any) -> None:
    torch.manual_seed(0)
    assert inner_steps_error(kind(inner_steps=3, unroll_steps=1, lr_posterior=0.05)) < 1e-6


def test_the_lower_level_sees_the_data_half_of_the_time_and_each_neighbour_alike() -> None:
    count, v = 40_000, V[5]
    noise = BiMPF().draw_points((count, 4), draws(4))
    points = BiMPF().points(v.expand(count, -1), noise, {})
    apart = (points - v).abs()
    assert set(apart.sum(1).tolist()) == {0.0, 1.0}
    share = apart.mean(0)
    assert float((share - 1 / 8).abs().max()) < 5 * (1 / 8 * 7 / 8 / count) ** 0.5


def test_one_h_for_all_neighbours_leaves_the_log_ratios_least_noise() -> None:
    """The standard deviations of d_i over binary h at a q that misses the logits by as much everywhere: none with the
    same h, some with common random numbers, most with independent ones."""
    model, count = make_rbm(), 4_000
    posterior = RelaxedBernoulli((4,), 3).double()
    best = true_posterior(parameters(model))
    posterior.load_state_dict({**best, "network.1.bias": best["network.1.bias"] + 0.5})
    noise = model.latent.noise(draws(6), (2, count))
    here, there = V[5].expand(count, -1), neighbours(V[5].expand(count, -1))

    def spread(own: Callable[[Tensor], Tensor]) -> float:
        h = posterior.sample_hard(here, noise[0])
        at = log_ratio(model, posterior, here, h)
        d = [log_ratio(model, posterior, v, own(v)) - at for v in there]
        return float(torch.stack(d).std(1).mean().detach())

    same = spread(lambda v: posterior.sample_hard(here, noise[0]))
    common = spread(lambda v: posterior.sample_hard(v, noise[0]))
    independent = spread(lambda v: posterior.sample_hard(v, noise[1]))
    assert same < 1e-12
    assert 0.05 < common < independent / 1.5


@pytest.mark.parametrize("kind", [*MARGINAL, *[pytest.param(one, marks=pytest.mark.long) for one in BILEVEL]])
def test_it_trains_a_model_of_known_law(kind: Any) -> None:
    """The Kullback-Leibler divergence from the data's law, which is the model's own, falls to a tenth."""
    truth = make_rbm(3, 2, seed=4)
    v = configurations(3)
    p = (-truth.free_energy(v)).softmax(0).detach()
    data = v.repeat_interleave((2000 * p).round().long(), 0)
    options = {"lr_posterior": 0.05, "inner_steps": 3, "unroll_steps": 2} if kind in BILEVEL else {}
    fitted = kind(lr=0.03, **options).fit(RBM(3, 2), data.float(), seeds=[0], steps=150, batch_size=200, compile=False)

    def divergence(model: Any) -> float:
        return float((p * (p.log() + model.free_energy(v.to(model.W)) + log_z(model))).sum().detach())

    torch.manual_seed(0)
    assert divergence(fitted.model(0).double()) < 0.1 * divergence(RBM(3, 2).double())


@pytest.mark.parametrize("kind", [*MARGINAL, *BILEVEL], ids=lambda one: one.id)
def test_real_v_is_refused(kind: Any) -> None:
    assert kind().unsupported(GRBM(2, 3)) == "it needs binary v, and v of GRBM is real"
    assert kind().unsupported(RBM(2, 3)) is None


def test_a_model_without_h_has_no_bilevel_form() -> None:
    assert "no latent variables" in str(BiMPF().unsupported(Ising(3)))
    assert MPF().unsupported(Ising(3)) is None
