"""Signals that ask a command to end, and processes that leave them to it."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker
from types import FrameType

_HANG_UP = getattr(signal, "SIGHUP", None)


@contextlib.contextmanager
def ended_as_by_ctrl_c() -> Iterator[None]:
    """Inside, SIGTERM (a batch system, a container) and SIGHUP (the terminal has gone) are as Ctrl-C, where they are
    not ignored (``nohup``)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = {signal.SIGTERM: signal.default_int_handler, **({_HANG_UP: _when_hung_up()} if _HANG_UP else {})}
    before = {number: signal.getsignal(number) for number in ours}
    heard = [number for number in ours if before[number] is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, ours[number])
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])


def _when_hung_up() -> "signal._HANDLER":
    """What to do then: a shell says it again, which is no second Ctrl-C; and nobody can write to a terminal that has
    gone."""
    terminals = [number for number in (1, 2) if os.isatty(number)]

    def end(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        with contextlib.suppress(OSError), open(os.devnull, "w") as nowhere:
            for terminal in terminals:
                os.dup2(nowhere.fileno(), terminal)
        raise KeyboardInterrupt

    return end


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Processes that are started inside do not hear Ctrl-C and SIGHUP, which are ours to handle: also not while they
    import what they need, which takes seconds where they are spawned. We hear them afterwards."""
    blocked = {signal.SIGINT} | ({_HANG_UP} if _HANG_UP else set())
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked - {signal.SIGINT})
    try:
        resource_tracker.ensure_running()  # starting it would let Ctrl-C through
        signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
