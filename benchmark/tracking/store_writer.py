"""What every writer of an MLflow store shares. Importing it imports MLflow."""

import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from urllib.parse import quote

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from benchmark.system.credentials import unsecret
from benchmark.system.invocation import call
from benchmark.tracking.check import Unreachable, advised, brief, failure
from benchmark.tracking.store import (
    LOCAL_UI,
    artifacts_folder,
    check,
    database_file,
    has_tags,
    is_usual,
    patience,
    resolve,
    runs_page,
    tag_condition,
)
from bism.errors import InputError

_BATCH = 800  # metrics per call; with the parameters and tags below MLflow's limit of 1,000 entities


class StoreWriter:
    """What every writer of an MLflow store needs: a connection, experiments by suite, and patience with failures.

    Args:
        uri: the store; None for MLFLOW_TRACKING_URI, else ``mlflow.db`` in the working directory.

    Attributes:
        uri: the store, resolved.
        store: the same without a password.
        behind: whether the store failed lately and lacks something.

    Raises:
        Unreachable: the store is away: a server does not answer, a file is locked.
        InputError: it cannot be used.
    """

    _KIND = "cell"  # the tag of the runs that people want to see
    _MEANWHILE = ""  # what people are told when the store fails
    _INSTEAD = ""  # what they may do about a store that cannot be used

    def __init__(self, uri: str | None) -> None:
        self.uri = resolve(uri)
        self.store = unsecret(self.uri)
        self.behind = False
        self._retry_at = 0.0
        self._experiments: dict[str, str] = {}  # ids by suite
        self._file = database_file(self.uri)
        # Creating a store, an experiment or a run is a search and then a write, which two processes could race; and
        # of two that write to one file at a time, SQLite refuses one.
        self._lock: AbstractContextManager[Any] = FileLock(f"{self._file}.lock") if self._file else nullcontext()
        try:
            self._client = self._connect()
        except Unreachable:
            raise
        except InputError as error:
            raise advised(error, self._INSTEAD) from error

    def _connect(self) -> MlflowClient:
        check(self.uri, write=True)
        try:
            return self._opened()
        except Exception as error:  # MLflow's, SQLAlchemy's, or a driver's
            raise failure("tracking store", self.uri, error) from error

    def _opened(self) -> MlflowClient:
        with self._lock, patience(seconds=5, retries=0), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # MLflow's use of SQLAlchemy
            client = MlflowClient(self.uri)
            client.search_experiments(max_results=1)
        return client

    def ui_hint(self, preset: str | None = None) -> str:
        """How to look at what was written: a command and an address, which shows the runs at once, of one preset."""
        served = self.uri.startswith(("http://", "https://"))
        (experiment,) = self._experiments.values() if len(self._experiments) == 1 else ("",)
        shown = runs_page(experiment, self._KIND, preset) if experiment else ""
        if served:
            return self.store + shown
        command = call("benchmark", "ui" + ("" if is_usual(self.uri) else f" --tracking-uri {self.store}"))
        return f"{command}, then open {LOCAL_UI}{shown}"

    @contextmanager
    def _tolerating_failures(self) -> Iterator[None]:
        started = time.monotonic()
        try:
            with patience(seconds=30, retries=2):
                yield
        except (MlflowException, OSError) as error:
            self._retry_at = time.monotonic() + 10 * (time.monotonic() - started)
            if not self.behind:
                self.behind = True
                warnings.warn(f"tracking store {self.store} fails: {brief(error)} {self._MEANWHILE}", stacklevel=4)
        else:
            self.behind = False

    def _experiment(self, suite: str) -> str:
        """The id of a suite's experiment, made where there is none and restored where it was deleted."""
        if suite not in self._experiments:
            with self._lock:
                found = self._client.get_experiment_by_name(suite)
                if found is not None and found.lifecycle_stage == "deleted":
                    self._client.restore_experiment(found.experiment_id)
                self._experiments[suite] = found.experiment_id if found else self._create_experiment(suite)
        return self._experiments[suite]

    def _create_experiment(self, suite: str) -> str:
        location = (artifacts_folder(self._file) / quote(suite, safe="")).as_uri() if self._file else None
        try:
            return str(self._client.create_experiment(suite, location))
        except MlflowException:
            found = self._client.get_experiment_by_name(suite)
            if found is None:
                raise
            return str(found.experiment_id)  # another machine was faster

    def _search(self, suite: str, **tags: str) -> list[Run]:
        """All runs of an experiment with these tags, whatever MLflow's page size."""
        page = self._client.search_runs([self._experiment(suite)], tag_condition(**tags))
        runs = list(page)
        while page.token:
            page = self._client.search_runs([self._experiment(suite)], tag_condition(**tags), page_token=page.token)
            runs += page
        return [run for run in runs if has_tags(run, **tags)]

    def _set_status(self, run: str, status: str, ended: int | None = None) -> None:
        if status == "RUNNING":
            self._client.update_run(run, status)
        else:
            self._client.set_terminated(run, status, ended)

    def _log(self, run: str, metrics: list[Metric], params: dict[str, str], tags: dict[str, str]) -> None:
        """Sends these to a run; what it has already stays as it is."""
        self._client.log_batch(
            run, metrics[:_BATCH], [Param(*item) for item in params.items()], [RunTag(*item) for item in tags.items()]
        )
        for start in range(_BATCH, len(metrics), _BATCH):
            self._client.log_batch(run, metrics[start : start + _BATCH])
