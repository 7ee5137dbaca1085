"""A run directory whose files were cut, removed or altered: what is damaged is named, and nothing finished is lost."""

import contextlib
import io
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from benchmark.commands import run_directory
from benchmark.records.integrity import inspect, proven
from benchmark.records.recovery import recover
from benchmark.records.rundir import CellFolder, RunDir
from bism.errors import InputError
from tests.harness.tiny import CORES, Said, cell, command, journal, records, states

RUN = ("run", "--suite", "tiny.yaml")
CELLS = [(variant, seed) for variant in ("CD-1", "BiDSM-5") for seed in (0, 1)]
INDEX = "index.sqlite"
Change = Callable[[CellFolder], object]


def contents(folder: Path) -> dict[str, bytes]:
    """All files of the cells."""
    cells = folder / "runs" / "cells"
    return {str(file.relative_to(cells)): file.read_bytes() for file in sorted(cells.rglob("*")) if file.is_file()}


def named(said: Said) -> list[str]:
    return [line for line in said.out.splitlines() if line.startswith("damaged: ")]


def ranked(said: Said) -> dict[str, str]:
    """The number of seeds of each variant in the ranking."""
    rows = [line.split("│")[1:] for line in said.out.splitlines() if line.startswith("│")]
    return {row[0].strip(): row[4].strip() for row in rows}


def cut(file: Path, by: int = 20) -> None:
    os.truncate(file, file.stat().st_size - by)


