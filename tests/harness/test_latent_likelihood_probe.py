"""Log-likelihoods of latent models, measured of models of which they are known."""

import dataclasses
import json
import types
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from baselines.rae import RAE
from baselines.vae import VAE
from baselines.vae_gmm import VAEMixture
from benchmark.data.datasets import DataSet
from benchmark.measures.evaluation import in_own_units
from benchmark.measures.probes import LatentLikelihood, Subject
from benchmark.records.metrics import metric_of
from bism import GRBM, RBM, Estimator
from bism.errors import InputError
from bism.latent import LatentModel, latent_mlp
from bism.likelihood import log_density_bound
from bism.priors import StandardNormal
from bism.rng import Rng, generator
from tests.harness.tiny import command, journal, replaced, write
from tests.maths.test_latent import Linear, exact_log_likelihood, linear_gaussian, rng
from tests.maths.test_latent_likelihood import posterior_of

OPTIONS: dict[str, Any] = {"steps": 40, "leapfrogs": 2, "chains": 4, "simulated": 30, "particles": 200, "batch": 25}


def made(model: Any, posterior: Any, data: DataSet, folder: Path) -> Subject:
    fitted: Any = types.SimpleNamespace(joint=lambda seed: (model, posterior), step=7)
    return Subject(fitted, 5, data, folder)


@pytest.mark.parametrize("with_posterior", [True, False])
def test_bounds_hold_the_exact_value_between_them(with_posterior: bool, tmp_path: Path) -> None:
    model = linear_gaussian(5, 3, 0.4)
    v = model.draw(80, rng(4))
    data, q = DataSet("made", v, v[:40], v[40:]), posterior_of(model, 0.1) if with_posterior else None
    found = LatentLikelihood(**OPTIONS, examples=40).measure(made(model, q, data, tmp_path))
    for name, rows in (("val", data.val), ("test", data.test)):
        exact = float(exact_log_likelihood(model, rows).mean())
        low, bound, high = (found[f"{name}/log_likelihood_bound{end}"] for end in ("_lower", "", "_upper"))
        assert low < exact < high
        assert abs(bound - exact) < 0.3
        assert 1 < found[f"{name}/ais_effective_samples"] <= 4
        if with_posterior:
            assert abs(found[f"{name}/log_likelihood_iw"] - exact) < 5 * found[f"{name}/log_likelihood_iw_stderr"]
            assert 20 < found[f"{name}/iw_effective_samples"] < 200
    assert found["latent/draws_exact"] == 1
    assert found["latent/log_z"] == 0
    assert ("test/log_likelihood_iw" in found) == with_posterior


