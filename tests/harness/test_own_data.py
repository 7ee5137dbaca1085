"""Data, models and data sets of one's own, from a file or a plug-in, through the whole product."""

import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from benchmark.data import datasets
from benchmark.data.datasets import load
from benchmark.tasks import models
from bism import sampling
from bism.checkpoint import load_checkpoint
from bism.errors import InputError
from bism.likelihood import log_likelihood, log_partition
from bism.models import GRBM
from bism.scaling import Scaling
from tests.harness.tiny import Said, cell, command, journal, replaced, states, write

BOARD = "{name: checkerboard, train: 500, val: 200, test: 200}"
MODEL = "{name: grbm, hidden: 3}"


def far(folder: Path) -> Path:
    """Points between -1000 and 1000 around two centres, and a third column that is constant."""
    random = np.random.RandomState(0)
    plane = np.array([[-700.0, -600.0], [600.0, 700.0]])[random.randint(2, size=300)] + random.normal(
        size=(300, 2), scale=80
    )
    np.save(folder / "far.npy", np.column_stack([plane, np.full(300, 0.1)]))
    return folder / "far.npy"


def run(folder: Path, data: str, model: str = MODEL, *more: str) -> Said:
    write(folder, replaced((BOARD, data), (MODEL, model), ("          - {method: bidsm}\n", "")))
    return command(folder, "run", "--suite", "tiny.yaml", *more)


def config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((cell(folder, "CD-1", 0).path / "config.json").read_text())
    return found


def trained(folder: Path) -> GRBM:
    """The last model of the first seed, in the units of its training."""
    saved = load_checkpoint(cell(folder, "CD-1", 0).artifacts / "last.pt")["tensors"]["state"]["params"]["model"]
    model = GRBM(3, 3).double()
    model.load_state_dict({name: tensor[0] for name, tensor in saved.items()})
    return model


@pytest.mark.parametrize("kind", ["standard", pytest.param("unit", marks=pytest.mark.long)])
def test_scaled_data_are_reported_in_their_own_units(tmp_path: Path, kind: str) -> None:
    file = far(tmp_path)
    said = run(tmp_path, f"{{file: far.npy, scale: {kind}}}")
    assert (said.code, said.err) == (0, "")
    assert ("1 columns are constant in the training data (2)" in said.out) == (kind == "standard")
    assert "far from the mean" not in said.out
    array = np.load(file)
    train, test = (array[np.random.RandomState(0).permutation(300)][rows] for rows in (slice(240), slice(270, None)))
    shift, factor = train.mean(0), np.append(train.std(0)[:2], 1.0)
    if kind == "unit":
        shift, factor = np.full(3, train.min()), np.full(3, train.max() - train.min())
    record = config(tmp_path)["data"]["scaling"]
    assert record["kind"] == kind
    assert np.allclose(record["shift"], shift)
    assert np.allclose(record["factor"], factor)

    model, y = trained(tmp_path), torch.tensor((test - shift) / factor)
    expected = log_likelihood(model, y, log_partition(model)) - float(np.log(factor).sum())
    last = journal(tmp_path, "CD-1", 0)[-1]["metrics"]
    assert last["test/log_likelihood"] == pytest.approx(float(expected.mean()), abs=1e-4)
    with torch.no_grad():
        p = model.hidden_logits(y).sigmoid()
        score = model.score_and_laplacian(y)[0] / torch.tensor(factor)
        trace = ((p * (1 - p)) @ model.W.T.square() - (-2 * model.log_s).exp()) / torch.tensor(factor).square()
    divergence = 0.5 * score.square().sum(1) + trace.sum(1)
    assert last["test/fisher_divergence"] == pytest.approx(float(divergence.mean()), rel=1e-4)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's, about its own type hints
        from benchmark.tracking.pyfunc import TrainedModel

    of_mlflow, folder = TrainedModel(), cell(tmp_path, "CD-1", 0)
    paths = {"config": str(folder.path / "config.json"), "checkpoint": str(folder.artifacts / "last.pt")}
    of_mlflow.load_context(SimpleNamespace(artifacts=paths))  # type: ignore[arg-type]  # all that it reads of it
    found = of_mlflow.predict(None, pd.DataFrame(test))["log_likelihood"]  # type: ignore[arg-type]  # as above
    assert np.allclose(found, expected)


def test_data_that_are_far_from_where_models_start_get_a_line(tmp_path: Path) -> None:
    far(tmp_path)
    said = run(tmp_path, "{file: far.npy}", MODEL, "--dry-run")
    assert said.out.count("note: ") == 1
    assert "note: task board: the values lie between -" in said.out
    assert "data: {scale: standard}" in " ".join(said.out.split())
    assert "note" not in run(tmp_path, "{file: far.npy, scale: unit}", MODEL, "--dry-run").out
    assert "note" not in run(tmp_path, BOARD, MODEL, "--dry-run").out


def test_a_run_says_so_once_and_the_state_of_runs_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    far(tmp_path)
    for said in (run(tmp_path, "{file: far.npy}", MODEL, "--seeds", "0", "--steps", "2"), command(tmp_path, "status")):
        assert said.out.count("note: ") == 1
        start = [line.startswith("note: ") for line in said.out.splitlines()].index(True)
        assert all(len(line) <= 80 for line in said.out.splitlines()[start : start + 4])


