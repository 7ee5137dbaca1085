"""Which MLflow store is meant, and its web interface. Part of ``tracking``; needs no import of MLflow."""

import contextlib
import os
import re
import signal
import socket
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

from benchmark import guardian
from bism.errors import InputError

DEFAULT_STORE = "sqlite:///mlflow.db"
DEFAULT_STUDIES = "studies.journal"  # of tuning; here, as this module is light
LOCAL_UI = "http://127.0.0.1:5000"
PLANS = "plans"  # the folder in a plan's run with its cells, a file for each run directory
PLANNED = ("id", "task", "method", "variant", "seed", "steps")  # of each
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_UV_AUTO_DETECT": "false",
}  # no telemetry, no chatter: read when MLflow is imported


def resolve(uri: str | None) -> str:
    """The store that is meant, absolute: ``uri``, MLFLOW_TRACKING_URI, or ``mlflow.db`` in the working directory.

    Raises:
        InputError: a plain folder, or an address without a host.
    """
    chosen = uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE
    if urlsplit(chosen).scheme in ("", "file"):
        raise InputError(
            f"tracking store {chosen}: MLflow 3.13 and later refuse plain folders; expected a database "
            f"or a server, such as --tracking-uri {DEFAULT_STORE} or http://localhost:5000, or none"
        )
    if urlsplit(chosen).scheme in ("http", "https") and not urlsplit(chosen).hostname:
        raise InputError(f"tracking store {chosen}: the address has no host; expected one like http://localhost:5000")
    file = database_file(chosen)
    return f"sqlite:///{file.absolute()}" if file else chosen.rstrip("/")


def runs_page(experiment: str, kind: str = "cell", preset: str | None = None) -> str:
    """Where MLflow's interface lists the runs of an experiment with these tags, one below the other.

    Without the last word of the path it shows traces. Runs stand nested, and children are hidden below their parent, as
    long as they are sorted by date, which is the default, filtered or not: hence the order by name.
    """
    condition = f"tags.kind = '{kind}'" + (f" and tags.preset = '{preset}'" if preset else "")
    asked = {"searchFilter": condition, "orderByKey": "tags.`mlflow.runName`", "orderByAsc": "true"}
    return f"/#/experiments/{experiment}/runs?{urlencode(asked, quote_via=quote)}"


def is_usual(uri: str) -> bool:
    """Whether a resolved store is the one that is meant where none is named."""
    named = os.environ.get("MLFLOW_TRACKING_URI")
    return named != "none" and uri == resolve(None)


def check_answer(uri: str, seconds: float = 5.0) -> None:
    """Knocks at the port of a database's server: MLflow itself would try for minutes, and not quietly.

    Raises:
        OSError: nobody answers.
    """
    address = urlsplit(uri)
    port = address.port or {"postgresql": 5432, "mysql": 3306, "mssql": 1433}.get(address.scheme.partition("+")[0])
    if address.hostname and port and not address.scheme.startswith("http"):
        socket.create_connection((address.hostname, port), timeout=seconds).close()


def database_file(uri: str) -> Path | None:
    """The file of a SQLite store, or None."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def artifacts_folder(file: Path) -> Path:
    """Where the artifacts of a database in a file lie: beside it, wherever the command was called from."""
    return file.parent / "mlartifacts"


def unsecret(uri: str) -> str:
    """The address without user and password."""
    return re.sub("//[^/@]*@", "//", uri, count=1)


@contextmanager
def patience(seconds: int, retries: int) -> Iterator[None]:
    """Inside, MLflow waits this long for a server, not minutes, unless the environment has values of its own."""
    values = {"MLFLOW_HTTP_REQUEST_TIMEOUT": str(seconds), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries)}
    ours = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]


def start_ui(uri: str | None, host: str, port: int) -> int:
    """Shows a store in MLflow's web interface until interrupted; of a server, prints the address. The exit code.

    Raises:
        InputError: a plain folder, or a database file that is not there.
    """
    store = resolve(uri)
    if store.startswith(("http://", "https://")):
        print(f"This store has a server, which shows it: {unsecret(store)}")
        return 0
    file = database_file(store)
    if file and not file.exists():
        raise InputError(f"{file}: no such tracking store; 'run' makes it, and 'sync' makes it from a run directory")
    address = f"http://{host}:{port}"
    artifacts = ["--artifacts-destination", str(artifacts_folder(file))] if file else []
    print(f"MLflow on {address} in some seconds; Ctrl-C closes it", flush=True)
    for experiment, name, kind in _experiments(file) if file else ():
        print(f"  {name}: {address}{runs_page(experiment, kind)}", flush=True)
    # Seven processes for jobs of language models are not needed here.
    environment = {**QUIET, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore", **os.environ}
    command = [
        "-m",
        "mlflow",
        "ui",
        "--backend-store-uri",
        store,
        "--host",
        host,
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    with _ended_by_signals():
        server = guardian.start([sys.executable, *command, *artifacts], environment)
        try:
            return server.wait()
        except KeyboardInterrupt:  # the way to close it
            return 0
        finally:
            guardian.end(server)


def _experiments(file: Path) -> list[tuple[str, str, str]]:
    """Ids and names of the experiments in a database file, without MLflow, which takes seconds to import; and of each
    the kind of its runs: cells, or trials where there are no others."""
    query = """
        SELECT experiment_id, name, EXISTS (
            SELECT * FROM runs JOIN tags USING (run_uuid)
            WHERE runs.experiment_id = experiments.experiment_id AND key = 'kind' AND value = 'cell')
        FROM experiments WHERE lifecycle_stage = 'active' AND name != 'Default'"""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
            found = database.execute(query).fetchall()
            return [(str(number), str(name), "cell" if cells else "trial") for number, name, cells in found]
    except sqlite3.Error:  # MLflow itself says what is wrong with it
        return []


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP are as Ctrl-C, where they are not ignored (nohup)."""
    usual = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in usual.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
