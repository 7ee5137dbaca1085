"""MLflow holds what the run directory holds: once, whatever fails and however often it is written."""

import contextlib
import dataclasses
import io
import json
import math
import os
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests
import torch
from rich.console import Console

from baselines.dsm import DSM
from benchmark.commands import run_directory
from benchmark.records.integrity import seal
from benchmark.records.rundir import Record, RunDir, cell_folder
from benchmark.system.invocation import call
from benchmark.tracking import cells as tracking
from bism import GRBM, InputError, log_likelihood
from bism.engine import Trainer
from bism.enumeration import exact_samples
from bism.rng import Rng, generator
from bism.sampling import gibbs, gibbs_noise
from reports.store import Store
from tests.maths.test_samplers import EnergyAlone

DATA_HASH = "0123456789abcdef" * 4
STEPS = (0, 10, 20)
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # of other processes


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests, because MLflow takes ten seconds to make one. Two processes race to make it."""
    folder = tmp_path_factory.mktemp("tracking store")
    code = (
        "import sys; from benchmark.records.rundir import RunDir; from benchmark.tracking.cells import Tracker\n"
        "Tracker('sqlite:///new/mlflow.db', RunDir('runs' + sys.argv[1]))._experiment('raced')"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(i)],
            cwd=folder,
            env=ENVIRONMENT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for i in range(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert ([process.returncode for process in both], said) == ([0, 0], ["", ""])  # and no chatter
    return f"sqlite:///{folder}/new/mlflow.db"


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[RunDir]:
    opened = RunDir(tmp_path / "runs")
    yield opened
    opened.close()


class Cells:
    """Makes cells by hand. Suite = test, so that tests do not meet in the store."""

    def __init__(self, run_dir: RunDir, suite: str) -> None:
        self.run_dir, self.suite = run_dir, suite

    def add(self, seed: int = 0, variant: str = "DSM", lines: int = 3, **config: Any) -> str:
        """A running cell with a journal; its id."""
        cell = f"{self.suite}-{variant}-{seed}"
        self.run_dir.plan([Record(cell, self.suite, "quick", "checkerboard", "dsm", variant, seed, 20, "planned")])
        self.begin(cell, seed, variant, **config)
        for step in STEPS[:lines]:
            metrics = {"val/log_likelihood": -1.0 - step - seed, "train/objective": step / 3}
            self.run_dir.folder(cell).append(step, metrics)
        return cell

    def begin(self, cell: str, seed: int = 0, variant: str = "DSM", **config: Any) -> None:
        self.run_dir.claim([cell], again=True)
        self.run_dir.folder(cell).clear()
        self.run_dir.folder(cell).prepare(
            {
                "suite": self.suite,
                "preset": "quick",
                "task": "checkerboard",
                "method": "dsm",
                "variant": variant,
                "seed": seed,
                "steps": 20,
                "batch_size": 100,
                "data_noise": 0.0,
                "precision": "float32",
                "accumulate": 1,
                "hyper": {"lr": 0.001, "sigma": 0.05},
                "data": {"name": "checkerboard", "hash": DATA_HASH, "train": 600},
                "model": {"name": "grbm", "visible": 2, "hidden": 4},
                "select": "val/log_likelihood",
                "rule": "last",
                "paper": None,
                "reference": "Vincent 2011",
                "description": "Denoising score matching.",
                "device": "cpu",
                "provenance": {"git_commit": "abc", "host": "there", "python_version": "3", "torch_version": "2"},
                **config,
            }
        )

    def end(self, cell: str, state: str, error: str | None = None) -> None:
        if error:
            (self.run_dir.folder(cell).path / "error.txt").write_text(error)
        self.run_dir.set_state(cell, state)

    def train(self, cell: str, seed: int) -> Trainer:
        """Trains a little and saves the checkpoint as the best."""
        trainer = Trainer(DSM(), GRBM(2, 4), torch.rand(100, 2), seeds=[seed])
        trainer.run(5)
        trainer.save(self.run_dir.folder(cell).artifacts / "best.pt")
        return trainer

    def run_of(self, tracker: tracking.Tracker, cell: str) -> Any:
        """The one run that the store has of a cell."""
        (run,) = search(tracker, self.suite, f"tags.cell = '{cell}'")
        return run


@pytest.fixture
def cells(run_dir: RunDir, request: pytest.FixtureRequest) -> Cells:
    return Cells(run_dir, request.node.name)


@pytest.fixture
def tracker(store: str, run_dir: RunDir) -> tracking.Tracker:
    return tracking.Tracker(store, run_dir)


def search(tracker: tracking.Tracker, suite: str, condition: str = "") -> list[Any]:
    experiment = tracker._client.get_experiment_by_name(suite)
    return list(tracker._client.search_runs([experiment.experiment_id], condition)) if experiment else []


def history(tracker: tracking.Tracker, run: Any, metric: str) -> list[tuple[int, float, int]]:
    points = tracker._client.get_metric_history(run.info.run_id, metric)
    return sorted((point.step, point.value, point.timestamp) for point in points)


def journal(run_dir: RunDir, cell: str, metric: str) -> list[tuple[int, float, int]]:
    return [(line.step, line.metrics[metric], line.time_ms) for line in run_dir.folder(cell).measurements()]


def forget(run_dir: RunDir) -> None:
    """Loses what the index remembers of tracking stores."""
    with sqlite3.connect(run_dir.path / "index.sqlite") as index:
        index.execute("DELETE FROM synced")
    index.close()


def test_a_finished_cell_is_one_run_with_labels_parameters_metrics_data_and_files(
    tracker: tracking.Tracker, cells: Cells, run_dir: RunDir
) -> None:
    cell = cells.add(seed=3, paper="BiDSM (N=5)")
    (run_dir.folder(cell).artifacts / "samples.npz").write_bytes(b"numbers")
    cells.end(cell, "done")
    assert tracker.sync(run_dir.records(), command="python -m benchmark run --suite x")
    tracker.finish(cells.suite, "quick")

    run = cells.run_of(tracker, cell)
    tags = run.data.tags
    expected = {
        "suite": cells.suite,
        "preset": "quick",
        "task": "checkerboard",
        "steps": "20",
        "method": "dsm",
        "variant": "DSM",
        "seed": "3",
        "cell": cell,
        "state": "done",
        "kind": "cell",
        "device": "cpu",
        "paper_label": "BiDSM (N=5)",
        "host": "there",
        "torch_version": "2",
        "mlflow.source.name": "python -m benchmark run --suite x",
    }
    assert {name: tags.get(name) for name in expected} == expected
    assert {"git_commit", "mlflow_version", "python_version"} <= set(tags)
    assert (tags["git_commit"], tags["host"], tags["mlflow.source.git.commit"]) == ("abc", "there", "abc")
    assert tags["mlflow.note.content"] == "**DSM**: Denoising score matching.\n\nVincent 2011"
    assert run.info.run_name == "DSM seed 3, checkerboard"
    assert run.info.status == "FINISHED"
    assert run.info.start_time == journal(run_dir, cell, "train/objective")[0][2]
    assert run.data.params == {
        "lr": "0.001",
        "sigma": "0.05",
        "model": "grbm",
        "model_visible": "2",
        "model_hidden": "4",
        "data": "checkerboard",
        "batch_size": "100",
        "data_noise": "0.0",
        "precision": "float32",
        "accumulate": "1",
        "steps": "20",
        "seed": "3",
    }
    for metric in ("val/log_likelihood", "train/objective"):
        assert history(tracker, run, metric) == journal(run_dir, cell, metric)

    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("checkerboard", DATA_HASH[:36])
    assert json.loads(data.dataset.profile) == {"name": "checkerboard", "hash": DATA_HASH, "train": 600}
    assert {item.path for item in tracker._client.list_artifacts(run.info.run_id)} == {"config.json", "samples.npz"}
    assert (Path(tracker.uri.removeprefix("sqlite:///")).parent / "mlartifacts" / cells.suite).is_dir()

    (parent,) = search(tracker, cells.suite, "tags.kind = 'plan'")
    assert tags["mlflow.parentRunId"] == parent.info.run_id
    assert (parent.data.tags["plan"], parent.info.status) == (f"{cells.suite}/quick", "FINISHED")


def test_mlflow_understands_the_data_set(tracker: tracking.Tracker, cells: Cells, run_dir: RunDir) -> None:
    import mlflow

    cell = cells.add()
    tracker.sync(run_dir.records())
    (data,) = cells.run_of(tracker, cell).inputs.dataset_inputs
    assert mlflow.data.get_source(data.dataset).to_dict()["tags"]["mlflow.source.name"] == "benchmark.datasets"
    assert [(tag.key, tag.value) for tag in data.tags] == [("mlflow.data.context", "training")]


@pytest.mark.parametrize("lose", [False, True], ids=["twice", "index lost"])
def test_writing_again_changes_nothing(
    tracker: tracking.Tracker, cells: Cells, run_dir: RunDir, store: str, lose: bool
) -> None:
    cell = cells.add()
    run_dir.folder(cell).append(30, {"val/log_likelihood": math.nan, "train/objective": math.inf})
    cells.end(cell, "done")
    tracker.sync(run_dir.records())
    before = cells.run_of(tracker, cell)
    if lose:
        forget(run_dir)
    again = tracking.Tracker(store, run_dir)
    again.sync(run_dir.records())
    again.sync(run_dir.records())

    after = cells.run_of(tracker, cell)
    assert after.info.run_id == before.info.run_id
    assert after.data.params == before.data.params
    assert len(after.inputs.dataset_inputs) == 1
    for metric in ("val/log_likelihood", "train/objective"):
        points = history(tracker, after, metric)
        assert [(step, time_ms) for step, _, time_ms in points] == [
            (step, time_ms) for step, _, time_ms in journal(run_dir, cell, metric)
        ]
    assert len(search(tracker, cells.suite, "tags.kind = 'plan'")) == 1


def test_a_journal_of_more_lines_than_one_call_takes_arrives_whole(
    tracker: tracking.Tracker, cells: Cells, run_dir: RunDir
) -> None:
    cell = cells.add(lines=0)
    for step in range(250):
        run_dir.folder(cell).append(step, {f"metric/{i}": step + i / 10 for i in range(9)})
    tracker.sync(run_dir.records())
    run = cells.run_of(tracker, cell)
    for i in range(9):
        assert history(tracker, run, f"metric/{i}") == journal(run_dir, cell, f"metric/{i}")


def test_a_preset_of_any_name_and_numbers_of_any_kind_arrive(
    tracker: tracking.Tracker, cells: Cells, run_dir: RunDir
) -> None:
    preset = 'it\'s "100%" \\'
    cell, sibling = cells.add(preset=preset), cells.add(1, preset=preset)
    for step, odd in enumerate((math.nan, math.inf, -math.inf), start=30):
        run_dir.folder(cell).append(step, {"test/log_likelihood": odd})
    run_dir.plan([dataclasses.replace(record, preset=preset) for record in run_dir.records()])
    for one in (cell, sibling):
        cells.end(one, "done")
    for _ in range(2):
        assert tracker.sync(run_dir.records())
        tracker.finish(cells.suite, preset)
    (plan,) = search(tracker, cells.suite, "tags.kind = 'plan'")
    assert (plan.data.tags["preset"], plan.info.status) == (preset, "FINISHED")

    found = Store(tracker.uri)
    assert found.presets(cells.suite) == [preset]
    held = found.cells(cells.suite, preset)
    assert held["cell"].tolist() == [cell, sibling]
    values = found.histories([held["run"][0]], "test/log_likelihood")["value"].tolist()
    assert sorted(values, key=str) == [-math.inf, math.inf, pytest.approx(math.nan, nan_ok=True)]
    assert held["test/log_likelihood"][0] not in (1.7976931348623157e308, -1.7976931348623157e308)

    tracker.forget([record for record in run_dir.records() if record.id == cell])
    run_dir.remove([cell])
    assert [run.data.tags["cell"] for run in search(tracker, cells.suite, "tags.kind = 'cell'")] == [sibling]


def test_a_damaged_cell_is_not_brought_and_stops_none(tracker: tracking.Tracker, cells: Cells, run_dir: RunDir) -> None:
    bad, odd, good = cells.add(0), cells.add(1), cells.add(2)
    for one in (bad, odd, good):
        cells.end(one, "done")
    seal(run_dir.folder(bad), run_dir.records([bad])[0])
    run_dir.folder(bad).append(99, {"val/log_likelihood": 5.0})
    (run_dir.folder(odd).path / "config.json").write_text('{"suite": "' + cells.suite + '"}')
    with pytest.warns(UserWarning, match="not brought to the tracking store") as said:
        assert tracker.sync(run_dir.records())
    assert ["99" in str(one.message) or "metrics.jsonl: has" in str(one.message) for one in said] == [True, False]
    assert [run.data.tags["cell"] for run in search(tracker, cells.suite, "tags.kind = 'cell'")] == [good]

    tracker.finish(cells.suite, "quick")
    (plan,) = search(tracker, cells.suite, "tags.kind = 'plan'")
    assert "2 damaged" in plan.data.tags["mlflow.note.content"]
    out = io.StringIO()
    code = run_directory.sync(Console(file=out, width=200), run_dir.path, tracker.uri, "none")
    lines = [line for line in out.getvalue().splitlines() if line.startswith("damaged: ")]
    assert (code, len(lines)) == (1, 2)
    assert "1 cell brought to" in out.getvalue()


def test_planned_cells_have_no_run(tracker: tracking.Tracker, cells: Cells, run_dir: RunDir) -> None:
    run_dir.plan([Record("planned", cells.suite, "quick", "checkerboard", "dsm", "DSM", 0, 20, "planned")])
    assert tracker.sync(run_dir.records())
    tracker.finish(cells.suite, "quick")
    (plan,) = search(tracker, cells.suite)
    assert (plan.data.tags["kind"], plan.info.status) == ("plan", "KILLED")


@pytest.mark.parametrize(
    ("state", "status", "plan_status"),
    [("failed", "FAILED", "FAILED"), ("diverged", "FAILED", "FINISHED"), ("stopped", "KILLED", "KILLED")],
)
def test_a_cell_that_does_not_end_well_says_so_and_goes_on_in_the_same_run(
    tracker: tracking.Tracker, cells: Cells, run_dir: RunDir, state: str, status: str, plan_status: str
) -> None:
    cell = cells.add(lines=1)
    tracker.sync(run_dir.records())
    assert cells.run_of(tracker, cell).info.status == "RUNNING"

    cells.end(cell, state, error=None if state == "stopped" else "Traceback\n  somewhere\nValueError: too hot\n")
    tracker.sync(run_dir.records())
    tracker.finish(cells.suite, "quick")
    ended = cells.run_of(tracker, cell)
    assert (ended.info.status, ended.data.tags["state"]) == (status, state)
    assert ended.data.tags.get("error") == (None if state == "stopped" else "ValueError: too hot")
    files = {item.path for item in tracker._client.list_artifacts(ended.info.run_id)}
    assert ("error.txt" in files) == (state != "stopped")
    (plan,) = search(tracker, cells.suite, "tags.kind = 'plan'")
    assert plan.info.status == plan_status

    run_dir.claim([cell], again=True)  # goes on from its checkpoint, with the journal it has
    tracker.sync(run_dir.records())
    (plan,) = search(tracker, cells.suite, "tags.kind = 'plan'")
    assert cells.run_of(tracker, cell).info.status == plan.info.status == "RUNNING"
    run_dir.folder(cell).append(10, {"val/log_likelihood": -0.5, "train/objective": 0.5})
    (run_dir.folder(cell).path / "error.txt").unlink(missing_ok=True)
    cells.end(cell, "done")
    tracker.sync(run_dir.records())
    tracker.finish(cells.suite, "quick")
    done = cells.run_of(tracker, cell)
    assert (done.info.run_id, done.info.status) == (ended.info.run_id, "FINISHED")
    assert done.data.tags.get("error", "") == ""
    assert history(tracker, done, "val/log_likelihood") == journal(run_dir, cell, "val/log_likelihood")


def test_training_from_the_start_again_replaces_the_run(
    tracker: tracking.Tracker, cells: Cells, run_dir: RunDir
) -> None:
    cell = cells.add()
    cells.end(cell, "done")
    tracker.sync(run_dir.records())
    first = cells.run_of(tracker, cell)
    time.sleep(0.002)  # so that the first line has another time
    cells.add()
    cells.end(cell, "done")
    tracker.sync(run_dir.records())
    second = cells.run_of(tracker, cell)
    assert second.info.run_id != first.info.run_id
    assert history(tracker, second, "train/objective") == journal(run_dir, cell, "train/objective")


@pytest.mark.parametrize("what", ["run", "experiment"])
def test_what_is_deleted_in_the_store_comes_back(
    tracker: tracking.Tracker, cells: Cells, run_dir: RunDir, store: str, what: str
) -> None:
    cell = cells.add()
    cells.end(cell, "done")
    tracker.sync(run_dir.records())
    run = cells.run_of(tracker, cell)
    if what == "run":
        tracker._client.delete_run(run.info.run_id)
    else:
        tracker._client.delete_experiment(run.info.experiment_id)
    tracking.Tracker(store, run_dir).sync(run_dir.records())
    again = cells.run_of(tracker, cell)
    assert (again.info.run_id == run.info.run_id) == (what == "experiment")
    assert history(tracker, again, "train/objective") == journal(run_dir, cell, "train/objective")


def test_a_cell_that_is_claimed_but_not_begun_waits(tracker: tracking.Tracker, cells: Cells, run_dir: RunDir) -> None:
    run_dir.plan([Record("claimed", cells.suite, "quick", "checkerboard", "dsm", "DSM", 0, 20, "planned")])
    run_dir.claim(["claimed"])
    assert tracker.sync(run_dir.records())
    assert search(tracker, cells.suite, "tags.kind = 'cell'") == []


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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health").close()
            break
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    os.killpg(process.pid, 15)
    process.wait(timeout=20)


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


def predict(uri: str, store: str, table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What a model in the store says of a table, and 50 samples of seed 3, in another process and folder."""
    code = (
        "import sys, pandas, mlflow; mlflow.set_tracking_uri(sys.argv[2])\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "print('ANSWER' + model.predict(pandas.read_json(sys.stdin, dtype=False)).to_json(double_precision=15))\n"
        "print('ANSWER' + model.predict(None, params={'sample': 50, 'seed': 3}).to_json(double_precision=15))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, uri, store],
        input=table.to_json(double_precision=15),
        text=True,
        capture_output=True,
        check=False,
        env=ENVIRONMENT,
        cwd="/",
    )
    assert answer.returncode == 0, answer.stderr
    _, scores, samples = answer.stdout.split("ANSWER")
    return pd.DataFrame(json.loads(scores)), pd.DataFrame(json.loads(samples))


