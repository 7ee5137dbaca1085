"""Trained models in MLflow: which ones, and that they score and sample as they did."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from baselines.dsm import DSM
from benchmark.records.rundir import RunDir
from benchmark.tracking import cells as tracking
from bism import GRBM, InputError, log_likelihood
from bism.engine import Trainer
from bism.enumeration import exact_samples
from bism.rng import Rng, generator
from bism.sampling import gibbs, gibbs_noise
from tests.harness.hand_made import ENVIRONMENT, Cells, search
from tests.maths.test_samplers import EnergyAlone


def predict(uri: str, store: str, table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What a model in the store says of a table, and 50 samples of seed 3, in another process and folder."""
    code = (
        "import sys, pandas, mlflow; mlflow.set_tracking_uri(sys.argv[2])\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "print('ANSWER' + model.predict(pandas.read_json(sys.stdin, dtype=False)).to_json(double_precision=15))\n"
        "print('ANSWER' + model.predict(None, params={'sample': 50, 'seed': 3}).to_json(double_precision=15))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, uri, store],
        input=table.to_json(double_precision=15),
        text=True,
        capture_output=True,
        check=False,
        env=ENVIRONMENT,
        cwd="/",
    )
    assert answer.returncode == 0, answer.stderr
    _, scores, samples = answer.stdout.split("ANSWER")
    return pd.DataFrame(json.loads(scores)), pd.DataFrame(json.loads(samples))


def models(tracker: tracking.Tracker, cells: Cells) -> dict[str, str]:
    """The logged model of each cell that has one."""
    return {
        run.data.tags["cell"]: output.model_id
        for run in search(tracker, cells.suite, "tags.kind = 'cell'")
        for output in run.outputs.model_outputs
    }


@pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")  # mlflow.pyfunc's own, when it is first imported
def test_the_best_seed_of_each_variant_is_logged_once_and_scores_as_it_did(
    tracker: tracking.Tracker, cells: Cells, run_dir: RunDir, capfd: pytest.CaptureFixture[str]
) -> None:
    import mlflow

    best, second = cells.add(seed=0), cells.add(seed=1)  # seed 0 has the higher log-likelihood
    worse = cells.add(seed=0, variant="SM", select="train/objective")
    run_dir.folder(worse).append(30, {"val/log_likelihood": 0.0, "train/objective": 9.0})
    better = cells.add(seed=1, variant="SM", select="train/objective")  # the lower, where it is no log-likelihood
    diverged = cells.add(seed=2)
    trainers = {cell: cells.train(cell, seed) for seed, cell in enumerate((best, second))}
    for cell in (worse, better, diverged):
        cells.train(cell, 0)
    for cell in (best, second, worse, better):
        cells.end(cell, "done")
    cells.end(diverged, "diverged")
    tracker.sync(run_dir.records())

    capfd.readouterr()
    tracker.log_models(run_dir.records(), "none")
    assert models(tracker, cells) == {}
    tracker.log_models(run_dir.records(), "best")
    logged = models(tracker, cells)
    assert set(logged) == {best, better}
    tracker.log_models(run_dir.records(), "best")
    assert models(tracker, cells) == logged
    tracker.log_models(run_dir.records(), "all")
    assert {**models(tracker, cells), **logged} == models(tracker, cells)
    assert set(models(tracker, cells)) == {best, second, worse, better}
    assert "".join(capfd.readouterr()) == ""  # no chatter

    model = tracker._client.get_logged_model(logged[best])
    assert (model.name, model.status.value, model.tags["variant"]) == ("model", "READY", "DSM")
    files = {file.name for file in Path(mlflow.artifacts.download_artifacts(model.artifact_location)).rglob("*")}
    assert not any(name.endswith(".pkl") for name in files)
    v = torch.rand(7, 2)
    scores, samples = predict(f"models:/{logged[best]}", tracker.uri, pd.DataFrame(v.numpy(), columns=["x", "y"]))
    expected = log_likelihood(trainers[best].fitted().model(0), v)
    np.testing.assert_allclose(scores["log_likelihood"], expected, rtol=0, atol=1e-10)
    rng = Rng(generator(3, 0, "samples", torch.device("cpu")), torch.float64)
    wanted = exact_samples(trainers[best].fitted().model(0).double(), 50, rng)
    np.testing.assert_allclose(samples.to_numpy(), wanted, rtol=0, atol=1e-10)


