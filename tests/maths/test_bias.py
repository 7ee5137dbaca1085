"""The gradient's bias on a GRBM: closed forms, and Theorem 2 at the rate that the spectrum predicts."""

import dataclasses
import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, jacrev
from torch.nn.functional import logsigmoid

from baselines import DSM
from bism import BiDSM, InputError
from bism.bias import (
    Trained,
    bernoulli_kl,
    distance,
    exact_posterior,
    largest_curvature,
    logit_curvature,
    practical,
    spectrum,
    theorem1,
    theorem2,
)
from bism.posteriors import RelaxedBernoulli
from bism.rng import Rng, generator
from tests.maths.checks import exact_kl
from tests.maths.exact import configurations, draws, flat, hyper, make_grbm, moved, parameters, state_of

D, M, SIGMA = 6, 3, 0.3


def trained(phi_off: float = 0.0, visible: int = D, hidden: int = M, **options: Any) -> Trained:
    """A GRBM with mild logits, and a posterior that far from phi*, with the optimiser at its start."""
    model = make_grbm(visible, hidden)
    with torch.no_grad():
        model.W.mul_(0.5)
    theta = parameters(model)
    params = {"model": theta, "posterior": moved(exact_posterior(theta), phi_off)}
    estimator = BiDSM(sigma=SIGMA, **options)
    return Trained(estimator, model, params, estimator.init_optimiser(params)["posterior"])


def data(count: int = 40, visible: int = D) -> Tensor:
    """Visible vectors."""
    return draws(3).normal((count, visible))