def flip(file: Path, at: int = -10) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def in_its_place(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("no folder")


def of_before(one: CellFolder) -> None:
    """Makes a finished cell one of a time before proofs."""
    one.proof.unlink()
    content = {key: value for key, value in one.config.items() if key != "job"}
    (one.path / "config.json").write_text(json.dumps(content))


# --- finished cells ---------------------------------------------------------------------------------------------------

DAMAGE: dict[str, tuple[Change, str, str]] = {  # what is done to a cell -> the file that is named, and what is said
    "journal cut": (lambda it: cut(it.journal), "metrics.jsonl", "20 of its "),
    "journal removed": (lambda it: it.journal.unlink(), "metrics.jsonl", "is missing"),
    "journal altered": (lambda it: flip(it.journal), "metrics.jsonl", "its content is another"),
    "journal longer": (lambda it: it.append(20, {"test/log_likelihood": 9.0}), "metrics.jsonl", "bytes more"),
    "journal garbage": (lambda it: it.journal.write_bytes(b"\xff\xfe\n[1]\n"), "metrics.jsonl", "are missing"),
    "journal a folder": (lambda it: (it.journal.unlink(), it.journal.mkdir()), "metrics.jsonl", "file"),
    "config cut": (lambda it: cut(it.path / "config.json"), "config.json", "20 of its "),
    "config altered": (lambda it: flip(it.path / "config.json"), "config.json", "its content is another"),
    "checkpoint altered": (lambda it: flip(it.artifacts / "last.pt", 200), "artifacts/last.pt", "content is another"),
    "checkpoint removed": (lambda it: (it.artifacts / "best.pt").unlink(), "artifacts/best.pt", "is missing"),
    "proof cut": (lambda it: cut(it.proof), "finished.json", "is no JSON"),
    "proof altered": (
        lambda it: it.proof.write_text(it.proof.read_text().replace('"CD-1"', '"CD-9"')), "finished.json", "not what",
    ),
    "proof behind a blank": (
        lambda it: it.proof.write_bytes(b"\r" + it.proof.read_bytes()), "finished.json", "not what",
    ),
    "proof deep": (  # Python 3.12 can read it, and not write it again
        lambda it: it.proof.write_text('{"record": ' + "[" * 1200 + "]" * 1200 + "}"), "finished.json", " was ",
    ),
    "proof removed": (lambda it: it.proof.unlink(), "finished.json", "is missing: nothing proves"),
    "proof a pipe": (lambda it: (it.proof.unlink(), os.mkfifo(it.proof)), "finished.json", "is no file"),
    "folder removed": (lambda it: shutil.rmtree(it.path), "", "is missing: the cell's results are gone"),
    "folder a file": (lambda it: in_its_place(it.path), "", "is no folder"),
}  # fmt: skip


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_cell_is_named_and_not_ranked(folder: Path, how: str) -> None:
    change, file, what = DAMAGE[how]
    damaged = cell(folder, "CD-1", 0)
    change(damaged)
    before = contents(folder)
    for arguments in (("status",), RUN):
        said = command(folder, *arguments)
        assert (said.code, said.err) == (1, "")
        (line,) = named(said)
        path = Path("runs") / damaged.path.relative_to(folder / "runs") / file
        assert line.startswith(f"damaged: board CD-1 seed 0: {path}: ")
        assert what in line
        assert "--rerun damaged" in said.out
        assert ranked(said) == {"CD-1": "1", "BiDSM-5": "2"}
    assert said.out.splitlines()[1] == f"4 cells, 3 done already, 1 damaged, 0 to train in 0 jobs, {CORES} at once"
    assert contents(folder) == before


@pytest.mark.parametrize("how", ["folder a file", pytest.param("journal cut", marks=pytest.mark.long)])
def test_what_is_damaged_is_trained_again_when_asked(folder: Path, how: str) -> None:
    whole = contents(folder)
    damaged = cell(folder, "CD-1", 0)
    lines = [line["step"] for line in journal(folder, "CD-1", 0)]
    DAMAGE[how][0](damaged)
    said = command(folder, *RUN, "--rerun", "damaged")
    assert (said.code, said.err) == (0, "")
    assert f"4 cells, 3 done already, 1 to train in 1 job, {CORES} at once" in said.out
    assert [line["step"] for line in journal(folder, "CD-1", 0)] == lines
    others = {name: content for name, content in whole.items() if not name.startswith(damaged.path.name)}
    assert others.items() <= contents(folder).items()
    assert command(folder, "status").code == 0


def test_damaged_cells_can_be_deleted(folder: Path) -> None:
    cut(cell(folder, "CD-1", 0).journal)
    in_its_place(cell(folder, "BiDSM-5", 1).path)
    said = command(folder, "delete", "--states", "damaged", "--yes")
    assert (said.code, said.err) == (0, "")
    assert states(folder) == {("CD-1", 1): "done", ("BiDSM-5", 0): "done"}
    assert command(folder, "status").code == 0


def test_cells_of_a_time_before_proofs_are_read_as_far_as_they_can_be(folder: Path) -> None:
    for variant, seed in CELLS:
        of_before(cell(folder, variant, seed))
    said = command(folder, "status")
    assert (said.code, named(said)) == (0, [])
    early = cell(folder, "CD-1", 0).journal
    whole = early.read_bytes()
    early.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    assert [line.rpartition(": ")[2] for line in named(command(folder, "status"))] == ["ends at iteration 15 of 20"]
    early.write_bytes(whole)
    cut(cell(folder, "CD-1", 0).journal)
    cell(folder, "CD-1", 1).journal.unlink()
    cell(folder, "BiDSM-5", 0).journal.write_bytes(b'{"step": 0, "time_ms": 0, "metrics": {}}\n[1]\n')
    (cell(folder, "BiDSM-5", 1).path / "config.json").write_text('{"suite": "tiny", "seed": "one"}')
    said = command(folder, "status")
    assert said.code == 1
    assert [line.rpartition(": ")[2] for line in named(said)] == [
        "its last line was cut",
        "is missing",
        "line 2 is no measurement",
        "lacks 'preset'",
    ]
    assert ranked(said) == {}


# --- the index --------------------------------------------------------------------------------------------------------


def remove_index(runs: Path) -> None:
    for file in runs.glob(f"{INDEX}*"):
        file.unlink()


def sql(runs: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(runs / INDEX)) as index, index:
        for statement in statements:
            index.execute(statement)


INDICES: dict[str, Callable[[Path], object]] = {
    "deleted": remove_index,
    "emptied": lambda runs: (remove_index(runs), (runs / INDEX).touch()),
    "garbage": lambda runs: (remove_index(runs), (runs / INDEX).write_bytes(b"garbage" * 1000)),
    "cut": lambda runs: os.truncate(runs / INDEX, (runs / INDEX).stat().st_size // 2),
    "no rows": lambda runs: sql(runs, "DELETE FROM cells"),
    "of something else": lambda runs: (remove_index(runs), sql(runs, "CREATE TABLE cells (name TEXT)")),
    "other states": lambda runs: sql(runs, "UPDATE cells SET state = 'planned', variant = 'DSM', seed = 7"),
    "other types": lambda runs: sql(runs, "UPDATE cells SET state = 'dona', seed = 'x', variant = x'ff', owner = 5"),
}


@pytest.mark.parametrize("how", INDICES)
def test_an_index_comes_back_from_the_folders(folder: Path, how: str) -> None:
    known, before = {record.id: record for record in records(folder)}, contents(folder)
    INDICES[how](folder / "runs")
    for arguments in (RUN, ("status",)):
        said = command(folder, *arguments)
        assert (said.code, said.err, named(said)) == (0, "", [])
        assert ranked(said) == {"CD-1": "2", "BiDSM-5": "2"}
    assert contents(folder) == before
    for record in records(folder):
        names = ("suite", "preset", "task", "method", "variant", "seed", "steps", "state")
        assert [getattr(record, name) for name in names] == [getattr(known[record.id], name) for name in names]
    kept = (folder / "runs" / "index.damaged-1.sqlite").exists()
    assert kept == (how in ("garbage", "cut", "of something else"))


def test_what_was_under_way_goes_on_though_the_index_is_lost(folder: Path) -> None:
    under_way, failed = cell(folder, "CD-1", 0), cell(folder, "CD-1", 1)
    for one in (under_way, failed):
        one.proof.unlink()
        shutil.copy(one.artifacts / "last.pt", one.checkpoints[0])
    (failed.path / "error.txt").write_text("Traceback\nValueError: too hot\n")
    job = under_way.config["job"]
    remove_index(folder / "runs")
    said = command(folder, "status")
    assert said.code == 1
    assert "1 stopped" in said.out
    with contextlib.closing(RunDir(folder / "runs")) as runs:
        recover(runs)
    found = {(record.variant, record.seed): record for record in records(folder)}
    assert [(one.state, one.progress, one.job) for one in (found["CD-1", 0], found["CD-1", 1])] == [
        ("stopped", 20, job), ("failed", 0, job),
    ]  # fmt: skip
    assert found["CD-1", 1].message == "ValueError: too hot"
    assert {found["BiDSM-5", seed].state for seed in (0, 1)} == {"done"}


def test_cells_without_proof_or_index_that_had_finished_are_not_trained_again(folder: Path) -> None:
    for variant, seed in CELLS:
        of_before(cell(folder, variant, seed))
    before = contents(folder)
    remove_index(folder / "runs")
    said = command(folder, *RUN)
    assert (said.code, said.err) == (0, "")
    assert f"4 cells, 4 done already, 0 to train in 0 jobs, {CORES} at once" in said.out
    assert contents(folder) == before


def test_a_start_leaves_a_finished_cell_alone_whatever_the_index_says(folder: Path) -> None:
    one, before = cell(folder, "CD-1", 0), contents(folder)
    with pytest.raises(InputError, match="has finished already, and its files stay as they are"):
        one.prepare({"suite": "another"})
    assert contents(folder) == before
    one.clear()  # --rerun
    assert proven(one) is None
    one.prepare({"suite": "another"})


def test_a_folder_of_no_known_cell_is_named_and_left(folder: Path) -> None:
    strange = folder / "runs" / "cells" / "0123456789ab"
    strange.mkdir()
    (strange / "config.json").write_text("{")
    for command_ in ("status", "delete"):
        said = command(folder, command_, *(["--states", "failed", "--yes"] if command_ == "delete" else []))
        assert (said.code, said.err) == (1, "")
        (line,) = named(said)
        assert "0123456789ab/config.json: is no JSON" in line
    assert (strange / "config.json").read_text() == "{"


# --- cells that have not finished -------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", [b"\xff\xfe garbage\n", b'{"step": "a", "time_ms": 0, "metrics": {}}\n', b"[" * 9999])
def test_a_journal_goes_on_from_where_it_is_whole(tmp_path: Path, what: bytes) -> None:
    one = CellFolder(tmp_path / "cell")
    one.prepare({})
    one.append(0, {"x": 1.0})
    whole = one.journal.read_bytes()
    one.journal.write_bytes(whole + what + whole)
    note = one.prepare({})
    assert note is not None
    assert "line 2 is no measurement" in note
    assert one.journal.read_bytes() == whole
    one.journal.write_bytes(whole + b'{"step": 5, "ti')
    assert one.prepare({}) is None
    assert one.journal.read_bytes() == whole


def test_damage_in_an_unfinished_cell_stops_nothing(folder: Path) -> None:
    one = cell(folder, "CD-1", 0)
    with contextlib.closing(RunDir(folder / "runs")) as runs:
        runs.set_state(one.path.name, "stopped", "interrupted")
    one.proof.unlink()
    with one.journal.open("ab") as file:
        file.write(b"garbage\n")
    (one.path / "config.json").write_text("{")
    said = command(folder, "status")
    assert said.code == 1
    assert [line.split(": ", 2)[2] for line in named(said)] == [
        f"{Path('runs') / 'cells' / one.path.name / 'config.json'}: is no JSON; it was cut or altered; the next run "
        "goes on from what is whole",
        f"{Path('runs') / 'cells' / one.path.name / 'metrics.jsonl'}: line 6 is no measurement; the next run goes on "
        "from what is whole",
    ]
    assert ranked(said) == {"CD-1": "1", "BiDSM-5": "2"}
    said = command(folder, *RUN)
    assert (said.code, said.err) == (0, "")
    assert ranked(said) == {"CD-1": "2", "BiDSM-5": "2"}


def test_one_that_trains_is_not_corrected(folder: Path) -> None:
    """Between the claim of ``--rerun`` and its first files there is a proof of what was before."""
    one = cell(folder, "CD-1", 0).path.name
    with contextlib.closing(RunDir(folder / "runs")) as runs, contextlib.closing(RunDir(folder / "runs")) as others:
        assert runs.claim([one], again=True) == [one]
        (seen,) = inspect(others, others.records([one])).records
        assert seen.state == others.records([one])[0].state == "running"


# --- any change of any file -------------------------------------------------------------------------------------------


class Altered:
    """A run directory of which one file at a time is changed, looked at, and put back."""

    def __init__(self, folder: Path) -> None:
        self.runs = folder / "runs"
        self.files = sorted(file for file in (self.runs / "cells").rglob("*") if file.is_file())
        self.index = (self.runs / INDEX).read_bytes()
        self.held = {file: file.read_bytes() for file in self.files}

    def put_back(self) -> None:
        for file in self.runs.glob("index.*"):
            file.unlink()
        (self.runs / INDEX).write_bytes(self.index)
        for file, content in self.held.items():
            if file.is_dir():
                file.rmdir()
            if not file.exists() or file.read_bytes() != content:
                file.write_bytes(content)

    def change(self, number: int, how: str, at: float, junk: bytes) -> Path:
        files = [self.runs / INDEX, *(file for file in self.files if file.suffix in (".json", ".jsonl", ".pt"))]
        file = files[number % len(files)]
        content = file.read_bytes()
        place = int(at * len(content))
        changed = {
            "cut": content[:place],
            "flip": content[:place] + bytes([content[place] ^ (1 + junk[0] % 255)]) + content[place + 1 :],
            "insert": content[:place] + junk + content[place:],
            "replace": junk,
            "remove": b"",
            "folder": b"",
        }[how]
        file.unlink()
        if how == "folder" and file.name != INDEX:
            file.mkdir()
        elif how != "remove":
            file.write_bytes(changed)
        return file


@pytest.fixture(scope="module")
def altered(trained: tuple[Path, Said], tmp_path_factory: pytest.TempPathFactory) -> Altered:
    return Altered(Path(shutil.copytree(trained[0], tmp_path_factory.mktemp("altered") / "copy")))


def looked_at(altered: Altered, number: int, how: str, at: float, junk: bytes) -> None:
    altered.put_back()
    file = altered.change(number, how, at, junk)
    out = io.StringIO()
    code = run_directory.status(Console(file=out, width=200), altered.runs)
    lines = [line for line in out.getvalue().splitlines() if line.startswith("damaged: ")]
    whole = {str(file.relative_to(altered.runs)) for file in altered.files}
    if file.name == INDEX:
        assert (code, lines) == (0, [])
        assert "tiny, preset test: 4 done" in out.getvalue()
    elif file.is_file() and file.read_bytes() == altered.held[file]:
        assert (code, lines) == (0, [])
        whole -= {str(file.relative_to(altered.runs))}
    else:
        assert code == 1
        assert [str(file) in line for line in lines] == [True]
        assert "tiny, preset test: 3 done, 1 damaged" in out.getvalue() or "1 damaged, 3 done" in out.getvalue()
        whole -= {str(file.relative_to(altered.runs))}
    assert all((altered.runs / name).read_bytes() == altered.held[altered.runs / name] for name in whole)


CHANGES = {
    "number": st.integers(0, 30),
    "how": st.sampled_from(["cut", "flip", "insert", "replace", "remove", "folder"]),
    "at": st.floats(0, 1, exclude_max=True),
    "junk": st.binary(min_size=1, max_size=40),
}
FUZZ = {
    "derandomize": True,
    "deadline": None,
    "database": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}


@given(**CHANGES)
@example(number=0, how="flip", at=0.0, junk=b"a")
@settings(max_examples=60, **FUZZ)
def test_whatever_is_changed_is_named_or_made_good(
    altered: Altered, number: int, how: str, at: float, junk: bytes
) -> None:
    looked_at(altered, number, how, at, junk)


@pytest.mark.long
@given(**CHANGES)
@settings(max_examples=1500, **FUZZ)
def test_whatever_is_changed_at_length(altered: Altered, number: int, how: str, at: float, junk: bytes) -> None:
    looked_at(altered, number, how, at, junk)
