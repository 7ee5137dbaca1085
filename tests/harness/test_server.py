"""A real server: MLflow on PostgreSQL, through a run; and the compose file that starts one elsewhere."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from benchmark.tracking import QUIET
from benchmark.tracking.store_writer import MlflowClient
from reports.__main__ import main as reports
from tests.harness.faults import RUN, SUITE, ended, exactly_once, free_port, same_end, started, tracked, until
from tests.harness.postgres import PostgreSQL
from tests.harness.proxy import proxied
from tests.harness.tiny import ROOT, command, write

COMPOSE = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")


class Tracking:
    """An MLflow server; ``path`` is where it answers (``--static-prefix``)."""

    def __init__(self, store: str, folder: Path, path: str = "") -> None:
        self.store, self.folder, self.path, self.port = store, folder, path, free_port()
        self.start()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}"

    def start(self) -> None:
        arguments = ["--backend-store-uri", self.store, "--artifacts-destination", str(self.folder / "artifacts")]
        arguments += ["--static-prefix", self.path] if self.path else []
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *arguments, "--port", str(self.port), "--workers", "1"],
                env={**os.environ, **QUIET, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        until(self.process, self._answers)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health"):
                return True
        except OSError:
            return False

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def tracking(database: PostgreSQL, tmp_path: Path) -> Iterator[Tracking]:
    running = Tracking(database.uri, tmp_path)
    yield running
    running.kill()


@pytest.mark.long
def test_a_server_that_dies_in_the_middle(
    tmp_path: Path, whole: Path, database: PostgreSQL, tracking: Tracking
) -> None:
    write(tmp_path, SUITE)
    with started(tmp_path, "--tracking-uri", tracking.uri) as process:
        until(process, lambda: any(run.data.metrics for run in tracked(tracking.uri).values()))
        tracking.kill()
        database.stop()
        database.start()
        tracking.start()
        said = ended(process)
    assert (said.code, said.err) == (0, "")
    same_end(tmp_path, whole)
    assert command(tmp_path, "sync", "--tracking-uri", tracking.uri).code == 0
    exactly_once(tmp_path, tracking.uri)
    again = command(tmp_path, *RUN, "--tracking-uri", tracking.uri)
    assert "4 cells, 4 done already" in again.out
    exactly_once(tmp_path, tracking.uri)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's use of SQLAlchemy
def test_a_server_under_a_path_behind_a_proxy(tmp_path: Path) -> None:
    """What is printed leads where the user said, and nothing is asked for beside it."""
    write(tmp_path)
    server = Tracking(f"sqlite:///{tmp_path}/server.db", tmp_path, "/x")
    try:
        with proxied("/lab/mlflow", server.uri) as (uri, elsewhere):
            said = command(tmp_path, "run", "--suite", "tiny.yaml", "--tracking-uri", f"{uri}/")
            assert (said.code, said.err) == (0, "")
            exactly_once(tmp_path, uri)
            run = next(iter(tracked(uri).values())).info
            assert MlflowClient(uri).list_artifacts(run.run_id)
            assert f"{uri}/#/experiments/{run.experiment_id}/runs?" in said.out
            assert set(re.findall(r"http://[^/\s]+(?:/[\w-]+)*", said.out)) == {uri}
            with urllib.request.urlopen(f"{uri}/") as page:
                assert b"MLflow" in page.read()
            report = tmp_path / "report"
            assert reports(["build", "--tracking-uri", uri, "--out", str(report), "--format", "html"]) == 0
            assert f"{uri}/#/experiments/{run.experiment_id}/runs/" in (report / "report.html").read_text()
            assert elsewhere == []
    finally:
        server.kill()


# --- the compose file -------------------------------------------------------------------------------------------------


def test_the_compose_file_keeps_to_the_specification() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    found = subprocess.run([*check, str(ROOT / "docker-compose.yml")], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def test_images_are_pinned_and_ports_are_this_machine_s() -> None:
    services = yaml.safe_load(COMPOSE)["services"]
    bases = re.findall(r"^\s*(?:image:|FROM) (\S+)$", COMPOSE, flags=re.MULTILINE)
    foreign = [base for base in bases if not base.startswith("bism-benchmark/")]
    assert len(foreign) == 3
    assert all(re.fullmatch(r"\S+:\d+\.\d+\S*", base) for base in foreign)
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert len(ports) == 2
    assert all(port.startswith("${BIND_ADDRESS:-127.0.0.1}:") for port in ports)
    assert all("healthcheck" in services[name] for name in ("postgres", "mlflow"))


def test_the_example_of_settings_has_every_one_and_no_other() -> None:
    used = set(re.findall(r"\$\{(\w+)", COMPOSE))
    named = set(re.findall(r"^(?:# )?(\w+)=", EXAMPLE, flags=re.MULTILINE))
    assert used == named
    assert re.search(r"^POSTGRES_PASSWORD=$", EXAMPLE, flags=re.MULTILINE)  # no secret that everybody knows
    assert "${POSTGRES_PASSWORD:?" in COMPOSE