def test_a_tilted_prior_has_its_log_z_and_what_is_rough_is_said(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = latent_mlp(4, 3, prior="tilted", width=4, prior_width=4, sigma=0.02)
    model.prior.network[-1].bias.data.add_(3)  # log Z rises by 3, and p(v) is the same
    v = torch.randn(30, 4)
    rough = {**OPTIONS, "steps": 4, "prior_chains": 20, "prior_draws": 1000}
    said = "seed 5, step 7: .*of 4 chains for each example one counts: .*takes more temp"
    with pytest.warns(UserWarning, match=said):
        found = LatentLikelihood(**rough).measure(made(model, None, DataSet("made", v, v[:10], v), tmp_path))
    assert found["latent/draws_exact"] == 0
    assert found["latent/log_z_lower"] < found["latent/log_z"] < found["latent/log_z_upper"]
    assert abs(found["latent/log_z"] - 3) < 1
    assert found["latent/log_z_effective_samples"] > 100


def test_scaled_data_are_measured_in_their_own_units(tmp_path: Path) -> None:
    torch.manual_seed(0)
    rows = 3 + 10 * torch.randn(60, 4).double()
    data = DataSet("made", rows, rows[:20], rows[20:40]).scaled("standard")
    for codes in (1, 3):
        model = LatentModel(Linear(4, codes), StandardNormal(codes), sigma=0.7)
        fitted = VAE().fit(model, data.train, seeds=[1], steps=1, compile=False)
        own, own_data = in_own_units(fitted, data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = LatentLikelihood(**OPTIONS).measure(Subject(own, 1, own_data, tmp_path))
        assert data.scaling is not None
        exact = (
            exact_log_likelihood(fitted.model(1).double(), data.test.double()).mean() - data.scaling.factor.log().sum()
        )
        name = "test/log_likelihood" if codes == 1 else "test/log_likelihood_bound"
        assert found[name] == pytest.approx(float(exact), abs=1e-4 if codes == 1 else 0.3)


def test_what_it_suits() -> None:
    assert LatentLikelihood.unsuitable(VAE(), latent_mlp(2, 5)) is None
    assert "no real latent" in str(LatentLikelihood.unsuitable(VAE(), RBM(2, 2)))
    assert "no real latent" in str(LatentLikelihood.unsuitable(VAE(), GRBM(2, 2)))
    assert metric_of("test/log_likelihood_iw").higher


@pytest.mark.long
def test_a_suite_measures_and_ranks_by_it(tmp_path: Path) -> None:
    size = "{name: latent_mlp, codes: 1, width: 8, layers: 1}"
    text = replaced(
        ("{name: grbm, hidden: 3}", f"{size}\n    metrics: [log_likelihood]"),
        ("{method: cd}", "{method: vae}"),
        ("          - {method: bidsm}\n", ""),
        ("all: {lr: 0.01}", "all: {lr: 0.01}\n        probes: [{name: latent_likelihood, at: [last]}]"),
    )
    write(tmp_path, text)
    answer = command(tmp_path, "run", "--suite", "tiny.yaml", "--seeds", "0")
    assert (answer.code, answer.err) == (0, "")
    last = journal(tmp_path, "VAE", 0)
    values = [entry["metrics"]["test/log_likelihood"] for entry in last if "test/log_likelihood" in entry["metrics"]]
    assert len(values) >= 2
    assert values[-1] == pytest.approx(values[-2], abs=1e-4)  # the probe's and the metric's


@pytest.mark.parametrize("method", [VAE(), RAE(components=2), VAEMixture(components=2)], ids=lambda method: method.id)
def test_a_logged_model_is_what_the_method_s_likelihoods_are_of(tmp_path: Path, method: Estimator) -> None:
    """With the prior that was fitted after training, and an encoder of the method's own kind."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's, about its own type hints
        from benchmark.tracking.pyfunc import TrainedModel
    v = torch.randn(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 3
    of_model = {"name": "latent_mlp", "codes": 3, "width": 4, "visible": 4}
    config = {"model": of_model, "data": {}, "method": method.id, "hyper": dataclasses.asdict(method)}
    (tmp_path / "config.json").write_text(json.dumps(config))
    fitted = method.fit(latent_mlp(4, 3, width=4), v, seeds=[5], steps=3, compile=False, dtype=torch.float64)
    fitted.save(tmp_path / "last.pt")
    paths = {"config": str(tmp_path / "config.json"), "checkpoint": str(tmp_path / "last.pt")}
    made: Any = TrainedModel()
    made.load_context(types.SimpleNamespace(artifacts=paths))
    model, posterior = fitted.joint(5)
    bound = made.predict(None, pd.DataFrame(v.numpy()))["log_density_bound"].to_numpy()
    assert torch.allclose(torch.tensor(bound), log_density_bound(model, posterior, v))
    samples = made.predict(None, None, {"sample": 2000, "seed": 1}).to_numpy()
    drawn = model.draw(2000, Rng(generator(1, 0, "samples", torch.device("cpu")), torch.float64))
    assert torch.allclose(torch.tensor(samples), drawn)


def test_a_logged_model_of_a_plug_in_s_has_no_bound_by_an_encoder_of_another_kind(tmp_path: Path) -> None:
    """A RAE's has other names than the model's own, which would be left at random."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's, about its own type hints
        from benchmark.tracking.pyfunc import TrainedModel
    v = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    of_model = {"name": "latent_mlp", "codes": 3, "width": 4, "visible": 4}
    (tmp_path / "config.json").write_text(json.dumps({"model": of_model, "data": {}, "method": "ours", "hyper": {}}))
    paths = {"config": str(tmp_path / "config.json"), "checkpoint": str(tmp_path / "last.pt")}
    RAE(components=2).fit(latent_mlp(4, 3, width=4), v, steps=1, compile=False).save(tmp_path / "last.pt")
    made: Any = TrainedModel()
    made.load_context(types.SimpleNamespace(artifacts=paths))
    assert made.predict(None, None, {"sample": 3}).shape == (3, 4)
    with pytest.raises(InputError, match="without an encoder of the usual kind there is no bound"):
        made.predict(None, pd.DataFrame(v.numpy()))
