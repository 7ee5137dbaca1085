"""Deleting cells: by what they are, with their folders and runs, and nothing else."""

import contextlib
import io
from pathlib import Path

import pytest

from benchmark.commands import deleting
from benchmark.records.rundir import Record, RunDir
from bism.errors import InputError
from tests.harness.tiny import command, records

STATES = ("done", "diverged", "failed", "stopped", "planned")


def record(number: int, state: str, preset: str = "quick") -> Record:
    method = ("cd", "nce")[number % 2]
    return Record(f"{number:012x}", "grbm", preset, "digits", method, method.upper(), number // 2, 10, state)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run directory of ten cells, each with a folder."""
    with contextlib.closing(RunDir(tmp_path / "runs")) as runs:
        runs.plan(record(number, STATES[number % 5], "quick" if number < 8 else "paper") for number in range(10))
        for one in runs.records():
            runs.folder(one.id).artifacts.mkdir(parents=True)
    return tmp_path


def left(folder: Path) -> list[int]:
    """The cells that are still there; each has its folder, and the others have none."""
    ids = [one.id for one in records(folder)]
    assert sorted(file.name for file in (folder / "runs" / "cells").iterdir()) == sorted(ids)
    return [int(one, 16) for one in ids]


@pytest.mark.parametrize(
    ("arguments", "gone"),
    [
        (("--methods", "nce"), {1, 3, 5, 7, 9}),
        (("--methods", "nce", "--states", "diverged", "failed"), {1, 7}),
        (("--preset", "paper"), {8, 9}),
        (("--seeds", "1-2"), {2, 3, 4, 5}),
        (("--variants", "CD", "--seeds", "0"), {0}),
        (("--cells", f"{4:012x}"), {4}),
        (("--all",), set(range(10))),
        (("--states", "running"), set()),
    ],
)
def test_what_fits_is_deleted(folder: Path, arguments: tuple[str, ...], gone: set[int]) -> None:
    said = command(folder, "delete", *arguments, "--yes")
    assert (said.code, said.err) == (0, "")
    assert ("\n1 cell\n" if len(gone) == 1 else f"{len(gone)} cells\n") in said.out
    assert left(folder) == [number for number in range(10) if number not in gone]


def test_a_dry_run_shows_and_deletes_nothing(folder: Path) -> None:
    said = command(folder, "delete", "--methods", "nce", "--dry-run")
    assert (said.code, said.err) == (0, "")
    assert "NCE" in said.out
    assert "CD" not in said.out
    assert "5 cells" in said.out
    assert left(folder) == list(range(10))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "delete needs to be told which cells, such as --methods nce or --states diverged; or --all"),
        (("--methods", "ncee"), "--methods ncee: no cell has this method: did you mean 'nce'? valid: cd, nce"),
        (("--methods", "nce"), "nobody can be asked here: --yes deletes without asking, --dry-run only shows"),
    ],
)
def test_what_deletes_nothing(
    folder: Path, arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    said = command(folder, "delete", *arguments)
    assert (said.code, said.err) == (2, f"error: {message}\n")
    assert left(folder) == list(range(10))


@pytest.mark.parametrize(("answer", "count"), [("y", 5), ("YES", 5), ("", 10), ("n", 10)])
def test_who_is_asked_decides(folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str, count: int) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: answer)
    said = command(folder, "delete", "--methods", "nce")
    assert said.code == (0 if count == 5 else 2)
    assert len(left(folder)) == count


def test_cells_that_are_being_trained_are_left_alone(folder: Path) -> None:
    with contextlib.closing(RunDir(folder / "runs")) as runs:
        runs.claim([record(4, "planned").id])
        said = command(folder, "delete", "--methods", "cd", "--yes")
        assert (said.code, "1 of them are being trained" in said.err) == (2, True)
        assert runs.remove([record(4, "planned").id, record(2, "failed").id]) == [record(2, "failed").id]
    assert left(folder) == [0, 1, 3, 4, 5, 6, 7, 8, 9]


def test_a_condition_that_no_cell_can_fit() -> None:
    with pytest.raises(InputError, match="--tasks board: no cell has this task"):
        deleting.Filter(tasks=["board"]).chosen([record(0, "done")])
