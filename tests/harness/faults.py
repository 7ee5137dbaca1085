"""A suite that trains for some seconds, in processes that can be disturbed, and how its end is compared."""

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch
from torch.utils._pytree import tree_leaves

from benchmark.records.rundir import holding
from bism.checkpoint import load_checkpoint
from tests.harness.tiny import ROOT, Said, cell, command, journal, numbers, records, replaced, states, write

if TYPE_CHECKING:
    from benchmark.tracking.store_writer import Run

SECONDS = 800  # the longest that anything here may take: several times what it took on a slow machine under load
STEPS = 1600  # a few seconds, uncompiled
SUITE = replaced(
    ("steps: 20", f"steps: {STEPS}"),
    ("hidden: 3}", "hidden: 3}\n    metrics: [log_likelihood, fisher_divergence]\n    rule: best_validation"),
    ("          - {method: bidsm}", "          - {method: dsm}"),
    (
        "        all: {lr: 0.01}",
        "        all: {lr: 0.01}\n        probes: [{name: annealing, at: [400, last], options: {chains: 5, "
        "steps: [3], tolerance: 1000, sweeps: 1, raise_chains: 1, raise_steps: 1}}]",
    ),
)
RUN = ("run", "--suite", "tiny.yaml", "--checkpoint-every", "0.002")
CELLS = [(variant, seed) for variant in ("CD-1", "DSM") for seed in (0, 1)]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": "none"}


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def hears_ctrl_c() -> None:
    """In a child: Ctrl-C and a closed terminal have their usual effect, also where the tests run in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@contextlib.contextmanager
def started(folder: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """The run in a process group of its own, as in a terminal; what is left of it at the end is killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmark", *RUN, *more], cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=hears_ctrl_c,
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def until(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """Waits for something to be so while a process runs."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
            raise AssertionError(process.communicate())


def ended(process: subprocess.Popen[str]) -> Said:
    out, err = process.communicate(timeout=SECONDS)
    return Said(process.returncode, out, err)


def progress(folder: Path) -> int:
    """How far the checkpoints of a run directory are, all cells together."""
    return sum(record.progress for record in records(folder)) if (folder / "runs" / "index.sqlite").exists() else 0


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that train: the children of the fork server."""
    return [grandchild for child in psutil.Process(process.pid).children() for grandchild in child.children()]


def same_end(folder: Path, whole: Path) -> None:
    """Every parameter, running state and number to the last bit, every line of a journal once."""
    assert set(states(folder).values()) == {"done"}
    for variant, seed in CELLS:
        for name in ("last.pt", "best.pt"):
            ours, theirs = (load_checkpoint(cell(at, variant, seed).artifacts / name) for at in (folder, whole))
            pairs = zip(tree_leaves(ours["tensors"]), tree_leaves(theirs["tensors"]), strict=True)
            assert all(torch.equal(one, other) for one, other in pairs)
        steps = [[line["step"] for line in journal(at, variant, seed)] for at in (folder, whole)]
        assert steps[0] == steps[1]
        assert numbers(folder, variant, seed) == numbers(whole, variant, seed)
        assert not any(file.exists() for file in cell(folder, variant, seed).checkpoints)


def finish(folder: Path) -> Said:
    """The same command again."""
    said = command(folder, *RUN)
    assert (said.code, said.err) == (0, "")
    return said


def killed_after_a_checkpoint(folder: Path) -> None:
    """A run whose main process is killed once every cell has two checkpoints."""
    write(folder, SUITE)
    with started(folder) as process:
        until(process, lambda: len(list(folder.glob("runs/cells/*/checkpoint.previous.pt"))) == len(CELLS))
        process.kill()
        left_alone(folder)


def left_alone(folder: Path) -> None:
    """Waits until the workers of a killed run have let go of their cells: they end by themselves."""
    with holding(folder / "runs", [record.id for record in records(folder)], SECONDS):
        pass


def tracked(uri: str) -> "dict[str, Run]":
    """A store's runs of cells, by cell, each of which has one."""
    from benchmark.tracking.store_writer import MlflowClient  # the rest is used where there is no MLflow

    client = MlflowClient(uri)
    experiments = [found.experiment_id for found in client.search_experiments() if found.name == "tiny"]
    runs = client.search_runs(experiments, "tags.kind = 'cell'") if experiments else []
    assert len({run.data.tags["cell"] for run in runs}) == len(runs)
    return {run.data.tags["cell"]: run for run in runs}


def tracks(file: Path) -> bool:
    """Whether a store has a measurement, asked of SQLite: MLflow would make the tables that another process makes."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as store:
            return bool(store.execute("SELECT count(*) FROM latest_metrics").fetchone()[0])
    except sqlite3.OperationalError:
        return False


def exactly_once(folder: Path, uri: str) -> None:
    """Whether a store has every (run, metric, step) of the journals, with its value, and nothing else."""
    from benchmark.tracking.store_writer import MlflowClient

    client, runs = MlflowClient(uri), tracked(uri)
    assert set(runs) == {record.id for record in records(folder)}
    for record in records(folder):
        run, lines = runs[record.id], journal(folder, record.variant, record.seed)
        assert run.info.status == "FINISHED"
        expected: dict[str, list[tuple[int, float]]] = {}
        for line in lines:
            for name, value in line["metrics"].items():
                expected.setdefault(name, []).append((line["step"], value))
        assert set(expected) == set(run.data.metrics)
        for name, values in expected.items():
            held = client.get_metric_history(run.info.run_id, name)
            assert sorted((metric.step, metric.value) for metric in held) == sorted(values)
