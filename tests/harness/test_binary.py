"""Models of binary v through the whole product: their data, what is refused, what is measured and shown."""

import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from benchmark.data.datasets import DataSet, load
from benchmark.measures.pictures import can_picture
from benchmark.tasks import registry
from benchmark.tasks.suite_file import load_suite
from bism import RBM, InputError, log_likelihood
from bism.checkpoint import load_checkpoint
from tests.contracts.cases import fit, small
from tests.harness.tiny import cell, command, journal, replaced, write

DIGITS = "data: {name: checkerboard, train: 500, val: 200, test: 200}"
BINARY = replaced(
    (DIGITS, "data: {name: digits, binarize: 0.5}"),
    ("model: {name: grbm, hidden: 3}", "model: {name: rbm, hidden: 3, init: data}\n    metrics: [log_likelihood]"),
    ("all: {lr: 0.01}", "all: {lr: 0.01, noise_distribution: bernoulli}"),
    ("{method: bidsm}", "{method: nce}"),
    ("evaluations: 4", "evaluations: 1"),
)


def test_values_above_the_threshold_are_ones() -> None:
    whole, made = load({"name": "digits"}, Path()), load({"name": "digits", "binarize": 0.25}, Path())
    for split in ("train", "val", "test"):
        assert torch.equal(getattr(made, split), (getattr(whole, split) > 0.25).float())
    assert made.description == {**whole.description, "hash": made.hash, "binarize": 0.25}
    assert made.hash != whole.hash
    assert made.image == whole.image
    with pytest.raises(InputError, match="the 1297 training rows are all the same with binarize: 2, which leaves"):
        load({"name": "digits", "binarize": 2.0}, Path())


def test_sampled_ones_have_the_values_as_their_probabilities() -> None:
    made, again = (load({"name": "digits", "binarize": "sample"}, Path()) for _ in range(2))
    whole = load({"name": "digits"}, Path())
    assert made.hash == again.hash
    assert made.description == {**whole.description, "hash": made.hash, "binarize": "sample"}
    for split in ("train", "val", "test"):
        ones, p = getattr(made, split), getattr(whole, split).double()
        assert set(ones.unique().tolist()) == {0.0, 1.0}
        for chosen in ((p > 0.1) & (p < 0.3), (p > 0.45) & (p < 0.55), p > 0.8):  # within five standard errors
            wanted, error = p[chosen].mean(), (p[chosen] * (1 - p[chosen])).sum().sqrt() / chosen.sum()
            assert abs(ones[chosen].double().mean() - wanted) < 5 * error
    parts = made.train[: len(made.test)], made.val[: len(made.test)]
    assert not any(torch.equal(made.test, part) for part in parts)


def test_values_that_are_no_probabilities_cannot_be_drawn_with() -> None:
    v = torch.tensor([[0.0, 0.5], [1.5, 1.0]])
    with pytest.raises(
        InputError, match=r"binarize: sample takes values from 0 to 1, as probabilities, and .* 0 to 1\.5"
    ):
        DataSet("mine", v, v, v).binarised("sample")


def test_how_data_are_made_binary_is_listed(tmp_path: Path) -> None:
    answer = command(tmp_path, "list", "binary")
    assert answer.code == 0
    assert "1 above 0.5, else 0" in " ".join(answer.out.split())
    assert "binary, drawn once with the values as probabilities" in " ".join(answer.out.split())


REFUSED = {
    "not binarised": (
        (", binarize: 0.5", ""),
        "task board: data: v of RBM is binary, and of the training data row 0, unit 0 is 0.0",
    ),
    "scaled too": (
        ("binarize: 0.5", "binarize: 0.5, scale: unit"),
        "tiny.yaml:7: tasks.board.data.scale: unit takes what binarize makes away from 0 and 1: one of the two",
    ),
    "scaled": (("binarize: 0.5", "scale: standard"), "v of RBM is binary, and scale: standard leaves no 0 and 1"),
    "noise on the data": (
        ("{method: cd}", "{method: cd, data_noise: 0.1}"),
        "task board: cd: data_noise must be 0 where v is binary, as it is in RBM, got 0.1",
    ),
    "a metric": (
        ("[log_likelihood]", "[log_likelihood, fisher_divergence]"),
        "task board: the metric fisher_divergence is undefined, for v of RBM is binary and has no score",
    ),
    "a method": (
        ("{method: cd}", "{method: bidsm}"),
        "tiny.yaml:20: presets.test.tasks.board.variants.0: bidsm cannot train RBM: it needs real v",
    ),
    "a noise distribution": (
        ("noise_distribution: bernoulli", "noise_distribution: gaussian"),
        "nce cannot train RBM: v of RBM is binary, and noise_distribution='gaussian' is not: it must be 'bernoulli'",
    ),
    "a threshold": (
        ("binarize: 0.5", "binarize: half"),
        "7: tasks.board.data.binarize: must be a number or sample, got 'half'",
    ),
}


