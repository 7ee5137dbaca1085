"""How planning, supervising, stopping, status and going on scale, with work that is only pretended.

    python -m tests.harness.scale [--cells 100000] [--tracked 1000]

A command and not a test: it times. The jobs train nothing, but all else is what a run does: the plan from a suite file,
the index, the supervisor, the folders and journals of the cells, the tables. ``--tracked`` cells are also brought to a
new MLflow store in a SQLite file, with eleven lines of ten metrics each.
"""

import argparse
import contextlib
import io
import json
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmark.commands import run_directory
from benchmark.data.datasets import DataSet, checkerboard
from benchmark.records.provenance import machine
from benchmark.records.rundir import RunDir
from benchmark.running.executors import DeviceSlots, Ending
from benchmark.running.supervisor import Supervisor
from benchmark.tasks import registry
from benchmark.tasks.jobs import Job, jobs
from benchmark.tasks.plan import Cell, Choices, plan
from benchmark.tasks.suite_file import load_suite
from tests.harness.tiny import replaced, write

SEEDS, RATES = 10, 10
DATA = {"board": checkerboard(Path("nowhere"), 500, 200, 200)}


class Pretended:
    """A job that is done as soon as it is started."""

    def __init__(self, job: Job, run_dir: Path) -> None:
        self.began, self.ending = True, Ending("", False)
        for cell in job.cells:
            folder = run_dir / "cells" / cell.id
            folder.mkdir(parents=True)
            (folder / "config.json").write_text(json.dumps({**cell.config, "device": "cpu", "threads": 1}))
            metrics = {f"test/{name}": float(name) for name in range(7)}
            metrics |= {"test/log_likelihood": cell.config["seed"], "time/train_seconds": 1.0, "time/ms_per_step": 1.0}
            lines = ({"step": step, "time_ms": step, "metrics": metrics} for step in range(0, 22, 2))
            (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        self._said = [("cell", cell.id, "done", None) for cell in job.cells] + [("done", 1.0)]

    def take(self) -> list[tuple[Any, ...]]:
        """Everything at once."""
        said, self._said = self._said, []
        return said

    def stop(self) -> None:
        """It has ended."""

    def kill(self) -> None:
        """It has ended."""


class Pretending:
    """Two places for such jobs; after so many of them somebody presses Ctrl-C."""

    def __init__(self, run_dir: Path, interrupted_after: int | None) -> None:
        self.places = [DeviceSlots("cpu", 2, 1e12)]
        self.started, self._run_dir, self._limit = 0, run_dir, interrupted_after

    def start(self, job: Job, data: DataSet, place: DeviceSlots, fresh: bool, alone: bool) -> Pretended:
        """Does a job."""
        if self.started == self._limit:
            raise KeyboardInterrupt
        self.started += 1
        return Pretended(job, self._run_dir)

    def wait(self, workers: Sequence[Pretended], seconds: float) -> None:
        """Nothing is waited for."""

    def close(self) -> None:
        """Nothing is left."""


class Silent:
    """Hears nothing of how the jobs go."""

    def started(self, job: Job) -> None: ...
    def stepped(self, job: Job, step: int, stage: str = "") -> None: ...
    def doing(self, job: Job, what: str, done: int, total: int) -> None: ...
    def ended(self, job: Job, state: str, seconds: float, text: str | None) -> None: ...
    def printed(self, job: Job, where: str) -> None: ...
    def note(self, text: str) -> None: ...


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    """Prints how long something took, and the most memory so far."""
    started = time.perf_counter()
    yield
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what:55} {time.perf_counter() - started:7.1f} s {memory:6.2f} GiB", flush=True)


def planned(folder: Path, cells: int) -> list[Cell]:
    """The cells of a suite with so many."""
    rates = [round(1e-5 * (i + 1), 5) for i in range(RATES)]
    steps = list(range(1, cells // (SEEDS * RATES) + 1))
    grid = json.dumps({"method": "cd", "set": {"k": steps, "lr": rates}})
    changes = (("          - {method: cd}\n", f"          - {grid}\n"), ("          - {method: bidsm}\n", ""))
    path = write(folder, replaced(*changes, ("        all: {lr: 0.01}\n", ""), ("seeds: 0-1", f"seeds: 0-{SEEDS - 1}")))
    methods = registry.methods()
    return plan(load_suite(str(path), methods), Choices(), methods, DATA)


def supervise(folder: Path, work: Sequence[Job], interrupted_after: int | None = None) -> None:
    """Does the jobs, or some of them."""
    with contextlib.closing(RunDir(folder / "runs")) as runs, contextlib.suppress(KeyboardInterrupt):
        runs.plan(cell.record for job in work for cell in job.cells)
        Supervisor(DATA, runs, Pretending(runs.path, interrupted_after), Silent()).run(work)


def remaining(folder: Path, cells: Sequence[Cell]) -> list[Job]:
    """What a second command finds left to do."""
    with contextlib.closing(RunDir(folder / "runs")) as runs:
        runs.repair()
        done = {record.id for record in runs.records() if record.state == "done"}
    return jobs([cell for cell in cells if cell.id not in done])


def main() -> None:
    """Prints a line for each thing that is done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--tracked", type=int, default=1_000)
    options = parser.parse_args()
    print(machine("cpu"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with timed(f"planning {options.cells:,} cells"):
            cells = planned(folder, options.cells)
            work = jobs(cells)
        half = len(work) // 2
        with timed(f"recording the plan, {half:,} of {len(work):,} jobs, Ctrl-C"):
            supervise(folder, work, half)
        with timed("status"):
            run_directory.status(Console(file=io.StringIO()), folder / "runs")
        with timed("planning again, and what is left"):
            work = remaining(folder, planned(folder, options.cells))
        with timed(f"the other {len(work):,} jobs"):
            supervise(folder, work)
        with timed("status"):
            run_directory.status(Console(file=io.StringIO()), folder / "runs")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        supervise(folder, jobs(planned(folder, options.tracked)))
        with timed(f"bringing {options.tracked:,} cells to MLflow in a SQLite file"):
            run_directory.sync(Console(file=io.StringIO()), folder / "runs", f"sqlite:///{folder}/mlflow.db", "none")


if __name__ == "__main__":
    main()
