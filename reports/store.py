"""What MLflow holds of a suite, as tidy frames."""

import os
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read by MLflow when it is imported; what the user set stays
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from bism.errors import InputError

_PAGE = 1000


def connect(uri: str) -> MlflowClient:
    """A client of the store."""
    return MlflowClient(uri)


def cells(client: MlflowClient, suite: str, preset: str) -> pd.DataFrame:
    """One row per cell of a preset: run id, task, method, variant, seed and state.

    Raises:
        InputError: the store has no such suite, or none of its cells of this preset.
    """
    try:
        experiment = client.get_experiment_by_name(suite)
    except MlflowException as error:
        raise InputError(f"the tracking store cannot be read: {error}") from error
    if experiment is None:
        raise InputError(
            f"the tracking store has no suite '{suite}': run it, or name another store with --tracking-uri"
        )
    runs: list[Run] = []
    token = None
    while token is None or token:
        page = client.search_runs([experiment.experiment_id], f"tags.preset = '{preset}' AND tags.kind = 'cell'",
                                  max_results=_PAGE, page_token=token)  # fmt: skip
        runs, token = runs + list(page), page.token or ""
    if not runs:
        raise InputError(f"the tracking store has no cells of suite '{suite}', preset '{preset}'")
    labels = ("task", "method", "variant", "seed", "state")
    rows = [{"run": run.info.run_id, **{key: run.data.tags[key] for key in labels}} for run in runs]
    return pd.DataFrame(rows).astype({"seed": int}).sort_values(["task", "variant", "seed"], ignore_index=True)


def curves(client: MlflowClient, chosen: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One row per measurement: the cell's labels, step and value."""
    parts = []
    for cell in chosen.to_dict("records"):
        points = client.get_metric_history(cell["run"], metric)
        parts += [{**cell, "step": point.step, "value": point.value} for point in points]
    return pd.DataFrame(parts)


def artifact(client: MlflowClient, run: str, prefix: str, folder: Path) -> Path | None:
    """The last artifact of a run whose name starts with ``prefix`` and ends in .npz, fetched into ``folder``."""
    names = sorted(f.path for f in client.list_artifacts(run) if f.path.startswith(prefix) and f.path.endswith(".npz"))
    return Path(client.download_artifacts(run, names[-1], str(folder))) if names else None
