"""The run directory: the one home of what has been planned, trained and measured.

    runs/index.sqlite            cells and their states (WAL)
    runs/cells/<id>/config.json  the resolved configuration that the id is the hash of, and its labels
    runs/cells/<id>/metrics.jsonl  the journal: one line per evaluation
    runs/cells/<id>/artifacts/   the best and the last checkpoint, arrays, images
    runs/cells/<id>/checkpoint.pt, checkpoint.previous.pt  of a training that is under way
    runs/cells/<id>/error.txt    the traceback of a failed cell
    runs/cells/<id>/output.txt   what the job has printed of which this is the first cell
    runs/owners/<name>.lock      held by a process as long as it lives: what tells a running cell from an orphan
    runs/owners/cells            of which a job's process holds one byte for each of its cells

MLflow is a projection of it and can be rebuilt from it.

A process holds its cells by a lock of the operating system's, which ends with the process however that ends, and not
by the time of day or a process number: neither a clock that jumps nor a number used again can free or block a cell.
"""

import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import socket
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bism.errors import InputError

STATES = ("planned", "running", "done", "diverged", "failed", "stopped")
FINISHED = ("done", "diverged")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS cells (
    id TEXT PRIMARY KEY, suite TEXT, preset TEXT, task TEXT, method TEXT, variant TEXT, seed INTEGER, steps INTEGER,
    state TEXT, owner TEXT, updated REAL, message TEXT, train_seconds REAL, progress INTEGER DEFAULT 0, job TEXT);
CREATE TABLE IF NOT EXISTS synced (
    cell TEXT, store TEXT, run TEXT, lines INTEGER, state TEXT, PRIMARY KEY (cell, store));
CREATE TABLE IF NOT EXISTS timings (
    key TEXT, host TEXT, device TEXT, threads INTEGER, compiled INTEGER, beside INTEGER, seeds INTEGER, steps INTEGER,
    train_seconds REAL, compile_seconds REAL, wall_seconds REAL);
"""


class RunDirError(Exception):
    """The run directory fails while it is in use."""


@dataclasses.dataclass(frozen=True)
class Record:
    """One row of the index.

    progress: iterations that its checkpoint holds; 0 where there is none.
    job: which cells it was trained beside; they go on together.
    """

    id: str
    suite: str
    preset: str
    task: str
    method: str
    variant: str
    seed: int
    steps: int
    state: str
    owner: str | None = None
    updated: float = 0.0
    message: str | None = None
    train_seconds: float | None = None
    progress: int = 0
    job: str | None = None


@dataclasses.dataclass(frozen=True)
class Timing:
    """What one whole job took, in seconds, all its seeds together, and under which conditions.

    key: the same for jobs whose steps cost the same (``timing.key``).
    beside: how many jobs ran beside it, at most.
    """

    key: str
    host: str
    device: str
    threads: int
    compiled: bool
    beside: int
    seeds: int
    steps: int
    train_seconds: float
    compile_seconds: float
    wall_seconds: float


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One line of a journal: metrics at a step, and when they were taken (milliseconds since 1970)."""

    step: int
    time_ms: int
    metrics: dict[str, float]


class CellFolder:
    """The files of one cell."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.artifacts = path / "artifacts"

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration and the labels."""
        content: dict[str, Any] = json.loads((self.path / "config.json").read_text())
        return content

    def describe(self, **more: Any) -> None:
        """Adds to the configuration what is known only later, such as how it was timed."""
        write_atomically(self.path / "config.json", json.dumps({**self.config, **more}, indent=1, sort_keys=True))

    @property
    def error(self) -> str | None:
        """The traceback of a failed cell."""
        file = self.path / "error.txt"
        return file.read_text() if file.exists() else None

    @property
    def output(self) -> Path:
        """What its job has printed, where this is its first cell."""
        return self.path / "output.txt"

    @property
    def checkpoints(self) -> tuple[Path, Path]:
        """Of a training that is under way: the newest, and the one before."""
        return self.path / "checkpoint.pt", self.path / "checkpoint.previous.pt"

    def prepare(self, config: dict[str, Any]) -> None:
        """Makes the folder ready for training; a last line of the journal that a crash cut short goes."""
        self.artifacts.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path / "config.json", json.dumps(config, indent=1, sort_keys=True))
        (self.path / "error.txt").unlink(missing_ok=True)
        journal = self.path / "metrics.jsonl"
        if journal.exists():
            content = journal.read_bytes()
            os.truncate(journal, content.rfind(b"\n") + 1)

    def clear(self) -> None:
        """Removes what an earlier training has measured, its samples and its checkpoints: the next one is from the
        start."""
        for file in (self.path / "metrics.jsonl", self.artifacts / "best.pt", *self.checkpoints):
            file.unlink(missing_ok=True)
        shutil.rmtree(self.samples, ignore_errors=True)

    @property
    def samples(self) -> Path:
        """Where all samples lie; a sheet of them is among the artifacts."""
        return self.path / "samples"

    def append(self, step: int, metrics: dict[str, float]) -> None:
        """Adds a line to the journal. NaN and infinity are kept (JSON's extension that Python reads back)."""
        line = json.dumps({"step": step, "time_ms": int(time.time() * 1000), "metrics": metrics})
        with (self.path / "metrics.jsonl").open("a") as journal:
            journal.write(line + "\n")
            journal.flush()
            os.fsync(journal.fileno())  # before any checkpoint that counts it

    @property
    def journal_bytes(self) -> int:
        """How long the journal is."""
        file = self.path / "metrics.jsonl"
        return file.stat().st_size if file.exists() else 0

    def end(self) -> None:
        """Removes what only an unfinished training needs."""
        for file in self.checkpoints:
            file.unlink(missing_ok=True)

    def measurements(self, skip: int = 0) -> list[Measurement]:
        """The journal from line ``skip`` on; a last line cut short by a crash is left out."""
        file = self.path / "metrics.jsonl"
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        return [Measurement(**json.loads(line)) for line in lines[skip:] if line.endswith("\n")]