@pytest.mark.parametrize(("change", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_go_with_binary_v_is_refused(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    write(tmp_path, replaced(change, text=BINARY))
    answer = command(tmp_path, "run", "--suite", "tiny.yaml", "--dry-run")
    assert answer.code == 2
    assert said in answer.err


def test_the_place_of_a_value_that_is_neither_0_nor_1(tmp_path: Path) -> None:
    rows = (np.random.RandomState(0).uniform(size=(100, 4)) > 0.5).astype(float)
    rows[np.random.RandomState(0).permutation(100)[85], 2] = 7  # the sixth of the validation data
    np.save(tmp_path / "points.npy", rows)
    write(tmp_path, replaced(("{name: digits, binarize: 0.5}", "{file: points.npy}"), text=BINARY))
    answer = command(tmp_path, "run", "--suite", "tiny.yaml", "--dry-run")
    assert answer.code == 2
    assert "and of the validation data row 5, unit 2 is 7 (1 rows in all): data: {binarize: 0.5} makes" in answer.err


@pytest.mark.long
def test_a_binary_rbm_through_the_whole_product(tmp_path: Path) -> None:
    write(tmp_path, BINARY)
    said = command(tmp_path, "run", "--suite", "tiny.yaml", "--seeds", "0", "--methods", "cd")
    assert (said.code, said.err) == (0, "")
    folder = cell(tmp_path, "CD-1", 0)
    config = json.loads((folder.path / "config.json").read_text())
    assert config["data"]["binarize"] == 0.5
    saved = load_checkpoint(folder.artifacts / "last.pt")["tensors"]["state"]["params"]["model"]
    model = RBM(64, 3).double()
    model.load_state_dict({name: tensor[0] for name, tensor in saved.items()})
    test = load({"name": "digits", "binarize": 0.5}, Path()).test
    exact = log_likelihood(model, test)
    metrics = journal(tmp_path, "CD-1", 0)[-1]["metrics"]
    assert metrics["test/log_likelihood"] == pytest.approx(float(exact.mean()), abs=1e-4)
    assert "test/fisher_divergence" not in metrics

    shown = {kind: dict(np.load(folder.artifacts / f"{kind}_step_00000020.npz")) for kind in KINDS}
    assert set(np.unique(shown["samples"]["samples"])) == {0, 1}
    mean = shown["reconstructions"]["reconstructions"]
    assert ((mean > 0) & (mean < 1)).all()
    assert all((folder.artifacts / f"{kind}_step_00000020.png").exists() for kind in KINDS)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's, about its own type hints
        from benchmark.tracking.pyfunc import TrainedModel
    made: Any = TrainedModel()
    paths = {"config": str(folder.path / "config.json"), "checkpoint": str(folder.artifacts / "last.pt")}
    made.load_context(SimpleNamespace(artifacts=paths))
    np.testing.assert_allclose(made.predict(None, pd.DataFrame(test.numpy()))["log_likelihood"], exact)
    drawn = made.predict(None, None, {"sample": 2000, "seed": 1}).to_numpy()
    assert set(np.unique(drawn)) == {0, 1}
    assert np.abs(drawn.mean(0) - test.numpy().mean(0)).max() < 0.25  # init: data begins at the means
    with pytest.raises(InputError, match=r"model input: row 1, unit 3 is 0\.5"):
        made.predict(None, pd.DataFrame(np.where(np.arange(128).reshape(2, 64) == 67, 0.5, 0.0)))


KINDS = ("samples", "reconstructions", "receptive_fields")


def test_binary_vectors_that_are_no_images_are_not_drawn_as_points() -> None:
    case = small(registry.methods()["cd"], of=RBM)
    v = case.data(50).float()
    assert not can_picture(DataSet("pairs", v, v, v), fit(case, 1))


@pytest.mark.parametrize("preset", ["full", "quick"])
def test_the_shipped_suite_has_every_method_or_says_why_not(preset: str) -> None:
    methods = registry.methods()
    for settings in load_suite("rbm", methods).presets[preset].tasks.values():
        assert {entry.method for entry in settings.variants} | set(settings.without) == set(methods)
        for method in settings.without:
            assert methods[method]().unsupported(RBM(2, 3))
