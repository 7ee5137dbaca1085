"""The processes of one command that work on its studies."""

import contextlib
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import optuna
from rich.console import Console

from benchmark.data.datasets import DataSet
from benchmark.system import output
from benchmark.system.signals import deaf
from benchmark.tuning.show import LOOK_SECONDS, Standing
from benchmark.tuning.storage import FAILURES
from benchmark.tuning.tuner import Assignment
from benchmark.tuning.worker import work_on

_GRACE_SECONDS = 30  # for processes to give their trials back
_DEATHS = 3  # after which the command gives up


class Crew:
    """The processes of this command; those that die are replaced, a few times."""

    def __init__(self, work: Assignment, data: dict[str, DataSet], devices: Sequence[str], console: Console) -> None:
        self._work, self._data, self._console = work, data, console
        self._context = multiprocessing.get_context("spawn")
        self._all: list[tuple[Any, Connection, str, int]] = []
        self._deaths = 0
        self._printed = Path(tempfile.mkdtemp(prefix="bism-tune-"))  # by the processes, a file for each
        for number, device in enumerate(devices):
            self._start(device, number)

    def _start(self, device: str, number: int) -> None:
        ours, theirs = self._context.Pipe(duplex=False)
        first = number % len(self._work.names)
        process = self._context.Process(
            target=work_on, args=(self._work, self._data, device, first, theirs, self._printed_by(number))
        )
        with deaf():  # also while it imports what it needs
            process.start()
        theirs.close()
        self._all.append((process, ours, device, number))

    def watch(self, studies: Mapping[str, optuna.Study], now_and_then: Callable[[], None]) -> bool:
        """Until all have ended, with a call of ``now_and_then`` at every look; whether something failed."""
        failed, standing = (
            False,
            Standing(self._console, studies, dict(zip(self._work.names, self._work.limits, strict=True))),
        )
        while self._all:
            for connection in wait([one[1] for one in self._all], LOOK_SECONDS):
                member = next(one for one in self._all if one[1] is connection)
                try:
                    kind, text = member[1].recv()
                except (EOFError, OSError):
                    self._all.remove(member)
                    failed |= self._ended(member)
                    continue
                if kind in ("note", "failed"):
                    failed |= kind == "failed"
                    self._console.print(text.strip(), markup=False, highlight=False, soft_wrap=True)
            try:
                standing.say()
                now_and_then()
            except BrokenPipeError:
                raise
            except FAILURES:  # the processes say what is wrong, if it lasts
                pass
        return failed

    def _ended(self, member: tuple[Any, Connection, str, int]) -> bool:
        """One has ended; if it was killed, another takes its place. Whether it failed for good."""
        process, _, device, number = member
        process.join()
        where = output.kept(self._printed_by(number))
        if where is not None:
            text = f"what a process printed is in {where}"
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        if process.exitcode is not None and process.exitcode > 0:
            self._console.print(f"a process ended with exit code {process.exitcode}")
            return True
        if process.exitcode is not None and process.exitcode < 0:
            self._deaths += 1
            again = self._deaths < _DEATHS
            what = "another takes its place" if again else "it is not replaced"
            self._console.print(f"a process was ended by signal {-process.exitcode}; {what}")
            if again:
                self._start(device, number)
            return not again
        return False

    def _printed_by(self, number: int) -> Path:
        return self._printed / f"{number}.txt"

    def close(self) -> None:
        """Removes the files of what was printed where nothing was."""
        for file in self._printed.iterdir():
            output.kept(file)
        with contextlib.suppress(OSError):
            self._printed.rmdir()

    def stop(self) -> None:
        """Asks all to give back what they have, and ends them."""
        for process, *_ in self._all:
            process.terminate()
        until = time.monotonic() + _GRACE_SECONDS
        for process, *_ in self._all:
            process.join(max(0.0, until - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
