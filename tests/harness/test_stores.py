"""Where a tracking store is: files, servers that are away or go down, many writers at once."""

import contextlib
import os
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from benchmark.records.rundir import RunDir, cell_folder
from benchmark.system.invocation import call
from benchmark.tracking import cells as tracking
from bism import InputError
from tests.harness.faults import free_port
from tests.harness.hand_made import ENVIRONMENT, Cells, history, journal, search


def test_two_processes_made_one_store(tracker: tracking.Tracker) -> None:
    assert [found.name for found in tracker._client.search_experiments(filter_string="name = 'raced'")] == ["raced"]


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns", "mlflow.db"])
def test_a_plain_folder_is_refused(run_dir: RunDir, uri: str) -> None:
    with pytest.raises(InputError, match=r"refuse plain folders.*sqlite:///mlflow.db"):
        tracking.Tracker(uri, run_dir)


def test_a_database_that_cannot_be_made_is_refused(run_dir: RunDir, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be used"):
        tracking.Tracker(f"sqlite:///{tmp_path}/file/mlflow.db", run_dir)


def test_the_store_meant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking.resolve(None) == tracking.resolve("sqlite:///mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere:5000/")
    assert tracking.resolve(None) == "http://somewhere:5000"


def test_a_server_that_is_not_there_is_an_error_at_the_start(run_dir: RunDir) -> None:
    started = time.monotonic()
    with pytest.raises(tracking.Unreachable, match=r"tracking store http://127.0.0.1.*cannot be reached"):
        tracking.Tracker(f"http://127.0.0.1:{free_port()}", run_dir)
    assert time.monotonic() - started < 10


def test_a_database_server_that_is_not_there_is_known_at_once(run_dir: RunDir) -> None:
    started = time.monotonic()
    with pytest.raises(
        tracking.Unreachable, match=r"tracking store postgresql.*//127.0.0.1.*cannot be reached.*refused"
    ):
        tracking.Tracker(f"postgresql+psycopg2://user:secret@127.0.0.1:{free_port()}/mlflow", run_dir)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("uri", ["http://", "https:///path"])
def test_an_address_without_a_host_is_refused(run_dir: RunDir, uri: str) -> None:
    with pytest.raises(InputError, match="the address has no host"):
        tracking.Tracker(uri, run_dir)


@pytest.fixture
def server(store: str, tmp_path: Path) -> Iterator[str]:
    """The store behind a server."""
    port = free_port()
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import sys; from benchmark.tracking.store import start_ui; "
                "start_ui(sys.argv[1], '127.0.0.1', int(sys.argv[2]))",
                store,
                str(port),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=ENVIRONMENT,
            start_new_session=True,
        )
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health").close()
            break
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    os.killpg(process.pid, 15)
    process.wait(timeout=120)


