"""The run directory: the one home of what has been planned, trained and measured.

    runs/index.sqlite            cells and their states (WAL)
    runs/cells/<id>/config.json  the resolved configuration that the id is the hash of, and its labels
    runs/cells/<id>/metrics.jsonl  the journal: one line per evaluation
    runs/cells/<id>/artifacts/   the best and the last checkpoint, arrays, images
    runs/cells/<id>/checkpoint.pt, checkpoint.previous.pt  of a training that is under way
    runs/cells/<id>/error.txt    the traceback of a failed cell
    runs/cells/<id>/finished.json  what proves a finished cell whole (``integrity``)
    runs/cells/<id>/output.txt   what the job has printed of which this is the first cell
    runs/owners/<name>.lock      held by a process as long as it lives: what tells a running cell from an orphan
    runs/owners/cells            of which a job's process holds one byte for each of its cells

MLflow is a projection of it and can be rebuilt from it, and so can the index from the cells' folders (``recovery``).

A process holds its cells by a lock of the operating system's, which ends with the process however that ends, and not
by the time of day or a process number: neither a clock that jumps nor a number used again can free or block a cell.
"""

import dataclasses
import fcntl
import hashlib
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

from filelock import FileLock

from benchmark.records.cells import CellFolder as CellFolder
from benchmark.records.cells import Measurement as Measurement
from benchmark.records.cells import write_atomically as write_atomically
from benchmark.records.index import NAME, open_index
from benchmark.system.credentials import clean
from benchmark.system.folders import why_not_written
from bism.errors import InputError

STATES = ("planned", "running", "done", "diverged", "failed", "stopped")
FINISHED = ("done", "diverged")
USUAL = Path("runs")  # where nobody says another
DAMAGED = "damaged"  # a finished cell that is not what it was (``integrity``); no state of the index


_LABELS = ("suite", "preset", "task", "method", "variant", "seed", "steps")
_FEW = 100  # cells that a query names


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


def sound(row: Record | Timing) -> bool:
    """Whether every field has a value of its type, as it has unless a file was altered."""
    for field in dataclasses.fields(row):
        value = getattr(row, field.name)
        if not isinstance(value, field.type):  # type: ignore[arg-type]  # a class: no annotation is text
            return False
        if isinstance(value, int) and abs(value) >= 2**63:  # more than the index holds
            return False
    return not isinstance(row, Record) or row.state in STATES


