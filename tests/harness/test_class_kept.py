"""Whether samples given h keep the class of the image that h is of, on models of which h holds all of it or nothing."""

import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines import CD, MDSM
from baselines.lebm import LEBM
from baselines.vae import VAE
from benchmark.data.datasets import DataSet
from benchmark.measures.probes import ClassKept, Features, Subject, latents
from benchmark.measures.probes.latents import hidden_mean, hidden_means, share_of_h
from bism import GRBM, BiMDSM
from bism.latent import latent_mlp
from bism.latent_likelihood import posterior_mean
from bism.resnet import ResNetEBLVM, ResNetEBM
from bism.scaling import Scaling
from tests.harness.known_images import HIDDEN, Known, Pictures, data_of, images, subject
from tests.maths.test_latent import linear_gaussian, posterior_of, rng

CONSTANT = {"steps": 120, "first": 1.0, "last": 1.0}


class Nothing:
    """A posterior of which E[h|v] is the same for every v."""

    def mean(self, v: Tensor) -> Tensor:
        return v.new_ones(len(v), HIDDEN)


@pytest.fixture
def pictures() -> tuple[Any, DataSet]:
    """A model, and images of its own in two classes, which lie where its h is far from 0 on either side."""
    torch.manual_seed(2)
    model = Pictures().double().requires_grad_(False)
    side = torch.arange(60) % 2
    h = (6.0 * (2 * side - 1)).double().unsqueeze(1).expand(-1, HIDDEN)
    return model, data_of(model.of(h) + 0.3 * torch.randn(60, 1, 2, 2, dtype=torch.float64), side)


@pytest.mark.parametrize("holds", [True, False])
def test_samples_by_langevin_dynamics_keep_the_class_that_h_holds(
    pictures: tuple[Any, DataSet], holds: bool, tmp_path: Path
) -> None:
    model, data = pictures
    probe = ClassKept(schedule=[CONSTANT], step_size=0.3, denoise=False, images=60)
    about = subject(tmp_path, model, Known(model) if holds else Nothing(), data)
    found = probe.measure(about)
    if holds:
        assert found["class_kept/share"] == 1
        assert found["class_kept/share_of_h"] > 0.9
    else:
        assert found["class_kept/share"] == 0.5
        assert found["class_kept/share_of_h"] < 1e-12
    assert found["class_kept/by_chance"] == 0.5
    assert found["class_kept/of_images"] == 1
    assert found["class_kept/share_of_h"] == pytest.approx(share_of_h(probe.samples(about, data.test)))


@pytest.mark.parametrize("scaling", [False, True])
def test_of_a_decoder_samples_are_drawn_and_h_is_found_without_a_network(scaling: bool, tmp_path: Path) -> None:
    model = linear_gaussian(4, 2, 0.2)
    h = torch.tensor([[2.0, 0.0], [-2.0, 0.0]], dtype=torch.float64).repeat(20, 1)
    rows, labels = model.visible_mean(h), torch.arange(40) % 2
    scale = Scaling.standard(rows + rng(1).normal(rows.shape))
    own = scale.own(rows) if scaling else rows
    data = DataSet("made", own, own, own, None, (labels,) * 3, scale if scaling else None)  # as a probe is given them
    fitted: Any = types.SimpleNamespace(
        model=lambda seed: scale.model(model) if scaling else model,
        joint=lambda seed: (model, None), estimator=LEBM(), step=3,
    )  # fmt: skip
    about = Subject(fitted, 5, data, tmp_path)
    torch.testing.assert_close(hidden_mean(about)(data.test), posterior_of(model).mean(rows), rtol=0, atol=0.9)
    found = ClassKept(images=40).measure(about)
    assert found["class_kept/share"] == 1
    assert found["class_kept/by_chance"] == 0.5


def test_what_annealing_finds_is_kept_for_the_next_probe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model, asked = linear_gaussian(4, 2, 0.2), list[int]()
    rows = model.draw(12, rng(1))
    fitted: Any = types.SimpleNamespace(model=lambda seed: model, joint=lambda seed: (model, None), estimator=LEBM())
    about = Subject(fitted, 5, DataSet("made", rows, rows, rows), tmp_path)

    def counted(model: Any, v: Tensor, *, seed: int) -> Tensor:
        asked.append(len(v))
        return posterior_mean(model, v, seed=seed)

    monkeypatch.setattr(latents, "posterior_mean", counted)
    found = [hidden_means(about, part) for part in (rows, rows.clone(), rows[:5])]
    assert asked == [12, 5]
    assert torch.equal(found[0], found[1])
    torch.testing.assert_close(found[0], posterior_of(model).mean(rows).float(), rtol=0, atol=0.9)


def test_what_they_suit() -> None:
    assert "has no classes" in str(ClassKept.lacking(data_of(images(4))))
    latent = latent_mlp(3, 2)
    for probe in (ClassKept, Features):
        assert probe.unsuitable(VAE(), latent) is None
        assert probe.unsuitable(LEBM(), latent) is None
        assert probe.unsuitable(BiMDSM(), ResNetEBLVM((1, 8, 8), 2, 4)) is None
        assert probe.unsuitable(MDSM(), ResNetEBM((1, 8, 8), 4)) == "the model has no latent variables"
    assert ClassKept.unsuitable(CD(), GRBM(4, 2)) == "h is binary, and E[h|v] is no value of it"
