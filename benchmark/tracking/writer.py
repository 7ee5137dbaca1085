"""The one writer of a run: a process that brings the tracking store up to the run directory while jobs train.

It reads what the jobs write and is waited for by none of them: a store that is slow, or away for a while, costs
training nothing, and what it has missed it gets later. MLflow is imported here and not in the process that trains.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmark.records.integrity import inspect
from benchmark.records.rundir import Record, RunDir, RunDirError
from benchmark.system import credentials
from benchmark.system.credentials import unsecret
from benchmark.system.signals import deaf
from benchmark.tracking.check import Unreachable, advised
from benchmark.tracking.store import INSTEAD, check, resolve
from bism.errors import InputError

_PAUSE_SECONDS = 5.0  # between passes, at least
_DEATHS = 3  # of writers of one run, after which it goes on without
_SHARE = 0.05  # of the time, at most, that passes take


@dataclasses.dataclass(frozen=True)
class Tracked:
    """How tracking ended: whether the store holds everything, and where to look at it (None: it was never there)."""

    complete: bool
    hint: str | None


class Writer:
    """Starts the writer; as a context manager it ends it when everything is written, and tells what it says.

    Args:
        store: as ``Tracker``.
        ids: the cells to write.
        command: what the user called.
        log_models: ``best``, ``all`` or ``none``, at the end.
        note: is called with what people should know.

    Raises:
        InputError: a store that cannot be used; one that is only not there now is noted, and tried again.
    """

    def __init__(
        self,
        store: str,
        run_dir: Path,
        ids: Sequence[str],
        command: str,
        log_models: str,
        note: Callable[[str], None],
    ) -> None:
        _check(store)
        self.store = unsecret(store)
        self.tracked = Tracked(False, None)
        self._note, self._deaths = note, 0
        self._arguments = store, run_dir.absolute(), list(ids), command, log_models
        self._start()
        while (message := self._receive()) is None:  # it was killed: it has written nothing yet that counts
            if not self._start_again():
                raise InputError(f"tracking store {self.store}: its writer ended at once, {_DEATHS} times")
        kind, text = message
        if kind == "refused":
            raise InputError(text)
        if kind == "note":
            note(text)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_write, daemon=True, args=(*self._arguments, theirs))
        with deaf():
            self._process.start()
        theirs.close()

    def _start_again(self) -> bool:
        """Another writer in the place of one that was killed, a few times: it finds out what the store lacks."""
        self._process.join()
        self._deaths += 1
        if self._deaths < _DEATHS:
            self._connection.close()
            self._start()
        return self._deaths < _DEATHS

    def _receive(self) -> tuple[str, Any] | None:
        """What it says next; None where it has ended."""
        try:
            message: tuple[str, Any] = self._connection.recv()
        except (EOFError, OSError):
            return None
        return message

    def __enter__(self) -> "Writer":
        return self

    def listen(self) -> None:
        """Tells what has been said up to now."""
        while self._deaths < _DEATHS and self._connection.poll():
            message = self._receive()
            if message is not None:
                self._tell(message)
            elif self._start_again():
                self._note("the process that writes to the tracking store was ended; another goes on")
            else:
                self._note("the process that writes to the tracking store was ended again; it is not replaced")

    def _tell(self, message: tuple[str, Any]) -> None:
        if message[0] == "tracked":
            self.tracked = message[1]
        elif message[0] != "ready":
            self._note(message[1])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            message: tuple[str, Any] | None = None
            while self._deaths < _DEATHS and (message is None or message[0] not in ("tracked", "refused")):
                with contextlib.suppress(OSError):
                    self._connection.send("end")
                while (message := self._receive()) is not None and message[0] not in ("tracked", "refused"):
                    self._tell(message)
                if message is None and not self._start_again():
                    break
            if message is not None:
                self._tell(message)
        finally:  # also where Ctrl-C does not want to wait
            self._process.kill()
            self._process.join()


def _check(store: str) -> None:
    """Refuses what cannot be a store, before a process is started; what needs MLflow for it is left to that."""
    uri = resolve(store)
    try:
        if not uri.startswith("http"):
            check(uri, write=True)
    except Unreachable:  # which the writer says, and tries again
        pass
    except InputError as error:
        raise advised(error, INSTEAD) from error


def _write(store: str, run_dir: Path, ids: list[str], command: str, log_models: str, connection: Connection) -> None:
    """Passes over the cells until told to end, and once more."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # the command that started it says when to end
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(5)  # training comes first
    from benchmark.tracking.cells import Tracker

    def tell(kind: str, content: Any) -> None:
        with contextlib.suppress(OSError):
            connection.send((kind, content))

    warnings.simplefilter("always", UserWarning)
    warnings.showwarning = lambda message, *_, **__: tell("note", credentials.clean(str(message)))
    with credentials.kept_out(store), contextlib.closing(RunDir(run_dir)) as runs:
        tracker: Tracker | None = None
        try:
            tracker = Tracker(store, runs)
            tell("ready", "")
        except Unreachable as error:
            tell("note", f"warning: {error} Training goes on, and the store is tried again.")
        except InputError as error:
            tell("refused", str(error))
            return
        ended = False
        pause = _PAUSE_SECONDS
        while not ended:
            ended = _told_to_end(connection, pause)
            started = time.monotonic()
            if tracker is None:
                with contextlib.suppress(InputError):
                    tracker = Tracker(store, runs)
            if tracker is not None and not ended:
                with _full_disk(tell):
                    tracker.sync(runs.records(ids), command=command)
            pause = max(_PAUSE_SECONDS, (time.monotonic() - started) * (1 / _SHARE - 1))
        found = Tracked(False, None)
        if tracker is not None:
            with _full_disk(tell):
                records = inspect(runs, runs.records(ids)).sound
                complete, presets = project(tracker, records, command, log_models), {one.preset for one in records}
                found = Tracked(complete, tracker.ui_hint(presets.pop() if len(presets) == 1 else None))
        tell("tracked", found)


@contextlib.contextmanager
def _full_disk(tell: Callable[[str, str], None]) -> Iterator[None]:
    """Inside, a run directory that cannot be written is said, and the store has to wait."""
    try:
        yield
    except RunDirError as error:
        tell("note", f"warning: nothing is tracked for now: {error}")


def _told_to_end(connection: Connection, seconds: float) -> bool:
    """Waits; whether the run has ended, in whatever way."""
    try:
        return connection.poll(seconds) and bool(connection.recv())
    except (EOFError, OSError):
        return True


def project(tracker: Any, records: Sequence[Record], command: str, log_models: str) -> bool:
    """Brings a tracking store up to these records; whether it now holds everything."""
    complete: bool = tracker.sync(records, command=command, last=True)
    tracker.log_models(records, log_models)
    for suite, preset in dict.fromkeys((record.suite, record.preset) for record in records):
        tracker.finish(suite, preset)
    return complete and not tracker.behind
