"""Classifiers that know few labels, and codes in the plane, on features and codes that are known."""

import types
from pathlib import Path
from typing import Any

import pytest
import torch

from baselines import CD
from baselines.two_stage_vae import TwoStageVAE
from baselines.vae import VAE
from benchmark.data.datasets import DataSet
from benchmark.measures.probes import Aggregate, FewLabels, Subject
from benchmark.measures.probes.few_labels import _drawn
from benchmark.records.metrics import metric_of
from bism import DBN, GRBM
from bism.latent import latent_mlp
from tests.harness.known_images import arrays, data_of, images, subject
from tests.harness.test_latents import FirstPixels, separated
from tests.maths.test_latent import linear_gaussian, rng
from tests.maths.test_latent_likelihood import posterior_of


def test_features_that_separate_the_classes_need_one_label_of_each(tmp_path: Path) -> None:
    (train, train_labels), (test, test_labels) = separated(300, 1), separated(150, 2)
    data = DataSet("made", train, test[:10], test, (1, 8, 8), (train_labels, test_labels[:10], test_labels))
    about = subject(tmp_path, FirstPixels(), FirstPixels(), data)
    with pytest.warns(UserWarning, match=r"latent/labels_200_accuracy was not measured: one class has \d+ of the 300"):
        found = FewLabels(labels=[1, 20, 200], draws=4).measure(about)
    assert found["latent/labels_1_accuracy"] == found["latent/labels_20_accuracy"] == 1
    assert found["latent/labels_1_accuracy_stderr"] == 0
    assert found["latent/labels_1_pixels_accuracy"] < 0.8 < found["latent/labels_20_pixels_accuracy"]
    assert 0 < found["latent/labels_1_pixels_accuracy_stderr"] < 0.2
    assert len(found) == 8
    assert metric_of("latent/labels_1_pixels_accuracy").higher


def test_labelled_examples_are_as_many_of_each_class_and_others_at_each_draw() -> None:
    classes = torch.tensor([0] * 10 + [1] * 30 + [7] * 20)[torch.randperm(60)]
    draws = [_drawn(classes, 5, torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    for rows in draws:
        assert torch.bincount(classes[rows], minlength=8).tolist() == [5, 5, 0, 0, 0, 0, 0, 5]
        assert len(set(rows.tolist())) == 15
    assert set(draws[0].tolist()) != set(draws[1].tolist())


def test_what_they_suit() -> None:
    assert "has no classes" in str(FewLabels.lacking(data_of(images(4))))
    assert FewLabels.lacking(data_of(images(4), torch.zeros(4).long())) is None
    assert FewLabels.unsuitable(CD(), GRBM(4, 2)) is None
    assert FewLabels.unsuitable(CD(), DBN(4, [3, 2])) == "this method trains no posterior"
    assert Aggregate.unsuitable(VAE(), latent_mlp(3, 2)) is None
    assert "two real codes" in str(Aggregate.unsuitable(VAE(), latent_mlp(3, 3)))
    assert "two real codes" in str(Aggregate.unsuitable(CD(), GRBM(3, 2)))


@pytest.mark.parametrize("with_posterior", [True, False])
def test_the_aggregate_posterior_of_the_models_own_draws_is_its_prior(with_posterior: bool, tmp_path: Path) -> None:
    model = linear_gaussian(6, 2, 0.3)
    model.decoder.layer.weight.copy_(torch.eye(6, 2, dtype=torch.float64))  # a diagonal posterior
    v = model.draw(400, rng(3))
    q: Any = posterior_of(model) if with_posterior else None
    fitted: Any = types.SimpleNamespace(joint=lambda seed: (model, q), model=lambda seed: model, step=7)
    for shift, labels in ((0.0, None), (3.0, (torch.arange(400) % 3,) * 3)):
        rows = v + torch.nn.functional.pad(torch.full((400, 2), shift, dtype=torch.float64), (0, 4))
        data = DataSet("made", rows, rows, rows, None, labels)
        found = Aggregate(steps=40).measure(Subject(fitted, 5, data, tmp_path))
        written = arrays(tmp_path, "aggregate")
        assert set(written) - {"labels"} == {"step", "prior", "normal", "aggregate"}
        if shift:
            assert found["latent/mmd_prior"] > 0.3
            assert "labels" in written
        else:
            assert abs(found["latent/mmd_prior"]) < 0.01
            assert abs(found["latent/mmd_normal"]) < 0.01
            torch.testing.assert_close(written["aggregate"].T.cov(), torch.eye(2), atol=0.25, rtol=0)


def test_of_codes_of_codes_the_first_are_drawn(tmp_path: Path) -> None:
    v = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    method = TwoStageVAE(second_width=4, second_layers=1)
    fitted = method.fit(latent_mlp(3, 2, learn_sigma=True, width=4), v, steps=7, compile=False)
    found = Aggregate().measure(Subject(fitted, 0, DataSet("made", v, v, v), tmp_path))
    written, (_, posterior) = arrays(tmp_path, "aggregate"), fitted.joint(0)
    assert all(written[name].shape == (40, 2) for name in ("prior", "normal", "aggregate"))
    off = torch.as_tensor(written["aggregate"]) - posterior.first.mean(v)
    spread = posterior.first.sample(v, torch.ones(40, 2)) - posterior.first.mean(v)
    assert 0.7 < float((off / spread).std()) < 1.3  # q(z|v), and not q(u|z)
    assert set(found) == {"latent/mmd_prior", "latent/mmd_normal"}
