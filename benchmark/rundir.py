"""The run directory: the one home of what has been planned, trained and measured.

    runs/index.sqlite            cells and their states (WAL)
    runs/cells/<id>/config.json  the resolved configuration that the id is the hash of, and its labels
    runs/cells/<id>/metrics.jsonl  the journal: one line per evaluation
    runs/cells/<id>/artifacts/   checkpoints, arrays, images
    runs/cells/<id>/error.txt    the traceback of a failed cell

MLflow is a projection of it and can be rebuilt from it.
"""

import dataclasses
import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bism.errors import InputError

STATES = ("planned", "running", "done", "diverged", "failed", "stopped")
FINISHED = ("done", "diverged")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS cells (
    id TEXT PRIMARY KEY, suite TEXT, preset TEXT, task TEXT, method TEXT, variant TEXT, seed INTEGER, steps INTEGER,
    state TEXT, owner TEXT, updated REAL, message TEXT, train_seconds REAL);
CREATE TABLE IF NOT EXISTS synced (
    cell TEXT, store TEXT, run TEXT, lines INTEGER, state TEXT, PRIMARY KEY (cell, store));
"""


@dataclasses.dataclass(frozen=True)
class Record:
    """One row of the index."""

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

    @property
    def error(self) -> str | None:
        """The traceback of a failed cell."""
        file = self.path / "error.txt"
        return file.read_text() if file.exists() else None

    def begin(self, config: dict[str, Any]) -> None:
        """Makes the folder ready for training from the start; an earlier journal goes."""
        self.artifacts.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path / "config.json", json.dumps(config, indent=1, sort_keys=True))
        for name in ("metrics.jsonl", "error.txt"):
            (self.path / name).unlink(missing_ok=True)

    def append(self, step: int, metrics: dict[str, float]) -> None:
        """Adds a line to the journal. NaN and infinity are kept (JSON's extension that Python reads back)."""
        line = json.dumps({"step": step, "time_ms": int(time.time() * 1000), "metrics": metrics})
        with (self.path / "metrics.jsonl").open("a") as journal:
            journal.write(line + "\n")

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
            (self.path / "cells").mkdir(parents=True, exist_ok=True)
            self._index = sqlite3.connect(self.path / "index.sqlite", timeout=60)
            self._index.execute("PRAGMA journal_mode=WAL")
            self._index.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"run directory {self.path} cannot be written: {error}") from error
        self._index.row_factory = sqlite3.Row
        self.owner = f"{socket.gethostname()}:{os.getpid()}"

    def close(self) -> None:
        """Closes the index."""
        self._index.close()

    def folder(self, cell: str) -> CellFolder:
        """The files of a cell."""
        return CellFolder(self.path / "cells" / cell)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._index:
            self._index.execute("BEGIN IMMEDIATE")
            yield self._index

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
        claimed = []
        with self._transaction() as index:
            for cell in ids:
                row = index.execute("SELECT state, owner FROM cells WHERE id = ?", (cell,)).fetchone()
                free = row["state"] != "running" or not _alive(row["owner"])
                if free and (again or row["state"] not in FINISHED):
                    index.execute(
                        "UPDATE cells SET state = 'running', owner = ?, updated = ?, message = NULL WHERE id = ?",
                        (self.owner, time.time(), cell),
                    )
                    claimed.append(cell)
        return claimed

    def set_state(self, cell: str, state: str, message: str | None = None, train_seconds: float | None = None) -> None:
        """Records where a cell stands."""
        with self._transaction() as index:
            index.execute(
                "UPDATE cells SET state = ?, updated = ?, message = ?, train_seconds = ? WHERE id = ?",
                (state, time.time(), message, train_seconds, cell),
            )

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


def _alive(owner: str | None) -> bool:
    """Whether the process that holds a cell still runs, as far as this machine can tell."""
    host, _, pid = (owner or "").rpartition(":")
    if host != socket.gethostname():
        return bool(host)
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        pass
    return True


def write_atomically(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)
