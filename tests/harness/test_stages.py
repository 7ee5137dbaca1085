"""Methods that train in stages, through the runner and in tuning."""

import contextlib
import threading
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from rich.console import Console

from benchmark.commands import standing
from benchmark.data.datasets import DataSet, load
from benchmark.records.rundir import CellFolder, RunDir, cell_folder
from benchmark.running import progress
from benchmark.running.job import JobSettings, Stopped, _train
from benchmark.tasks import registry
from benchmark.tasks.jobs import Job, jobs
from benchmark.tasks.plan import Cell, Choices, plan
from benchmark.tasks.suite_file import load_suite
from bism import GRBM
from bism.checkpoint import load_checkpoint
from bism.engine import Trainer
from tests.contracts.cases import same
from tests.contracts.staged import Staged
from tests.harness.hill import SUITE, bench
from tests.harness.tiny import ROOT, TINY, write

STAGED = ROOT / "tests" / "contracts" / "staged.py"


@pytest.fixture(scope="module")
def data() -> DataSet:
    return load({"name": "checkerboard", "train": 500, "val": 200, "test": 200}, Path("none"))


@pytest.fixture
def job(tmp_path: Path, data: DataSet) -> Job:
    """Two seeds and 20 iterations, measured at 0, 5, 10, 15 and 20."""
    methods = registry.methods([STAGED])
    suite = load_suite(str(write(tmp_path, TINY.replace("method: cd", "method: staged"))), methods)
    (one,) = jobs(plan(suite, Choices(methods=["staged"]), methods, {"board": data}))
    return Job(tuple(Cell({**cell.config, "pictures": False}) for cell in one.cells))


def train(job: Job, data: DataSet, folder: Path, until: int | None = None) -> tuple[list[CellFolder], list[Any]]:
    """As the process of a job does; asked to stop once it has come so far. What it writes and says."""
    cells, stop, said = [cell_folder(folder, cell.id) for cell in job.cells], threading.Event(), list[Any]()

    def report(*message: Any) -> None:
        said.append(message)
        if message[:2] == ("step", until):
            stop.set()

    settings = JobSettings(plugins=(STAGED,), compile=False)
    try:
        _train(job, data, cells, "cpu", settings, False, report, stop, None)  # type: ignore[arg-type]
    except Stopped as stopped:
        said.append(str(stopped))
    return cells, said


def test_a_job_says_its_stage_and_goes_on_in_and_between_them(job: Job, data: DataSet, tmp_path: Path) -> None:
    whole, said = train(job, data, tmp_path / "whole")
    steps = [message[1:] for message in said if message[0] == "step"]
    assert [step for step in steps if step[0] in (5, 10)] == [(5, "blur"), (10, "blur")]
    assert (15, "normalise") in steps
    for until, stage in ((10, "blur"), (15, "normalise")):
        begun, said = train(job, data, tmp_path / "begun", until)
        assert said[-1] == f"at iteration {until} of 20, in stage {stage}"
        assert begun[0].config["stage"] == stage
    begun, _ = train(job, data, tmp_path / "begun")
    for one, other in zip(whole, begun, strict=True):
        ends = [load_checkpoint(cell.artifacts / "last.pt") for cell in (one, other)]
        assert same(ends[0]["tensors"], ends[1]["tensors"])
        written = [[line.metrics["train/objective"] for line in cell.measurements()[1:5]] for cell in (one, other)]
        assert written[0] == written[1]


def test_what_a_step_reports_is_logged_of_validation_data(job: Job, data: DataSet, tmp_path: Path) -> None:
    """By its own stage alone, whose figures these are."""
    cells, _ = train(job, data, tmp_path)
    for cell in cells:
        lines = {line.step: line.metrics for line in cell.measurements()}
        assert [step for step, line in lines.items() if "val/mean_of_v" in line] == [0, 5, 10]
        means = {lines[step]["val/mean_of_v"] for step in (0, 5, 10)}  # the same minibatches
        assert len(means) == 1
        assert means.pop() == pytest.approx(float(data.val.mean()), abs=0.1)
        assert len({lines[step]["val/first"] for step in (0, 5, 10)}) == 3
        for line in lines.values():
            assert "val/objective" in line
            assert not any(name.startswith("train/") and name != "train/objective" for name in line)


def test_status_and_the_log_say_the_stage(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(record=True, width=200)
    with contextlib.closing(RunDir(tmp_path / "runs")) as runs:
        runs.plan(cell.record for cell in job.cells)
        cells = [cell.id for cell in job.cells]
        runs.claim(cells, False)
        runs.set_progress(cells[:1], 1500)
        for cell in cells:
            runs.folder(cell).prepare(job.config)
            runs.folder(cell).describe(stage="normalise")
        standing.print_stages(console, runs, runs.records())
    monkeypatch.setattr(progress, "_SILENCE_SECONDS", -1)
    lines = progress.Lines(console, [job], lambda _: "")
    lines.stepped(job, 7, "blur")
    lines.stepped(job, 7)
    assert console.export_text().splitlines() == [
        "running: board Staged seed 0: 1,500 of 20 iterations, normalise",
        f"{job.title}, blur: 7 of 20 iterations",
        f"{job.title}: 7 of 20 iterations",
    ]


def test_tuning_gives_the_value_of_a_training(tmp_path: Path, data: DataSet) -> None:
    text = SUITE.replace("{method: peak, set: {x: 2.0}}", "{method: staged}")
    one = bench(tmp_path, data, "staged", text=text, plugins=(STAGED,), enqueue=False)
    one.work(3)
    assert one.notes == []
    trials = one.trials(TrialState.COMPLETE)
    assert len(trials) == 3
    for trial in trials:
        trainer = Trainer(Staged(**trial.params), GRBM(2, 3), data.train, seeds=[1000, 1001], iterations=18)
        trainer.run(18)
        expected = float(trainer.fitted().log_likelihood(data.val).mean())
        assert trial.value == pytest.approx(expected, rel=1e-6)
        assert trial.user_attrs["train_seconds"] > 0
