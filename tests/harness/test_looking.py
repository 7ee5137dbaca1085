"""A run directory that cannot be written is shown as it is, and nothing of it is changed."""

import contextlib
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmark.records.rundir import RunDir
from bism.errors import InputError
from tests.harness.faults import exactly_once
from tests.harness.tiny import cell, command

NOTE = "runs can only be read: its index stays as it is"


@contextlib.contextmanager
def only_read(runs: Path) -> Iterator[None]:
    """Mounted so, where that is allowed."""
    mounted = subprocess.run(["mount", "--bind", str(runs), str(runs)], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mount: {mounted.stderr.strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(runs)], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(runs)], check=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted((folder / "runs").rglob("*")) if file.is_file()}


def test_a_finished_run_is_shown_as_if_it_could_be_written(folder: Path) -> None:
    before, usual = contents(folder), command(folder, "status")
    with only_read(folder / "runs"):
        said = command(folder, "status")
    assert (said.code, said.err) == (0, "")
    assert said.out == f"{NOTE}\n{usual.out}"
    assert contents(folder) == before


def test_it_is_refused_for_writing_by_what_it_is(folder: Path) -> None:
    """SQLite says that it cannot open its file, of one that was not open before."""
    runs = folder / "runs"
    with only_read(runs), pytest.raises(InputError) as error:
        RunDir(runs)
    assert str(error.value) == f"run directory {runs} cannot be written: {runs} can only be read"


@pytest.mark.parametrize("index", ["lost", "garbage"])
def test_what_lies_in_the_folders_counts_there_too(folder: Path, index: str) -> None:
    usual = command(folder, "status")
    for file in (folder / "runs").glob("index.sqlite*"):
        file.unlink()
    if index == "garbage":
        (folder / "runs" / "index.sqlite").write_bytes(b"garbage" * 1000)
    before = contents(folder)
    with only_read(folder / "runs"):
        said = command(folder, "status")
    assert (said.code, said.err) == (0, "")
    first, second, *others = said.out.splitlines()
    assert first == NOTE
    assert second.startswith("runs: the index lacks 4 cells, which are known by their folders; ")
    assert sorted("".join(others)) == sorted("".join(usual.out.splitlines()))
    assert contents(folder) == before


def test_what_a_killed_or_a_live_process_wrote_last_is_seen(folder: Path) -> None:
    """It is in a second file, which SQLite does not read where it cannot write."""
    live, gone = cell(folder, "CD-1", 0), cell(folder, "CD-1", 1)
    for one in (live, gone):
        one.proof.unlink()
    with contextlib.closing(RunDir(folder / "runs")) as ours:
        ours.claim([live.path.name], again=True)
        with contextlib.closing(sqlite3.connect(folder / "runs" / "index.sqlite")) as index, index:
            index.execute("UPDATE cells SET state = 'running', owner = 'host:1:gone' WHERE id = ?", (gone.path.name,))
        assert os.path.getsize(folder / "runs" / "index.sqlite-wal") > 0
        with only_read(folder / "runs"):
            said = command(folder, "status")
    assert (said.code, said.err) == (1, "")
    assert "2 done" in said.out
    assert "1 running" in said.out
    assert "stopped: board CD-1 seed 1: its process ended without a word" in said.out


def test_an_index_alone_may_be_somebody_else_s(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, before = command(folder, "status"), contents(folder)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "index.sqlite" and access(path, mode))
    assert command(folder, "status").out == f"{NOTE}\n{usual.out}"
    assert contents(folder) == before


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's use of SQLAlchemy
def test_it_is_brought_to_a_store_from_there(folder: Path) -> None:
    store = f"sqlite:///{folder / 'mlflow.db'}"
    before = contents(folder)
    with only_read(folder / "runs"):
        for _ in range(2):
            said = command(folder, "sync", "--tracking-uri", store, "--log-models", "none")
            assert (said.code, said.err) == (0, "")
    assert contents(folder) == before
    exactly_once(folder, store)
