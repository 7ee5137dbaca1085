"""Fisher divergences by a critic against their closed forms."""

import pytest
import torch
from torch import Tensor

from bism import GRBM
from bism.critic import Found, fisher_divergence_by_critic
from bism.objectives import score
from bism.rng import Rng
from tests.maths.exact import draws, make_grbm, samples, set_grbm


def by_critic(model: GRBM, data: Tensor, steps: int = 250, **options: float) -> Found:
    parts = data.split([len(data) - 4000, 2000, 2000])

    def of_model(v: Tensor, rng: Rng) -> Tensor:
        return score(lambda x: -model.free_energy(x), v)

    return fisher_divergence_by_critic(of_model, *parts, steps=steps, width=32, lr=5e-3, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("noise", [pytest.param(0.0, marks=pytest.mark.long), 0.5])
def test_without_interactions_it_is_that_of_two_gaussians(noise: float) -> None:
    """W = 0: p = N(b, s^2). Of data N(m, t^2), noise included: 1/2 sum_i t_i^2 (1/t_i^2 - 1/s_i^2)^2 + ((b_i - m_i) /
    s_i^2)^2, since s(v) - s_D(v) = (b - v) / s^2 + (v - m) / t^2."""
    b, s = torch.tensor([0.4, -1.0]).double(), torch.tensor([0.7, 1.3]).double()
    m, t = torch.tensor([0.0, -0.5]).double(), torch.tensor([0.5, 1.0]).double()
    model = set_grbm(torch.zeros(2, 3).double(), b, torch.zeros(3).double(), s)
    found = by_critic(model, m + t * draws(1).normal((14_000, 2)), noise=noise)
    spread = (t.square() + noise**2).sqrt()
    wanted = 0.5 * ((spread * (spread**-2 - s**-2)).square() + ((b - m) / s**2).square()).sum()
    assert found.divergence == pytest.approx(float(wanted), rel=0.05, abs=3 * found.stderr)
    assert found.validation == pytest.approx(float(wanted), rel=0.15)
    assert 0 < found.stderr < 0.1 * float(wanted)


@pytest.mark.long
def test_it_is_zero_at_the_data_s_own_density_and_a_lower_bound_elsewhere() -> None:
    truth, other = make_grbm(hidden=2), make_grbm(hidden=2, seed=1)
    data = samples(truth, 14_000, 1)
    own = by_critic(truth, data)
    assert abs(own.divergence) < 0.02
    v = samples(truth, 4000, 2)
    with torch.no_grad():
        exact = 0.5 * (other.score_and_laplacian(v)[0] - truth.score_and_laplacian(v)[0]).square().sum(1)
    found = by_critic(other, data)
    assert found.divergence < float(exact.mean()) + 3 * found.stderr
    assert found.divergence > 0.8 * float(exact.mean())


def test_the_same_seed_gives_the_same() -> None:
    model, data = make_grbm(hidden=2), samples(make_grbm(hidden=2), 5000, 1)
    before = torch.get_rng_state()
    one, again, other = (by_critic(model, data, steps=10, seed=seed) for seed in (3, 3, 4))
    assert one == again != other
    assert torch.equal(torch.get_rng_state(), before)
