"""Commands that only look leave everything as it is: they make no folder, no file and no journal."""

import contextlib
import fcntl
import os
import shutil
import sqlite3
from pathlib import Path

import optuna
import pytest
from filelock import FileLock

from benchmark.records.index import open_copy
from benchmark.records.rundir import is_held
from benchmark.tuning.storage import open_storage, read_storage
from reports.__main__ import main as reports
from tests.harness.tiny import Said, called, cell, command, everything, write

RUN = ("run", "--suite", "tiny.yaml")
PLUGIN = """\
import dataclasses
from baselines import DSM


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mine(DSM):
    id, label = "mine", "Mine"
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("list",), 0),
        (("list", "tiny.yaml", "--plugin", "mine.py", "--spaces"), 0),
        ((*RUN, "--dry-run"), 0),
        ((*RUN, "--dry-run", "--run-dir", "a/b", "--plugin", "mine.py", "--rerun"), 0),
        (("status",), 2),
        (("status", "--run-dir", "."), 2),
        (("delete", "--all", "--dry-run"), 2),
        (("sync", "--tracking-uri", "sqlite:///mlflow.db"), 2),
        (("ui", "--tracking-uri", "sqlite:///mlflow.db"), 2),
        (("data", "list"), 0),
        (("data", "where", "mnist"), 0),
        (("data", "verify", "mnist", "--data-dir", "data"), 1),
        (("tune", "list"), 2),
        (("tune", "--suite", "tiny.yaml", "--space", "nobody.x=1..2", "--methods", "cd"), 2),
    ],
)
def test_where_there_is_nothing_nothing_is_made(tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
    write(tmp_path)
    write(tmp_path, PLUGIN, "mine.py")
    before = everything(tmp_path)
    said = command(tmp_path, *arguments)
    assert said.code == code, said
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    "arguments",
    [("list",), ("list", "--study", "grbm"), ("export", "--study", "grbm"), ("--study", "grbm"), ("--tuned", "grbm")],
)
@pytest.mark.parametrize("storage", ["nope.journal", "sqlite:///nope.db", "sqlite:///a/nope.db"])
def test_studies_that_are_read_are_there(tmp_path: Path, arguments: tuple[str, ...], storage: str) -> None:
    write(tmp_path)
    before = everything(tmp_path)
    line = (*RUN, *arguments) if "--tuned" in arguments else ("tune", *arguments)
    said = command(tmp_path, *line, "--storage", storage)
    assert (said.code, said.out) == (2, "")
    tune = called(tmp_path, "tune")
    assert said.err.startswith(f"error: studies at {storage}: there is no such file; `{tune}` makes one. Give another")
    assert said.err.count("\n") == 1
    assert everything(tmp_path) == before


@pytest.mark.parametrize("storage", ["studies.journal", "sqlite:///studies.journal"])
def test_an_empty_file_has_no_studies_and_stays_empty(tmp_path: Path, storage: str) -> None:
    (tmp_path / "studies.journal").touch()
    before = everything(tmp_path)
    assert command(tmp_path, "tune", "list", "--storage", storage) == Said(0, f"{storage} has no studies\n", "")
    assert everything(tmp_path) == before


def test_a_journal_that_a_killed_writer_left_is_read_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "studies.journal"
    optuna.create_study(storage=open_storage(str(file)), study_name="ours")
    with file.open("ab") as journal:
        journal.write(b'{"op_code": 1, "wor')
    before = everything(tmp_path)
    assert [study.study_name for study in read_storage(str(file)).get_all_studies()] == ["ours"]
    assert everything(tmp_path) == before
    assert [study.study_name for study in open_storage(str(file)).get_all_studies()] == ["ours"]
    assert file.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize(
    "arguments", [("status",), (*RUN, "--dry-run"), (*RUN, "--dry-run", "--rerun"), ("delete", "--all", "--dry-run")]
)
@pytest.mark.parametrize("index", ["there", "lost", "garbage", "of before"])
def test_a_run_directory_is_looked_at(folder: Path, arguments: tuple[str, ...], index: str) -> None:
    file = folder / "runs" / "index.sqlite"
    if index in ("lost", "garbage"):
        file.unlink()
    if index == "garbage":
        file.write_bytes(b"garbage" * 1000)
    if index == "of before":
        shutil.rmtree(folder / "runs" / "owners")
    before = everything(folder)
    said = command(folder, *arguments)
    assert (said.code, said.err) == (0, "")
    assert "4 done" in said.out or "4 cells" in said.out, said.out
    if index in ("lost", "garbage"):
        assert "runs: the index lacks 4 cells, which are known by their folders" in said.out
    assert ("index.sqlite: damaged (" in said.out) == (index == "garbage")
    assert everything(folder) == before


def test_who_looks_changes_no_state_and_takes_no_lock(folder: Path) -> None:
    """An orphan is shown as stopped, as often as one looks; who trains goes on as if nobody had looked."""
    one = cell(folder, "CD-1", 1)
    one.proof.unlink()
    with contextlib.closing(sqlite3.connect(folder / "runs" / "index.sqlite")) as index, index:
        index.execute("UPDATE cells SET state = 'running', owner = 'host:1:gone' WHERE id = ?", (one.path.name,))
    lock = folder / "runs" / "owners" / "gone.lock"
    lock.touch()
    before = everything(folder)
    for _ in range(2):
        assert "1 stopped" in command(folder, "status").out
    with lock.open() as asks:
        fcntl.flock(asks, fcntl.LOCK_SH)
        assert not is_held(lock)
    assert everything(folder) == before
    with FileLock(lock):
        assert is_held(lock)
        assert "1 running" in command(folder, "status").out


@pytest.mark.parametrize("place", ["file", "file/below", "n" * 5000])
def test_a_dry_run_says_where_a_run_could_not_be(tmp_path: Path, place: str) -> None:
    write(tmp_path)
    (tmp_path / "file").touch()
    before = everything(tmp_path)
    said = command(tmp_path, *RUN, "--dry-run", "--run-dir", place)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("error: run directory ")
    assert "cannot be written: " in said.err
    assert everything(tmp_path) == before


def test_an_index_is_copied_as_it_is_at_one_moment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written to between its journal and itself, the two would not fit each other."""
    runs, read = folder / "runs", Path.read_bytes
    count = 0

    def meanwhile(self: Path) -> bytes:
        nonlocal count
        found = read(self)
        if self.name == "index.sqlite":
            count += 1
            if count < 4:
                os.utime(self, ns=(count, count))
        return found

    monkeypatch.setattr(Path, "read_bytes", meanwhile)
    index, damage = open_copy(runs)
    assert (damage, count) == (None, 4)
    assert index.execute("SELECT count(*) FROM cells").fetchone()[0] == 4
    index.close()


def test_a_report_of_no_store_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert reports(["build", "--tracking-uri", "sqlite:///nope.db", "--out", "a/report"]) == 2
    assert sorted(tmp_path.iterdir()) == before


def test_what_is_no_run_directory_is_said(tmp_path: Path) -> None:
    for make in (lambda file: file.write_text("x"), lambda file: file.symlink_to("nowhere")):
        make(tmp_path / "runs")
        said = command(tmp_path, "status")
        assert (said.code, said.err) == (2, "error: runs: is no folder; --run-dir names another\n")
        (tmp_path / "runs").unlink()


def test_a_run_directory_without_cells_says_so(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "index.sqlite").touch()
    said = command(tmp_path, "status")
    assert (said.code, said.err, said.out) == (0, "", "runs: no cells\n")