def models(tracker: tracking.Tracker, cells: Cells) -> dict[str, str]:
    """The logged model of each cell that has one."""
    return {
        run.data.tags["cell"]: output.model_id
        for run in search(tracker, cells.suite, "tags.kind = 'cell'")
        for output in run.outputs.model_outputs
    }


@pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")  # mlflow.pyfunc's own, when it is first imported
def test_the_best_seed_of_each_variant_is_logged_once_and_scores_as_it_did(
    tracker: tracking.Tracker, cells: Cells, run_dir: RunDir, capfd: pytest.CaptureFixture[str]
) -> None:
    import mlflow

    best, second = cells.add(seed=0), cells.add(seed=1)  # seed 0 has the higher log-likelihood
    worse = cells.add(seed=0, variant="SM", select="train/objective")
    run_dir.folder(worse).append(30, {"val/log_likelihood": 0.0, "train/objective": 9.0})
    better = cells.add(seed=1, variant="SM", select="train/objective")  # the lower, where it is no log-likelihood
    diverged = cells.add(seed=2)
    trainers = {cell: cells.train(cell, seed) for seed, cell in enumerate((best, second))}
    for cell in (worse, better, diverged):
        cells.train(cell, 0)
    for cell in (best, second, worse, better):
        cells.end(cell, "done")
    cells.end(diverged, "diverged")
    tracker.sync(run_dir.records())

    capfd.readouterr()
    tracker.log_models(run_dir.records(), "none")
    assert models(tracker, cells) == {}
    tracker.log_models(run_dir.records(), "best")
    logged = models(tracker, cells)
    assert set(logged) == {best, better}
    tracker.log_models(run_dir.records(), "best")
    assert models(tracker, cells) == logged
    tracker.log_models(run_dir.records(), "all")
    assert {**models(tracker, cells), **logged} == models(tracker, cells)
    assert set(models(tracker, cells)) == {best, second, worse, better}
    assert "".join(capfd.readouterr()) == ""  # no chatter

    model = tracker._client.get_logged_model(logged[best])
    assert (model.name, model.status.value, model.tags["variant"]) == ("model", "READY", "DSM")
    files = {file.name for file in Path(mlflow.artifacts.download_artifacts(model.artifact_location)).rglob("*")}
    assert not any(name.endswith(".pkl") for name in files)
    v = torch.rand(7, 2)
    scores, samples = predict(f"models:/{logged[best]}", tracker.uri, pd.DataFrame(v.numpy(), columns=["x", "y"]))
    expected = log_likelihood(trainers[best].fitted().model(0), v)
    np.testing.assert_allclose(scores["log_likelihood"], expected, rtol=0, atol=1e-10)
    rng = Rng(generator(3, 0, "samples", torch.device("cpu")), torch.float64)
    wanted = exact_samples(trainers[best].fitted().model(0).double(), 50, rng)
    np.testing.assert_allclose(samples.to_numpy(), wanted, rtol=0, atol=1e-10)


