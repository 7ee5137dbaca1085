"""MLflow holds what the run directory holds: once, whatever fails and however often it is written."""

import contextlib
import dataclasses
import io
import json
import math
import time
from pathlib import Path

import pytest
from rich.console import Console

from benchmark.commands import run_directory
from benchmark.records.integrity import seal
from benchmark.records.rundir import Record, RunDir
from benchmark.tracking import cells as tracking
from reports.store import Store
from tests.harness.hand_made import DATA_HASH, Cells, forget, history, journal, search


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