def test_a_server_that_goes_down_costs_a_warning_and_no_data(
    server: str, cells: Cells, run_dir: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = tracking.Tracker(server, run_dir)
    cell = cells.add(seed=0, lines=1)
    cells.train(cell, 0)
    assert tracker.sync(run_dir.records())
    assert tracker.ui_hint().startswith(f"{server}/#/experiments/{tracker._experiment(cells.suite)}/runs?")

    with monkeypatch.context() as down:

        def refuse(*_: Any, **__: Any) -> None:
            raise requests.ConnectionError("refused")

        down.setattr(requests.Session, "request", refuse)
        run_dir.folder(cell).append(10, {"val/log_likelihood": -0.5, "train/objective": 0.5})
        with pytest.warns(UserWarning, match="tracking store http.*fails.*refused.*the command 'sync'"):
            assert not tracker.sync(run_dir.records())
        cells.end(cell, "done")
        assert not tracker.sync(run_dir.records(), last=True)  # and no second warning
        tracker.log_models(run_dir.records(), "best")
        tracker.finish(cells.suite, "quick")
    assert cells.run_of(tracker, cell).info.status == "RUNNING"

    assert tracker.sync(run_dir.records(), last=True)
    tracker.log_models(run_dir.records(), "best")
    tracker.finish(cells.suite, "quick")
    run = cells.run_of(tracker, cell)
    assert run.info.status == "FINISHED"
    assert history(tracker, run, "val/log_likelihood") == journal(run_dir, cell, "val/log_likelihood")
    assert {item.path for item in tracker._client.list_artifacts(run.info.run_id)} == {"best.pt", "config.json"}
    (model,) = run.outputs.model_outputs
    assert "MLmodel" in {item.path for item in tracker._client.list_logged_model_artifacts(model.model_id)}


def test_the_interface_of_a_server_is_the_server(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert tracking.start_ui("http://me:secret@somewhere:5000", "127.0.0.1", 5000) == 0
    assert capsys.readouterr().out.strip().endswith("http://somewhere:5000")
    with pytest.raises(InputError, match="no such tracking store"):
        tracking.start_ui(f"sqlite:///{tmp_path}/none.db", "127.0.0.1", 5000)


def test_the_command_for_the_interface(
    tracker: tracking.Tracker, cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    ui = call("benchmark", "ui")
    asked = f"{ui} --tracking-uri {tracker.uri}, then open http://127.0.0.1:5000"
    assert tracker.ui_hint() == asked
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracker.uri)
    assert tracker.ui_hint() == f"{ui}, then open http://127.0.0.1:5000"
    cells.add()
    tracker.sync(cells.run_dir.records(), last=True)
    experiment = tracker._experiment(cells.suite)
    address, _, asked = tracker.ui_hint("test").partition("then open ")[2].partition("?")
    assert address == f"http://127.0.0.1:5000/#/experiments/{experiment}/runs"
    assert dict(urllib.parse.parse_qsl(asked)) == {
        "searchFilter": "tags.kind = 'cell' and tags.preset = 'test'",
        "orderByKey": "tags.`mlflow.runName`",  # by date, the cells would be hidden below their parent
        "orderByAsc": "true",
    }


@pytest.mark.long
def test_sixteen_writers_on_one_store(store: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Each from a run directory of its own, at the same time: no lock errors, nothing lost, one parent run."""
    suite, ids = request.node.name, dict[str, tuple[Path, str]]()
    for i in range(16):
        with contextlib.closing(RunDir(tmp_path / str(i))) as run_dir:
            cells = Cells(run_dir, suite)
            for seed in range(3):
                ids[cells.add(seed, f"DSM{i}")] = run_dir.path, f"DSM{i}"
                cells.end(f"{suite}-DSM{i}-{seed}", "done")
    sync = [sys.executable, "-m", "benchmark", "sync", "--log-models", "none", "--tracking-uri", store, "--run-dir"]
    writers = [
        subprocess.Popen([*sync, str(i)], cwd=tmp_path, env=ENVIRONMENT, text=True, stderr=subprocess.PIPE,
                         stdout=subprocess.PIPE)
        for i in range(16)
    ]  # fmt: skip
    said = [writer.communicate(timeout=300) for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 16
    assert [err for _, err in said] == [""] * 16
    with contextlib.closing(RunDir(tmp_path / "0")) as run_dir:
        tracker = tracking.Tracker(store, run_dir)
        runs = search(tracker, suite, "tags.kind = 'cell'")
        assert sorted(run.data.tags["cell"] for run in runs) == sorted(ids)
        assert len(search(tracker, suite, "tags.kind = 'plan'")) == 1
        for run in runs:
            folder = cell_folder(ids[run.data.tags["cell"]][0], run.data.tags["cell"])
            for metric in ("val/log_likelihood", "train/objective"):
                written = [(line.step, line.metrics[metric], line.time_ms) for line in folder.measurements()]
                assert len(written) == 3
                assert history(tracker, run, metric) == written
