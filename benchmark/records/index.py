"""The index of a run directory as a file: its tables, and what happens where it is damaged. Part of ``rundir``."""

import contextlib
import itertools
import os
import sqlite3
import tempfile
from pathlib import Path

from filelock import FileLock

NAME = "index.sqlite"
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
_SINCE = (("progress", "INTEGER DEFAULT 0"), ("job", "TEXT"))  # columns that an index of an earlier version lacks
# SQLITE_ERROR, since nothing but our own tables is asked for.
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
_COPIES = 100  # tries to copy an index between two times that it is written
_FAILURES = (sqlite3.DatabaseError, UnicodeDecodeError)  # the second, where SQLite cites what is no text


class _Damaged(sqlite3.DatabaseError):
    """A database that is no index."""


def open_index(folder: Path) -> tuple[sqlite3.Connection, str | None]:
    """The index in a run directory, made where there is none; and what people should know of it.

    One that is damaged is put aside: what it held of cells that have begun is in their folders.

    Raises:
        OSError, sqlite3.Error: it cannot be opened or written.
    """
    file = folder / NAME
    try:
        return _opened(file), None
    except _FAILURES as error:
        if not _is_damage(error, file):
            raise
    with FileLock(folder / "owners" / "index.lock"):  # of two who find it damaged, one puts it aside
        try:
            return _opened(file), None
        except _FAILURES as error:
            if not _is_damage(error, file):
                raise
            aside = _put_aside(file)
            reason = " ".join(str(error).split())
            return _opened(file), f"{file}: damaged ({reason}); it is kept as {aside.name} and was made anew"


def open_copy(folder: Path) -> tuple[sqlite3.Connection, str | None]:
    """What the index says, in memory, for who only looks: what is changed there is for this process alone, and SQLite
    makes no files beside the index, as it does for who reads it in place. And what people should know of it.

    Empty where there is none, and where it is damaged.

    Raises:
        OSError, sqlite3.Error: it cannot be read.
    """
    note = None
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / NAME
        _copy(folder / NAME, copy)
        try:
            index = _opened(copy)
        except _FAILURES as error:
            if not _is_damage(error, copy):
                raise
            _put_aside(copy)
            reason = " ".join(str(error).split())
            index, note = _opened(copy), f"{folder / NAME}: damaged ({reason}); the cells' folders say what there is"
        with contextlib.closing(index):
            held = sqlite3.connect(":memory:")
            index.backup(held)
            held.row_factory, held.text_factory = index.row_factory, index.text_factory
    return held, note


def _copy(file: Path, to: Path) -> None:
    """Copies a database with its journal, in which stands what was written last, as they are at one moment: all that is
    written goes to the journal first, so neither has changed where the journal has not, and where there is none, the
    database has not."""
    journal, to_journal = (one.with_name(f"{one.name}-wal") for one in (file, to))
    for _ in range(_COPIES):
        last, written = _content(journal), _written(file)
        content = _content(file)
        if (last, written) == (_content(journal), _written(file)):
            break
    else:
        raise sqlite3.OperationalError(f"{file} is written to all the time")
    for part, target in ((last, to_journal), (content, to)):
        if part is not None:
            target.write_bytes(part)


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


def _written(file: Path) -> tuple[int, int] | None:
    """The size of a file and when it was last changed; None where there is none."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime_ns


def _is_damage(error: Exception, file: Path) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    says_no = code == sqlite3.SQLITE_READONLY and os.access(file, os.W_OK)  # by its header, and not the file system
    return isinstance(error, _Damaged | UnicodeDecodeError) or code in _DAMAGED or says_no


def _opened(file: Path) -> sqlite3.Connection:
    index = sqlite3.connect(file, timeout=60)
    try:
        index.text_factory = lambda content: content.decode(errors="replace")
        index.execute("PRAGMA journal_mode=WAL")
        (found,) = index.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise _Damaged(found)
        index.executescript(_SCHEMA)
        for name, kind in _SINCE:
            if name not in _columns(index, "cells"):
                index.execute(f"ALTER TABLE cells ADD COLUMN {name} {kind}")
        with contextlib.closing(sqlite3.connect(":memory:")) as ours:
            ours.executescript(_SCHEMA)
            if not all(_columns(ours, table) <= _columns(index, table) for table in ("cells", "synced", "timings")):
                raise _Damaged("its tables are others")
    except BaseException:
        index.close()
        raise
    index.row_factory = sqlite3.Row
    return index


def _columns(index: sqlite3.Connection, table: str) -> set[str]:
    return {str(row[1]) for row in index.execute(f"PRAGMA table_info({table})")}


def _put_aside(file: Path) -> Path:
    """Renames a database with what belongs to it; to where."""
    names = (file.with_name(f"index.damaged-{number}.sqlite") for number in itertools.count(1))
    aside = next(name for name in names if not name.exists())
    for ending in ("-wal", "-shm", ""):
        part = file.with_name(file.name + ending)
        if part.exists():
            os.replace(part, aside.with_name(aside.name + ending))
    return aside
