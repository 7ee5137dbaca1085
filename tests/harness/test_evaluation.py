"""What is measured on the models as they are."""

import math
import types
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmark.data.datasets import DataSet
from benchmark.measures import evaluation
from bism import BiSSM
from bism.likelihood import log_likelihood
from tests.maths.exact import LinearGaussian, draws
from tests.maths.test_quadrature import Away


def test_the_posterior_is_judged_by_particles_that_share_no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eq. (11) is a mean over 5 particles for each example: against its closed form, and by what was drawn."""
    torch.manual_seed(0)
    v = 0.3 * draws(1).normal((900, 2)).float()  # near 0, where no variance of q is small
    fitted = BiSSM(lower="fisher").fit(LinearGaussian(2, 2), v, steps=0, seeds=[3])
    given: list[Tensor] = []
    whole = evaluation.posterior_fisher_divergence

    def spy(model: Any, posterior: Any, points: Tensor, noise: Tensor, temperature: float) -> Tensor:
        given.append(noise)
        return whole(model, posterior, points, noise, temperature)

    monkeypatch.setattr(evaluation, "posterior_fisher_divergence", spy)
    (found,) = evaluation.evaluate(fitted, DataSet("points", v, v, v), ["posterior_fisher_divergence"], ["test"])
    assert [noise.shape for noise in given] == [(5, 900, 2)]
    correlation = torch.corrcoef(given[0].flatten(1))
    assert float((correlation - torch.eye(5)).abs().max()) < 0.1

    model, posterior = fitted.model(3), fitted.posterior(3)
    with torch.no_grad():
        mean, precision = model.posterior(v)
        mu, log_std = posterior._parameters_at(v)
        variance = (2 * log_std).exp()
        excess = precision - variance.reciprocal().diag_embed()
        trace = torch.einsum("nij,nj,nji->n", excess, variance, excess)
        expected = 0.5 * (((mu - mean) @ precision).square().sum(1) + trace)
    assert found["test/posterior_fisher_divergence"] == pytest.approx(float(expected.mean()), rel=0.05)


def test_a_seed_that_has_lost_its_integral_costs_the_others_nothing() -> None:
    """What blew up with numbers that are all finite has no likelihood; those trained beside it have theirs."""
    v, sound, lost = draws(1).normal((50, 2)), Away(1.0, 4.0).double(), Away(1e20, 4.0).double()
    fitted: Any = types.SimpleNamespace(seeds=(0, 1), model=lambda seed: (lost, sound)[seed])
    with pytest.warns(UserWarning, match="cannot be integrated; NaN is given in its place"):
        found = evaluation.evaluate(fitted, DataSet("points", v, v, v), ["log_likelihood"])
    assert math.isnan(found[0]["test/log_likelihood"])
    expected = log_likelihood(sound, v).mean()
    assert found[1]["test/log_likelihood"] == pytest.approx(float(expected), abs=1e-3)