def loaded(cells: Cells, run_dir: RunDir, model: Any = None) -> tuple[Any, Any]:
    """The code of the logged models on a cell that was trained a little, with another model in its place if wanted."""
    from mlflow.pyfunc.model import PythonModelContext

    from benchmark.tracking.pyfunc import TrainedModel

    cell = cells.add(seed=0)
    cells.train(cell, 0)
    folder = run_dir.folder(cell)
    files = {"checkpoint": str(folder.artifacts / "best.pt"), "config": str(folder.path / "config.json")}
    context, made = PythonModelContext(files, {}), TrainedModel()
    made.load_context(context)
    if model is not None:
        made.model, made.log_z = model.double(), None
    return made, context


@pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")
def test_chains_of_a_model_that_cannot_be_enumerated_start_at_the_rows(cells: Cells, run_dir: RunDir) -> None:
    model, context = loaded(cells, run_dir, GRBM(2, 21))
    start = pd.DataFrame(torch.rand(3, 2).numpy(), columns=["x", "y"])
    drawn = model.predict(context, start, {"sample": 5, "sweeps": 2, "seed": 1})
    assert (list(drawn), len(drawn)) == (["x", "y"], 5)
    v = torch.tensor(start.to_numpy(), dtype=torch.float64)[[0, 1, 2, 0, 1]]
    rng = Rng(generator(1, 0, "samples", torch.device("cpu")), torch.float64)
    for _ in range(2):
        v = gibbs(model.model, v, gibbs_noise(model.model, 5, 1, rng))
    np.testing.assert_array_equal(drawn.to_numpy(), v.detach().numpy())
    alone = model.predict(context, None, {"sample": 4, "sweeps": 1})
    assert alone.shape == (4, 2)
    assert not alone.equals(model.predict(context, None, {"sample": 4, "sweeps": 1, "seed": 1}))


@pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")
def test_samples_that_cannot_be_drawn(cells: Cells, run_dir: RunDir) -> None:
    model, context = loaded(cells, run_dir)
    with pytest.raises(InputError, match="sample must be at least 1, got -1"):
        model.predict(context, None, {"sample": -1})
    model.model = EnergyAlone()
    with pytest.raises(InputError, match="EnergyAlone cannot be sampled: it has no draw"):
        model.predict(context, None, {"sample": 1})


def test_the_parameters_of_predict_are_those_of_the_signature() -> None:
    from benchmark.tracking.logged_models import _SIGNATURE
    from benchmark.tracking.pyfunc import SAMPLING

    assert {param.name: param.default for param in _SIGNATURE.params.params} == SAMPLING


def test_an_unknown_choice_of_models_is_refused(tracker: tracking.Tracker) -> None:
    with pytest.raises(InputError, match="best, all or none, got 'some'"):
        tracker.log_models([], "some")


@pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")
def test_a_model_says_what_is_wrong_with_a_table(cells: Cells, run_dir: RunDir) -> None:
    from mlflow.pyfunc.model import PythonModelContext

    from benchmark.tracking.pyfunc import TrainedModel

    def loaded(visible: int, hidden: int) -> Any:
        cell = cells.add(seed=hidden, model={"name": "grbm", "visible": visible, "hidden": hidden})
        folder, model = run_dir.folder(cell), TrainedModel()
        Trainer(DSM(), GRBM(visible, hidden), torch.rand(100, visible), seeds=[3]).save(folder.artifacts / "last.pt")
        artifacts = {"checkpoint": str(folder.artifacts / "last.pt"), "config": str(folder.path / "config.json")}
        model.load_context(PythonModelContext(artifacts, None))  # type: ignore[no-untyped-call]  # MLflow's
        return model

    model = loaded(visible=2, hidden=4)
    assert list(model.predict(None, pd.DataFrame([[0, 1]])).columns) == ["log_likelihood"]
    with pytest.raises(InputError, match=r"expected 2 numeric columns.*\(1, 3\)"):
        model.predict(None, pd.DataFrame([[0.0, 1.0, 2.0]]))
    with pytest.raises(InputError, match=r'expected 2 numeric columns.*; to sample, give params={"sample": 16}'):
        model.predict(None, None)
    with pytest.raises(InputError, match="row 1, column 0 is nan"):
        model.predict(None, pd.DataFrame([[0.0, 1.0], [math.nan, 1.0]]))
    with pytest.raises(InputError, match="expected 2 numeric columns"):
        model.predict(None, pd.DataFrame([["a", 1.0]]))
    large = loaded(visible=3, hidden=40)  # too many of both for log Z
    v = torch.tensor([[0.25, 0.5, 0.75]], dtype=torch.float64)
    answer = large.predict(None, pd.DataFrame(v.numpy()))
    expected = -float(large.model.free_energy(v).detach())
    assert answer["log_density_unnormalised"][0] == pytest.approx(expected, abs=1e-12)
