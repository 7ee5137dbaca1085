"""What MLflow holds, as tidy frames: read in pages, and the histories of many runs at once.

MLflow's client reads one metric of one run per call. A database is asked for all runs in one query instead, and a
server by the address that its own UI uses for it (100 runs a call); where it lacks that, by many calls side by side.
"""

import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read by MLflow when it is imported; what the user set stays
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import pandas as pd
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.rest_utils import http_request

from benchmark.tracking_store import check_answer, database_file, unsecret
from bism.errors import InputError

_PAGE = 1000  # runs
_BULK = 100  # runs that a server takes at once
_BULK_RESULTS = 25_000  # values that it answers with at most
_CALLS = 8  # side by side
LABELS = ("cell", "task", "method", "variant", "seed", "steps", "state", "select", "paper_label", "device", "host",
          "git_commit", "torch_version", "python_version", "mlflow_version", "error")  # fmt: skip


class Store:
    """A tracking store.

    Raises:
        InputError: there is none at this address, or it cannot be read.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        file = database_file(uri)
        if file is not None and not file.exists():
            raise InputError(
                f"{file}: no such store; `python -m benchmark run` makes one, --tracking-uri names another"
            )
        try:
            check_answer(uri)
            self._client = MlflowClient(uri)
            self._experiments = {found.name: found.experiment_id for found in self._client.search_experiments()}
        except (MlflowException, OSError) as error:
            raise InputError(f"tracking store {unsecret(uri)} cannot be read: {_brief(error)}") from error
        self._pages = uri.startswith(("http://", "https://"))

    @property
    def suites(self) -> list[str]:
        """The suites that have plans."""
        return [name for name in self._experiments if self.presets(name)]

    @functools.cache  # noqa: B019  a store lives as long as its report
    def presets(self, suite: str) -> list[str]:
        """The presets of a suite that were planned, in that order."""
        if suite not in self._experiments:
            raise InputError(
                f"the tracking store has no suite '{suite}': it has {', '.join(self._experiments) or 'none'}"
            )
        plans = sorted(self._search(suite, "tags.kind = 'plan'"), key=lambda run: run.info.start_time)
        return list(dict.fromkeys(run.data.tags["preset"] for run in plans))

    def cells(self, suite: str, preset: str) -> pd.DataFrame:
        """One row per cell: its run, labels (``LABELS``), ``param.*``, and the last value of every metric."""
        runs = self._search(suite, f"tags.kind = 'cell' and tags.preset = '{preset}'")
        rows = [
            {
                "run": run.info.run_id,
                "started": run.info.start_time,
                **{name: run.data.tags.get(name, "") for name in LABELS},
                **{f"param.{name}": value for name, value in run.data.params.items()},
                **run.data.metrics,
            }
            for run in runs
        ]
        if not rows:
            raise InputError(f"the tracking store has no cells of suite '{suite}', preset '{preset}'")
        frame = pd.DataFrame(rows).astype({"seed": int, "steps": int})
        return frame.sort_values(["task", "variant", "seed"], ignore_index=True)

    def _search(self, suite: str, condition: str) -> list[Any]:
        runs, token = list[Any](), None
        while token is None or token:
            page = self._client.search_runs([self._experiments[suite]], condition, max_results=_PAGE, page_token=token)
            runs, token = runs + list(page), page.token or ""
        return runs

    def histories(self, runs: Sequence[str], metric: str) -> pd.DataFrame:
        """Every value of a metric: run, step, value; in the order of steps."""
        rows: list[tuple[str, int, float]] = []
        with ThreadPoolExecutor(_CALLS if self._pages else 1) as pool:
            parts = [list(runs[start : start + _BULK]) for start in range(0, len(runs), _BULK)]
            for found in pool.map(lambda part: self._history(part, metric), parts):
                rows += found
        return pd.DataFrame(rows, columns=["run", "step", "value"]).sort_values(["run", "step"], ignore_index=True)

    def _history(self, runs: list[str], metric: str) -> list[tuple[str, int, float]]:
        store = self._client._tracking_client.store
        if hasattr(store, "get_metric_history_bulk"):
            return [
                (found.run_id, found.step, found.value)
                for found in store.get_metric_history_bulk(runs, metric, max_results=10**9)
            ]
        response: Any = http_request(  # type: ignore[no-untyped-call]
            store.get_host_creds(),
            "/ajax-api/2.0/mlflow/metrics/get-history-bulk",
            "GET",
            params={"run_id": runs, "metric_key": metric, "max_results": _BULK_RESULTS},
        )
        found = response.json().get("metrics", []) if response.status_code == 200 else None
        if found is not None and len(found) < _BULK_RESULTS:
            return [(point["run_id"], int(point["step"]), float(point["value"])) for point in found]
        if found is not None and len(runs) > 1:  # the answer is full: fewer runs a call
            half = len(runs) // 2
            return self._history(runs[:half], metric) + self._history(runs[half:], metric)
        return [
            (run, point.step, point.value) for run in runs for point in self._client.get_metric_history(run, metric)
        ]

    def artifact(self, run: str, prefix: str, folder: Path) -> Path | None:
        """The last artifact of a run whose name starts with ``prefix`` and ends in .npz, fetched into ``folder``."""
        files = self._client.list_artifacts(run)
        names = sorted(file.path for file in files if file.path.startswith(prefix) and file.path.endswith(".npz"))
        return Path(self._client.download_artifacts(run, names[-1], str(folder))) if names else None


def _brief(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
