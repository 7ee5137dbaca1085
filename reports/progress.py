"""What a report is at: one line that changes in a terminal, now and then a line in a log."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console

_SILENCE_SECONDS = 10  # a log says at least this often what is being done


class Progress:
    """Shows on the console (standard error) what is being done, from ``with`` on; what is over is not kept in a
    terminal.

    clock: seconds.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock, self._spoke = console, clock, clock()
        self._status = console.status("reading the store") if console.is_terminal else None

    def __enter__(self) -> "Progress":
        (self._status or nullcontext()).__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        shown: AbstractContextManager[object] = self._status or nullcontext()
        shown.__exit__(None, None, None)

    def say(self, what: str) -> None:
        """What is begun now."""
        if self._status is not None:
            self._status.update(what.replace("[", "\\["))
        elif self._clock() >= self._spoke + _SILENCE_SECONDS:
            self._spoke = self._clock()
            self._console.print(what, markup=False, highlight=False, soft_wrap=True)


def silent(what: str) -> None:
    """Says nothing."""
