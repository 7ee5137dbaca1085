"""What MLflow holds, as tidy frames: read in pages, and the histories of many runs at once.

MLflow's client reads one metric of one run per call. A database is asked for all runs in one query instead, and a
server by the address that its own UI uses for it (100 runs a call); where it lacks that, by many calls side by side.
"""

import functools
import json
import math
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read by MLflow when it is imported; what the user set stays
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "CRITICAL")  # what fails, we say ourselves

import pandas as pd
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.rest_utils import http_request
from sqlalchemy.exc import SQLAlchemyError

from benchmark.records.results import LARGEST
from benchmark.system.credentials import unsecret
from benchmark.system.invocation import call
from benchmark.tracking.check import brief
from benchmark.tracking.store import PLANS, check, database_file, has_tags, patience, resolve, tag_condition
from bism.errors import InputError
from reports.results import NoCellsError
from reports.variants import by_task

_PAGE = 1000  # runs
_BULK = 100  # runs that a server takes at once, and that a query names
_BULK_RESULTS = 25_000  # values that it answers with at most
_CALLS = 8  # side by side
_OF_A_CELL = ("cell", "task", "method", "variant", "seed", "steps", "state")
_OF_A_STUDY = {"objectives": "[]", "directions": "[]", "space": "{}"}
_UI = "http://127.0.0.1:5000"
STUDY = (
    "study",
    "preset",
    "task",
    "method",
    "steps",
    "seeds",
    "objectives",
    "directions",
    "space",
    "sampler",
    "pruner",
    "symbols",
    "drawn_as",
)
TRIAL = ("study", "task", "method", "trial", "state", "origin", "variant", "reason")
LABELS = ("cell", "task", "method", "variant", "seed", "steps", "state", "select", "paper_label", "device", "host",
          "git_commit", "preset_label", "advice", "torch_version", "python_version", "mlflow_version", "error",
          "compiled", "threads", "jobs_beside", "symbols", "drawn_as", "machine")  # fmt: skip


