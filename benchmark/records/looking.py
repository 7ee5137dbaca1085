"""Run directories that can be read and not written: somebody else's, or on a disk that is mounted so."""

import fcntl
import os
import sqlite3
from pathlib import Path

from benchmark.records.index import NAME, open_copy
from benchmark.records.rundir import RunDir
from bism.errors import InputError


def looked_at(path: Path) -> RunDir:
    """A run directory that is there; where it cannot be written, what becomes of its index is forgotten."""
    parts = [file for file in (path, path / "owners", path / NAME) if file.exists()]
    return RunDir(path) if all(os.access(part, os.W_OK) for part in parts) else _LookedAt(path)


class _LookedAt(RunDir):
    """A run directory of which nothing is written."""

    only_read = True

    def __init__(self, path: Path) -> None:
        self.path, self.owner, self._lock = path, "", None
        self.note = f"{path} can only be read: its index stays as it is"
        try:
            self._index = open_copy(path)
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"run directory {path} cannot be read: {error}") from error

    def _alive(self, owner: str | None) -> bool:
        """Whether somebody holds the lock of the process that holds a cell."""
        try:
            with self._lock_file(owner or "").open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False
