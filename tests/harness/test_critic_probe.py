"""The probe of Fisher divergences by a critic, of a model that is known by its energy alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines import CD, MDSM
from benchmark.data.datasets import DataSet
from benchmark.measures.probes import PROBES, CriticDivergence
from bism import GRBM, RBM, BiMDSM
from bism.posteriors import DiagonalGaussian
from tests.harness.known_images import subject
from tests.maths.exact import LinearGaussian, draws


class ByEnergy(LinearGaussian):
    """Without its free energy."""

    @property
    def free_energy(self) -> Any:  # type: ignore[override]
        raise AttributeError("none")


def exact_posterior(model: LinearGaussian) -> DiagonalGaussian:
    """p(h|v) of a model with one latent unit."""
    posterior = DiagonalGaussian(model.visible_shape, 1).double()
    _, precision = model.posterior(torch.zeros(1, 2).double())
    weight = (-2 * model.log_s).exp() * model.W.T / precision
    with torch.no_grad():
        posterior.mean_head.weight.copy_(weight)
        posterior.mean_head.bias.copy_(-weight @ model.b)
        posterior.log_std_head.weight.zero_()
        posterior.log_std_head.bias.copy_(-0.5 * precision.log()[0])
    return posterior


def test_its_closed_form_by_samples_of_the_posterior(tmp_path: Path) -> None:
    """p = N(b, C), and data N(0, S) once they are smoothed: 1/2 E ||S^-1 v - C^-1 (v - b)||^2."""
    torch.manual_seed(1)
    model, spread, noise = ByEnergy(2, 1).double(), torch.tensor([0.6, 1.1]).double(), 0.3
    data = (spread * draws(1).normal((12_000, 2))).split([8000, 2000, 2000])
    probe = CriticDivergence(noise=noise, steps=250, width=32, particles=2)
    about = subject(tmp_path, model, exact_posterior(model), DataSet("made", *data))
    found = probe.measure(about)
    with torch.no_grad():
        smoothed = (spread.square() + noise**2).diag()
        inverse = torch.linalg.inv(model.covariance())
        slope = torch.linalg.inv(smoothed) - inverse
        wanted = 0.5 * float((slope @ smoothed @ slope.T).trace() + (inverse @ model.b).square().sum())
    assert found["test/critic_fisher_divergence"] == pytest.approx(wanted, rel=0.1)
    assert found["test/critic_fisher_divergence_stderr"] < 0.1 * wanted
    assert found["val/critic_fisher_divergence"] == pytest.approx(wanted, rel=0.15)


def test_the_free_energy_is_used_where_there_is_one(tmp_path: Path) -> None:
    model, v = LinearGaussian(2, 1).double(), draws(2).normal((5, 2))
    score = CriticDivergence().score(subject(tmp_path, model, None, DataSet("made", v, v, v)), model)
    wanted: Tensor = -torch.linalg.solve(model.covariance(), (v - model.b).T).T
    torch.testing.assert_close(score(v, draws(0)).detach(), wanted.detach())


def test_what_it_does_not_suit() -> None:
    probe = PROBES["critic"]
    assert probe.unsuitable(CD(), GRBM(2, 3)) is None
    assert probe.unsuitable(BiMDSM(), ByEnergy(2, 1)) is None
    assert "is binary" in str(probe.unsuitable(CD(), RBM(2, 3)))
    assert "without a posterior" in str(probe.unsuitable(MDSM(), ByEnergy(2, 1)))
