"""Processes that share a run directory, and what dead ones leave."""

import contextlib
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmark.records.rundir import CellFolder, Record, RunDir
from tests.harness.tiny import (
    CELLS,
    CORES,
    ROOT,
    RUN,
    cell,
    command,
    contents,
    records,
    states,
)

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": "none"}  # of other processes
SECONDS = 300  # the longest that anything here may take


def claim_and_die(folder: Path, cell: str) -> None:
    """A process takes a cell, finished or not, and ends without a word."""
    code = (
        "import os, sys; from benchmark.records.rundir import RunDir\n"
        "RunDir(sys.argv[1]).claim(sys.argv[2:], True); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder), cell], env=ENVIRONMENT, timeout=SECONDS)


@contextlib.contextmanager
def held(folder: Path, cell: str) -> Iterator[None]:
    """Inside, another process holds a cell."""
    code = (
        "import sys; from benchmark.records.rundir import RunDir\n"
        "runs = RunDir(sys.argv[1]); runs.claim(sys.argv[2:], True)\n"
        "print('held', flush=True); sys.stdin.readline()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder), cell],
        env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield
    finally:
        process.communicate("\n", timeout=SECONDS)


def a_record(cell: str) -> Record:
    return Record(cell, "tiny", "test", "board", "cd", "CD-1", 0, 20, "planned")


def test_two_claims_do_not_overlap(tmp_path: Path) -> None:
    ids = [f"cell{i}" for i in range(6)]
    with contextlib.closing(RunDir(tmp_path)) as mine, contextlib.closing(RunDir(tmp_path)) as theirs:
        mine.plan(map(a_record, ids))
        theirs.plan(map(a_record, ids))
        assert len(mine.records()) == 6
        assert mine.claim(ids[:4]) == ids[:4]
        assert theirs.claim(ids) == ids[4:]
        assert mine.claim(ids, again=True) == []
        mine.set_state("cell0", "done")
        mine.set_state("cell1", "failed", "reason")
        assert theirs.claim(ids) == ["cell1"]
        assert theirs.claim(ids, again=True) == ["cell0"]


@pytest.mark.long
def test_claims_of_processes_do_not_overlap(tmp_path: Path) -> None:
    ids = [f"cell{i}" for i in range(200)]
    with contextlib.closing(RunDir(tmp_path)) as runs:
        runs.plan(map(a_record, ids))
    code = (
        "import sys, time; from benchmark.records.rundir import RunDir\n"
        "runs = RunDir(sys.argv[1]); print('ready', flush=True); sys.stdin.readline()\n"
        "print(*[i for i in map('cell{}'.format, range(200)) if runs.claim([i])]); sys.stdout.flush()\n"
        "sys.stdin.readline()"  # a process that has ended holds nothing
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    claimed: list[str] = []
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in both:
        assert process.stdout is not None
        claimed += process.stdout.readline().split()
    for process in both:
        process.communicate("\n", timeout=SECONDS)
    assert sorted(claimed) == sorted(ids)


def test_a_running_cell_is_free_once_its_process_has_ended(tmp_path: Path) -> None:
    with contextlib.closing(RunDir(tmp_path)) as runs:
        runs.plan([a_record("one"), a_record("two")])
        claim_and_die(tmp_path, "one")
        with held(tmp_path, "two"):
            assert [record.state for record in runs.records()] == ["running", "running"]
            assert runs.claim(["one", "two"]) == ["one"]
        assert runs.claim(["one", "two"]) == ["two"]


@pytest.mark.parametrize("clock", [0.0, 4e9])
def test_a_clock_that_jumps_frees_and_blocks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: float
) -> None:
    with contextlib.closing(RunDir(tmp_path)) as runs:
        runs.plan([a_record("one"), a_record("two")])
        claim_and_die(tmp_path, "one")
        with held(tmp_path, "two"):
            monkeypatch.setattr(time, "time", lambda: clock)
            assert runs.claim(["one", "two"]) == ["one"]


def test_what_a_dead_process_left_is_repaired(tmp_path: Path) -> None:
    with contextlib.closing(RunDir(tmp_path)) as runs, contextlib.closing(RunDir(tmp_path)) as others:
        runs.plan(map(a_record, ("one", "two", "three", "four")))
        claim_and_die(tmp_path, "one")
        assert runs.claim(["two"]) == ["two"]
        with held(tmp_path, "three"):
            assert others.repair() == ["one"]
        assert [record.state for record in runs.records()] == ["stopped", "running", "running", "planned"]
        assert runs.repair() == ["three"]
        assert runs.records()[0].message == "its process ended without a word"


def test_an_index_of_an_earlier_version_is_brought_up_to_date(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "index.sqlite")) as index, index:
        index.execute(
            "CREATE TABLE cells (id TEXT PRIMARY KEY, suite TEXT, preset TEXT, task TEXT, method TEXT, variant TEXT, "
            "seed INTEGER, steps INTEGER, state TEXT, owner TEXT, updated REAL, message TEXT, train_seconds REAL)"
        )
        index.execute("INSERT INTO cells VALUES ('one','s','p','t','m','v',0,20,'done','h:1',0.0,NULL,1.5)")
    with contextlib.closing(RunDir(tmp_path)) as runs:
        (record,) = runs.records()
        assert (record.id, record.state, record.progress, record.job) == ("one", "done", 0, None)
        runs.set_progress(["one"], 5)
        assert runs.records()[0].progress == 5


def id_of(folder: Path, variant: str, seed: int) -> str:
    (found,) = [record.id for record in records(folder) if (record.variant, record.seed) == (variant, seed)]
    return found


def test_a_cell_of_a_dead_process_is_trained_again(folder: Path) -> None:
    cell(folder, "CD-1", 0).proof.unlink()  # as whoever trains it again does first
    claim_and_die(folder / "runs", id_of(folder, "CD-1", 0))
    assert states(folder)["CD-1", 0] == "running"
    said = command(folder, *RUN)
    assert said.code == 0
    assert said.out.splitlines()[1] == f"4 cells, 3 done already, 1 to train in 1 job, {CORES} at once"
    assert states(folder) == dict.fromkeys(CELLS, "done")


def test_a_cell_of_a_live_process_is_left_to_it(folder: Path) -> None:
    before = contents(folder)
    with held(folder / "runs", id_of(folder, "CD-1", 0)):
        said = command(folder, *RUN)
        assert said.code == 1
        assert "board CD-1: 1 cells are another process's\n" in said.out
        assert states(folder)["CD-1", 0] == "running"
    assert contents(folder) == before


def test_a_journal_cut_short_by_a_crash_is_read_up_to_there(tmp_path: Path) -> None:
    path = CellFolder(tmp_path)
    path.append(0, {"x": 1.0})
    path.append(5, {"x": float("nan")})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 10, "ti')
    assert [line.step for line in path.measurements()] == [0, 5]
    assert [line.step for line in path.measurements(skip=1)] == [5]
    assert np.isnan(path.measurements()[1].metrics["x"])
