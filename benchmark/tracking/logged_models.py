"""Trained models in MLflow: from code, without pickles, for ``mlflow.pyfunc.load_model``. Part of ``tracking``."""

import logging
import math
import tempfile
import warnings
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from mlflow import MlflowClient, pyfunc
from mlflow.entities import LoggedModelOutput
from mlflow.models import Model, ModelSignature
from mlflow.types import ParamSchema, ParamSpec

from benchmark.records.rundir import CellFolder, Record, RunDir
from benchmark.records.selection import better, selected
from bism.errors import InputError

# It warns that the models' signature has no inputs. With them it would refuse tables of integers or float32, which the
# model takes.
logging.getLogger("mlflow.pyfunc").setLevel(logging.ERROR)
_CODE = Path(__file__).with_name("pyfunc.py")
# Without it MLflow would not hand on ``predict(..., params={"sample": 16})``. The names are pyfunc.SAMPLING's.
_SIGNATURE = ModelSignature(
    params=ParamSchema(
        [ParamSpec(name, "long", usual) for name, usual in (("sample", 0), ("sweeps", 1000), ("seed", 0))]
    )
)


def choose(records: Iterable[Record], which: str, run_dir: RunDir) -> list[Record]:
    """The finished cells whose models are to be logged: the ``best`` seed of each variant, ``all`` or ``none``.

    Raises:
        InputError: another word.
    """
    if which not in ("best", "all", "none"):
        raise InputError(f"--log-models must be best, all or none, got {which!r}")
    done = [record for record in records if record.state == "done" and which != "none"]
    if which != "best":
        return done
    best: dict[tuple[str, ...], Record] = {}
    for record in sorted(done, key=lambda record: -quality(run_dir.folder(record.id))):
        best.setdefault((record.suite, record.preset, record.task, record.variant), record)
    return list(best.values())


def quality(folder: CellFolder) -> float:
    """The metric that selects models, where the task's rule takes it, signed so that higher is better."""
    metric, rule = folder.config["select"], folder.config["rule"]
    found = selected(folder.measurements(), rule, metric)
    return better(metric, found[1].get(metric, math.nan)) if found else -math.inf


def log_model(client: MlflowClient, run_id: str, folder: CellFolder) -> None:
    """Logs a cell's best checkpoint (or last, where there is no best) as the model of its run, once."""
    run = client.get_run(run_id)
    checkpoint = next((file for name in ("best.pt", "last.pt") if (file := folder.artifacts / name).exists()), None)
    if checkpoint is None or (run.outputs and run.outputs.model_outputs):
        return
    tags = {name: run.data.tags[name] for name in ("cell", "suite", "preset", "task", "variant", "seed")}
    model = client.create_logged_model(run.info.experiment_id, "model", run_id, tags, run.data.params)
    with tempfile.TemporaryDirectory() as parent, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's, about its own type hints
        path = str(Path(parent, "model"))
        pyfunc.save_model(
            path,
            python_model=str(_CODE),
            pip_requirements=_requirements(),
            signature=_SIGNATURE,
            artifacts={"checkpoint": str(checkpoint), "config": str(folder.path / "config.json")},
            mlflow_model=Model(
                artifact_path=model.artifact_location, run_id=run_id, model_uuid=model.model_id, model_id=model.model_id
            ),
        )
        client.log_model_artifacts(model.model_id, path)
    client.finalize_logged_model(model.model_id, "READY")
    # Last, because it is what says that the model is logged.
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, folder.config["steps"])])


def _requirements() -> list[str]:
    """Given, because MLflow would otherwise load the model to find out, which takes seconds."""
    return [f"{package}=={version(package).partition('+')[0]}" for package in ("mlflow", "torch", "pandas")]