def test_tuning_says_so_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmark.commands import tune as tuning

    def stop(*_: object) -> None:
        raise InputError("stopped by the test")

    monkeypatch.setattr(tuning, "open_study", stop)
    far(tmp_path)
    write(tmp_path, replaced((BOARD, "{file: far.npy}"), ("          - {method: bidsm}\n", "")))
    said = command(tmp_path, "tune", "--suite", "tiny.yaml", "--methods", "cd")
    assert said.err == "error: stopped by the test\n"
    assert "note: task board: the values lie between -" in said.out


def test_samples_of_a_model_of_scaled_data_start_in_its_units(monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's, about its own type hints
        from benchmark.tracking import pyfunc

    model: Any = pyfunc.TrainedModel()
    model.scaling = Scaling("standard", torch.tensor([-700.0, 5.0]).double(), torch.tensor([80.0, 0.1]).double())
    model.model, model.log_z = model.scaling.model(GRBM(2, 30).double()), None
    monkeypatch.setattr(sampling, "walk", lambda model, chains, noise: chains)  # where chains start
    found = model.predict(None, None, params={"sample": 2000, "sweeps": 1})
    assert found.mean().tolist() == pytest.approx([-700, 5.0], rel=0.01)
    assert found.std().tolist() == pytest.approx([80, 0.1], rel=0.1)
    model.scaling = None
    assert abs(float(model.predict(None, None, params={"sample": 2000, "sweeps": 1})[0].mean())) < 0.1


def test_a_start_from_the_data_through_the_product(tmp_path: Path) -> None:
    far(tmp_path)
    said = run(tmp_path, "{file: far.npy}", "{name: grbm, hidden: 3, init: data}")
    assert said.code == 0
    for text in (said.out, command(tmp_path, "status").out):  # once, and whenever one looks
        words = " ".join(text.split())
        assert words.count("the values lie between -") == 1
        assert words.count("data: {scale: standard}") == 1
    assert config(tmp_path)["model"] == {"name": "grbm", "visible": 3, "hidden": 3, "init": "data"}
    first = journal(tmp_path, "CD-1", 0)[0]["metrics"]["test/log_likelihood"]
    assert -25 < first < 0  # two units with a standard deviation of 650 each, and one of scale 1: about -16


def test_what_is_not_given_is_not_in_the_configuration(tmp_path: Path) -> None:
    # so that the cells of suites that know nothing of it keep their ids
    assert run(tmp_path, BOARD, MODEL, "--steps", "2").code == 0
    (name,) = {variant for variant, _ in states(tmp_path)}
    found = json.loads((cell(tmp_path, name, 0).path / "config.json").read_text())
    assert set(found["data"]) == {"name", "hash", "train", "val", "test", "shape"}
    assert set(found["model"]) == {"name", "visible", "hidden"}
    plain, said = load({"name": "digits"}, tmp_path), load({"name": "digits", "scale": "none"}, tmp_path)
    assert plain.description == said.description


PLUGIN = '''\
"""A data set and a model, and no method."""

import torch

from benchmark.data.datasets import DATASETS, DataSet
from benchmark.tasks.models import MODELS
from bism import GRBM


def ring(folder):
    angle = 6.2832 * torch.rand(300, generator=torch.Generator().manual_seed(0))
    points = torch.stack([angle.cos(), angle.sin()], 1)
    return DataSet("ring", points[:200], points[200:250], points[250:])


class Stiff(GRBM):
    """A GRBM whose hidden units are multiplied."""

    def __init__(self, visible, hidden, copies=1):
        super().__init__(visible, hidden * copies)


DATASETS["ring"] = ring
MODELS["stiff"] = Stiff
'''


@pytest.fixture
def forgotten() -> Any:
    """Leaves the names of data sets and models as they were."""
    before = dict(datasets.DATASETS), dict(models.MODELS)
    yield
    for table, kept in zip((datasets.DATASETS, models.MODELS), before, strict=True):
        table.clear()
        table.update(kept)  # type: ignore[arg-type]  # each its own


@pytest.mark.usefixtures("forgotten")
def test_a_data_set_and_a_model_from_a_plug_in(tmp_path: Path) -> None:
    write(tmp_path, PLUGIN, "mine.py")
    said = run(tmp_path, "{name: ring, scale: standard}", "{name: stiff, hidden: 2, copies: 2}", "--plugin", "mine.py")
    assert (said.code, said.err) == (0, "")
    assert config(tmp_path)["model"] == {"name": "stiff", "visible": 2, "hidden": 2, "copies": 2}
    assert config(tmp_path)["data"]["name"] == "ring"


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("points[:200]", "points[:200].double()", "data set ring: train must be float32 [n, ...] with rows"),
        ("points[250:])", "points[250:] / 0)", "data set ring: row 0 of test has NaN or infinity"),
        ("hidden * copies", "-1", "model stiff cannot be made from {'hidden': 3}"),
    ],
)
def test_a_plug_in_s_mistakes_are_found_before_anything_trains(tmp_path: Path, old: str, new: str, what: str) -> None:
    assert PLUGIN.count(old) == 1
    write(tmp_path, PLUGIN.replace(old, new), "mine.py")
    said = run(tmp_path, "{name: ring}", "{name: stiff, hidden: 3}", "--plugin", "mine.py")
    assert said.code == 2
    assert what in said.err
