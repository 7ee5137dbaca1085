"""Importing files of the user's own: whatever they do then, the command says which file it was, and goes on or ends.

What ends the process from C (a kill, a crash of a library) cannot be caught here; a job that ends so names the file.
"""

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from bism.errors import InputError, described, of_a_user, shown

PREFIX = "bism_plugin_"  # begins the names of plug-ins' modules
_SLOW_SECONDS = 8.0  # after which it is said what is being imported


class ProcessEnded(BaseException):
    """A plug-in would have ended the process."""


@contextlib.contextmanager
def importing(path: Path) -> Iterator[None]:
    """Inside, a file is imported. It must not end the process, nor close or replace what the command prints to; where
    that takes long, a line on standard error says so. Nothing is left beside it.

    Raises:
        InputError: naming the file and what it did or raised, in a thread that it has started, too.
        KeyboardInterrupt: Ctrl-C, which names the file.
    """
    watch_threads()
    what = f"{path}: cannot be imported"
    try:
        with (
            _slow_said(path),
            _no_end(),
            _no_bytecode(),
            _threads_heard() as failures,
            _streams_kept() as changed,
            of_a_user(what),
        ):
            yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"while {path} was imported") from None
    problems = [*changed, *(f"a thread that it has started raised {described(error)}" for error in failures)]
    if problems:
        raise InputError(f"{what}: {problems[0]}")


def blame(error: BaseException) -> str | None:
    """What to say of an error that was raised in a plug-in's code: its file and line, and what it says; else None."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if str(frame.f_globals.get("__name__")).startswith(PREFIX):
            where = f"{frame.f_globals.get('__file__')}:{line}: in {frame.f_code.co_name}"
            return f"{where}: {described(error)}"
    return None


@contextlib.contextmanager
def _slow_said(path: Path) -> Iterator[None]:
    def say() -> None:
        print(f"{path} is being imported, for {_SLOW_SECONDS:g} s now; Ctrl-C ends it", file=errors, flush=True)

    errors = sys.stderr
    timer = threading.Timer(_SLOW_SECONDS, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def _no_bytecode() -> Iterator[None]:
    """Inside, no ``__pycache__`` is written: a command that only looks leaves nothing behind, and a file that is
    changed twice within a second is never taken for what it was."""
    usual, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = usual


@contextlib.contextmanager
def _no_end() -> Iterator[None]:
    """Inside, ``os._exit`` and ``os.abort`` raise, but in processes that are forked inside."""
    usual, ours = {name: getattr(os, name) for name in ("_exit", "abort")}, os.getpid()

    def refusing(name: str) -> Callable[..., NoReturn]:
        def refuse(*arguments: Any) -> NoReturn:
            if os.getpid() != ours:
                usual[name](*arguments)
            raise ProcessEnded(f"os.{name}({', '.join(map(shown, arguments))})")

        return refuse

    for name in usual:
        setattr(os, name, refusing(name))
    try:
        yield
    finally:
        for name, function in usual.items():
            setattr(os, name, function)


@contextlib.contextmanager
def _streams_kept() -> Iterator[list[str]]:
    """Afterwards, standard output and standard error are what they were; what of them was closed."""
    changed, streams = list[str](), {"stdout": sys.stdout, "stderr": sys.stderr}
    with contextlib.ExitStack() as copies:
        kept = {number: _copy(number, copies) for number in (1, 2)}
        shields = {name: _Shielded(stream, name, changed) for name, stream in streams.items()}
        for name, shield in shields.items():
            setattr(sys, name, shield)
        try:
            yield changed
        finally:
            for number, copy in kept.items():
                if copy is not None and not _same(number, copy):
                    os.dup2(copy, number)
                    changed.append(f"it closes or replaces file descriptor {number}, to which the command prints")
            for (name, stream), number in zip(streams.items(), kept, strict=True):
                if getattr(stream, "closed", False):
                    stream = open(number, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115, for messages
                    changed.append(f"it closes what is behind sys.{name}, to which the command prints")
                setattr(sys, name, stream)


class _Shielded:
    """A stream that cannot be closed."""

    def __init__(self, stream: Any, name: str, closed: list[str]) -> None:
        self._stream, self._name, self._closed = stream, name, closed

    def close(self) -> None:
        self._closed.append(f"it closes sys.{self._name}, to which the command prints")

    detach = close

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _copy(number: int, copies: contextlib.ExitStack) -> int | None:
    """A file descriptor's copy, closed in the end; None where there is none."""
    try:
        copy = os.dup(number)
    except OSError:
        return None
    copies.callback(os.close, copy)
    return copy


def _same(one: int, other: int) -> bool:
    try:
        return os.path.sameopenfile(one, other)
    except OSError:
        return False


# --- threads ----------------------------------------------------------------------------------------------------------

_failures: list[BaseException] | None = None  # of threads, while a plug-in is imported


@contextlib.contextmanager
def _threads_heard() -> Iterator[list[BaseException]]:
    global _failures
    _failures = found = list[BaseException]()
    try:
        yield found
    finally:
        _failures = None


def watch_threads() -> None:
    """From here on, what is raised in a thread of a plug-in's is one line that names it; of others as before."""
    usual = threading.excepthook
    if getattr(usual, "of_plugins", False):
        return

    def tell(failed: Any) -> None:
        error = failed.exc_value
        text = None if error is None or isinstance(error, SystemExit) else blame(error)
        if text is None or error is None:
            usual(failed)
        elif _failures is not None:
            _failures.append(error)
        else:
            print(f"warning: {text} (in a thread)", file=sys.stderr, flush=True)

    tell.of_plugins = True  # type: ignore[attr-defined]  # a mark of ours on it
    threading.excepthook = tell