def loaded(cells: Cells, run_dir: RunDir, model: Any = None) -> tuple[Any, Any]:
    """The code of the logged models on a cell that was trained a little, with another model in its place if wanted."""
    from mlflow.pyfunc.model import PythonModelContext

    from benchmark.tracking.pyfunc import TrainedModel

    cell = cells.add(seed=0)
    cells.train(cell, 0)
    folder = run_dir.folder(cell)
    files = {"checkpoint": str(folder.artifacts / "best.pt"), "config": str(folder.path / "config.json")}
    context, made = PythonModelContext(files, {}), TrainedModel()
    made.load_context(context)
    if model is not None:
        made.model, made.log_z = model.double(), None
    return made, context


@pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")
def test_chains_of_a_model_that_cannot_be_enumerated_start_at_the_rows(cells: Cells, run_dir: RunDir) -> None:
    model, context = loaded(cells, run_dir, GRBM(2, 21))
    start = pd.DataFrame(torch.rand(3, 2).numpy(), columns=["x", "y"])
    drawn = model.predict(context, start, {"sample": 5, "sweeps": 2, "seed": 1})
    assert (list(drawn), len(drawn)) == (["x", "y"], 5)
    v = torch.tensor(start.to_numpy(), dtype=torch.float64)[[0, 1, 2, 0, 1]]
    rng = Rng(generator(1, 0, "samples", torch.device("cpu")), torch.float64)
    for _ in range(2):
        v = gibbs(model.model, v, gibbs_noise(model.model, 5, 1, rng))
    np.testing.assert_array_equal(drawn.to_numpy(), v.detach().numpy())
    alone = model.predict(context, None, {"sample": 4, "sweeps": 1})
    assert alone.shape == (4, 2)
    assert not alone.equals(model.predict(context, None, {"sample": 4, "sweeps": 1, "seed": 1}))


@pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")
def test_samples_that_cannot_be_drawn(cells: Cells, run_dir: RunDir) -> None:
    model, context = loaded(cells, run_dir)
    with pytest.raises(InputError, match="sample must be at least 1, got -1"):
        model.predict(context, None, {"sample": -1})
    model.model = EnergyAlone()
    with pytest.raises(InputError, match="EnergyAlone cannot be sampled: it has no draw"):
        model.predict(context, None, {"sample": 1})


def test_the_parameters_of_predict_are_those_of_the_signature() -> None:
    from benchmark.tracking.logged_models import _SIGNATURE
    from benchmark.tracking.pyfunc import SAMPLING

    assert {param.name: param.default for param in _SIGNATURE.params.params} == SAMPLING


def ranked(cells: Cells, variant: str, seed: int, value: float) -> str:
    cell = cells.add(
        seed, variant, preset_label="a smoke ranking", timing={"compiled": True, "threads": 1, "jobs_beside": 1}
    )
    times = {"time/train_seconds": 1.0, "time/ms_per_step": 0.25}
    cells.run_dir.folder(cell).append(20, {"test/log_likelihood": value, "val/log_likelihood": 0.0, **times})
    cells.end(cell, "done")
    return cell


def note(tracker: tracking.Tracker, cells: Cells) -> list[str]:
    (plan,) = search(tracker, cells.suite, "tags.kind = 'plan'")
    return str(plan.data.tags["mlflow.note.content"]).splitlines()


