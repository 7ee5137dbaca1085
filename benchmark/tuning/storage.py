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
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from sqlalchemy.exc import SQLAlchemyError

from benchmark.system.credentials import unsecret
from benchmark.tracking.check import advised, brief, check_database, check_file, check_form, scheme_of, with_driver
from benchmark.tracking.store import DEFAULT_STUDIES, database_file
from bism.errors import InputError

FAILURES = (StorageInternalError, SQLAlchemyError, OSError)  # of a storage that is away
_PATIENCE_SECONDS, _PAUSE_SECONDS = 60.0, 2.0
Result = TypeVar("Result")

optuna.logging.set_verbosity(optuna.logging.ERROR)


class StorageAway(Exception):
    """A storage that worked has not answered for a while."""


def open_storage(where: str) -> BaseStorage:
    """The storage at a path (a journal file, made where there is none) or at a database's URL.

    Raises:
        InputError: it cannot be reached or used.
    """
    name = unsecret(where)
    other = f"Give another --storage: a file such as {DEFAULT_STUDIES}, or a database such as postgresql://host/name"
    try:
        with quietly():
            if "://" not in where:
                if ":" in where.rpartition("@")[0]:  # no file is meant, and none is to be called by a password
                    raise InputError(f"studies at {name}: an address of a database begins with its kind.")
                return JournalStorage(JournalFileBackend(str(_journal(Path(where)))))
            address = with_driver(where)
            _check(address)
            storage = RDBStorage(address)
            storage.get_all_studies()
            return storage
    except InputError as error:
        raise advised(error, other) from error
    except (*FAILURES, ValueError, RuntimeError, ImportError) as error:
        text = brief(error)
        if "table schema" in text:  # whoever makes the tables of one takes those of the other for an odd version
            text = "its tables are MLflow's, or another version's of Optuna; studies need a database of their own."
        raise InputError(f"studies at {name} cannot be used: {text} {other}") from error


def _check(address: str) -> None:
    """Looks at a database first: Optuna and its driver would wait for one that is away, for as long as the system does.

    Raises:
        InputError: it is away, or cannot be used.
    """
    check_form("studies at", address)
    file = database_file(address)
    if file is not None:
        check_file("studies at", file, write=True, tables=("studies", "trials", "version_info"))
    elif scheme_of(address) != "sqlite":
        check_database("studies at", address)


def _journal(path: Path) -> Path:
    """The file, without what a writer that was killed has left of a last line: nobody could read past it."""
    if path.is_dir():
        raise InputError(f"studies at {path}: this is a folder; a file is wanted, such as {path / DEFAULT_STUDIES}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size:
        content = path.read_bytes()
        if not content.startswith(b'{"'):
            raise InputError(f"studies at {path}: this file is no journal of studies; name another --storage")
        if not content.endswith(b"\n"):
            lock = JournalFileSymlinkLock(str(path))
            lock.acquire()
            try:
                content = path.read_bytes()  # the writer may have been alive, and is done now
                os.truncate(path, content.rfind(b"\n") + 1)
            finally:
                lock.release()
    return path


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
