"""NVIL's bound, its two gradients and its proposal against enumeration."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad

from baselines import NVIL
from baselines.mixture import Mixture, log_z_bound, mixture_noise
from bism import GRBM, RBM, InputError, Ising
from tests.maths.checks import standard_errors
from tests.maths.exact import LinearGaussian, configurations, draws, flat, log_z, make_rbm, moved, parameters, state_of
from tests.maths.learnt_samplers import (
    exact_bound,
    exact_mixture,
    expected_gradients,
    log_weights_of,
    nvil_error,
    nvil_gradients,
    nvil_replicates,
    some_mixture,
    states,
)

OVER = ["visible", "joint"]
over_both = pytest.mark.parametrize("over", OVER)


@over_both
def test_the_bound_is_above_log_z_and_equal_where_q_is_p(over: str) -> None:
    estimator, model = NVIL(proposal_over=over), make_rbm(3, 2)
    for seed in range(20):
        gap = exact_bound(estimator, model, some_mixture(model, estimator.joint, seed=seed)) - log_z(model)
        assert gap > 1e-3
    torch.testing.assert_close(exact_bound(estimator, model, exact_mixture(model, estimator.joint)), log_z(model))


@over_both
def test_the_bound_from_samples_is_the_bound(over: str) -> None:
    """Its exponential's square is unbiased; at q = p any sample gives log Z."""
    estimator, model = NVIL(proposal_over=over), make_rbm(3, 2)
    mixture = some_mixture(model, estimator.joint)
    log_q, log_w = (x.detach() for x in log_weights_of(estimator, model, mixture))
    drawn = torch.multinomial(log_q.exp(), 100_000, replacement=True, generator=torch.Generator().manual_seed(1))
    squares = (2 * log_w[drawn]).exp()
    error = squares.std() / len(drawn) ** 0.5
    assert (
        (2 * log_z_bound(log_w[drawn])).exp() - (2 * exact_bound(estimator, model, mixture)).exp()
    ).abs() < 3 * error
    _, log_w = log_weights_of(estimator, model, exact_mixture(model, False)) if over == "visible" else (0, None)
    if log_w is not None:
        torch.testing.assert_close(log_z_bound(log_w[:1]), log_z(model))


@over_both
@pytest.mark.parametrize("baseline", ["mean", "none"])
def test_expected_gradients_are_those_of_the_tables(over: str, baseline: str) -> None:
    """So the baseline leaves the mean alone."""
    assert nvil_error(NVIL(samples=2, proposal_over=over, baseline=baseline)) < 1e-9


def test_where_q_is_p_two_samples_have_the_likelihood_s_gradient_in_the_mean() -> None:
    estimator, model, batch = NVIL(samples=2), make_rbm(3, 2), configurations(3)[[1, 3, 3, 6]]
    state = state_of({}, model=model)

    def negative(at: Any) -> Tensor:
        bound = state.bind({"model": at}).model
        return bound.free_energy(batch).mean() + log_z(bound)

    exact = flat(grad(negative)(parameters(model)))
    found, of_q = expected_gradients(estimator, model, exact_mixture(model, False), batch, 2)
    torch.testing.assert_close(found, exact)
    assert of_q.abs().max() < 1e-12
    mixture = some_mixture(model, False)
    biases = [float((expected_gradients(estimator, model, mixture, batch, n)[0] - exact).norm()) for n in (1, 2, 3, 4)]
    assert biases[0] > 0.2
    assert all(fewer > 1.15 * more for fewer, more in itertools.pairwise(biases))  # as 1/n in the end


@over_both
def test_gradients_from_random_numbers(over: str) -> None:
    """Their means are those by enumeration, bias and all; with the baseline q's varies less, and at q = p is 0."""
    model, batch, joint = make_rbm(2, 2), configurations(2)[[1, 3, 3]], over == "joint"
    mixture, exact = (with_sampling(one(model, joint), model, joint) for one in (some_mixture, exact_mixture))
    wanted, variance = expected_gradients(NVIL(proposal_over=over), model, mixture, batch, 2), {}
    for baseline in ("mean", "none"):
        estimator = NVIL(samples=2, proposal_over=over, baseline=baseline)
        of_model, of_proposal = nvil_replicates(estimator, model, mixture, batch, 4000)
        assert standard_errors(of_model, wanted[0]) < 3.5
        assert standard_errors(of_proposal, wanted[1]) < 3.5
        variance[baseline] = of_proposal.var(0).sum()
        _, at_p = nvil_replicates(estimator, model, exact, batch, 20)
        assert (at_p.abs().max() < 1e-12) == (baseline == "mean")
    assert variance["mean"] < 0.8 * variance["none"]