def fixed_noise(at: Trained, v: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """The noise of ``theorem2``, by its documented seeding."""
    rng = Rng(generator(seed, 0, "theorem 2"), torch.float64)
    return {"visible": rng.normal(tuple(v.shape)), "hidden": rng.logistic((len(v), at.model.latent.size))}


def kl_of(at: Trained, v: Tensor) -> Any:
    """phi -> the mean closed-form KL at v."""

    def value(phi: Any) -> Tensor:
        bound = at.bind(at.theta, phi)
        return bernoulli_kl(bound.model, bound.posterior, v).mean()

    return value


# --- closed forms -----------------------------------------------------------------------------------------------------


def test_the_exact_posterior_is_p_of_h_given_v() -> None:
    at, v = trained(), data()
    assert at.phi.keys() == exact_posterior(at.theta).keys() == parameters(RelaxedBernoulli((D,), M)).keys()
    log_p = torch.stack([-at.model.energy(v, h.expand(len(v), -1)) for h in configurations(M)]).log_softmax(0)
    q = at.bind(at.theta, exact_posterior(at.theta)).posterior
    log_q = torch.stack([q.log_prob(h.expand(len(v), -1), v) for h in configurations(M)])
    torch.testing.assert_close(log_q, log_p.detach())


def test_the_closed_form_kl_is_the_sum_over_h() -> None:
    # exact_kl is eq. (10), the KL less log p~(v) = -F(v)
    at, v = trained(0.7), data()
    bound = at.bind(at.theta, at.phi)
    expected = exact_kl(bound.model, bound.posterior, v) - bound.model.free_energy(v)
    torch.testing.assert_close(bernoulli_kl(bound.model, bound.posterior, v), expected, rtol=1e-10, atol=1e-12)


def test_the_exact_posterior_minimises_the_kl() -> None:
    at, v = trained(), data()
    value, best = kl_of(at, v), exact_posterior(at.theta)
    assert abs(float(value(best))) < 1e-15
    assert float(flat(grad(value)(best)).norm()) < 1e-15
    for seed in range(5):
        assert float(value(moved(best, 0.01, seed))) > 1e-7


class Logits:
    """Stands for a model or a posterior with these logits."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def logits(self, v: Tensor) -> Tensor:
        return self.values

    hidden_logits = logits


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_the_kl_of_saturated_units_keeps_its_digits(sign: float) -> None:
    # float32 against float64 where 1 - sigmoid(l) is 0 or the difference of the logarithms cancels
    l = sign * torch.tensor([[30.0], [90.0], [0.01], [25.0], [-40.0]], dtype=torch.float64)  # noqa: E741
    best = sign * torch.tensor([[31.0], [80.0], [0.0], [-25.0], [3.0]], dtype=torch.float64)
    q = l.sigmoid()
    expected = (q * (logsigmoid(l) - logsigmoid(best)) + (-l).sigmoid() * (logsigmoid(-l) - logsigmoid(-best))).sum(1)
    # with e = 1 - q and f = 1 - p tiny: (1 - q) log(e / f) + q log(q / p) = e log(e / f) - e + f
    expected[0] = math.exp(-30) * 1 - math.exp(-30) + math.exp(-31)
    expected[1] = math.exp(-90) * -10 - math.exp(-90) + math.exp(-80)
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 2e-3)):
        found = bernoulli_kl(Logits(best.to(dtype)), Logits(l.to(dtype)), l)
        torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=1e-40)


def test_distance_is_over_all_numbers() -> None:
    a = {"w": torch.tensor([[3.0, 0.0]]), "b": torch.tensor([0.0])}
    b = {"b": torch.tensor([-4.0]), "w": torch.tensor([[0.0, 0.0]])}
    assert float(distance(a, b)) == 5.0
    assert float(distance(a, a)) == 0.0


@pytest.mark.parametrize("off", [0.0, 0.7])
def test_the_curvatures_are_those_of_the_kl(off: float) -> None:
    # the Hessian in phi by autograd: its eigenvalues are those of the units' blocks, the largest by power iteration
    at, v = trained(off), data()
    bound = at.bind(at.theta, at.phi)
    weights = logit_curvature(bound.posterior.logits(v), bound.model.hidden_logits(v))
    value = kl_of(at, v)
    names, shapes = list(at.phi), [x.shape for x in at.phi.values()]

    def of_vector(x: Tensor) -> Tensor:
        parts = x.split([shape.numel() for shape in shapes])
        return value({n: p.reshape(s) for n, p, s in zip(names, parts, shapes, strict=True)})

    expected = torch.linalg.eigvalsh(jacrev(grad(of_vector))(flat(at.phi)))
    blocks = spectrum(weights, v)
    assert blocks.shape == (M, D + 1)
    torch.testing.assert_close(blocks.flatten().sort()[0], expected, rtol=1e-8, atol=1e-12)
    assert float(largest_curvature(weights, v)) == pytest.approx(float(expected.abs().max()), rel=1e-3)
    if not off:
        variance = bound.model.hidden_logits(v).sigmoid()
        torch.testing.assert_close(weights, variance * (1 - variance))


# --- Theorem 1 --------------------------------------------------------------------------------------------------------


def test_at_the_true_posterior_the_gradients_are_the_same_unless_it_is_frozen() -> None:
    # frozen, what is missing is dJ/dphi at phi*, since phi* = (W, c) copies theta: the bias at N = 0 from phi^0 = phi*
    at, v = trained(0.7), data()
    found = theorem1(at, v)
    assert found.error < 1e-12
    (row,) = theorem2(trained(), v, inner=(0,), unroll=(0,)).rows
    assert found.frozen == pytest.approx(row.bias / row.gradient, rel=1e-9)
    assert found.frozen > 0.02


# --- Theorem 2 --------------------------------------------------------------------------------------------------------


def by_hand(at: Trained, v: Tensor, alpha: float, inner: int, unroll: int) -> tuple[Tensor, Tensor, Tensor]:
    """Eq. (14) less the marginal gradient with the KL's gradient written out and Jacobians instead of backpropagation.

    Returns the bias [p], phi^0 and phi^N.
    """
    noise = fixed_noise(at, v)
    points = v + SIGMA * noise["visible"]
    state = state_of({}, model=at.model, posterior=RelaxedBernoulli((D,), M))

    def steps(theta: Any, phi: Any, count: int) -> Any:
        w, b = phi["network.1.weight"], phi["network.1.bias"]
        for _ in range(count):
            logits = points @ w.T + b
            q = logits.sigmoid()
            slope = q * (1 - q) * (logits - theta["c"] - points @ theta["W"]) / len(v)
            w, b = w - alpha * slope.T @ points, b - alpha * slope.sum(0)
        return {"network.1.weight": w, "network.1.bias": b}

    def upper(theta: Any, phi: Any) -> Tensor:
        bound = state.bind({"model": theta, "posterior": phi})
        return at.estimator.loss(bound, v, {"upper": noise}, {}, hyper(at.estimator))[0]

    marginal = DSM(sigma=SIGMA)
    target = grad(
        lambda theta: marginal.loss(state.bind({"model": theta}), v, noise["visible"], {}, hyper(marginal))[0]
    )
    first = steps(at.theta, at.phi, inner)
    last = steps(at.theta, first, unroll)
    gradient = flat(grad(upper)(at.theta, last))
    if unroll:
        jacobian = jacrev(lambda theta: flat(steps(theta, first, unroll)))(at.theta)
        through = flat(grad(upper, argnums=1)(at.theta, last))
        gradient = gradient + torch.cat([(through @ jacobian[name].flatten(1)) for name in at.theta])
    return gradient - flat(target(at.theta)), flat(first), flat(last)


def test_theorem_2_s_study_against_jacobians() -> None:
    at, v, alpha = trained(0.3), data(), 0.5
    found = theorem2(at, v, inner=(0, 3), unroll=(0, 1, 4), alpha=alpha)
    best = flat(exact_posterior(at.theta))
    assert found.alpha == alpha
    assert [(row.inner_steps, row.unroll_steps) for row in found.rows] == [(k, n) for k in (0, 3) for n in (0, 1, 4)]
    for row in found.rows:
        bias, first, last = by_hand(at, v, alpha, row.inner_steps, row.unroll_steps)
        assert row.bias == pytest.approx(float(bias.norm()), rel=1e-9)
        assert row.start == pytest.approx(float((first - best).norm()), rel=1e-9)
        assert row.moved == pytest.approx(float((last - first).norm()), rel=1e-9, abs=1e-12)
        assert row.left == pytest.approx(float((last - best).norm()), rel=1e-9)
        assert row.noise_floor == 0


def test_without_unrolling_the_bias_is_the_second_term_of_eq_14() -> None:
    # from phi^0 = phi*, as the true gradient has it: dJ/dphi dphi*/dtheta, and phi* = (W, c) copies theta
    at, v = trained(), data()
    noise = fixed_noise(at, v)
    slope = grad(lambda phi: at.upper(v, noise, at.theta, phi))(exact_posterior(at.theta))
    (row,) = theorem2(at, v, inner=(0,), unroll=(0,)).rows
    assert row.start == 0
    assert row.bias == pytest.approx(float(flat(slope).norm()), rel=1e-9)
    assert row.bias > 0.02 * row.gradient


def decay(at: Trained, counts: tuple[int, ...]) -> tuple[list[float], float]:
    """The bias after N steps, and kappa = 1 - alpha * smallest curvature at phi*.

    The first visible unit varies little, so that each hidden unit has one slowest direction, well apart."""
    v = data() * torch.tensor([0.1, *[1.0] * (D - 1)], dtype=torch.float64)
    found = theorem2(at, v, inner=(0,), unroll=counts)
    points = v + SIGMA * fixed_noise(at, v)["visible"]
    logits = at.model.hidden_logits(points).detach()
    values = spectrum(logit_curvature(logits, logits), points)
    assert values.min() > 1e-2  # strongly convex
    assert found.alpha <= (1 + 1e-3) / values.max()
    return [row.bias for row in found.rows], 1 - found.alpha * float(values.min())


def test_from_the_exact_posterior_the_bias_decays_as_the_spectrum_says() -> None:
    # phi^N = phi* for every N, but its derivative in theta starts at 0: there is a bias, Theorem 2's C, and it falls as
    # kappa^N
    (none, *biases), kappa = decay(trained(hidden=1), (0, 80, 120, 160))
    for before, after in itertools.pairwise(biases):
        assert math.log(after / before) / 40 == pytest.approx(math.log(kappa), rel=1e-5)
    assert biases[-1] < 1e-2 * none


@pytest.mark.parametrize("off", [0.0, 0.2])
def test_several_units_decay_as_the_slowest(off: float) -> None:
    # three units have slowest directions that are nearly as slow; from phi^0 beside phi* too
    (none, *biases), kappa = decay(trained(off), (0, 80, 120, 160))
    for before, after in itertools.pairwise(biases):
        assert math.log(after / before) / 40 == pytest.approx(math.log(kappa), rel=0.03)
    assert biases[-1] < 1e-2 * none


def test_more_inner_steps_begin_nearer_and_end_with_less_bias() -> None:
    rows = theorem2(trained(0.5), data(), inner=(0, 5, 20), unroll=(0, 10)).rows
    for n in (0, 10):
        of = [row for row in rows if row.unroll_steps == n]
        assert of[0].start > of[1].start > of[2].start
        assert of[0].bias > of[1].bias > of[2].bias


def test_the_rate_is_safe_at_both_ends() -> None:
    # Where units are saturated at phi* and not yet at phi^0 the KL curves more at phi^0: alpha heeds it, and phi comes
    # nearer at every step. Otherwise phi* has the say.
    v = data()
    for scale, start, end in ((8.0, 0.2, 0), (1.0, 2.0, 1)):
        at = trained()
        theta = {**at.theta, "W": scale * at.theta["W"], "c": scale * at.theta["c"]}
        phi = {name: start * x for name, x in exact_posterior(theta).items()}
        at = dataclasses.replace(at, params={"model": theta, "posterior": phi})
        points = v + SIGMA * fixed_noise(at, v)["visible"]
        bound = at.bind(theta, phi)
        best, given = bound.model.hidden_logits(points), bound.posterior.logits(points)
        sizes = [float(spectrum(logit_curvature(x, best), points).abs().max()) for x in (given, best)]
        assert sizes[end] > 1.1 * sizes[1 - end]
        found = theorem2(at, v, inner=(0,), unroll=tuple(range(8)))
        assert found.alpha == pytest.approx(1 / sizes[end], rel=1e-3)
        left = [row.left for row in found.rows]
        assert left == sorted(left, reverse=True)


def test_too_few_points_do_not_span_phi() -> None:
    with pytest.raises(InputError, match="more than the 6 visible units"):
        theorem2(trained(), data(6))
    theorem2(trained(), data(7), inner=(0,), unroll=(0,))


# --- what is asked for ------------------------------------------------------------------------------------------------


def test_another_posterior_or_model_is_refused() -> None:
    at = trained()
    with pytest.raises(InputError, match="one linear layer"):
        dataclasses.replace(at, params={"model": at.theta, "posterior": {"w": at.theta["W"]}})
    with pytest.raises(InputError, match="draws must be at least 2"):
        practical(at, data(), draws=1)
    with pytest.raises(InputError, match="unroll must name"):
        theorem2(at, data(), unroll=())
