"""Lower bounds of log-likelihoods, measured of what was trained."""

from pathlib import Path
from typing import Any

import pytest
import torch

from baselines import CD, PCD, TrainDBM, TrainDBN
from benchmark.data.datasets import DataSet
from benchmark.measures.evaluation import evaluate
from benchmark.measures.probes import Bound, Subject
from benchmark.records.metrics import metric_of, ranked_by
from bism import DBM, DBN, GRBM, RBM, enumeration, log_partition
from bism.resnet import ResNetEBLVM
from bism.rng import Rng

OPTIONS: dict[str, Any] = {"chains": 200, "steps": [50], "sweeps": 20, "particles": 20}


@pytest.fixture(scope="module")
def data() -> DataSet:
    """Rows of bars."""
    rng = Rng(torch.Generator().manual_seed(1))
    rows = (rng.uniform((120, 3)) < 0.5).float().repeat_interleave(2, 1)
    return DataSet("bars", rows[:100], rows[100:110], rows[110:])


CASES = {
    "dbm": (TrainDBM(lr=0.05), DBM(6, [3, 4])),
    "dbn": (TrainDBN(lr=0.05, lr_posterior=0.05), DBN(6, [3, 4])),
    "rbm": (PCD(lr=0.05), RBM(6, 3)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_bound_is_below_the_exact_likelihood_and_ais_finds_the_same(
    name: str, data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, model = CASES[name]
    fitted = method.fit(model, data.train, seeds=[2], steps=60, batch_size=20, compile=False)
    assert Bound.unsuitable(method, model) is None
    subject = Subject(fitted, 2, data, Path("nowhere"))
    exact = Bound(**OPTIONS).measure(subject)
    (likelihood,) = evaluate(fitted, data, ["log_likelihood"])
    for split in ("val", "test"):
        bound = exact[f"{split}/log_likelihood_bound"]
        assert bound == exact[f"{split}/log_likelihood_bound_lower"] == exact[f"{split}/log_likelihood_bound_upper"]
        if name == "rbm":
            assert bound == pytest.approx(likelihood[f"{split}/log_likelihood"], abs=1e-4)
        elif name == "dbm":
            assert likelihood[f"{split}/log_likelihood"] - 1.0 < bound < likelihood[f"{split}/log_likelihood"]
        else:  # below it on average over the posterior's samples
            assert bound == pytest.approx(likelihood[f"{split}/log_likelihood"], abs=0.2)
        assert exact[f"{split}/log_likelihood_bound_stderr"] == 0
    assert exact["bound/log_z"] == pytest.approx(log_partition(fitted.model(2)), abs=1e-9)

    monkeypatch.setattr(enumeration, "ENUMERABLE", 2)
    found = Bound(**OPTIONS).measure(subject)
    error = found["test/log_likelihood_bound_stderr"]
    assert 0 < error < 0.1
    assert found["test/log_likelihood_bound"] == pytest.approx(exact["test/log_likelihood_bound"], abs=4 * error + 1e-3)
    ends = [found[f"test/log_likelihood_bound{end}"] for end in ("_lower", "", "_upper")]
    assert ends == sorted(ends)
    assert ends[0] < exact["test/log_likelihood_bound"] < ends[2]


def test_what_cannot_be_bounded() -> None:
    assert "no annealing path" in str(Bound.unsuitable(CD(), ResNetEBLVM((1, 8, 8), hidden=2, width=2, layers=12)))
    assert "trains no posterior" in str(Bound.unsuitable(CD(), DBN(3, [2, 2])))
    assert "2^21" in str(Bound.unsuitable(TrainDBM(), DBM(3, [21, 2], units="gaussian")))
    assert Bound.unsuitable(TrainDBM(), DBM(30, [25, 25])) is None
    assert Bound.unsuitable(CD(), GRBM(3, 30)) is None


def test_models_are_ranked_by_the_bound_where_there_is_no_likelihood() -> None:
    assert ranked_by(["test/log_likelihood_bound", "test/log_likelihood"]) == "test/log_likelihood"
    assert ranked_by(["test/log_likelihood_bound", "val/objective"]) == "test/log_likelihood_bound"
    assert metric_of("test/log_likelihood_bound").higher
