"""The GRBM's closed forms, against sums over h, quadrature and automatic differentiation."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from bism import GRBM, InputError, enumeration, fisher_divergence, log_likelihood, log_partition
from bism.likelihood import grid_density
from bism.objectives import sm
from tests.maths.exact import LinearGaussian, configurations, draws, hermite, log_z, make_grbm, set_grbm


def grid(low: float, high: float, points: int) -> tuple[Tensor, float]:
    """A square grid of points [points^2, 2] and the area of its cells; sums over it converge fast for smooth decay."""
    axis = torch.linspace(low, high, points, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis), float(axis[1] - axis[0]) ** 2


def test_energy_as_the_docstring_says() -> None:
    # written out term by term, with a scale per visible unit and no division of the interaction
    model, v, h = make_grbm(3, 2), draws(1).normal((4, 3)), draws(1).uniform((4, 2))
    W, b, c, s = (x.detach() for x in (model.W, model.b, model.c, model.log_s.exp()))
    for n in range(4):
        expected = sum((v[n, i] - b[i]) ** 2 / (2 * s[i] ** 2) for i in range(3)) - c @ h[n]
        expected = expected - sum(v[n, i] * W[i, j] * h[n, j] for i in range(3) for j in range(2))
        torch.testing.assert_close(model.energy(v, h)[n].detach(), expected, atol=1e-12, rtol=0)


def test_free_energy_is_the_sum_over_h() -> None:
    model, v = make_grbm(), draws(2).normal((5, 2))
    energies = torch.stack([model.energy(v, h.expand(5, -1)) for h in configurations(3)])
    torch.testing.assert_close(model.free_energy(v), -(-energies).logsumexp(0), atol=1e-12, rtol=0)


def test_hidden_free_energy_is_the_integral_over_v() -> None:
    model = make_grbm()
    v, cell = grid(-14, 14, 401)
    for h in configurations(3):
        integral = (-model.energy(v, h.expand(len(v), -1))).exp().sum() * cell
        torch.testing.assert_close(model.hidden_free_energy(h.unsqueeze(0))[0], -integral.log(), atol=1e-9, rtol=0)


def test_log_z_is_the_integral_of_the_free_energy() -> None:
    model = make_grbm()
    v, cell = grid(-14, 14, 401)
    integral = (-model.free_energy(v).detach()).exp().sum() * cell
    assert log_partition(model) == pytest.approx(float(integral.log()), abs=1e-9)
    assert log_partition(model) == pytest.approx(float(log_z(model).detach()), abs=1e-12)


def test_log_z_as_the_docstring_says() -> None:
    model = make_grbm(3, 2)
    W, b, c, s = (x.detach() for x in (model.W, model.b, model.c, model.log_s.exp()))
    terms = [c @ h + b @ (W @ h) + 0.5 * (s.square() * (W @ h).square()).sum() for h in configurations(2)]
    expected = torch.stack(terms).logsumexp(0) + s.log().sum() + 1.5 * math.log(2 * math.pi)
    assert log_partition(model) == pytest.approx(float(expected), abs=1e-12)


@pytest.mark.parametrize("chunk", [1, 3, 8, 100])
def test_log_z_in_chunks(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_grbm()
    whole = log_partition(model)
    monkeypatch.setattr(enumeration, "_CHUNK", chunk)
    assert log_partition(model) == pytest.approx(whole, abs=1e-12)


def test_enumeration_gives_every_configuration_once() -> None:
    parts = [enumeration.enumerate_hidden(4, i, i + 4, torch.float64) for i in range(0, 16, 4)]
    assert {tuple(h) for h in torch.cat(parts).tolist()} == {tuple(h) for h in configurations(4).tolist()}


def test_log_z_of_a_single_precision_model_is_computed_in_double() -> None:
    model = make_grbm().float()
    assert log_partition(model) == pytest.approx(log_partition(model.double()), abs=1e-12)


def test_log_z_where_it_cannot_be_enumerated() -> None:
    for model, reason in ((GRBM(2, 21), "2^21"), (LinearGaussian(2, 1), "not binary")):
        with pytest.raises(InputError, match="cannot be enumerated") as error:
            log_partition(model, method="enumerate")
        assert reason in str(error.value)
    with pytest.raises(InputError, match="'sampling'"):
        log_partition(make_grbm(), method="sampling")


def test_the_likelihood_integrates_to_one() -> None:
    v, cell = grid(-14, 14, 401)
    density = log_likelihood(make_grbm(), v).exp()
    assert float(density.sum() * cell) == pytest.approx(1, abs=1e-9)


def test_the_likelihood_with_a_given_log_z() -> None:
    model, v = make_grbm(), draws(3).normal((4, 2))
    shifted = log_likelihood(model, v, log_z=log_partition(model) + 1)
    torch.testing.assert_close(shifted, log_likelihood(model, v) - 1)
    assert log_likelihood(make_grbm().float(), v.float()).dtype == torch.float64


def test_grid_density_has_v1_along_its_columns() -> None:
    # a narrow bump at (1, -0.5): the largest value is in the column of v_1 = 1 and the row of v_2 = -0.5
    W, b = torch.zeros(2, 1).double(), torch.tensor([1.0, -0.5]).double()
    model = set_grbm(W, b, torch.zeros(1).double(), torch.full((2,), 0.2).double())
    first, second = (torch.linspace(*ends, dtype=torch.float64) for ends in ((-1, 3, 81), (-3, 3, 121)))
    density = grid_density(model, first, second)
    row, column = divmod(int(density.argmax()), 81)
    assert (float(first[column]), float(second[row])) == pytest.approx((1, -0.5))
    assert float(density.sum() * (first[1] - first[0]) * (second[1] - second[0])) == pytest.approx(1, abs=1e-9)
    rows, columns = np.meshgrid(second, first, indexing="ij")
    expected = np.exp(-((columns - 1) ** 2 + (rows + 0.5) ** 2) / 0.08) / (0.08 * math.pi)
    np.testing.assert_allclose(density, expected, atol=1e-9)


def test_grid_density_of_one_unit() -> None:
    W, b = torch.zeros(1, 1).double(), torch.ones(1).double()
    model = set_grbm(W, b, torch.zeros(1).double(), torch.full((1,), 0.5).double())
    axis = torch.linspace(-3, 5, 161, dtype=torch.float64)
    expected = (-2 * (axis - 1) ** 2).exp() * math.sqrt(2 / math.pi)
    torch.testing.assert_close(grid_density(model, axis), expected, atol=1e-9, rtol=0)


def test_the_posterior_is_the_ratio_of_joint_and_marginal() -> None:
    model, v = make_grbm(), draws(4).normal((5, 2))
    p = model.hidden_logits(v).sigmoid()
    for h in configurations(3):
        ratio = (model.free_energy(v) - model.energy(v, h.expand(5, -1))).exp()
        torch.testing.assert_close(ratio, (p * h + (1 - p) * (1 - h)).prod(1), atol=1e-12, rtol=0)


def test_hidden_samples_follow_the_posterior() -> None:
    model, v = make_grbm(), draws(5).normal((1, 2)).expand(400_000, -1)
    h = model.sample_hidden(v, model.latent.noise(draws(6), (400_000,)))
    p = model.hidden_logits(v[:1])[0].sigmoid().detach()
    assert ((h == 0) | (h == 1)).all()
    assert ((h.mean(0) - p).abs() < 5 * (p * (1 - p) / len(h)).sqrt()).all()
    joint = (h.T @ h / len(h) - torch.outer(p, p)).fill_diagonal_(0)  # units are independent given v
    assert float(joint.abs().max()) < 5 * 0.5 / len(h) ** 0.5


def test_visible_samples_follow_the_conditional() -> None:
    # the density of mean + s noise is exp(-E(v, h)) over its integral, at every noise
    model, noise = make_grbm(), draws(7).normal((6, 2))
    s = model.log_s.exp()
    for h in configurations(3):
        v = model.sample_visible(h.expand(6, -1), noise)
        density = -0.5 * noise.square().sum(1) - s.log().sum() - math.log(2 * math.pi)
        expected = model.hidden_free_energy(h.unsqueeze(0)) - model.energy(v, h.expand(6, -1))
        torch.testing.assert_close(density, expected, atol=1e-12, rtol=0)


def test_score_and_laplacian_against_autograd() -> None:
    model, v = make_grbm(3, 4), draws(8).normal((5, 3))
    score, laplacian = model.score_and_laplacian(v)
    for n in range(5):
        x = v[n].clone().requires_grad_()
        gradient = torch.autograd.grad(-model.free_energy(x.unsqueeze(0)).sum(), x)[0]
        hessian = torch.autograd.functional.hessian(lambda x: -model.free_energy(x.unsqueeze(0)).sum(), v[n])
        torch.testing.assert_close(score[n].detach(), gradient, atol=1e-12, rtol=0)
        torch.testing.assert_close(laplacian[n].detach(), hessian.trace(), atol=1e-12, rtol=0)


class WithoutClosedForm(GRBM):
    """A GRBM that hides its score."""

    def __getattribute__(self, name: str) -> object:
        if name == "score_and_laplacian":
            raise AttributeError(name)
        return super().__getattribute__(name)


def test_the_fisher_divergence_with_and_without_a_closed_form() -> None:
    model, v = make_grbm(), draws(9).normal((5, 2))
    plain = WithoutClosedForm(2, 3).double()
    plain.load_state_dict(model.state_dict())
    assert not hasattr(plain, "score_and_laplacian")
    closed = fisher_divergence(model, v)
    torch.testing.assert_close(closed, fisher_divergence(plain, v), atol=1e-12, rtol=0)
    torch.testing.assert_close(closed, sm(lambda x: -model.free_energy(x), v).detach(), atol=1e-12, rtol=0)
    assert not closed.requires_grad


def test_the_fisher_divergence_is_one_half_of_the_squared_distance_of_scores() -> None:
    # E_p[eq. (2)] = 1/2 E_p ||s_q - s_p||^2 - 1/2 E_p ||s_p||^2, p a Gaussian, by quadrature
    W, zero = torch.zeros(2, 1).double(), torch.zeros(1).double()
    data = set_grbm(W, torch.tensor([0.3, -0.1]).double(), zero, torch.tensor([0.8, 1.1]).double())
    model, (z, weights) = make_grbm(), hermite(40, 2)
    with torch.no_grad():
        v = data.b + data.log_s.exp() * z
        ours, theirs = model.score_and_laplacian(v)[0], data.score_and_laplacian(v)[0]
        expected = 0.5 * weights @ ((ours - theirs).square() - theirs.square()).sum(1)
    assert float(weights @ fisher_divergence(model, v)) == pytest.approx(float(expected), abs=1e-8)


def test_initial_parameters_are_the_authors() -> None:
    model = GRBM(visible=50, hidden=16)
    for parameter in (model.W, model.b, model.c):
        assert 0.2 < float(parameter.detach().abs().max()) <= 0.25
    assert not model.log_s.detach().any()
