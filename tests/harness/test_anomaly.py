"""A class that is held out, and how it is found by scores that are known."""

import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baselines.lebm import LEBM
from baselines.vae import VAE
from benchmark.data.datasets import DataSet, load
from benchmark.measures.evaluation import in_own_units
from benchmark.measures.probes import Aggregate, Anomaly, Subject
from benchmark.measures.probes.latents import hidden_means
from benchmark.records.metrics import metric_of
from bism import GRBM, RBM
from bism.errors import InputError
from bism.latent import latent_mlp
from bism.latent_likelihood import posterior_mean
from bism.resnet import ResNetEBLVM
from tests.harness.known_images import arrays
from tests.harness.test_out_of_distribution import Given
from tests.harness.tiny import command, replaced, write
from tests.maths.test_latent import exact_posterior, linear_gaussian, rng
from tests.maths.test_latent_likelihood import posterior_of


def test_a_class_is_left_out_of_training_and_validation() -> None:
    whole, made = load({"name": "digits"}, Path()), load({"name": "digits", "held_out": 4}, Path())
    assert whole.labels is not None
    assert made.labels is not None
    for index, name in enumerate(("train", "val")):
        kept = whole.labels[index] != 4
        assert torch.equal(getattr(made, name), getattr(whole, name)[kept])
        assert torch.equal(made.labels[index], whole.labels[index][kept])
        assert 0 < int(kept.sum()) < len(kept)
    assert torch.equal(made.test, whole.test)
    assert torch.equal(made.labels[2], whole.labels[2])
    sizes = {"hash": made.hash, "train": len(made.train), "val": len(made.val), "held_out": 4}
    assert made.description == {**whole.description, **sizes}
    assert load({"name": "digits", "held_out": 4, "crop": 4, "binarize": 0.5}, Path()).held_out == 4


def test_what_cannot_be_held_out_is_refused() -> None:
    with pytest.raises(InputError, match=r"digits has no class 12 to be held out; it has \[0, 1, 2"):
        load({"name": "digits", "held_out": 12}, Path())
    with pytest.raises(InputError, match="checkerboard has no classes here"):
        load({"name": "checkerboard", "held_out": 1}, Path())


def made(test: torch.Tensor, labels: torch.Tensor, model: Any, posterior: Any, folder: Path) -> Subject:
    data = DataSet(
        "made", test[labels == 0], test[:2], test, None, (labels[labels == 0], labels[:2], labels), held_out=1
    )
    fitted: Any = types.SimpleNamespace(joint=lambda seed: (model, posterior), model=lambda seed: model, step=7)
    return Subject(fitted, 5, data, folder)