def test_many_samples_have_the_gradient_of_the_bound() -> None:
    """-1/2 E_q[w^2 grad log q] / E_q[w^2], by automatic differentiation of the enumerated bound."""
    model, estimator = make_rbm(2, 2), NVIL(samples=2000)
    mixture = with_sampling(some_mixture(model, False), model, False)
    state = state_of({}, proposal=mixture)

    def bound(at: Any) -> Tensor:
        return exact_bound(estimator, model, state.bind({"proposal": at}).proposal)

    exact = flat(grad(bound)(parameters(mixture))).detach()
    _, found = nvil_replicates(estimator, model, mixture, configurations(2), 60)
    assert exact.norm() > 0.1
    assert standard_errors(found, exact) < 3.5


def with_sampling(given: Mixture, model: Any, joint: bool) -> Mixture:
    """The same mixture, which samples by itself."""
    mixture = Mixture(model, len(given.logits), joint).double()
    mixture.load_state_dict(given.state_dict())
    return mixture


# --- the proposal -----------------------------------------------------------------------------------------------------


@over_both
@pytest.mark.parametrize("make", [lambda: RBM(3, 2), lambda: GRBM(3, 2), lambda: LinearGaussian(3, 2)])
def test_a_mixture_s_samples_are_of_its_density(make: Any, over: str) -> None:
    """E_q[r/q] = 1 for another law r of narrower tails, and each component is drawn as often as its weight says."""
    model, joint = make().double(), over == "joint"
    mixture, other = Mixture(model, 3, joint).double(), Mixture(model, 3, joint).double()
    mixture.load_state_dict(moved(parameters(mixture), 0.4, 1))
    other.load_state_dict({n: x - 0.5 * n.endswith("log_s") for n, x in moved(parameters(mixture), 0.2, 2).items()})
    with torch.no_grad():
        points = mixture.sample(mixture_noise(model, 20_000, joint, draws(3)))
        ratio = (other.log_prob(*points) - mixture.log_prob(*points)).exp()
    assert standard_errors(ratio[:, None], 1.0) < 3.5
    assert ratio.std() > 0.1
    if isinstance(model, RBM):
        torch.testing.assert_close(mixture.log_prob(*states(model, joint)).exp().sum(), torch.tensor(1.0).double())


@pytest.mark.parametrize("kind", [RBM, GRBM])
def test_it_starts_around_the_data(kind: Any) -> None:
    data = (draws(1).uniform((4000, 3)) < torch.tensor([0.1, 0.5, 0.8]).double()).double()
    if kind is GRBM:
        data = 5 + 3 * data
    mixture = Mixture(kind(3, 2), 5).double()
    mixture.start_from(data)
    with torch.no_grad():
        (v,) = mixture.sample(mixture_noise(kind(3, 2), 20_000, False, draws(2)))
    assert ((v.mean(0) - data.mean(0)) / data.std(0)).abs().max() < 0.15
    assert (v.std(0) / data.std(0) - 1).abs().max() < 0.15


def test_nothing_overflows_in_single_precision() -> None:
    """At energies of thousands of nats, of which a proposal knows nothing."""
    model, estimator = make_rbm(3, 2).float(), NVIL(samples=20)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3000)
    mixture = Mixture(model, 4)
    noise = estimator.noise(model, (8, 3), draws(1))
    noise = {name: x.float() for name, x in noise.items()}
    for found in nvil_gradients(estimator, model, mixture, configurations(3).float(), noise):
        assert found.isfinite().all()
        assert found.abs().max() < 100


def test_the_proposal_learns_the_model() -> None:
    """The bound comes down to log Z; the model stands still."""
    truth = make_rbm(3, 2)
    estimator = NVIL(lr=1e-9, samples=50, proposal_steps=20, lr_proposal=0.1)
    truth.reset_parameters = lambda: None  # type: ignore[method-assign]
    fitted = estimator.fit(truth, configurations(3), steps=5, batch_size=8, dtype=torch.float64, compile=False)
    gaps = []
    for mixture in (Mixture(truth, 10).double(), fitted.part("proposal", 0)):
        gaps.append(float((exact_bound(estimator, truth, mixture) - log_z(truth)).detach()))
    assert gaps[0] > 0.15
    assert gaps[1] < 0.25 * gaps[0]


def test_what_is_refused() -> None:
    assert NVIL().unsupported(Ising(4)) is None
    said = "proposal_over='joint' is of (v, h), and this model has no h: 'visible'"
    assert NVIL(proposal_over="joint").unsupported(Ising(4)) == said


def test_a_proposal_of_something_else_is_refused() -> None:
    model = RBM(3, 2)
    wrong = Mixture(model, 2, joint=True)
    with pytest.raises(InputError, match="proposal must be a Mixture with joint=False"):
        NVIL().fit(model, torch.zeros(10, 3), steps=1, parts={"proposal": wrong})
    with pytest.raises(InputError, match=r"proposal must be a torch.nn.Module with sample\(\) and log_prob\(\)"):
        NVIL().fit(model, torch.zeros(10, 3), steps=1, parts={"proposal": torch.nn.Linear(3, 3)})
