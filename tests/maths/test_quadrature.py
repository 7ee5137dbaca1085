"""log Z by quadrature, compared with closed forms and enumeration; and what is said where it cannot be had."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad

from bism import DBM, GRBM, InputError, log_partition
from bism.enumeration import free_energy
from bism.likelihood import NotIntegrable, grid_density, log_likelihood, log_partition_if_any, not_exact
from bism.mlp import MLPEBLVM, MLPEBM
from bism.quadrature import Quadrature, log_integral, quadrature
from bism.scaling import Scaling
from tests.maths.exact import make_grbm


def mixture(means: Sequence[Sequence[float]], scales: Sequence[float], weights: Sequence[float]) -> object:
    """log of sum_k w_k N(v; m_k, s_k^2 I); its integral is 1 where the weights add up to it."""
    centres, sizes, shares = (torch.tensor(x, dtype=torch.float64) for x in (means, scales, weights))
    constant = shares.log() - centres.shape[1] * (sizes.log() + 0.5 * math.log(2 * math.pi))
    return lambda v: (constant - 0.5 * ((v[:, None] - centres) / sizes[:, None]).square().sum(-1)).logsumexp(1)


CIRCLE = [[50 + math.cos(angle), 50 + math.sin(angle)] for angle in torch.arange(8) * math.pi / 4]


MIXTURES: list[tuple[Any, Any, Any, Any]] = [
    ([[0.0]], [1.0], [1.0], None),
    ([[-300.0], [2.0]], [0.01, 3.0], [0.4, 0.6], [[-300.0], [2.0]]),
    ([[0.0, 0.0]], [1.0], [1.0], None),
    ([[3.3, -2.1]], [1e-4], [1.0], None),  # very narrow
    ([[1000.0, 377.0], [-200.0, 3.0]], [1.0, 1.0], [0.3, 0.7], None),  # far from the origin, and from each other
    ([[0.0, 0.0], [1000.0, 377.0]], [1.0, 1.0], [0.3, 0.7], None),  # one is at the origin
    (CIRCLE, [0.2] * 8, [0.125] * 8, None),  # as symmetric as a lattice
    (
        [[20.0, 0.0], [0.0, 0.0]],
        [1.0, 0.1],
        [0.5, 0.5],
        [[0.05, 0.0], [-0.05, 0.1]],
    ),  # a narrow peak at the data, a wide one away from them
]


@pytest.mark.parametrize(("means", "scales", "weights", "data"), MIXTURES)
def test_mixtures_of_gaussians(
    means: list[list[float]], scales: list[float], weights: list[float], data: list[list[float]] | None
) -> None:
    log_density = mixture(means, scales, weights)
    found = log_integral(log_density, len(means[0]), data=data and torch.tensor(data))  # type: ignore[arg-type]
    assert found.error <= 1e-4
    assert abs(found.log_z) <= found.error


@pytest.mark.parametrize("seed", range(4))
def test_an_rbm_by_quadrature_is_that_by_enumeration(seed: int) -> None:
    torch.manual_seed(seed)
    model = make_grbm(2, 4)
    with torch.no_grad():
        model.W.mul_(1 + seed)
        model.log_s.normal_()
    found = quadrature(model, tolerance=1e-8)
    assert found.log_z == pytest.approx(log_partition(model), abs=1e-8)
    rough = quadrature(model)
    assert abs(rough.log_z - log_partition(model)) <= rough.error
    assert rough.points <= found.points
    assert log_partition(model, "quadrature") == rough.log_z
    scaled = Scaling("standard", torch.tensor([300.0, -7.0]).double(), torch.tensor([0.01, 20.0]).double()).model(model)
    data = torch.tensor([[299.99, -27.0], [300.01, 13.0]])
    assert quadrature(scaled, data=data).log_z == pytest.approx(found.log_z + math.log(0.2), abs=1e-4)


class Away(nn.Module):
    """E(v) = -a.v + |v|^2 / (2 s^2), as a network far from the data is: a Gaussian around s^2 a."""

    visible_shape, latent = (2,), None

    def __init__(self, slope: float, reference: float) -> None:
        super().__init__()
        self.slope, self.reference = nn.Parameter(torch.tensor([slope, 0.5 * slope])), reference

    def free_energy(self, v: Tensor) -> Tensor:
        return -v @ self.slope + 0.5 * v.square().sum(-1) / self.reference**2


@pytest.mark.parametrize("slope", [0.0, 20.0, 500.0])
def test_mass_far_from_the_data_is_found(slope: float) -> None:
    model = Away(slope, 4.0)
    exact = math.log(2 * math.pi * 16) + 0.5 * 16 * float(model.slope.square().sum().detach())
    assert log_partition(model) == pytest.approx(exact, abs=1e-4)


def test_what_does_not_fall_off_is_refused() -> None:
    with pytest.raises(InputError, match="does not rise in all directions"):
        log_partition(Away(1.0, math.inf))
    assert math.isnan(log_partition(Away(math.nan, 1.0)))


def test_training_that_has_lost_the_integral_leaves_a_model_without_a_likelihood() -> None:
    """Of finite parameters: nothing is raised that would end what other seeds are measured with."""
    lost, axis = Away(1e20, 4.0), torch.linspace(-1, 1, 3, dtype=torch.float64)
    with pytest.raises(NotIntegrable):
        log_partition(lost)
    with pytest.warns(UserWarning, match=r"Away: its energy does not rise .*cannot be integrated; NaN is given in its"):
        assert math.isnan(log_partition_if_any(lost))
    with pytest.warns(UserWarning, match="NaN is given"):
        assert grid_density(lost, axis, axis).isnan().all()
    sound = Away(1.0, 4.0)
    assert log_partition_if_any(sound) == log_partition(sound)


def test_a_density_with_features_too_narrow_is_said_to_be_rough() -> None:
    model, log_density = Away(0.0, 4.0), mixture([[0.0, 0.0], [9.0, 0.0]], [0.05, 4.0], [0.5, 0.5])
    spread = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    model.free_energy = lambda v: -log_density(v)  # type: ignore[method-assign, operator]
    with pytest.warns(UserWarning, match=r"may be off by 0\.\d+ nats: .* points do not resolve"):
        assert log_partition(model, data=0.05 * spread) == pytest.approx(0, abs=0.01)


def test_a_density_that_was_not_resolved_has_no_log_z() -> None:
    """Of its two peaks, of like masses, the one at the data lies between the points: half of Z is missed."""
    model, log_density = Away(0.0, 4.0), mixture([[0.0, 0.0], [9.0, 0.0]], [0.01, 4.0], [0.5, 0.5])
    model.free_energy = lambda v: -log_density(v)  # type: ignore[method-assign, operator]
    data = 0.01 * torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    found = quadrature(model, data=data)
    assert found.error == math.inf
    assert found.log_z == pytest.approx(-math.log(2), abs=0.01)
    with pytest.warns(UserWarning, match="is not known, and NaN is given in its place: its density has features too"):
        assert math.isnan(log_partition(model, data=data))
    with pytest.warns(UserWarning, match="Away by quadrature is not known"):
        assert log_likelihood(model, data, log_partition(model, data=data)).isnan().all()


def test_deep_models_of_points() -> None:
    torch.manual_seed(0)
    for model in (MLPEBM(2, width=16).double(), MLPEBLVM(2, 3, width=16).double()):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2)
        axis = torch.linspace(-40, 40, 161, dtype=torch.float64)
        mass = grid_density(model, axis, axis).sum() * 0.5**2
        assert float(mass) == pytest.approx(1, abs=1e-4)
        assert not_exact(model) is None
    many = MLPEBLVM(2, 11, width=4)
    assert (
        not_exact(many) == "it has no hidden_free_energy(h); by quadrature: 2^11 h are too many to sum over at each v"
    )
    assert "v is not one or two real units" in str(not_exact(MLPEBM(3)))
    assert not_exact(DBM(2, [2, 2])) is None  # enumerated: v is binary
    with pytest.raises(InputError, match="cannot be had by quadrature: v is not"):
        log_partition(GRBM(3, 2), "quadrature")


@pytest.mark.parametrize("away", [[30.0], [50.0], [24.0, 18.0]])
def test_narrow_modes_far_from_the_widest_are_found_at_the_data(away: list[float]) -> None:
    """Three Gaussians of which the outer two, 0.27 wide, have peaks 2.4 times that of the one in the middle."""
    size, middle = len(away), torch.tensor([[0.0], [1.0], [-1.0]]).double() * torch.tensor(away).double() + 100
    s = torch.tensor([1, 0.27, 0.27]).double()
    weight = torch.tensor([1, 2.4, 2.4]).double() * s**size
    weight = weight / weight.sum()
    source = torch.Generator().manual_seed(0)
    chosen = torch.multinomial(weight, 500, replacement=True, generator=source)
    data = middle[chosen] + s[chosen, None] * torch.randn(500, size, dtype=torch.float64, generator=source)
    log_density = mixture(middle.tolist(), s.tolist(), weight.tolist())
    assert abs(log_integral(log_density, size, data=data).log_z) < 1e-6  # type: ignore[arg-type]


@pytest.mark.parametrize("s", [0.15, 0.3, 0.6])
def test_the_error_of_a_lattice_that_is_too_coarse(s: float) -> None:
    """With a tolerance that the first lattice meets; its spacing is some 1 to 3 s."""
    found = log_integral(mixture([[0.0, 0.0]], [s], [1.0]), 2, tolerance=10.0)  # type: ignore[arg-type]
    assert 1e-5 < found.error < 3
    assert abs(found.log_z) <= found.error


def test_a_density_with_the_lattice_s_own_period_is_known_to_be_doubtful() -> None:
    error, found = by_line(0.5, 50.0, 20.0)
    assert error <= found.error


def test_lattices_do_not_lie_along_the_axes() -> None:
    """0.8 is the spacing of the first lattice: all points of one along the axes would meet one phase, and agree."""
    error, found = by_line(0.5 / 1.1**2, 1.0, 2 * math.pi / 0.8, tolerance=1e-3)
    assert error <= found.error <= 1e-3


def by_line(fall: float, height: float, waves: float, **how: float) -> tuple[float, Quadrature]:
    """How far off the integral over the plane is of a product of exp(-fall u^2 + height sin(waves u)), and that."""

    def of_one(u: Tensor) -> Tensor:
        return -fall * u.square() + height * (waves * u).sin()

    line = torch.linspace(-12, 12, 400_001).double()
    exact = 2 * float(of_one(line).logsumexp(0) + math.log(24 / 400_000))
    found = log_integral(lambda u: of_one(u).sum(1), 2, **how)
    return abs(found.log_z - exact), found


def test_the_free_energy_by_summation_and_its_gradient() -> None:
    torch.manual_seed(0)
    model, v = MLPEBLVM(2, 3, width=8, gain=2.0).double(), torch.randn(5, 2).double()
    h = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 3)
    joint = torch.stack([model.energy(v, one.expand(5, -1)) for one in h])
    torch.testing.assert_close(free_energy(model, v), -(-joint).logsumexp(0))
    torch.testing.assert_close(model.energies(v, h), joint.T)
    features = model.head(torch.cat([model.features(2 * v), h[3].expand(5, -1)], 1)).squeeze(1)
    torch.testing.assert_close(joint[3], features + v.square().sum(1) / 32)

    def score_given(one: Tensor) -> Tensor:
        return grad(lambda x: model.energy(x, one.expand(5, -1)).sum())(v)

    alone = MLPEBM(2, width=8, gain=3.0).double()
    torch.testing.assert_close(alone.energy(v), alone.network(3 * v).squeeze(1) + v.square().sum(1) / 32)
    with pytest.raises(InputError, match=r"MLPEBM: gain must be a finite number above 0, got 0\.0"):
        MLPEBM(2, gain=0.0)
    expected = ((-joint).softmax(0)[:, :, None] * torch.stack([score_given(one) for one in h])).sum(0)
    torch.testing.assert_close(grad(lambda x: free_energy(model, x).sum())(v), expected.detach())
