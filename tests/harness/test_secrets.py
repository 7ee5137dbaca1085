"""A password that is given on the command line or in the environment is nowhere afterwards."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.harness.faults import SECONDS, free_port
from tests.harness.postgres import PostgreSQL
from tests.harness.tiny import ROOT, command, replaced, write

PASSWORD = "S3CRE@T/w0rd"
WRITTEN = "S3CRE%40T%2Fw0rd"
TOKEN = "T0KEN-of-mine"
TRACES = ("S3CRE", "T/w0rd", "%2Fw0rd", "T0KEN")


def call(folder: Path, package: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command as a user calls it, which says nothing of what is secret."""
    usual = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    said = subprocess.run(
        [sys.executable, "-m", package, *arguments],
        cwd=folder,
        env={**usual, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert not found(said.stdout + said.stderr)
    return said


def found(text: str) -> list[str]:
    return [trace for trace in TRACES if trace in text]


def lies_in(folder: Path) -> dict[str, list[str]]:
    """Which files of a folder have traces of the secret, in their names or contents."""
    texts = {str(path): path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file()}
    return {path: found(path + text) for path, text in texts.items() if found(path + text)}


@pytest.mark.long
def test_runs_studies_and_reports_on_a_database_with_a_password(tmp_path: Path, database: PostgreSQL) -> None:
    database.lock("alice", PASSWORD)
    write(tmp_path)
    store = f"postgresql+psycopg2://alice:{WRITTEN}@127.0.0.1:{database.port}/mlflow"
    studies = store.replace("/mlflow", "/optuna")
    calls = [
        ("benchmark", "run", "--suite", "tiny.yaml", "--tracking-uri", store),
        ("benchmark", "sync", f"--tracking-uri={store}"),
        ("benchmark", "doctor", "--tracking-uri", store),
        ("benchmark", "tune", "--suite", "tiny.yaml", "--methods", "cd", "--trials", "2", "--tracking-uri", store,
         "--storage", studies),
        ("benchmark", "tune", "list", "--storage", studies),
        ("reports", "build", "--tracking-uri", store, "--format", "html", "md", "latex"),
        ("benchmark", "delete", "--all", "--yes", "--tracking-uri", store),
    ]  # fmt: skip
    for package, *arguments in calls:
        said = call(tmp_path, package, *arguments, MLFLOW_TRACKING_TOKEN=TOKEN)
        assert said.returncode == 0, said.stdout + said.stderr
    assert not lies_in(tmp_path)
    assert not found(database.dump())


FORMS = (
    "postgresql://127.0.0.1:#/db?user=alice&password=%",
    "postgresql://alice:%@127.0.0.1:#/db",
    "http://alice:%@127.0.0.1:#",
    "http://127.0.0.1:#/prefix?token=%",
)


@pytest.mark.long
@pytest.mark.parametrize("form", FORMS)
def test_a_store_that_is_away(tmp_path: Path, form: str) -> None:
    write(tmp_path)
    store = form.replace("%", WRITTEN).replace("#", str(free_port()))
    said = call(tmp_path, "benchmark", "run", "--suite", "tiny.yaml", "--methods", "cd", "--tracking-uri", store)
    assert said.returncode == 0
    assert "sync --tracking-uri" in said.stdout
    others = [("reports", "build"), ("benchmark", "delete", "--all", "--yes")] if form == FORMS[0] else []
    for package, *arguments in (("benchmark", "sync"), *others):
        said = call(tmp_path, package, *arguments, MLFLOW_TRACKING_URI=store)
        assert said.returncode == 2
        assert said.stderr.count("\n") == 1
    assert not lies_in(tmp_path)


@pytest.fixture
def interface(tmp_path: Path, database: PostgreSQL) -> Iterator[psutil.Process]:
    """The interface of a database with a password, once it answers."""
    database.lock("alice", PASSWORD)
    store = f"postgresql+psycopg2://alice:{WRITTEN}@127.0.0.1:{database.port}/mlflow"
    port = free_port()
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmark", "ui", "--port", str(port)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": store},
            stdout=said,
            stderr=said,
        )
        try:
            deadline = 120
            while "Uvicorn running" not in (tmp_path / "said").read_text() and deadline > 0:
                assert process.poll() is None, (tmp_path / "said").read_text()
                deadline -= 1
                try:
                    process.wait(1)
                except subprocess.TimeoutExpired:
                    continue
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(SECONDS)


@pytest.mark.long
def test_nobody_reads_it_off_a_command_line(interface: psutil.Process, tmp_path: Path) -> None:
    lines = [" ".join(one.cmdline()) for one in (interface, *interface.children(recursive=True))]
    assert any("uvicorn" in line for line in lines)
    assert not [line for line in lines if found(line)]
    assert not lies_in(tmp_path)


PLUGIN = """\
import dataclasses

from baselines import DSM


@dataclasses.dataclass(frozen=True)
class Talks(DSM):
    id, label = "talks", "Talks"

    def loss(self, *_, **__):
        raise RuntimeError("cannot reach http://alice:%s@host")
"""


@pytest.mark.long
def test_an_error_of_a_job_is_written_without_it(tmp_path: Path) -> None:
    write(tmp_path, PLUGIN % WRITTEN, "talks.py")
    write(tmp_path, replaced(("{method: cd}", "{method: talks}"), ("          - {method: bidsm}\n", "")))
    said = command(tmp_path, "run", "--suite", "tiny.yaml", "--plugin", "talks.py")
    assert said.code == 1
    assert "cannot reach http://host" in said.out
    assert not found(said.out + said.err)
    errors = {file.read_text().splitlines()[-1] for file in tmp_path.glob("runs/cells/*/error.txt")}
    assert errors == {"RuntimeError: cannot reach http://host"}
    assert not lies_in(tmp_path / "runs")
