"""Run directories that are looked at and not written: by commands that only read, and where nobody can write."""

import os
import sqlite3
from pathlib import Path

from benchmark.records.index import NAME, open_copy
from benchmark.records.rundir import RunDir, is_held
from benchmark.system.folders import obstacle
from bism.errors import InputError, first_line


def looked_at(path: Path) -> RunDir:
    """A run directory of which nothing is written, and nothing made: one that is not there has no cells."""
    return _LookedAt(path)


def written_where_it_can_be(path: Path) -> RunDir:
    """A run directory that is there; where it cannot be written, what becomes of its index is forgotten."""
    return RunDir(path) if _can_be_written(path) else _LookedAt(path)


def planned_in(path: Path) -> RunDir:
    """A run directory that is looked at by a command which shows what it would write there.

    Raises:
        InputError: it could not be made or written.
    """
    problem = next((found for found in map(obstacle, (path / "owners", path / "cells")) if found), None)
    if problem or not _can_be_written(path):
        raise InputError(f"run directory {path} cannot be written: {problem or 'its index can only be read'}")
    return _LookedAt(path)


def _can_be_written(path: Path) -> bool:
    return all(os.access(part, os.W_OK) for part in (path, path / "owners", path / NAME) if part.exists())


class _LookedAt(RunDir):
    """A run directory with a copy of its index in memory."""

    only_read = True

    def __init__(self, path: Path) -> None:
        self.path, self.owner, self._lock = path, "", None
        try:
            self._index, damage = open_copy(path)
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"run directory {path} cannot be read: {first_line(error)}") from error
        self.note = damage if _can_be_written(path) else f"{path} can only be read: its index stays as it is"

    def _alive(self, owner: str | None) -> bool:
        """Whether the process that holds a cell still runs; what is left of one that does not stays."""
        return is_held(self._lock_file(owner or ""))
