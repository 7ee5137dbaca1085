"""The bias of any method's gradient: what is left of it where the posterior is exact, and what its noise adds."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad
from torch.utils._pytree import tree_leaves

from baselines import DSM, VaGESDSM
from bism import BiDSM, BiSSM, InputError
from bism.bias import NormOfMean, Trained, TrueDSM, exact_posterior, expected_bias, practical, reference_states
from bism.bias.of_methods import unsuitable
from bism.posteriors import RelaxedBernoulli
from bism.resnet import ResNetEBLVM
from tests.maths.checks import step_gradient, whole_step
from tests.maths.exact import draws, flat, hyper, make_grbm, moved, parameters, relative, state_of

V = draws(3).normal((40, 2))


def numbers(off: float = 0.0, hidden: int = 3) -> tuple[Any, Any]:
    """A GRBM, and it with its exact posterior, or one beside that, as the numbers of a state."""
    model = make_grbm(2, hidden)
    theta = parameters(model)
    params = {"model": theta, "posterior": moved(exact_posterior(theta), off)}
    return model, {"params": params, "optimiser": BiDSM().init_optimiser(params)}


# --- the norm of a mean -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [0.0, 0.3])
def test_the_squared_norm_is_unbiased_and_its_error_is_its_spread_over_repetitions(mean: float) -> None:
    rng, scale = draws(1), torch.tensor([1.0, 0.5, 2.0, 0.1], dtype=torch.float64)
    found = []
    for _ in range(200):
        norm = NormOfMean(groups=10)
        for x in mean + scale * rng.normal((50, 4)):
            norm.add(x)
        found.append((norm.squared, norm.error, norm.spread))
    squared, errors, spreads = torch.tensor(found, dtype=torch.float64).T
    assert abs(float(squared.mean()) - 4 * mean**2) < 3 * float(squared.std()) / math.sqrt(200)
    assert float(scale.square().sum()) / 50 > 4 * float(squared.std()) / math.sqrt(200)  # which is not left in it
    # the jackknife's variance is right where the mean counts, and up to twice too large where it is 0
    ratio = float(errors.square().mean().sqrt() / squared.std())
    assert 0.85 < ratio < (1.15 if mean else 1.5)
    assert float(spreads.mean()) == pytest.approx(float(scale.norm()), rel=0.02)


def test_the_squared_norm_is_the_mean_over_all_pairs() -> None:
    x, norm = draws(2).normal((7, 3)), NormOfMean(groups=3)
    for one in x:
        norm.add(one)
    products = x @ x.T
    assert norm.squared == pytest.approx(float((products.sum() - products.trace()) / 42), rel=1e-12)
    left = []
    for group in range(3):
        kept = x[[i for i in range(7) if i % 3 != group]]
        of_kept = kept @ kept.T
        left.append(float((of_kept.sum() - of_kept.trace()) / (len(kept) * (len(kept) - 1))))
    mean = sum(left) / 3
    assert norm.error == pytest.approx(math.sqrt(2 / 3 * sum((value - mean) ** 2 for value in left)), rel=1e-12)


# --- what a method's gradient is --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{}, {"unroll_steps": 0}, {"inner_steps": 0, "inner_batches": "fresh"}, {"hypergradient": "implicit"}],
    ids=str,
)
def test_of_bidsm_it_is_the_practical_study_without_the_noise_s_share(changes: dict[str, Any]) -> None:
    """Of the same draws, through the step itself instead of its parts."""
    estimator = BiDSM(**{"sigma": 0.3, "temperature": 0.5, "inner_steps": 2, "unroll_steps": 3} | changes)
    model, at = numbers(0.4)
    found = expected_bias(estimator, model, at, V, seed=5, draws=12, batch_size=8)
    trained = Trained(estimator, model, at["params"], at["optimiser"]["posterior"])
    grid: dict[str, Any] = {"inner": (estimator.inner_steps,), "unroll": (estimator.unroll_steps,)}
    (row,) = practical(trained, V, seed=5, draws=12, batch_size=8, **grid)
    assert found.squared_bias == pytest.approx(row.bias**2 - row.noise_floor**2, rel=1e-8)
    assert found.spread == pytest.approx(math.sqrt(12) * row.noise_floor, rel=1e-8)
    assert found.gradient == pytest.approx(row.gradient, rel=0.3)


def of_vages(draws: int = 4000, off: float = 0.0, **changes: Any) -> Any:
    model, at = numbers(off)
    return expected_bias(
        VaGESDSM(sigma=0.3, inner_steps=0, **changes), model, at, V[:4], draws=draws, batch_size=4, seed=1
    )


def test_vages_has_no_bias_at_the_exact_posterior() -> None:
    found = of_vages(particles=2)
    assert abs(found.squared_bias) < 3 * found.error
    assert found.error < 0.01 * found.gradient**2
    away = of_vages(particles=10, off=1.0)
    assert away.squared_bias > 10 * away.error


def test_vages_bias_falls_as_its_divisor_says() -> None:
    """With L in place of L - 1 the covariance is (L - 1) / L of itself: 1 / L of what is missing without it."""
    without = of_vages(particles=5, covariance="none")
    assert without.squared_bias > 20 * without.error
    for particles in (2, 5):
        biased = of_vages(particles=particles, covariance="biased")
        off = biased.squared_bias - without.squared_bias / particles**2
        assert abs(off) < 3 * math.hypot(biased.error, without.error / particles**2)
        assert biased.squared_bias > 3 * biased.error


def test_draws_are_the_same_whatever_is_computed_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = of_vages(draws=7)
    monkeypatch.setattr("bism.bias.of_methods._AT_ONCE", 0)
    one_by_one = of_vages(draws=7)
    for name, value in dataclasses.asdict(at_once).items():
        assert value == pytest.approx(getattr(one_by_one, name), rel=1e-9), name


# --- where it is measured ---------------------------------------------------------------------------------------------


def test_the_reference_follows_the_true_gradient() -> None:
    model, at = numbers(0.4)
    estimator, marginal = TrueDSM(sigma=0.3, inner_steps=2), DSM(sigma=0.3)
    (stage,) = estimator.stages
    batches, noise = V[None, :8], stage.draw(model, (8, 2), draws(4))
    state = state_of(at["params"], model=model, posterior=RelaxedBernoulli((2,), 3)).replace(optimiser=at["optimiser"])
    after, _ = whole_step(estimator, state, batches, noise, hyper(estimator))

    def objective(theta: Any) -> Tensor:
        params = state.bind({**state.params, "model": theta})
        return marginal.loss(params, batches[0], noise[0]["visible"], {}, hyper(marginal))[0]

    assert relative(step_gradient(estimator, state, after), grad(objective)(state.params["model"])) < 1e-10
    assert relative(flat(after.params["posterior"]), flat(state.params["posterior"])) > 1e-4


def test_the_reference_is_one_for_all_methods() -> None:
    shared: dict[str, Any] = {"sigma": 0.3, "lr": 0.02, "inner_steps": 2}
    methods = [BiDSM(unroll_steps=0, **shared), BiDSM(**shared), VaGESDSM(particles=3, **shared)]
    model, _ = numbers()
    found = [dict(reference_states(one, model, V, after=(4, 2), seed=3, batch_size=8)) for one in methods]
    assert [list(states) for states in found] == [[2, 4]] * 3
    for other in found[1:]:
        for ours, theirs in zip(tree_leaves(found[0]), tree_leaves(other), strict=True):
            assert torch.equal(ours, theirs)
    assert relative(flat(found[0][4]["params"]), flat(found[0][2]["params"])) > 1e-3
    ((_, longer),) = reference_states(methods[0], model, V, after=[4], seed=3, batch_size=8)
    for ours, theirs in zip(tree_leaves(found[0][4]), tree_leaves(longer), strict=True):
        assert torch.equal(ours, theirs)


def test_what_it_is_not_known_of() -> None:
    model, at = numbers()
    assert unsuitable(BiDSM(), model) is unsuitable(VaGESDSM(), model) is None
    assert "posterior" in str(unsuitable(DSM(), model))
    assert "objective of DSM" in str(unsuitable(BiSSM(), model))
    assert "free_energy" in str(unsuitable(BiDSM(), ResNetEBLVM((1, 8, 8), 4)))
    with pytest.raises(InputError, match="draws must be at least 3"):
        expected_bias(BiDSM(), model, at, V, draws=2)
    with pytest.raises(InputError, match="after must"):
        list(reference_states(BiDSM(), model, V, after=[-1]))
