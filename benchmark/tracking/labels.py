"""What MLflow is told of a run beside its metrics: name, tags, parameters and data set. Part of ``tracking``."""

import json
import os
from importlib.metadata import version
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag

from benchmark.records.params import params as params
from benchmark.records.provenance import trained_with
from benchmark.records.rundir import Record


def run_name(record: Record) -> str:
    """For people: "BiDSM-5 seed 3, checkerboard"; what tells runs apart comes first, where narrow columns show it."""
    task = "" if record.task == record.suite else f", {record.task}"
    return f"{record.variant} seed {record.seed}{task}"


def cell_tags(record: Record, config: dict[str, Any]) -> dict[str, str]:
    """What runs are searched and compared by, and a note for people."""
    names = ("suite", "task", "preset", "steps", "method", "variant", "seed", "state")
    tags = {
        **{name: str(getattr(record, name)) for name in names},
        "cell": record.id,
        "kind": "cell",
        "select": f"{config['rule']} {config['select']}",
        "device": config["device"],
        "mlflow.note.content": f"**{record.variant}**: {config['description']}\n\n{config['reference']}",
    }
    named = {"paper_label": config["paper"], "preset_label": config.get("preset_label"), "advice": config.get("advice")}
    return tags | {name: text for name, text in named.items() if text is not None} | of_method(config)


def of_method(config: dict[str, Any]) -> dict[str, str]:
    """How a report calls and draws a method and its hyper-parameters; what was trained before 0.2.0 does not say it."""
    return {name: json.dumps(config[name], ensure_ascii=False) for name in ("symbols", "drawn_as") if config.get(name)}


def timing(config: dict[str, Any]) -> dict[str, str]:
    """Under which conditions a finished cell's times were taken: compiled, threads, jobs_beside."""
    return {name: str(value).lower() for name, value in config.get("timing", {}).items()}


def provenance(command: str | None, config: dict[str, Any] | None = None) -> dict[str, str]:
    """Where, with what and by whom; the names with "mlflow." are those that its UI shows.

    A cell's (``config``) is that of its training, which may have been elsewhere and with other code.
    """
    trained = (config or {}).get("provenance") or trained_with(None)
    return {
        **trained,
        "mlflow_version": version("mlflow"),
        "mlflow.user": os.environ.get("USER", "unknown"),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": command or "python -m benchmark",
        "mlflow.source.git.commit": trained["git_commit"],
    }


def dataset(data: dict[str, Any]) -> DatasetInput:
    """The data set by its content hash, of which MLflow takes 36 characters; whole in the profile."""
    source = json.dumps({"tags": {"mlflow.source.type": "LOCAL", "mlflow.source.name": "benchmark.datasets"}})
    entity = Dataset(data["name"], data["hash"][:36], "code", source, profile=json.dumps(data))
    return DatasetInput(entity, [InputTag("mlflow.data.context", "training")])