class RunDir:
    """A run directory, made where it does not exist.

    Raises:
        InputError: it cannot be made or written.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            for name in ("cells", "owners"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
            self._index = sqlite3.connect(self.path / "index.sqlite", timeout=60)
            self._index.execute("PRAGMA journal_mode=WAL")
            self._index.executescript(_SCHEMA)
            self._add_columns()
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"run directory {self.path} cannot be written: {error}") from error
        self._index.row_factory = sqlite3.Row
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"
        self._lock: FileLock | None = None

    def _add_columns(self) -> None:
        """Brings an index of an earlier version up to this one."""
        held = {row[1] for row in self._index.execute("PRAGMA table_info(cells)")}
        for name, kind in (("progress", "INTEGER DEFAULT 0"), ("job", "TEXT")):
            if name not in held:
                self._index.execute(f"ALTER TABLE cells ADD COLUMN {name} {kind}")

    def close(self) -> None:
        """Closes the index and gives up what is claimed."""
        self._index.close()
        if self._lock is not None:
            self._lock_file(self.owner).unlink(missing_ok=True)
            self._lock.release()
            self._lock = None

    @property
    def name(self) -> str:
        """What tells it from other run directories, on whatever machine."""
        return hashlib.sha256(f"{socket.gethostname()}:{self.path.resolve()}".encode()).hexdigest()[:12]

    def folder(self, cell: str) -> CellFolder:
        """The files of a cell."""
        return cell_folder(self.path, cell)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._index:
                self._index.execute("BEGIN IMMEDIATE")
                yield self._index
        except sqlite3.Error as error:  # a full disk, above all
            raise RunDirError(
                f"run directory {self.path} cannot be written any more: {error}. What is in it stays; mend it and run "
                f"the same command again."
            ) from error

    def plan(self, records: Iterable[Record]) -> None:
        """Adds cells that are not there yet, as planned."""
        names = [field.name for field in dataclasses.fields(Record)]
        with self._transaction() as index:
            index.executemany(
                f"INSERT OR IGNORE INTO cells ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",
                [dataclasses.astuple(record) for record in records],
            )

    def records(self, ids: Iterable[str] | None = None) -> list[Record]:
        """All cells, or those of ``ids``, in the order they were planned."""
        wanted = None if ids is None else set(ids)
        rows = [Record(**dict(row)) for row in self._index.execute("SELECT * FROM cells ORDER BY rowid")]
        return [row for row in rows if wanted is None or row.id in wanted]

    def claim(self, ids: Iterable[str], again: bool = False) -> list[str]:
        """Takes what is free of ``ids``: not finished (unless ``again``), and not running in a live process."""
        wanted, claimed = list(ids), []
        self._hold_lock()
        job = uuid.uuid5(uuid.NAMESPACE_OID, " ".join(wanted)).hex[:12]
        with self._transaction() as index:
            for cell in wanted:
                row = index.execute("SELECT state, owner FROM cells WHERE id = ?", (cell,)).fetchone()
                free = row["state"] != "running" or not self._alive(row["owner"])
                if free and (again or row["state"] not in FINISHED):
                    index.execute(
                        "UPDATE cells SET state = 'running', owner = ?, updated = ?, message = NULL, job = ?, "
                        "progress = CASE WHEN ? THEN 0 ELSE progress END WHERE id = ?",
                        (self.owner, time.time(), job, again, cell),
                    )
                    claimed.append(cell)
        return claimed

    def repair(self) -> list[str]:
        """Marks as stopped what is said to run and whose process is gone; the ids of these cells."""
        with self._transaction() as index:
            rows = index.execute("SELECT id, owner FROM cells WHERE state = 'running'").fetchall()
            gone = {owner for owner in {row["owner"] for row in rows} if not self._alive(owner)}
            orphans = [row["id"] for row in rows if row["owner"] in gone]
            index.executemany(
                "UPDATE cells SET state = 'stopped', updated = ?, message = ? WHERE id = ?",
                [(time.time(), "its process ended without a word", cell) for cell in orphans],
            )
        return orphans

    def remove(self, ids: Iterable[str]) -> list[str]:
        """Deletes cells with all that lies in their folders, but for those that a live process trains; which it were.

        A folder goes after its row: a row without its folder would be a result that is not there.
        """
        removed = []
        with self._transaction() as index:
            for cell in ids:
                row = index.execute("SELECT state, owner FROM cells WHERE id = ?", (cell,)).fetchone()
                if row is not None and not (row["state"] == "running" and self._alive(row["owner"])):
                    index.execute("DELETE FROM cells WHERE id = ?", (cell,))
                    index.execute("DELETE FROM synced WHERE cell = ?", (cell,))
                    removed.append(cell)
        for cell in removed:
            shutil.rmtree(self.folder(cell).path, ignore_errors=True)
        return removed

    def set_state(self, cell: str, state: str, message: str | None = None, train_seconds: float | None = None) -> None:
        """Records where a cell stands."""
        self.set_states({cell: (state, message)}, train_seconds)

    def set_states(self, states: Mapping[str, tuple[str, str | None]], train_seconds: float | None = None) -> None:
        """Records where cells stand, by id: state and message; all at once."""
        now = time.time()
        with self._transaction() as index:
            index.executemany(
                "UPDATE cells SET state = ?, updated = ?, message = ?, train_seconds = ? WHERE id = ?",
                [(state, now, message, train_seconds, cell) for cell, (state, message) in states.items()],
            )

    def add_timing(self, timing: Timing) -> None:
        """Keeps what a job took; it stays when its cells are deleted."""
        values = dataclasses.astuple(timing)
        with self._transaction() as index:
            index.execute(f"INSERT INTO timings VALUES ({', '.join('?' * len(values))})", values)

    def timings(self) -> list[Timing]:
        """What jobs took, the latest last."""
        names = ", ".join(field.name for field in dataclasses.fields(Timing))
        return [Timing(**dict(row)) for row in self._index.execute(f"SELECT {names} FROM timings ORDER BY rowid")]

    def set_progress(self, ids: Iterable[str], step: int) -> None:
        """Records how far the checkpoints of these cells are."""
        with self._transaction() as index:
            index.executemany("UPDATE cells SET progress = ? WHERE id = ?", [(step, cell) for cell in ids])

    def _lock_file(self, owner: str) -> Path:
        return self.path / "owners" / f"{owner.rpartition(':')[2]}.lock"

    def _hold_lock(self) -> None:
        if self._lock is None:
            self._lock = FileLock(self._lock_file(self.owner))
            self._lock.acquire(timeout=0)

    def _alive(self, owner: str | None) -> bool:
        """Whether the process that holds a cell still runs. To be asked inside a transaction, by one at a time."""
        if owner == self.owner:
            return self._lock is not None
        file = self._lock_file(owner or "")
        if not file.exists():
            return False
        lock = FileLock(file)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        file.unlink(missing_ok=True)
        lock.release()
        return False

    def synced(self, cell: str, store: str) -> tuple[str | None, int, str | None]:
        """What a tracking store holds of a cell: its run, the number of journal lines, the state."""
        row = self._index.execute(
            "SELECT run, lines, state FROM synced WHERE cell = ? AND store = ?", (cell, store)
        ).fetchone()
        return (row["run"], row["lines"], row["state"]) if row else (None, 0, None)

    def set_synced(self, cell: str, store: str, run: str, lines: int, state: str) -> None:
        """Records what a tracking store holds of a cell."""
        with self._transaction() as index:
            index.execute("INSERT OR REPLACE INTO synced VALUES (?, ?, ?, ?, ?)", (cell, store, run, lines, state))


def cell_folder(run_dir: Path, cell: str) -> CellFolder:
    """The files of a cell."""
    return CellFolder(run_dir / "cells" / cell)


@contextmanager
def holding(run_dir: Path, cells: Iterable[str], timeout: float) -> Iterator[None]:
    """Inside, the files of these cells are this process's alone: one whose supervisor was killed may still write them.

    One lock for each cell, all in one file: a job may have more seeds than a process may have files open.

    Raises:
        TimeoutError: another process has not let go of them.
    """
    deadline = time.monotonic() + timeout
    with (run_dir / "owners" / "cells").open("a") as file:
        for cell in cells:
            while True:
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(cell, 16))
                    break
                except (BlockingIOError, PermissionError):  # both say that it is taken
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"cell {cell} is still in the hands of another process") from None
                    time.sleep(0.1)
        yield


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(partial, path)
