"""Which MLflow store is meant, and its web interface. Part of ``tracking``; needs no import of MLflow."""

import contextlib
import os
import re
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from benchmark.system.credentials import unsecret
from benchmark.system.signals import ended_as_by_ctrl_c
from benchmark.tracking import QUIET, guardian
from benchmark.tracking.check import SECONDS, check_database, check_file, check_form, scheme_of, with_driver
from bism.errors import InputError

DEFAULT_STORE = "sqlite:///mlflow.db"
DEFAULT_STUDIES = "studies.journal"  # of tuning; here, as this module is light
LOCAL_UI = "http://127.0.0.1:5000"
INSTEAD = "Give another --tracking-uri, or --tracking-uri none and 'sync' later."  # of one that cannot be used
PLANS = "plans"  # the folder in a plan's run with its cells, a file for each run directory
PLANNED = ("id", "task", "method", "variant", "seed", "steps")  # of each
_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https")

_TABLES = ("alembic_version", "experiments", "runs", "metrics", "params", "tags")  # of every MLflow store
_PLAIN = re.compile(r"[\w .:/@,+=()\[\]-]*")


def named(uri: str | None) -> str:
    """``uri``, or MLFLOW_TRACKING_URI where it is set and not empty (as MLflow reads it), or ``mlflow.db`` in the
    working directory.

    Raises:
        InputError: ``uri`` is empty.
    """
    if uri is not None and not uri.strip():
        raise InputError("the address of the tracking store must not be empty; 'none' is for none")
    return (uri or os.environ.get("MLFLOW_TRACKING_URI") or "").strip() or DEFAULT_STORE


def resolve(uri: str | None) -> str:
    """The store that is meant (``named``), absolute.

    Raises:
        InputError: a plain folder, or nothing that could be the address of a store.
    """
    chosen = named(uri)
    if "://" in chosen:
        chosen = chosen.partition("://")[0].lower() + "://" + chosen.partition("://")[2]
    scheme, shown = scheme_of(chosen), unsecret(chosen)
    expected = (
        f"expected a database or a server, such as --tracking-uri {DEFAULT_STORE} or http://localhost:5000, or none"
    )
    if scheme == "file" or (not scheme and ":" not in chosen and chosen not in ("databricks", "databricks-uc", "uc")):
        raise InputError(f"tracking store {shown}: MLflow 3.13 and later refuse plain folders; {expected}")
    if scheme not in _SCHEMES and scheme not in {plugin.name for plugin in entry_points(group="mlflow.tracking_store")}:
        raise InputError(f"tracking store {shown}: stores of this kind cannot be used; {expected}")
    check_form("tracking store", chosen)
    file = database_file(chosen)
    if scheme == "sqlite" and (file is None or str(file) in (".", ":memory:")):
        raise InputError(f"tracking store {shown}: a database in a file is wanted, such as {DEFAULT_STORE}")
    return f"sqlite:///{file.absolute()}" if file else with_driver(chosen.rstrip("/"))


def check(uri: str, write: bool) -> bool:
    """Whether a resolved store can be used: seconds, where MLflow takes minutes.

    Args:
        write: whether it is to be written, and made where there is none.

    Returns:
        Whether it is a file in which nothing is yet: whoever asks MLflow for it has its tables made.

    Raises:
        Unreachable: it is away, and may be there later.
        InputError: it cannot be used.
    """
    scheme, file = scheme_of(uri), database_file(uri)
    if file is not None:
        return check_file("tracking store", file, write, _TABLES)
    if scheme in ("http", "https"):
        from benchmark.tracking.server import check_server  # MLflow, which takes seconds to import

        with patience(seconds=int(SECONDS), retries=0):
            check_server("tracking store", uri)
    elif scheme in _SCHEMES:
        check_database("tracking store", uri)
    return False


def tag_condition(**tags: str) -> str:
    """MLflow's filter for runs with these tags. Its language has no escapes: what it cannot say is left out, and
    ``has_tags`` decides."""
    return " and ".join(f"tags.{name} = '{value}'" for name, value in tags.items() if _PLAIN.fullmatch(value))


def has_tags(run: Any, **tags: str) -> bool:
    """Whether a run of MLflow's has these tags."""
    return all(run.data.tags.get(name) == value for name, value in tags.items())


def runs_page(experiment: str, kind: str = "cell", preset: str | None = None) -> str:
    """Where MLflow's interface lists the runs of an experiment with these tags, one below the other.

    Without the last word of the path it shows traces. Runs stand nested, and children are hidden below their parent, as
    long as they are sorted by date, which is the default, filtered or not: hence the order by name.
    """
    condition = tag_condition(kind=kind, **({"preset": preset} if preset else {}))
    asked = {"searchFilter": condition, "orderByKey": "tags.`mlflow.runName`", "orderByAsc": "true"}
    return f"/#/experiments/{experiment}/runs?{urlencode(asked, quote_via=quote)}"


def is_usual(uri: str) -> bool:
    """Whether a resolved store is the one that is meant where none is named."""
    return named(None) != "none" and uri == resolve(None)


def database_file(uri: str) -> Path | None:
    """The file of a SQLite store, or None."""
    found = re.match(r"sqlite(?:\+\w+)?:///([^?]*)", uri)
    return Path(found[1]) if found else None


def artifacts_folder(file: Path) -> Path:
    """Where the artifacts of a database in a file lie: beside it, wherever the command was called from."""
    return file.parent / "mlartifacts"


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
        InputError: no store, or one that cannot be read now.
    """
    store = resolve(uri)
    if store.startswith(("http://", "https://")):
        print(f"This store has a server, which shows it: {unsecret(store)}")
        return 0
    file = database_file(store)
    if file and not file.exists():
        raise InputError(f"{file}: no such tracking store; 'run' makes it, and 'sync' makes it from a run directory")
    check(store, write=False)
    address = f"http://{host}:{port}"
    artifacts = ["--artifacts-destination", str(artifacts_folder(file))] if file else []
    columns = "its table shows no numbers at first: 'Columns' adds metrics and parameters, the chart button draws them"
    print(f"MLflow on {address} in some seconds; Ctrl-C closes it ({columns})", flush=True)
    for experiment, name, kind in _experiments(file) if file else ():
        print(f"  {name}: {address}{runs_page(experiment, kind)}", flush=True)
    # Seven processes for jobs of language models are not needed here. The address of the store is none of a command
    # line's business: everybody on the machine can read those.
    environment = {
        **QUIET,
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONWARNINGS": "ignore",
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": store,
        "MLFLOW_TRACKING_URI": store,
    }
    command = [sys.executable, "-m", "mlflow", "ui", "--host", host, "--port", str(port), "--workers", "1", *artifacts]
    with ended_as_by_ctrl_c():
        server = guardian.start(command, environment)
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
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(file))}?mode=rw", uri=True)) as database:
            found = database.execute(query).fetchall()
            return [(str(number), str(name), "cell" if cells else "trial") for number, name, cells in found]
    except sqlite3.Error:  # MLflow itself says what is wrong with it
        return []
