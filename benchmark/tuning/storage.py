"""Where studies are kept: a journal file, or a database that several machines share."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TypeVar

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from sqlalchemy import create_engine, inspect
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from benchmark.system.credentials import unsecret
from benchmark.system.invocation import call
from benchmark.tracking.check import advised, brief, check_database, check_file, check_form, scheme_of, with_driver
from benchmark.tracking.store import DEFAULT_STUDIES, database_file
from bism.errors import InputError

FAILURES = (StorageInternalError, SQLAlchemyError, OSError)  # of a storage that is away
_TABLES = ("studies", "trials", "version_info")  # of every database with studies
_PATIENCE_SECONDS, _PAUSE_SECONDS = 60.0, 2.0
Result = TypeVar("Result")

optuna.logging.set_verbosity(optuna.logging.ERROR)


class StorageAway(Exception):
    """A storage that worked has not answered for a while."""


def open_storage(where: str) -> BaseStorage:
    """The storage at a path (a journal file) or at a database's URL, to work in; made where there is none.

    Raises:
        InputError: it cannot be reached or used.
    """
    with _usable(where):
        if not _is_database(where):
            return JournalStorage(JournalFileBackend(str(_mended(Path(where)))))
        return _database(where, write=True)


def read_storage(where: str) -> BaseStorage:
    """A storage that is there, to be read: nothing is made, and nothing of it written.

    Raises:
        InputError: there is none, or it cannot be reached or read.
    """
    with _usable(where):
        if not _is_database(where):
            _check_there(where, Path(where))
            _check_journal(Path(where))
            return JournalStorage(JournalFileBackend(where))
        file = database_file(where)
        if file is not None:
            _check_there(where, file)
        return _database(where, write=False)


@contextmanager
def _usable(where: str) -> Iterator[None]:
    """Inside, whatever is wrong with a storage is an InputError that names it."""
    name = unsecret(where)
    other = f"Give another --storage: a file such as {DEFAULT_STUDIES}, or a database such as postgresql://host/name"
    try:
        with quietly():
            yield
    except InputError as error:
        raise advised(error, other) from error
    except (*FAILURES, ValueError, RuntimeError, ImportError) as error:
        text = brief(error)
        if "table schema" in text:  # whoever makes the tables of one takes those of the other for an odd version
            text = "its tables are MLflow's, or another version's of Optuna; studies need a database of their own."
        raise InputError(f"studies at {name} cannot be used: {text} {other}") from error


def _is_database(where: str) -> bool:
    if "://" in where:
        return True
    if ":" in where.rpartition("@")[0]:  # no file is meant, and none is to be called by a password
        raise InputError(f"studies at {unsecret(where)}: an address of a database begins with its kind.")
    return False


def _check_there(where: str, file: Path) -> None:
    if not file.exists():
        raise InputError(
            f"studies at {unsecret(where)}: there is no such file; `{call('benchmark', 'tune')}` makes one."
        )


def _database(where: str, write: bool) -> BaseStorage:
    """A database, looked at first: Optuna and its driver would wait for one that is away, for as long as the system
    does. One that is only read and has no tables yet is like one without studies.

    Raises:
        InputError: it is away, or cannot be used.
    """
    address = with_driver(where)
    check_form("studies at", address)
    file = database_file(address)
    if file is not None:
        check_file("studies at", file, write=write, tables=_TABLES)
    elif scheme_of(address) != "sqlite":
        check_database("studies at", address)
    if not write and not _has_tables(address):
        return InMemoryStorage()
    storage = RDBStorage(address)
    storage.get_all_studies()
    return storage


def _has_tables(address: str) -> bool:
    engine = create_engine(address, poolclass=NullPool)
    return set(inspect(engine).get_table_names()).issuperset(_TABLES)


def _mended(path: Path) -> Path:
    """The journal, without what a writer that was killed has left of a last line: nobody could write past it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not _check_journal(path):
        lock = JournalFileSymlinkLock(str(path))
        lock.acquire()
        try:
            content = path.read_bytes()  # the writer may have been alive, and is done now
            os.truncate(path, content.rfind(b"\n") + 1)
        finally:
            lock.release()
    return path


def _check_journal(path: Path) -> bool:
    """Whether what there is of a journal ends with a whole line.

    Raises:
        InputError: the file is none.
    """
    if path.is_dir():
        raise InputError(f"studies at {path}: this is a folder; a file is wanted, such as {path / DEFAULT_STUDIES}")
    content = path.read_bytes() if path.exists() else b""
    if content and not content.startswith(b'{"'):
        raise InputError(f"studies at {path}: this file is no journal of studies; name another --storage")
    return not content or content.endswith(b"\n")


@contextmanager
def quietly() -> Iterator[None]:
    """Inside, Optuna says nothing of what is experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.simplefilter("ignore", DeprecationWarning)  # Optuna's use of SQLAlchemy
        yield


def patiently(action: Callable[[], Result], stop: Event, also: type[Exception] = StorageInternalError) -> Result:
    """What ``action`` gives; a storage that is away for a moment is asked again.

    Args:
        also: a further error that says that it is away.

    Raises:
        StorageAway: it does not come back, or ``stop`` is set meanwhile.
    """
    tries = round(_PATIENCE_SECONDS / _PAUSE_SECONDS)
    for attempt in range(1, tries + 1):
        try:
            with quietly():
                return action()
        except (*FAILURES, also) as error:
            if attempt == tries or stop.wait(_PAUSE_SECONDS):
                raise StorageAway(brief(error)) from error
    raise AssertionError
