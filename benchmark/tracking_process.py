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
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmark.rundir import Record, RunDir
from benchmark.tracking_store import resolve, unsecret
from bism.errors import InputError

_PAUSE_SECONDS = 5.0  # between passes, at least
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
        resolve(store)
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._note = note
        self._process = context.Process(
            target=_write, daemon=True, args=(store, run_dir.absolute(), list(ids), command, log_models, theirs)
        )
        self._process.start()
        theirs.close()
        self.tracked = Tracked(False, None)
        kind, text = self._receive(("refused", f"tracking store {unsecret(store)}: its writer ended at once"))
        if kind == "refused":
            raise InputError(text)
        if kind == "note":
            note(text)
        self.store = unsecret(store)

    def _receive(self, otherwise: tuple[str, Any]) -> tuple[str, Any]:
        try:
            message: tuple[str, Any] = self._connection.recv()
        except (EOFError, OSError):
            return otherwise
        return message

    def __enter__(self) -> "Writer":
        return self

    def listen(self) -> None:
        """Tells what has been said up to now."""
        with contextlib.suppress(EOFError, OSError):
            while self._connection.poll():
                _, text = self._connection.recv()
                self._note(text)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with contextlib.suppress(OSError):
                self._connection.send("end")
            message, content = "", None
            while message not in ("tracked", "lost"):
                message, content = self._receive(("lost", None))
                if message == "note":
                    self._note(content)
            self.tracked = content or self.tracked
        finally:  # also where Ctrl-C does not want to wait
            self._process.kill()
            self._process.join()


def _write(store: str, run_dir: Path, ids: list[str], command: str, log_models: str, connection: Connection) -> None:
    """Passes over the cells until told to end, and once more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(5)  # training comes first
    from benchmark.tracking import Tracker, Unreachable

    def tell(kind: str, content: Any) -> None:
        with contextlib.suppress(OSError):
            connection.send((kind, content))

    warnings.simplefilter("always", UserWarning)
    warnings.showwarning = lambda message, *_, **__: tell("note", str(message))
    tracker: Tracker | None = None
    with contextlib.closing(RunDir(run_dir)) as runs:
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
                tracker.sync(runs.records(ids), command=command)
            pause = max(_PAUSE_SECONDS, (time.monotonic() - started) * (1 / _SHARE - 1))
        if tracker is None:
            tell("tracked", Tracked(False, None))
        else:
            records = runs.records(ids)
            complete, presets = project(tracker, records, command, log_models), {record.preset for record in records}
            tell("tracked", Tracked(complete, tracker.ui_hint(presets.pop() if len(presets) == 1 else None)))


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
