"""Runs a command that ends when whoever started it ends, however that happens, kill -9 included.

    python -m benchmark.tracking.guardian COMMAND...

Who starts it holds the other end of its standard input, which the system closes with the process that holds it.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence

_GRACE_SECONDS = 5.0  # for the command to end by itself


def start(command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Starts a command that is ended with this process, in a group of its own: Ctrl-C does not reach it."""
    guarded = [sys.executable, "-m", "benchmark.tracking.guardian", *command]
    return subprocess.Popen(guarded, stdin=subprocess.PIPE, env=dict(environment), start_new_session=True)


def end(guarded: "subprocess.Popen[bytes]") -> int:
    """Ends what ``start`` has started; returns when it is gone, with its exit code."""
    assert guarded.stdin is not None
    guarded.stdin.close()
    return guarded.wait()


def main(command: Sequence[str]) -> int:
    """Runs the command, and ends it and all that it has started once standard input is closed."""
    for name in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(name, signal.SIG_IGN)  # meant for the others of the group
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_usual_signals)
    ending = threading.Event()
    threading.Thread(target=_end_with_the_input, args=(process, ending), daemon=True).start()
    code = process.wait()
    if ending.is_set():
        signal.pause()  # until the thread ends the whole group, with what the command has left behind
    return code


def _usual_signals() -> None:
    for name in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(name, signal.SIG_DFL)


def _end_with_the_input(process: "subprocess.Popen[bytes]", ending: threading.Event) -> None:
    os.read(0, 1)
    ending.set()
    os.killpg(0, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_SECONDS)
    os.killpg(0, signal.SIGKILL)  # this process too


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
