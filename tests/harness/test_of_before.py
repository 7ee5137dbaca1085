"""What earlier versions of the package wrote is read by this one."""

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from baselines.dsm import DSM
from benchmark.records.rundir import CellFolder
from benchmark.tracking import labels
from bism import GRBM, log_likelihood
from bism.checkpoint import save_checkpoint
from bism.engine import Trainer
from tests.harness.tiny import cell, command, everything, records

LATER = {"accumulate", "data_noise", "job", "precision", "probes", "provenance", "rule", "symbols", "timing", "took"}
CODE = """\
import json
from pathlib import Path

import mlflow
import pandas as pd
import torch
from mlflow.pyfunc.model import PythonModel

from benchmark.models import build_model
from bism.checkpoint import load_checkpoint
from bism.errors import InputError
from bism.likelihood import log_likelihood, log_partition, not_enumerable


class TrainedModel(PythonModel):
    def load_context(self, context):
        config = json.loads(Path(context.artifacts["config"]).read_text())
        saved = load_checkpoint(context.artifacts["checkpoint"])["tensors"]["state"]["params"]["model"]
        self.model = build_model(config["model"]).double()
        self.model.load_state_dict({name: tensor[0] for name, tensor in saved.items()}, strict=False)
        self.log_z = None if not_enumerable(self.model) else log_partition(self.model)

    def predict(self, context, model_input, params=None):
        v = torch.tensor(model_input.to_numpy())
        return pd.DataFrame({"log_likelihood": log_likelihood(self.model, v, self.log_z).numpy()})


mlflow.models.set_model(TrainedModel())
"""  # of the models in MLflow, as the first version had it, without its checks of the input


def of_the_first_version(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint as it was then: one optimiser for all parts, no buffers, and less that stands beside the tensors."""
    kept = {key: value for key, value in checkpoint.items() if key not in ("data_noise", "precision", "shards")}
    state = {key: value for key, value in checkpoint["tensors"]["state"].items() if key != "buffers"}
    adam = state["optimiser"]
    moments = {name: {part: of_part[name] for part, of_part in adam.items()} for name in ("first", "second")}
    state["optimiser"] = {**moments, "count": adam["model"]["count"]}
    return {**kept, "tensors": {**checkpoint["tensors"], "state": state}}


@pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")  # mlflow.pyfunc's own, when it is first imported
def test_a_model_that_was_logged_then_scores_as_it_did(tmp_path: Path) -> None:
    from mlflow import pyfunc

    trainer = Trainer(DSM(), GRBM(2, 4), torch.rand(100, 2), seeds=[0])
    trainer.run(3)
    files = {"checkpoint": tmp_path / "best.pt", "config": tmp_path / "config.json"}
    save_checkpoint(of_the_first_version(trainer.checkpoint()), files["checkpoint"])
    files["config"].write_text(json.dumps({"model": {"name": "grbm", "visible": 2, "hidden": 4}}))
    (tmp_path / "code.py").write_text(CODE)
    pyfunc.save_model(
        str(tmp_path / "model"),
        python_model=str(tmp_path / "code.py"),
        pip_requirements=[],
        artifacts={name: str(file) for name, file in files.items()},
    )
    v = torch.rand(7, 2, dtype=torch.float64)
    found = pyfunc.load_model(str(tmp_path / "model")).predict(pd.DataFrame(v.numpy()))
    expected = log_likelihood(trainer.fitted().model(0), v)
    np.testing.assert_allclose(found["log_likelihood"], expected, rtol=0, atol=1e-12)


def test_a_run_directory_of_the_first_version_is_read(folder: Path) -> None:
    """Its configurations say less, nothing proves its cells, and its index has fewer columns."""
    for file in (folder / "runs" / "cells").glob("*/config.json"):
        (file.parent / "finished.json").unlink()
        content = json.loads(file.read_text())
        file.write_text(json.dumps({name: value for name, value in content.items() if name not in LATER}))
    with contextlib.closing(sqlite3.connect(folder / "runs" / "index.sqlite")) as index, index:
        index.execute("ALTER TABLE cells DROP COLUMN progress")
        index.execute("ALTER TABLE cells DROP COLUMN job")
        index.execute("DROP TABLE timings")
    before = everything(folder)
    said = command(folder, "status")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("suite tiny, preset test: 4 done\n")
    assert "CD-1" in said.out
    assert "A seed's value: the last iteration" in " ".join(said.out.split())
    assert everything(folder) == before
    for record in records(folder):
        config = CellFolder(folder / "runs" / "cells" / record.id).config
        assert labels.cell_tags(record, config)["select"] == "last val/log_likelihood"
        assert labels.params(config)["precision"] == "float32"
    said = command(folder, "run", "--suite", "tiny.yaml")
    assert (said.code, said.err) == (0, "")


def test_a_configuration_without_what_is_needed_stops_nothing(folder: Path) -> None:
    one = cell(folder, "CD-1", 0)
    one.proof.unlink()
    content = {name: value for name, value in one.config.items() if name not in ("job", "select")}
    (one.path / "config.json").write_text(json.dumps(content))
    said = command(folder, "status")
    assert (said.code, said.err) == (1, "")
    assert f"damaged: board CD-1 seed 0: {(one.path / 'config.json').relative_to(folder)}: lacks 'select'\n" in said.out
    assert "BiDSM-5" in said.out
