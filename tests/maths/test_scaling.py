"""What is learnt from scaled data, in the data's own units: the change of variables, against the direct way."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from bism import GRBM, BiDSM, Gaussian, RelaxedBernoulli
from bism.annealing import ais
from bism.bilevel import posterior_fisher_divergence as posterior_divergence
from bism.enumeration import exact_samples
from bism.errors import InputError
from bism.likelihood import fisher_divergence, log_likelihood, log_partition
from bism.models import INITS
from bism.objectives import sm
from bism.sampling import gibbs, gibbs_noise
from bism.scaling import Rescaled, Scaling
from tests.maths.exact import LinearGaussian, draws, make_grbm

UNITS = torch.tensor([300.0, 0.02], dtype=torch.float64)
OFFSET = torch.tensor([-500.0, 7.0], dtype=torch.float64)
SCALINGS = {
    "standard": Scaling("standard", OFFSET, UNITS),
    "unit": Scaling("unit", torch.tensor(-1000.0).double(), torch.tensor(2000.0).double()),
}


def own_data(size: int = 200) -> Tensor:
    return OFFSET + UNITS * draws(1).normal((size, 2))


class Quadratic(nn.Module):
    """log p = -1/2 y^T P y: a Gaussian, whose likelihood and divergences are known in any units."""

    def __init__(self, precision: Tensor) -> None:
        super().__init__()
        self.visible_shape, self.latent, self.P = (2,), None, nn.Parameter(precision)

    def free_energy(self, v: Tensor) -> Tensor:
        return 0.5 * (v @ self.P * v).sum(-1)

    energy = free_energy


PRECISION = torch.tensor([[2.0, 0.7], [0.7, 1.5]], dtype=torch.float64)


def gaussian_in_own_units(scaling: Scaling) -> MultivariateNormal:
    factor = torch.diag(scaling.factor.expand(2))
    return MultivariateNormal(scaling.shift.expand(2), factor @ PRECISION.inverse() @ factor)


@pytest.mark.parametrize("kind", SCALINGS)
def test_a_gaussian_s_likelihood_and_divergence_are_the_direct_ones(kind: str) -> None:
    scaling, v = SCALINGS[kind], own_data(20)
    truth, model = gaussian_in_own_units(scaling), scaling.model(Quadratic(PRECISION))
    scaled = MultivariateNormal(torch.zeros(2, dtype=torch.float64), PRECISION.inverse())
    volume = scaling.factor.expand(2).log().sum()
    assert torch.allclose(scaled.log_prob(scaling.scaled(v)) - volume, truth.log_prob(v))
    log_z = -float(scaled.log_prob(torch.zeros(2).double())) + float(volume)  # of the model in own units
    assert torch.allclose(-model.free_energy(v) - log_z, truth.log_prob(v))
    score = -(v - truth.mean) @ truth.precision_matrix
    expected = 0.5 * score.square().sum(1) - truth.precision_matrix.trace()
    assert torch.allclose(fisher_divergence(model, v), expected)


@pytest.mark.parametrize("kind", SCALINGS)
def test_a_grbm_in_own_units_is_a_grbm(kind: str) -> None:
    # the closed form against the wrapper, which only maps v, and against the change of variables
    scaling, model, v = SCALINGS[kind], make_grbm(), own_data(20)
    inner, before = scaling.scaled(v), copy.deepcopy(model.state_dict())
    own, wrapped = scaling.model(model), Rescaled(model, scaling)
    volume = float(scaling.factor.expand(2).log().sum())
    h, noise = (draws(2).uniform((20, model.latent.size)) > 0.5).double(), draws(3).normal((20, 2))
    logistic = draws(4).logistic(h.shape)
    for seen in (own, wrapped):
        assert torch.allclose(seen.energy(v, h), model.energy(inner, h))
        assert log_partition(seen) == pytest.approx(log_partition(model) + volume)
        assert torch.allclose(log_likelihood(seen, v), log_likelihood(model, inner) - volume)
        assert torch.allclose(seen.sample_visible(h, noise), scaling.own(model.sample_visible(h, noise)))
        assert torch.equal(seen.sample_hidden(v, logistic), model.sample_hidden(inner, logistic))
        exact = sm(lambda x, seen=seen: -seen.free_energy(x), v).detach()
        assert torch.allclose(fisher_divergence(seen, v), exact)
    if kind == "unit":  # one factor for all: the divergence is that of the scaled data over its square
        assert torch.allclose(fisher_divergence(own, v), fisher_divergence(model, inner) / scaling.factor**2)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_ais_and_samples_in_own_units() -> None:
    scaling, model = SCALINGS["standard"], make_grbm()
    own = scaling.model(model)
    train = scaling.own(exact_samples(model, 2000, draws(5)))
    assert ais(own, train, chains=200, steps=200).log_z == pytest.approx(log_partition(own), abs=0.3)
    with torch.no_grad():
        v = gibbs(own, train, gibbs_noise(own, len(train), 3, draws(6)))
    error = (v.mean(0) - train.mean(0)).abs() / (train.std(0) * (2 / len(train)) ** 0.5)
    assert float(error.max()) < 5


def test_other_models_keep_what_they_have() -> None:
    scaling, images = SCALINGS["unit"], Scaling("standard", torch.zeros(2), torch.tensor([2.0, 3.0]))
    model = scaling.model(LinearGaussian(2, 2))
    assert isinstance(model, Rescaled)
    assert isinstance(model.latent, Gaussian)
    for name in ("free_energy", "hidden_free_energy", "sample_hidden", "score_and_laplacian"):
        assert hasattr(model, name) == hasattr(LinearGaussian(2, 2), name)
    assert images.reshaped((1, 2, 1)).shift.shape == (1, 2, 1)


def test_a_posterior_in_own_units() -> None:
    scaling, v, h = SCALINGS["standard"], own_data(5), torch.zeros(5, 3, dtype=torch.float64)
    posterior = RelaxedBernoulli((2,), 3).double()
    own, noise = scaling.posterior(posterior), draws(7).logistic((5, 3))
    inner = scaling.scaled(v)
    assert torch.equal(own.mean(v), posterior.mean(inner))
    assert torch.equal(own.sample(v, noise, 0.1), posterior.sample(inner, noise, 0.1))
    assert torch.equal(own.sample_hard(v, noise), posterior.sample_hard(inner, noise))
    assert torch.equal(own.log_prob(h, v), posterior.log_prob(h, inner))


def test_the_divergence_of_posteriors_has_no_units() -> None:
    scaling, model, v = SCALINGS["standard"], LinearGaussian(2, 2).double(), own_data(5)
    from bism import DiagonalGaussian

    posterior, noise = DiagonalGaussian((2,), 2).double(), draws(8).normal((3, 5, 2))
    own = posterior_divergence(scaling.model(model), scaling.posterior(posterior), v, noise, 1.0)
    assert torch.allclose(own, posterior_divergence(model, posterior, scaling.scaled(v), noise, 1.0))


def test_scalings_are_fitted_and_undone() -> None:
    x = own_data().float()
    x[:, 1] = 0.1  # constant, and no number of float32 is 0.1
    standard, unit = Scaling.standard(x), Scaling.unit(x)
    y = standard.scaled(x)
    assert float(y[:, 0].mean()) == pytest.approx(0, abs=1e-9)
    assert float(y[:, 0].std(correction=0)) == pytest.approx(1)
    assert float(standard.factor[1]) == 1
    assert float(y[:, 1].abs().max()) < 1e-8
    assert (float(unit.scaled(x).min()), float(unit.scaled(x).max())) == (0, 1)
    for scaling in (standard, unit):
        again = Scaling.from_record(scaling.record)
        assert torch.equal(again.scaled(x), scaling.scaled(x))
        assert torch.allclose(scaling.own(scaling.scaled(x)), x.double(), rtol=1e-12)


# --- a start from the data --------------------------------------------------------------------------------------------


def started(init: str, data: Tensor) -> Any:
    torch.manual_seed(1)
    return BiDSM().fit(GRBM(2, 3, init=init), data, seeds=[0, 1], steps=0, dtype=torch.float64)


def test_a_start_from_the_data_is_the_paper_s_on_standardised_data() -> None:
    data = own_data()
    standard = Scaling.standard(data)
    here, there = started("data", data), started("paper", standard.scaled(data))
    for seed in (0, 1):
        own = standard.model(there.model(seed))
        for name, parameter in here.model(seed).named_parameters():
            assert torch.allclose(parameter, own.state_dict()[name], rtol=1e-4, atol=1e-4), name
        logits = here.posterior(seed).logits(data)
        assert torch.allclose(logits, there.posterior(seed).logits(standard.scaled(data)), atol=1e-2)
    volume = float(standard.factor.log().sum())
    expected = there.log_likelihood(standard.scaled(data)).mean(1) - volume
    assert torch.allclose(here.log_likelihood(data).mean(1), expected, atol=1e-2)
    assert float(here.log_likelihood(data).mean()) > float(started("paper", data).log_likelihood(data).mean()) + 100


def test_the_paper_s_start_is_the_default_and_needs_no_data() -> None:
    at = [started("paper", own_data()).model(0), started("paper", 3 * own_data()).model(0)]
    assert all(torch.equal(x, y) for x, y in zip(at[0].parameters(), at[1].parameters(), strict=True))
    assert GRBM(2, 3).init == INITS[0] == "paper"
    with pytest.raises(InputError, match="init must be one of paper, data, got 'dat'"):
        GRBM(2, 3, init="dat")


def test_a_constant_unit_starts_with_a_scale_of_1() -> None:
    data = own_data()
    data[:, 1] = 0.1
    model = started("data", data).model(0)
    assert float(model.log_s[1]) == 0
    assert float(model.log_s[0]) == pytest.approx(float(data[:, 0].std(correction=0).log()), abs=1e-5)