def test_precision_of_given_scores(tmp_path: Path) -> None:
    """Ranks 1 and 3 of 4 are of the class: average precision (1/1 + 2/3) / 2, and 3 of 4 pairs are in order."""
    v = torch.tensor([[4.0, 0.1], [3.0, -0.2], [2.0, 0.3], [1.0, 0.0]])
    about = made(v, torch.tensor([1, 0, 1, 0]), Given(lambda rows: rows[:, 0]), None, tmp_path)
    found = Anomaly().measure(about)
    assert found["anomaly/auprc"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["anomaly/auroc"] == pytest.approx(3 / 4)
    assert found["anomaly/share"] == 0.5
    written = arrays(tmp_path, "anomaly")
    assert written["energy"].tolist() == [4, 3, 2, 1]
    assert written["held_out"].tolist() == [True, False, True, False]
    assert set(written) == {"step", "held_out", "energy", "gaussian"}
    assert metric_of("anomaly/auprc").higher
    assert metric_of("anomaly/auroc_gaussian").higher
    assert metric_of("anomaly/auprc_reconstruction").higher


def test_the_score_is_the_joint_energy_at_the_posteriors_mean(tmp_path: Path) -> None:
    model = linear_gaussian(5, 2, 0.4)
    v = torch.cat([model.draw(40, rng(1)), 4 * rng(2).normal((20, 5))])
    labels = (torch.arange(60) >= 40).long()
    found = Anomaly().measure(made(v, labels, model, posterior_of(model), tmp_path))
    written, h = arrays(tmp_path, "anomaly"), exact_posterior(model, v)[0]
    torch.testing.assert_close(written["energy"], model.energy(v, h).float())
    torch.testing.assert_close(written["reconstruction"], (v - model.decoder(h)).square().sum(1).float())
    assert found["anomaly/auprc"] > 0.9
    assert found["anomaly/auroc_gaussian"] > 0.9
    without = Anomaly().measure(made(v, labels, model, None, tmp_path / "none"))
    energy = arrays(tmp_path / "none", "anomaly")["energy"].double()
    above = energy - model.energy(v, h)  # at one h ~ p(h|v) half a chi-square of 2; at the mean of 5, a fifth of it
    assert float(above.min()) > -1e-4
    assert float(above[:40].mean()) < 0.5
    assert without["anomaly/auroc"] > 0.9


def test_scaled_data_are_judged_in_the_units_of_the_training(tmp_path: Path) -> None:
    """And codes are those of the training's posterior."""
    v, labels = 3 + 10 * torch.randn(40, 4).double(), (torch.arange(40) % 2,) * 3
    data = DataSet("made", v, v[:4], v, None, (labels[0], labels[1][:4], labels[2]), held_out=1).scaled("standard")
    fitted = VAE().fit(latent_mlp(4, 2, width=4), data.train, seeds=[1], steps=1, compile=False)
    own, own_data = in_own_units(fitted, data)
    assert Anomaly().measure(Subject(own, 1, own_data, tmp_path))["anomaly/share"] == 0.5
    model, q = fitted.joint(1)
    written = torch.from_numpy(np.load(tmp_path / "anomaly_step_00000001.npz")["energy"])
    torch.testing.assert_close(written, model.energy(data.test, q.mean(data.test)), atol=1e-3, rtol=1e-4)
    assert "latent/mmd_prior" in Aggregate().measure(Subject(own, 1, own_data, tmp_path))


def test_features_of_a_model_without_an_encoder_and_with_scaled_data(tmp_path: Path) -> None:
    """They are those of the training, in its precision: it failed where data had been scaled."""
    data = DataSet("made", *(3 + 10 * torch.randn(count, 4) for count in (40, 4, 6))).scaled("standard")
    fitted = LEBM(prior_steps=1, posterior_steps=1).fit(
        latent_mlp(4, 2, prior="tilted", width=4), data.train, seeds=[1], steps=1, compile=False
    )
    own, own_data = in_own_units(fitted, data)
    found = hidden_means(Subject(own, 1, own_data, tmp_path), own_data.test)
    torch.testing.assert_close(found, posterior_mean(fitted.joint(1)[0], data.test.float(), seed=1), atol=1e-3, rtol=0)


def test_the_aggregate_posterior_of_a_model_without_an_encoder_has_independent_draws(tmp_path: Path) -> None:
    """Of the same v in several parts none is drawn twice: all parts had the same noise."""
    model = linear_gaussian(5, 2, 0.4)
    v = model.draw(1, rng(1)).expand(600, 5)
    Aggregate(examples=600, steps=3).measure(made(v, torch.zeros(600).long(), model, None, tmp_path))
    assert len(arrays(tmp_path, "aggregate")["aggregate"].unique(dim=0)) == 600


def test_scores_that_are_not_finite_are_said_to_be(tmp_path: Path) -> None:
    v = torch.randn(6, 2)
    about = made(v, torch.tensor([1, 0, 1, 0, 0, 0]), Given(lambda rows: rows[:, 0] * float("nan")), None, tmp_path)
    with pytest.warns(UserWarning, match="anomaly/auprc was not computed: scores that are not finite"):
        assert "anomaly/auprc" not in Anomaly().measure(about)


def test_what_it_suits(tmp_path: Path) -> None:
    assert Anomaly.unsuitable(VAE(), latent_mlp(2, 5)) is None
    assert Anomaly.unsuitable(VAE(), GRBM(2, 2)) is None
    assert Anomaly.unsuitable(VAE(), RBM(2, 2)) is None
    assert Anomaly.unsuitable(VAE(), ResNetEBLVM((1, 8, 8), hidden=2, width=2, layers=12)) is None
    probe = "all: {lr: 0.01}\n        probes: [{name: anomaly, at: [last]}]"
    write(tmp_path, replaced(("all: {lr: 0.01}", probe)))
    answer = command(tmp_path, "run", "--suite", "tiny.yaml", "--dry-run")
    assert answer.code == 2
    assert "task board: the probe anomaly cannot be used: no class was held out: data: {name: digits" in answer.err
