"""The gradient through the unrolled steps, eq. (12) to (14), against finite differences and by what it leaves alone."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad

from bism import BiDSM, BiMDSM, BiSSM
from bism.bilevel import kl_divergence
from bism.posteriors import DiagonalGaussian, RelaxedBernoulli
from tests.maths.checks import bilevel_batch, hypergradient_error, inner_steps_error, start, step_gradient, whole_step
from tests.maths.exact import LinearGaussian, draws, flat, hyper, make_grbm, parameters, relative
from tests.maths.test_bilevel import points


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("make", [BiSSM, BiDSM, BiMDSM])
def test_hypergradient_on_a_grbm(make: Any, particles: int, optimiser: str) -> None:
    options = {"inner_steps": 2, "unroll_steps": 3, "lr_posterior": 0.05, "lower_optimiser": optimiser}
    posterior = RelaxedBernoulli((2,), 2).double()
    error = hypergradient_error(make, make_grbm(hidden=2), posterior, particles=particles, **options)
    assert error < 1e-6


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
@pytest.mark.parametrize("lower", ["kl", "fisher"])
def test_hypergradient_with_gaussian_latents(lower: str, optimiser: str) -> None:
    rate = 0.02 if optimiser == "adam" else 5e-4
    options = {"inner_steps": 2, "unroll_steps": 3, "lr_posterior": rate, "lower_optimiser": optimiser}
    model, posterior = LinearGaussian(2, 2).double(), DiagonalGaussian((2,), 2).double()
    for particles in (1, 2):
        error = hypergradient_error(BiDSM, model, posterior, lower=lower, particles=particles, **options)
        assert error < 1e-6


def test_hypergradient_after_many_steps_of_adam() -> None:
    # K = 10: the running state is far from its start
    options = {"inner_steps": 10, "unroll_steps": 4, "lr_posterior": 0.02}
    error = hypergradient_error(BiDSM, make_grbm(hidden=2), RelaxedBernoulli((2,), 2).double(), **options)
    assert error < 1e-6


def taken(given: Any = None, **options: Any) -> tuple[Any, Any, Any, Any]:
    """One BiDSM step on a GRBM: estimator, state before, state after, info."""
    estimator, model = BiDSM(lr_posterior=0.05, **options), make_grbm(hidden=2)
    posterior = given or RelaxedBernoulli((2,), 2).double()
    before = start(estimator, model, posterior)
    batches, noise = bilevel_batch(estimator, model, size=16)
    after, info = whole_step(estimator, before, batches, noise, hyper(estimator))
    return estimator, before, after, (batches, noise, info)


def test_without_unrolling_the_second_term_drops() -> None:
    # eq. (14) with N = 0 is the gradient at a constant phi^0; with N = 5 it is not
    posterior = RelaxedBernoulli((2,), 2).double()
    estimator, before, after, (batches, noise, info) = taken(posterior, unroll_steps=0, inner_steps=2)
    phi = after.params["posterior"]

    def at(theta: dict[str, Tensor]) -> Tensor:
        params = before.bind({"model": theta, "posterior": phi})
        return estimator.loss(params, batches[0], noise[0], {}, hyper(estimator))[0]

    expected = grad(at)(before.params["model"])
    assert relative(step_gradient(estimator, before, after), expected) < 1e-12
    torch.testing.assert_close(info["objective"], at(before.params["model"]))
    unrolled, first, last, _ = taken(posterior, unroll_steps=5, inner_steps=2)
    assert relative(step_gradient(unrolled, first, last), expected) > 1e-2


def test_unrolling_leaves_the_posterior_and_its_optimiser_alone() -> None:
    posterior, results = RelaxedBernoulli((2,), 2).double(), {}
    _, (own, inner) = bilevel_batch(BiDSM(unroll_steps=5, inner_steps=3), make_grbm(hidden=2), size=16)
    for n in (0, 5):
        estimator, model = BiDSM(unroll_steps=n, inner_steps=3, lr_posterior=0.05), make_grbm(hidden=2)
        batches = draws(8).normal((1, 16, 2))
        given = {**own, "unroll": own["unroll"][:n]}, inner
        results[n], _ = whole_step(estimator, start(estimator, model, posterior), batches, given, hyper(estimator))
    assert torch.equal(flat(results[0].params["posterior"]), flat(results[5].params["posterior"]))
    assert torch.equal(flat(results[0].optimiser["posterior"]), flat(results[5].optimiser["posterior"]))
    assert float(results[5].optimiser["posterior"]["count"]) == 3
    assert relative(results[0].params["posterior"], parameters(posterior)) > 1e-2
    assert not torch.equal(flat(results[0].params["model"]), flat(results[5].params["model"]))


@pytest.mark.parametrize("make", [BiSSM, BiDSM, BiMDSM])
def test_every_lower_step_has_noise_of_its_own(make: Any) -> None:
    estimator = make(inner_steps=2, unroll_steps=2)
    _, (noise, (inner,)) = bilevel_batch(estimator, make_grbm(hidden=2), size=16)
    drawn = [noise["upper"], *inner, *noise["unroll"]]
    assert len(drawn) == 5
    numbers = torch.cat([each["hidden"].flatten() for each in drawn])
    assert len(numbers.unique()) == len(numbers)
    if make is not BiSSM:  # its points are the data
        visible = [each["visible"] if make is BiDSM else each["visible"]["normal"] for each in drawn]
        assert len(torch.stack(visible).unique()) == 5 * visible[0].numel()


def test_no_inner_steps_leave_the_posterior_where_it_is() -> None:
    _, before, after, _ = taken(inner_steps=0, unroll_steps=3)
    assert torch.equal(flat(before.params["posterior"]), flat(after.params["posterior"]))


@pytest.mark.parametrize("kind", ["same", "fresh"])
@pytest.mark.parametrize("make", [BiSSM, BiDSM, BiMDSM])
def test_the_inner_steps_are_eq_12_on_their_minibatches(make: Any, kind: str) -> None:
    estimator = make(inner_steps=3, unroll_steps=1, lr_posterior=0.05, inner_batches=kind)
    assert estimator.stages[0].all_minibatches == (1 if kind == "same" else 4)
    assert inner_steps_error(estimator) < 1e-8


def test_fresh_minibatches_matter_to_the_inner_steps_alone() -> None:
    # changing the second inner minibatch changes phi; changing the upper level's own leaves phi as it is
    estimator, before, after, (batches, noise, _) = taken(inner_steps=3, unroll_steps=2, inner_batches="fresh")
    for index, same in ((2, False), (0, True)):
        changed = batches.clone()
        changed[index] += 1
        other, _ = whole_step(estimator, before, changed, noise, hyper(estimator))
        assert torch.equal(flat(other.params["posterior"]), flat(after.params["posterior"])) == same
        assert not torch.equal(flat(other.params["model"]), flat(after.params["model"]))


def test_bimdsm_weights_its_lower_level_by_one_over_sigma() -> None:
    estimator, model, posterior = BiMDSM(), make_grbm(hidden=2), RelaxedBernoulli((2,), 2).double()
    batches, (_, ((noise, *_),)) = bilevel_batch(estimator, model, size=16)
    values, v, eps = hyper(estimator), batches[0], noise["visible"]
    sigma = estimator.sigma(eps, values)
    torch.testing.assert_close(estimator.lower_weight(v, eps, values), 1 / sigma)
    noisy = v + sigma.unsqueeze(1) * eps["normal"]
    torch.testing.assert_close(estimator.points(v, eps, values), noisy)
    bound = start(estimator, model, posterior).bind()
    expected = (kl_divergence(model, posterior, noisy, noise["hidden"], 0.1) / sigma).mean().detach()
    actual = estimator.lower_loss(bound, v, noise, values)
    torch.testing.assert_close(actual, expected)


def test_the_lower_level_looks_at_the_perturbed_data() -> None:
    # q(v) of eq. (9) is that of eq. (7): the data for SSM, the noisy data for DSM and MDSM
    v = points()
    for estimator in (BiSSM(), BiDSM(), BiMDSM()):
        eps, values = estimator.draw((6, 2), draws(9)), hyper(estimator)
        assert torch.equal(estimator.points(v, eps, values), v) == (estimator.id == "bissm")
    torch.testing.assert_close(BiDSM(sigma=0.2).points(v, v, {"sigma": torch.tensor(0.2).double()}), 1.2 * v)