def test_the_ranking_stands_in_the_description_of_the_plan_s_run(
    tracker: tracking.Tracker, cells: Cells, run_dir: RunDir
) -> None:
    for variant, value in (("DSM", -1.0), ("SM", 2.0)):
        for seed in (0, 1):
            ranked(cells, variant, seed, value + seed)
    tracker.sync(run_dir.records(), last=True)
    tracker.finish(cells.suite, "quick")
    said = note(tracker, cells)
    assert said[0] == "4 cells: 4 done."
    assert "**a smoke ranking**" in said
    rows = [[part.strip() for part in line.split("|")[1:-1]] for line in said if line.startswith("|")][2:]
    assert [row[:3] + row[4:] for row in rows] == [
        ["1", "SM", "2.5", "2", "0.250"], ["2", "DSM", "-0.5", "2", "0.250"],
    ]  # fmt: skip
    assert "Times: compiled, on cpu with 1 thread, beside 1 other job." in said
    tags = cells.run_of(tracker, run_dir.records()[0].id).data.tags
    assert (tags["compiled"], tags["threads"], tags["jobs_beside"]) == ("true", "1", "1")


def test_deleted_cells_have_no_run_and_no_place_in_plan_and_ranking(
    tracker: tracking.Tracker, cells: Cells, run_dir: RunDir
) -> None:
    kept, gone = ranked(cells, "SM", 0, 2.0), ranked(cells, "DSM", 0, -1.0)
    tracker.sync(run_dir.records(), last=True)
    tracker.finish(cells.suite, "quick")
    from mlflow.entities import LoggedModelOutput

    client, run = tracker._client, cells.run_of(tracker, gone).info
    model = client.create_logged_model(run.experiment_id, "model", run.run_id)
    client.log_outputs(run.run_id, [LoggedModelOutput(model.model_id, 1)])
    assert len(client.search_logged_models([run.experiment_id])) == 1
    tracker.forget([record for record in run_dir.records() if record.id == gone])
    run_dir.remove([gone])
    assert client.search_logged_models([run.experiment_id]) == []
    (left,) = search(tracker, cells.suite, "tags.kind = 'cell'")
    assert left.data.tags["cell"] == kept
    assert not any("DSM" in line for line in note(tracker, cells))
    (plan,) = search(tracker, cells.suite, "tags.kind = 'plan'")
    (file,) = tracker._client.list_artifacts(plan.info.run_id, "plans")
    planned = json.loads(Path(tracker._client.download_artifacts(plan.info.run_id, file.path)).read_text())
    assert [one["id"] for one in planned] == [kept]
    tracker.forget(run_dir.records())
    assert search(tracker, cells.suite) == []