class RunDir:
    """A run directory, made where it does not exist.

    Attributes:
        note: what people should know of its index, or None.
        only_read: whether it is only looked at, and its index is a copy in memory (``looking``).

    Raises:
        InputError: it cannot be made or written.
    """

    only_read = False

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            for name in ("cells", "owners"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
            self._index, self.note = open_index(self.path)
        except (OSError, sqlite3.Error) as error:
            why = why_not_written(self.path, error)
            raise InputError(f"run directory {self.path} cannot be written: {why}") from error
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"
        self._lock: FileLock | None = None

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether there is a run directory: an index, or cells of one that was lost."""
        return (path / NAME).exists() or ((path / "cells").is_dir() and any((path / "cells").iterdir()))

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
            why = why_not_written(self.path, error)
            raise RunDirError(
                f"run directory {self.path} cannot be written any more: {why}. What is in it stays; mend it and run "
                f"the same command again."
            ) from error

    def _read(self, query: str, *values: Any) -> list[sqlite3.Row]:
        try:
            return self._index.execute(query, values).fetchall()
        except (sqlite3.Error, OverflowError, UnicodeDecodeError) as error:
            raise RunDirError(f"run directory {self.path}: its index cannot be read any more: {error}") from error

    def plan(self, records: Iterable[Record]) -> None:
        """Adds cells that are not there yet; of those that have not finished the labels are those given now."""
        names = [field.name for field in dataclasses.fields(Record)]
        labels = ", ".join(f"{name} = excluded.{name}" for name in _LABELS)
        with self._transaction() as index:
            index.executemany(
                f"INSERT INTO cells ({', '.join(names)}) VALUES ({', '.join('?' * len(names))}) "
                f"ON CONFLICT (id) DO UPDATE SET {labels} WHERE state NOT IN ('done', 'diverged')",
                [dataclasses.astuple(record) for record in records],
            )

    def records(self, ids: Iterable[str] | None = None) -> list[Record]:
        """All cells, or those of ``ids``, in the order they were planned; rows that were altered are left out."""
        wanted = None if ids is None else set(ids)
        few = list(wanted) if wanted is not None and len(wanted) <= _FEW else []
        condition = f"WHERE id IN ({', '.join('?' * len(few))})" if few else ""
        found = self._read(f"SELECT {_names(Record)} FROM cells {condition} ORDER BY rowid", *few)
        rows = [Record(**dict(row)) for row in found]
        return [row for row in rows if (wanted is None or row.id in wanted) and sound(row)]

    def correct(self, records: Iterable[Record]) -> None:
        """Writes rows anew, but for those that a live process trains meanwhile."""
        names = [field.name for field in dataclasses.fields(Record) if field.name != "id"]
        values, rows = ", ".join(f"{name} = ?" for name in names), list(records)
        if rows:
            with self._transaction() as index:
                index.executemany(
                    f"UPDATE cells SET {values} WHERE id = ? AND state != 'running'",
                    [(*(getattr(record, name) for name in names), record.id) for record in rows],
                )

    def drop_altered(self) -> None:
        """Forgets rows that no cell can have: what is in the folders stays."""
        rows = self._read(f"SELECT rowid, {_names(Record)} FROM cells")
        bad = [row["rowid"] for row in rows if not sound(Record(**{name: row[name] for name in row.keys()[1:]}))]
        if bad:
            with self._transaction() as index:
                index.executemany("DELETE FROM cells WHERE rowid = ?", [(number,) for number in bad])

    def claim(self, ids: Iterable[str], again: bool = False) -> list[str]:
        """Takes what is free of ``ids``: not finished (unless ``again``), and not running in a live process."""
        wanted, claimed = list(ids), []
        self._hold_lock()
        job = company(wanted)
        with self._transaction() as index:
            for cell in wanted:
                row = index.execute("SELECT state, owner FROM cells WHERE id = ?", (cell,)).fetchone()
                free = row and (row["state"] != "running" or not self._alive(row["owner"]))
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
        self._remove_folders(removed)
        return removed

    def reset(self, ids: Iterable[str]) -> None:
        """Makes cells planned ones, of which nothing is left, but for those that a live process trains."""
        cells = list(ids)
        with self._transaction() as index:
            index.executemany(
                "UPDATE cells SET state = 'planned', owner = NULL, message = NULL, train_seconds = NULL, progress = 0, "
                "job = NULL WHERE id = ? AND state != 'running'",
                [(cell,) for cell in cells],
            )
        self._remove_folders(record.id for record in self.records(cells) if record.state == "planned")

    def _remove_folders(self, ids: Iterable[str]) -> None:
        """A folder gets another name first: one that is there in part must not be taken for a cell."""
        left = []
        for cell in ids:
            path = self.folder(cell).path
            try:
                if path.is_symlink() or path.is_file():
                    path.unlink()
                elif path.exists():
                    shutil.rmtree(path.rename(path.with_name(f".removed-{cell}-{uuid.uuid4().hex[:8]}")))
            except OSError as error:
                left.append(f"{error.filename}: {error.strerror}")
        if left:
            raise RunDirError(f"run directory {self.path}: cannot be removed: {'; '.join(left)}")

    def set_state(self, cell: str, state: str, message: str | None = None, train_seconds: float | None = None) -> None:
        """Records where a cell stands."""
        self.set_states({cell: (state, message)}, train_seconds)

    def set_states(self, states: Mapping[str, tuple[str, str | None]], train_seconds: float | None = None) -> None:
        """Records where cells stand, by id: state and message; all at once. A method's error may say anything."""
        now = time.time()
        with self._transaction() as index:
            index.executemany(
                "UPDATE cells SET state = ?, updated = ?, message = ?, train_seconds = ? WHERE id = ?",
                [
                    (state, now, message and clean(message), train_seconds, cell)
                    for cell, (state, message) in states.items()
                ],
            )

    def add_timing(self, timing: Timing) -> None:
        """Keeps what a job took; it stays when its cells are deleted."""
        values = dataclasses.astuple(timing)
        with self._transaction() as index:
            index.execute(f"INSERT INTO timings VALUES ({', '.join('?' * len(values))})", values)

    def timings(self) -> list[Timing]:
        """What jobs took, the latest last."""
        found = [dict(row) for row in self._read(f"SELECT {_names(Timing)} FROM timings ORDER BY rowid")]
        rows = [Timing(**{**row, "compiled": bool(row["compiled"])}) for row in found]
        return [row for row in rows if sound(row)]

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
        if is_held(file):
            return True
        file.unlink(missing_ok=True)
        return False

    def synced(self, cell: str, store: str) -> tuple[str | None, int, str | None]:
        """What a tracking store holds of a cell: its run, the number of journal lines, the state."""
        for row in self._read("SELECT run, lines, state FROM synced WHERE cell = ? AND store = ?", cell, store):
            if isinstance(row["run"], str) and isinstance(row["lines"], int) and row["lines"] >= 0:
                return row["run"], row["lines"], row["state"]
        return None, 0, None

    def set_synced(self, cell: str, store: str, run: str, lines: int, state: str) -> None:
        """Records what a tracking store holds of a cell."""
        with self._transaction() as index:
            index.execute("INSERT OR REPLACE INTO synced VALUES (?, ?, ?, ?, ?)", (cell, store, run, lines, state))


def _names(kind: type[Record] | type[Timing]) -> str:
    return ", ".join(field.name for field in dataclasses.fields(kind))


def company(ids: Iterable[str]) -> str:
    """What cells that are trained beside each other have in common."""
    return uuid.uuid5(uuid.NAMESPACE_OID, " ".join(ids)).hex[:12]


def cell_folder(run_dir: Path, cell: str) -> CellFolder:
    """The files of a cell."""
    return CellFolder(run_dir / "cells" / cell)


def is_held(lock: Path) -> bool:
    """Whether a live process holds a lock; asked by a shared one, so that two who ask do not take each other for it."""
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


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
