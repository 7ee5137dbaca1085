"""The probe of stability, of a model and a sampler of which everything is known."""

import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines import CD, IGEBM, ShortRun
from benchmark.data.datasets import DataSet
from benchmark.measures.probes import PROBES, Stability, Subject
from benchmark.measures.probes.stability import singular_values
from bism import GRBM, RBM, BiDSM, BiMDSM
from bism.convnet import ConvEBM
from bism.mlp import MLPEBLVM, MLPEBM
from bism.resnet import ResNetEBLVM
from tests.maths.exact import configurations, draws
from tests.maths.test_chains import Parabola


def test_its_numbers_are_those_of_a_parabola(tmp_path: Path) -> None:
    """E = a |v|^2 / 2: slopes are a |v|, and the gradient is half the difference of mean squares, and a the means'."""
    model, test, samples = Parabola(2, 3.0).double(), draws(1).normal((40, 2)), 0.5 * draws(2).normal((25, 2)) + 0.1
    fitted: Any = types.SimpleNamespace(model=lambda seed: model, draw=lambda count, seed: samples[:count], step=7)
    found = Stability(count=25).measure(Subject(fitted, 5, DataSet("made", test, test, test), tmp_path))
    squares = [float(x.square().sum(1).mean()) for x in (test[:25], samples)]
    means = test[:25].mean(0) - samples.mean(0)
    assert found == pytest.approx(
        {
            "stability/energy_gap": 1.5 * (squares[0] - squares[1]),
            "stability/slope_of_data": 3 * float(test[:25].norm(dim=1).mean()),
            "stability/slope_of_samples": 3 * float(samples.norm(dim=1).mean()),
            "stability/loss_gradient": ((squares[0] - squares[1]) ** 2 / 4 + 9 * float(means.square().sum())) ** 0.5,
        }
    )


def test_singular_values_are_those_of_the_weights_as_they_are_used() -> None:
    plain, normal = MLPEBM(2, width=6, layers=2), MLPEBM(2, width=6, layers=2, spectral_norm=True)
    found = singular_values(plain)
    assert list(found) == ["network.0", "network.2", "network.4"]
    assert found["network.2"] == pytest.approx(float(torch.linalg.matrix_norm(plain.network[2].weight.detach(), 2)))
    assert list(singular_values(normal).values()) == pytest.approx([1, 1, 1], rel=0.01)
    assert list(singular_values(GRBM(2, 3))) == ["W"]
    convolutions, normalised = (ConvEBM((1, 8, 8), 4, spectral_norm=one) for one in (False, True))
    kernel = convolutions.network[2].weight.detach().flatten(1)
    assert singular_values(convolutions)["network.2"] == pytest.approx(float(torch.linalg.matrix_norm(kernel, 2)))
    assert list(singular_values(normalised).values()) == pytest.approx([1, 1, 1], rel=0.03)


def test_it_is_measured_of_a_method_s_own_samples(tmp_path: Path) -> None:
    data = draws(1).normal((60, 2))
    fitted = ShortRun(k=3).fit(MLPEBM(2, width=4), data, steps=2, batch_size=20)
    found = Stability(count=30).measure(Subject(fitted, 0, DataSet("made", data, data, data), tmp_path))
    energies = [fitted.energy(x.float())[0].mean() for x in (data[:30], fitted.draw(30, 0))]
    assert found["stability/energy_gap"] == pytest.approx(float(energies[0] - energies[1]), abs=1e-6)
    assert found["stability/largest_singular_value"] == max(
        value for name, value in found.items() if "singular_value_" in name
    )


def test_what_it_does_not_suit() -> None:
    probe = PROBES["stability"]
    assert probe.unsuitable(IGEBM(), MLPEBM(2)) is None
    assert probe.unsuitable(CD(), GRBM(2, 3)) is None
    assert probe.unsuitable(CD(), RBM(2, 3)) == "v of the model is binary and has no slope"
    assert probe.unsuitable(BiDSM(), MLPEBLVM(2, 3)) is None
    said = "the model has no free energy, and its h are too many to sum over"
    assert probe.unsuitable(BiDSM(), MLPEBLVM(2, 30)) == said
    assert probe.unsuitable(BiMDSM(), ResNetEBLVM((1, 8, 8), 2, 1)) == said


def test_of_a_model_with_few_h_the_energy_is_their_sum(tmp_path: Path) -> None:
    """Its parts by differentiation of log sum exp over all h, written out."""
    torch.manual_seed(0)
    model, v, samples = MLPEBLVM(2, 3, width=4).double(), draws(1).normal((20, 2)), draws(2).normal((20, 2))
    fitted: Any = types.SimpleNamespace(model=lambda seed: model, draw=lambda count, seed: samples, step=7)
    found = Stability(count=20).measure(Subject(fitted, 5, DataSet("made", v, v, v), tmp_path))
    h = configurations(3)

    def energy(x: Tensor) -> Tensor:
        return -torch.stack([-model.energy(x, one.expand(len(x), -1)) for one in h]).logsumexp(0)

    gap = energy(v).mean() - energy(samples).mean()
    at = v.clone().requires_grad_()
    (slope,) = torch.autograd.grad(energy(at).sum(), at)
    gradient = torch.autograd.grad(gap, list(model.parameters()))
    assert found["stability/energy_gap"] == pytest.approx(float(gap.detach()))
    assert found["stability/slope_of_data"] == pytest.approx(float(slope.norm(dim=1).mean()))
    assert found["stability/loss_gradient"] == pytest.approx(float(sum(x.square().sum() for x in gradient) ** 0.5))