def test_an_unknown_choice_of_models_is_refused(tracker: tracking.Tracker) -> None:
    with pytest.raises(InputError, match="best, all or none, got 'some'"):
        tracker.log_models([], "some")


@pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")
def test_a_model_says_what_is_wrong_with_a_table(cells: Cells, run_dir: RunDir) -> None:
    from mlflow.pyfunc.model import PythonModelContext

    from benchmark.tracking.pyfunc import TrainedModel

    def loaded(visible: int, hidden: int) -> Any:
        cell = cells.add(seed=hidden, model={"name": "grbm", "visible": visible, "hidden": hidden})
        folder, model = run_dir.folder(cell), TrainedModel()
        Trainer(DSM(), GRBM(visible, hidden), torch.rand(100, visible), seeds=[3]).save(folder.artifacts / "last.pt")
        artifacts = {"checkpoint": str(folder.artifacts / "last.pt"), "config": str(folder.path / "config.json")}
        model.load_context(PythonModelContext(artifacts, None))  # type: ignore[no-untyped-call]  # MLflow's
        return model

    model = loaded(visible=2, hidden=4)
    assert list(model.predict(None, pd.DataFrame([[0, 1]])).columns) == ["log_likelihood"]
    with pytest.raises(InputError, match=r"expected 2 numeric columns.*\(1, 3\)"):
        model.predict(None, pd.DataFrame([[0.0, 1.0, 2.0]]))
    with pytest.raises(InputError, match=r'expected 2 numeric columns.*; to sample, give params={"sample": 16}'):
        model.predict(None, None)
    with pytest.raises(InputError, match="row 1, column 0 is nan"):
        model.predict(None, pd.DataFrame([[0.0, 1.0], [math.nan, 1.0]]))
    with pytest.raises(InputError, match="expected 2 numeric columns"):
        model.predict(None, pd.DataFrame([["a", 1.0]]))
    large = loaded(visible=3, hidden=40)  # too many of both for log Z
    v = torch.tensor([[0.25, 0.5, 0.75]], dtype=torch.float64)
    answer = large.predict(None, pd.DataFrame(v.numpy()))
    expected = -float(large.model.free_energy(v).detach())
    assert answer["log_density_unnormalised"][0] == pytest.approx(expected, abs=1e-12)


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


def test_a_plan_names_the_cells_that_have_not_begun(
    tracker: tracking.Tracker, cells: Cells, run_dir: RunDir, tmp_path: Path
) -> None:
    """What a report takes for missing; of two run directories that share a plan, together."""
    begun = cells.add(0)
    run_dir.plan([Record("later", cells.suite, "quick", "checkerboard", "dsm", "DSM", 1, 20, "planned")])
    tracker.sync(run_dir.records())
    with contextlib.closing(RunDir(tmp_path / "elsewhere")) as other:
        other.plan([Record("there", cells.suite, "quick", "checkerboard", "dsm", "DSM", 2, 20, "planned")])
        tracking.Tracker(tracker.uri, other).sync(other.records())
    found = Store(tracker.uri).cells(cells.suite, "quick")
    assert dict(zip(found["cell"], found["state"], strict=True)) == {
        begun: "running", "later": "planned", "there": "planned",
    }  # fmt: skip
    assert found["seed"].tolist() == [0, 1, 2]
    assert (found["run"] == "").tolist() == [False, True, True]