class Store:
    """A tracking store.

    Attributes:
        left_out: runs that call themselves ours and lack what ours have, or whose files cannot be read.

    Raises:
        InputError: there is none at this address, or it cannot be read.
    """

    def __init__(self, uri: str) -> None:
        if uri.strip().lower() in ("", "none"):
            raise InputError(
                f"there is no store to read: --tracking-uri is {uri.strip() or 'empty'}; name the one that runs were "
                f"brought to, or bring them to one by `{call('benchmark', 'sync')}`"
            )
        uri = resolve(uri)
        self.uri = unsecret(uri)
        file = database_file(uri)
        if file is not None and not file.exists():
            raise InputError(
                f"{file}: no such store; `{call('benchmark', 'run')}` makes one, --tracking-uri names another; without "
                f"one, `{call('reports', 'claims --reference')}` judges by the results that ship with the package, and "
                f"`{call('reports', 'build --reference')}` draws them"
            )
        if check(uri, write=False):
            raise InputError(f"tracking store {file}: nothing is in it yet")
        with self.reading(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # MLflow's use of SQLAlchemy
            self._client = MlflowClient(uri)
            self._experiments = {found.name: found.experiment_id for found in self._client.search_experiments()}
        self.left_out = set[str]()
        self._pages = uri.startswith(("http://", "https://"))

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Inside, a store that fails is an InputError that names it."""
        try:
            with patience(seconds=30, retries=2):
                yield
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise InputError(f"tracking store {self.uri} cannot be read: {brief(error)}") from error

    @property
    def suites(self) -> list[str]:
        """The suites that have plans or studies."""
        return [name for name in self._experiments if self.presets(name) or len(self.studies(name))]

    @functools.cache  # noqa: B019  a store lives as long as its report
    def presets(self, suite: str) -> list[str]:
        """The presets of a suite that were planned, in that order."""
        if suite not in self._experiments:
            raise InputError(f"the tracking store has no suite '{suite}': it has {', '.join(self.suites) or 'none'}")
        plans = sorted(self._search(suite, kind="plan"), key=lambda run: run.info.start_time)
        return list(dict.fromkeys(run.data.tags["preset"] for run in plans if "preset" in run.data.tags))

    def cells(self, suite: str, preset: str) -> pd.DataFrame:
        """One row per cell: its run, labels (``LABELS``), ``data_hash``, ``param.*``, and every metric's last value.

        Tasks stand as they were planned, which is the suite's order.
        """
        runs = self._search(suite, kind="cell", preset=preset)
        rows: list[dict[str, Any]] = [
            {
                **_metrics(run),
                "run": run.info.run_id,
                "started": run.info.start_time,
                **{name: run.data.tags.get(name, "") for name in LABELS},
                "command": run.data.tags.get("mlflow.source.name", ""),
                "data_hash": _data(run),
                **{f"param.{name}": value for name, value in run.data.params.items()},
            }
            for run in runs
            if self._is_whole(run.info.run_id, run.data.tags)
        ]
        begun = {row["cell"] for row in rows}
        plan = self._planned(suite, preset)
        rows += [planned for planned in plan if planned["cell"] not in begun]
        if not rows:
            raise NoCellsError(f"the tracking store has no cells of suite '{suite}', preset '{preset}'")
        frame = pd.DataFrame(rows).astype({"seed": int, "steps": int})
        return by_task(frame, [*(planned["task"] for planned in plan), *sorted(frame["task"])])

    def _is_whole(self, run: str, tags: Mapping[str, str]) -> bool:
        """Whether a run says what every cell says; one that does not is somebody else's, or was altered."""
        if all(tags.get(name) for name in _OF_A_CELL) and all(tags[name].isdecimal() for name in ("seed", "steps")):
            return True
        self.left_out.add(run)
        return False

    def page(self, suite: str, run: str) -> str:
        """The address of a run in MLflow's UI: the server's, or that of ``python -m benchmark ui``."""
        server = self.uri.rstrip("/") if self._pages else _UI
        return f"{server}/#/experiments/{self._experiments[suite]}/runs/{run}"

    @functools.cache  # noqa: B019
    def studies(self, suite: str) -> pd.DataFrame:
        """One row per study of ``python -m benchmark tune``: its run, and its labels (``STUDY``) as texts.

        Where two machines made a run at the same moment, the first of the two is what ``tune`` keeps.
        """
        rows = [
            {"run": run.info.run_id, "started": run.info.start_time,
             **{name: run.data.tags.get(name, "") for name in STUDY}}
            for run in self._search(suite, kind="study")
            if self._is_study(run)
        ]  # fmt: skip
        frame = pd.DataFrame(rows, columns=["run", "started", *STUDY])
        return frame.sort_values(["started", "run"]).drop_duplicates("study").reset_index(drop=True)

    def _is_study(self, run: Any) -> bool:
        try:
            texts = [json.loads(run.data.tags.get(name) or default) for name, default in _OF_A_STUDY.items()]
        except ValueError:
            texts = []
        objectives, directions, space = texts or ([], [], [])
        if run.data.tags.get("study") and objectives and isinstance(space, dict) and len(objectives) == len(directions):
            return True
        self.left_out.add(run.info.run_id)
        return False

    def trials(self, suite: str) -> pd.DataFrame:
        """One row per trial: its run, labels (``TRIAL``), ``param.*`` as texts, and the last value of every metric.

        A trial whose run has no end yet is not written whole, and has no state.
        """
        return pd.DataFrame(
            [{"run": run.info.run_id, "started": run.info.start_time,
              **{name: run.data.tags.get(name, "") for name in TRIAL},
              **({"state": ""} if run.info.status == "RUNNING" else {}),
              **{f"param.{name}": value for name, value in run.data.params.items()}, **_metrics(run)}
             for run in self._search(suite, kind="trial") if run.data.tags.get("trial", "").isdecimal()]
        )  # fmt: skip

    def _planned(self, suite: str, preset: str) -> list[dict[str, Any]]:
        """The cells that were planned, begun or not, as every machine that shares the plan has written them."""
        found: dict[str, dict[str, Any]] = {}
        for run in sorted(self._search(suite, kind="plan", preset=preset), key=lambda run: run.info.start_time):
            for file in self._client.list_artifacts(run.info.run_id, PLANS):
                for record in self._records(run, file.path):
                    labels = {name: str(record.get(name, "")) for name in LABELS} | {"state": "planned"}
                    labels["cell"] = str(record.get("id", ""))
                    if self._is_whole(run.info.run_id, labels):
                        found[labels["cell"]] = {"run": "", "started": 0, "command": "", "data_hash": "", **labels}
        return list(found.values())

    def _records(self, run: Any, path: str) -> list[dict[str, Any]]:
        """The cells in a plan's file; none where it is damaged."""
        try:
            content = json.loads(self._text(run, path))
        except (ValueError, RecursionError):
            content = None
        if isinstance(content, list) and all(isinstance(record, dict) for record in content):
            return content
        self.left_out.add(run.info.run_id)
        return []

    def _text(self, run: Any, path: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            return Path(self._client.download_artifacts(run.info.run_id, path, folder)).read_text()

    def _search(self, suite: str, **tags: str) -> list[Any]:
        """The runs of a suite with these tags, each once: beside a sweep one may move from a page to the next."""
        runs, token, condition = dict[str, Any](), None, tag_condition(**tags)
        while token is None or token:
            page = self._client.search_runs([self._experiments[suite]], condition, max_results=_PAGE, page_token=token)
            runs |= {run.info.run_id: run for run in page}
            token = page.token or ""
        return [run for run in runs.values() if has_tags(run, **tags)]

    def histories(self, runs: Sequence[str], metric: str) -> pd.DataFrame:
        """Every value of a metric: run, step, value, one for each run and step; in the order of steps."""
        parts = [list(runs[start : start + _BULK]) for start in range(0, len(runs), _BULK)]
        columns = ["run", "step", "value"]
        with ThreadPoolExecutor(_CALLS if self._pages else 1) as pool:
            found = list(pool.map(lambda part: pd.DataFrame(self._history(part, metric), columns=columns), parts))
        frame = pd.concat([part for part in found if len(part)] or [pd.DataFrame(columns=columns)])
        return frame.drop_duplicates(["run", "step"], keep="last").sort_values(["run", "step"], ignore_index=True)

    def _history(self, runs: list[str], metric: str) -> list[tuple[str, int, float]]:
        store = self._client._tracking_client.store
        if hasattr(store, "ManagedSessionMaker"):
            from mlflow.store.tracking.dbmodels.models import SqlMetric

            columns = SqlMetric.run_uuid, SqlMetric.step, SqlMetric.value, SqlMetric.is_nan
            with store.ManagedSessionMaker() as session:
                rows = session.query(*columns).filter(SqlMetric.key == metric, SqlMetric.run_uuid.in_(runs)).all()
            return [(run, step, math.nan if unknown else number(value)) for run, step, value, unknown in rows]
        response: Any = http_request(  # type: ignore[no-untyped-call]
            store.get_host_creds(),
            "/ajax-api/2.0/mlflow/metrics/get-history-bulk",
            "GET",
            params={"run_id": runs, "metric_key": metric, "max_results": _BULK_RESULTS},
        )
        found = response.json().get("metrics", []) if response.status_code == 200 else None
        if found is not None and len(found) < _BULK_RESULTS:
            return [(point["run_id"], int(point["step"]), number(point["value"])) for point in found]
        if found is not None and len(runs) > 1:  # the answer is full: fewer runs a call
            half = len(runs) // 2
            return self._history(runs[:half], metric) + self._history(runs[half:], metric)
        return [
            (run, point.step, number(point.value))
            for run in runs
            for point in self._client.get_metric_history(run, metric)
        ]

    def artifact(self, run: str, prefix: str, folder: Path) -> Path | None:
        """The last artifact of a run whose name starts with ``prefix`` and ends in .npz, fetched into ``folder``."""
        files = self._artifacts(run)
        names = sorted(file for file in files if file.startswith(prefix) and file.endswith(".npz"))
        try:
            return Path(self._client.download_artifacts(run, names[-1], str(folder))) if names else None
        except (MlflowException, OSError):  # the file was removed; a store that has gone says so at the next question
            self.left_out.add(run)
            return None

    @functools.cache  # noqa: B019
    def _artifacts(self, run: str) -> list[str]:
        return [file.path for file in self._client.list_artifacts(run)]


def _data(run: Any) -> str:
    """The hash of a run's data, of which MLflow keeps 36 characters; "" where none were logged."""
    found = run.inputs.dataset_inputs if run.inputs else []
    return str(found[0].dataset.digest) if found else ""


def number(value: Any) -> float:
    """A metric as it was measured: a database cannot hold an infinity, and MLflow keeps the largest number instead."""
    found = float(value)
    return math.copysign(math.inf, found) if abs(found) > LARGEST else found


def _metrics(run: Any) -> dict[str, float]:
    return {name: number(value) for name, value in run.data.metrics.items()}
